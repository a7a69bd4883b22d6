//! `/leases` and `/events`.

use super::error::Problem;
use super::extract::{Caller, Question, lease_id};
use super::sse;
use super::state::Shared;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use std::time::Duration;
use toci_store::LeaseFilter;
use toci_wire::api::{
    ErrorBody, Extend, Hold, Lease, LeaseRequest, LeaseState, LeaseTestenv, Release, Revoke,
};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Longest wait for an answer; below the limit of a plain call.
const WAIT_MAX: Duration = Duration::from_secs(20);
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

/// How long an answer may be waited for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Patience {
    /// Answer when the lease is active or over, but not later than after so many seconds (at most 20).
    #[serde(default)]
    wait_s: u64,
}

/// Ask for a lease.
///
/// The answer is the lease as it stands: perhaps active already, perhaps waiting. With `wait_s`, one call is enough for
/// whoever gets it soon; otherwise follow its stream.
#[utoipa::path(post, path = "/leases", tag = "leases", security(("token" = ["client"])),
    params(Patience), request_body = Option<LeaseRequest>,
    responses((status = 200, body = Lease), (status = "default", body = ErrorBody)))]
async fn request(
    State(api): State<Shared>,
    caller: Caller,
    Query(patience): Query<Patience>,
    Question(question): Question<LeaseRequest>,
) -> Answered<Lease> {
    caller.may_lease()?;
    let wait = Duration::from_secs(patience.wait_s).min(WAIT_MAX);
    if wait.is_zero() {
        return Ok(Json(api.book.request(caller.subject(), question).await?));
    }
    let mut lease = api.book.request_and_follow(caller.subject(), question).await?;
    let settled = lease.wait_for(|l| l.state == LeaseState::Active || l.state.is_over());
    // When the time is up, or the server stops, the answer is the lease as it stands.
    let _ = tokio::time::timeout(wait, settled).await;
    let lease = lease.borrow().as_ref().clone();
    Ok(Json(lease))
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
        description = "events `lease`, `testenv`, `host` with the thing after its change; `gone` for a host, TE or node that was removed; `item` for what entered a pipeline, `item_ended` for what left, `report` for what was told, `run` after each step, `node` in a new state; `lagged` and the end when the reader is too slow"),
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
    Ok(Json(caller.own_book(&api)?.lease_testenvs(id).await?))
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
    Ok(Json(caller.own_book(&api)?.heartbeat(id).await?))
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
    Ok(Json(caller.book_for_use(&api)?.extend(id, question.for_s).await?))
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
    Ok(Json(caller.book_for_use(&api)?.release(id, question.reason).await?))
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
    Ok(Json(caller.book_for_use(&api)?.hold(id, question.for_s, question.reason).await?))
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
