//! `/testenvs`: what the server itself knows and decides. What needs the host is in `machines`.

use super::error::Problem;
use super::extract::{Caller, Question, te_id};
use super::state::Shared;
use axum::Json;
use axum::extract::{Path, State};
use toci_wire::api::{ErrorBody, Quarantine, TestEnv};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

type Answered<T> = Result<Json<T>, Problem>;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(drain))
        .routes(routes!(undrain))
        .routes(routes!(quarantine))
        .routes(routes!(reset))
}

/// List test environments.
#[utoipa::path(get, path = "/testenvs", tag = "testenvs", security(("token" = ["read_only"])),
    responses((status = 200, body = Vec<TestEnv>), (status = "default", body = ErrorBody)))]
async fn list(State(api): State<Shared>, caller: Caller) -> Answered<Vec<TestEnv>> {
    caller.may_look()?;
    Ok(Json(api.book.testenvs().await?))
}

/// Show a test environment.
#[utoipa::path(get, path = "/testenvs/{te}", tag = "testenvs", security(("token" = ["read_only"])),
    params(("te" = String, Path, description = "`<host>-<N>`")),
    responses((status = 200, body = TestEnv), (status = "default", body = ErrorBody)))]
async fn show(
    State(api): State<Shared>,
    caller: Caller,
    Path(te): Path<String>,
) -> Answered<TestEnv> {
    caller.may_look()?;
    Ok(Json(api.book.testenv(&te_id(&te)?).await?))
}

/// No new grants of it; a running lease goes on.
#[utoipa::path(post, path = "/testenvs/{te}/drain", tag = "testenvs",
    security(("token" = ["operator"])),
    params(("te" = String, Path, description = "`<host>-<N>`")),
    responses((status = 200, body = TestEnv), (status = "default", body = ErrorBody)))]
async fn drain(
    State(api): State<Shared>,
    caller: Caller,
    Path(te): Path<String>,
) -> Answered<TestEnv> {
    caller.may_operate()?;
    Ok(Json(api.book.drain_te(&te_id(&te)?).await?))
}

/// Grant it again; also ends a quarantine, by burn-in.
#[utoipa::path(post, path = "/testenvs/{te}/undrain", tag = "testenvs",
    security(("token" = ["operator"])),
    params(("te" = String, Path, description = "`<host>-<N>`")),
    responses((status = 200, body = TestEnv), (status = "default", body = ErrorBody)))]
async fn undrain(
    State(api): State<Shared>,
    caller: Caller,
    Path(te): Path<String>,
) -> Answered<TestEnv> {
    caller.may_operate()?;
    Ok(Json(api.book.undrain_te(&te_id(&te)?).await?))
}

/// Take it out; refused while it is leased.
#[utoipa::path(post, path = "/testenvs/{te}/quarantine", tag = "testenvs",
    security(("token" = ["operator"])), request_body = Quarantine,
    params(("te" = String, Path, description = "`<host>-<N>`")),
    responses((status = 200, body = TestEnv), (status = "default", body = ErrorBody)))]
async fn quarantine(
    State(api): State<Shared>,
    caller: Caller,
    Path(te): Path<String>,
    Question(question): Question<Quarantine>,
) -> Answered<TestEnv> {
    caller.may_operate()?;
    Ok(Json(api.book.quarantine_te(&te_id(&te)?, question.reason).await?))
}

/// Make it blank again; refused while it is leased.
#[utoipa::path(post, path = "/testenvs/{te}/reset", tag = "testenvs",
    security(("token" = ["operator"])),
    params(("te" = String, Path, description = "`<host>-<N>`")),
    responses((status = 200, body = TestEnv), (status = "default", body = ErrorBody)))]
async fn reset(
    State(api): State<Shared>,
    caller: Caller,
    Path(te): Path<String>,
) -> Answered<TestEnv> {
    caller.may_operate()?;
    Ok(Json(api.book.reset_te(&te_id(&te)?).await?))
}
