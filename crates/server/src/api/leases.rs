//! `/leases` and `/events`.

use super::error::Problem;
use super::extract::{Caller, Question, lease_id};
use super::sse;
use super::state::Shared;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use toci_store::LeaseFilter;
use toci_wire::api::{ErrorBody, Extend, Hold, Lease, LeaseRequest, LeaseTestenv, Release, Revoke};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Ended leases listed at most, unless `limit` says otherwise.
const ENDED_LISTED: usize = 100;
/// Ended leases listed at most.
const ENDED_LISTED_MAX: usize = 10_000;

type Answered<T> = Result<Json<T>, Problem>;

/// Plain calls.
pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(request, list))
        .routes(routes!(show))
        .routes(routes!(testenvs))
        .routes(routes!(heartbeat))
        .routes(routes!(extend))
        .routes(routes!(release))
        .routes(routes!(hold))
        .routes(routes!(revoke))
}

/// Calls that stream.
pub(crate) fn streams() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(stream)).routes(routes!(events))
}

/// Ask for a lease.
///
/// The answer is the lease as it stands: perhaps granted already, perhaps waiting. Follow its stream.
#[utoipa::path(post, path = "/leases", tag = "leases", security(("token" = ["client"])),
    request_body = Option<LeaseRequest>,
    responses((status = 200, body = Lease), (status = "default", body = ErrorBody)))]
async fn request(
    State(api): State<Shared>,
    caller: Caller,
    Question(question): Question<LeaseRequest>,
) -> Answered<Lease> {
    caller.may_lease()?;
    Ok(Json(api.book.request(caller.subject(), question).await?))
}

/// Which leases to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Also those that are over, newest first.
    #[serde(default)]
    ended: bool,
    /// Only this owner's.
    owner: Option<String>,
    /// Only this project's.
    project: Option<String>,
    /// So many ended ones at most.
    limit: Option<usize>,
}

/// List leases.
#[utoipa::path(get, path = "/leases", tag = "leases", security(("token" = ["read_only"])),
    params(Which),
    responses((status = 200, body = Vec<Lease>), (status = "default", body = ErrorBody)))]
async fn list(
    State(api): State<Shared>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Answered<Vec<Lease>> {
    caller.may_look()?;
    let filter = LeaseFilter {
        ended: which.ended,
        owner: which.owner,
        project: which.project,
        limit: which.limit.unwrap_or(ENDED_LISTED).min(ENDED_LISTED_MAX),
    };
    Ok(Json(api.book.leases(filter).await?))
}

/// Show a lease.
#[utoipa::path(get, path = "/leases/{lease}", tag = "leases", security(("token" = ["read_only"])),
    params(("lease" = String, Path, description = "`L<number>`")),
    responses((status = 200, body = Lease), (status = "default", body = ErrorBody)))]
async fn show(
    State(api): State<Shared>,
    caller: Caller,
    Path(lease): Path<String>,
) -> Answered<Lease> {
    caller.may_look()?;
    Ok(Json(api.book.lease(lease_id(&lease)?).await?))
}

/// Follow a lease: as it is now, then after each change, until it is over.
#[utoipa::path(get, path = "/leases/{lease}/stream", tag = "leases",
    security(("token" = ["read_only"])),
    params(("lease" = String, Path, description = "`L<number>`")),
    responses((status = 200, body = Lease, content_type = "text/event-stream",
        description = "events `lease`"), (status = "default", body = ErrorBody)))]
async fn stream(
    State(api): State<Shared>,
    caller: Caller,
    Path(lease): Path<String>,
) -> Result<Response, Problem> {
    caller.may_look()?;
    sse::lease_stream(&api, caller.0, lease_id(&lease)?).await
}

/// Follow everything.
#[utoipa::path(get, path = "/events", tag = "leases", security(("token" = ["read_only"])),
    responses((status = 200, body = String, content_type = "text/event-stream",
        description = "events `lease`, `testenv`, `host` with the thing after its change; `gone` for a host or TE that was removed; `lagged` and the end when the reader is too slow"),
        (status = "default", body = ErrorBody)))]
async fn events(State(api): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    caller.may_look()?;
    Ok(sse::change_stream(&api, caller.0))
}

/// The TEs of an active lease with their credentials. Only for its owner, not even for operators.
#[utoipa::path(get, path = "/leases/{lease}/testenvs", tag = "leases",
    security(("token" = ["client"])),
    params(("lease" = String, Path, description = "`L<number>`")),
    responses((status = 200, body = Vec<LeaseTestenv>), (status = "default", body = ErrorBody)))]
async fn testenvs(
    State(api): State<Shared>,
    caller: Caller,
    Path(lease): Path<String>,
) -> Answered<Vec<LeaseTestenv>> {
    let id = lease_id(&lease)?;
    api.own_lease(&caller, id).await?;
    Ok(Json(api.book.lease_testenvs(id).await?))
}

/// A sign of life of the holder. Whoever sent one while waiting must go on.
#[utoipa::path(post, path = "/leases/{lease}/heartbeat", tag = "leases",
    security(("token" = ["client"])),
    params(("lease" = String, Path, description = "`L<number>`")),
    responses((status = 200, body = Lease), (status = "default", body = ErrorBody)))]
async fn heartbeat(
    State(api): State<Shared>,
    caller: Caller,
    Path(lease): Path<String>,
) -> Answered<Lease> {
    let id = lease_id(&lease)?;
    api.own_lease(&caller, id).await?;
    Ok(Json(api.book.heartbeat(id).await?))
}

/// More time, counted from now.
#[utoipa::path(post, path = "/leases/{lease}/extend", tag = "leases",
    security(("token" = ["client"])), request_body = Extend,
    params(("lease" = String, Path, description = "`L<number>`")),
    responses((status = 200, body = Lease), (status = "default", body = ErrorBody)))]
async fn extend(
    State(api): State<Shared>,
    caller: Caller,
    Path(lease): Path<String>,
    Question(question): Question<Extend>,
) -> Answered<Lease> {
    let id = lease_id(&lease)?;
    api.lease_for_use(&caller, id).await?;
    Ok(Json(api.book.extend(id, question.for_s).await?))
}

/// Give a lease back, or withdraw a request. Again is no harm.
#[utoipa::path(post, path = "/leases/{lease}/release", tag = "leases",
    security(("token" = ["client"])), request_body = Option<Release>,
    params(("lease" = String, Path, description = "`L<number>`")),
    responses((status = 200, body = Lease), (status = "default", body = ErrorBody)))]
async fn release(
    State(api): State<Shared>,
    caller: Caller,
    Path(lease): Path<String>,
    Question(question): Question<Release>,
) -> Answered<Lease> {
    let id = lease_id(&lease)?;
    api.lease_for_use(&caller, id).await?;
    Ok(Json(api.book.release(id, question.reason).await?))
}

/// Keep a lease for debugging; it costs the project's hold budget.
#[utoipa::path(post, path = "/leases/{lease}/hold", tag = "leases",
    security(("token" = ["client"])), request_body = Hold,
    params(("lease" = String, Path, description = "`L<number>`")),
    responses((status = 200, body = Lease), (status = "default", body = ErrorBody)))]
async fn hold(
    State(api): State<Shared>,
    caller: Caller,
    Path(lease): Path<String>,
    Question(question): Question<Hold>,
) -> Answered<Lease> {
    let id = lease_id(&lease)?;
    api.lease_for_use(&caller, id).await?;
    Ok(Json(api.book.hold(id, question.for_s, question.reason).await?))
}

/// Take a lease away.
#[utoipa::path(post, path = "/leases/{lease}/revoke", tag = "leases",
    security(("token" = ["operator"])), request_body = Revoke,
    params(("lease" = String, Path, description = "`L<number>`")),
    responses((status = 200, body = Lease), (status = "default", body = ErrorBody)))]
async fn revoke(
    State(api): State<Shared>,
    caller: Caller,
    Path(lease): Path<String>,
    Question(question): Question<Revoke>,
) -> Answered<Lease> {
    caller.may_operate()?;
    Ok(Json(api.book.revoke(lease_id(&lease)?, question.reason).await?))
}
