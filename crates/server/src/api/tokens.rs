//! `/tokens`: who may call.

use super::error::Problem;
use super::extract::{Caller, Question};
use super::state::Shared;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use std::time::Duration;
use toci_core::id::{HostId, Project};
use toci_wire::api::{ErrorBody, NewToken, Role, TokenInfo, TokenRequest};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Longest life that can be asked for, seconds; absent means without end.
const TTL_MAX_S: u64 = 10 * 365 * 24 * 3600;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(delete))
}

/// Make a token.
#[utoipa::path(post, path = "/tokens", tag = "tokens", security(("token" = ["operator"])),
    request_body = TokenRequest,
    responses((status = 200, body = NewToken), (status = "default", body = ErrorBody)))]
async fn create(
    State(api): State<Shared>,
    caller: Caller,
    Question(question): Question<TokenRequest>,
) -> Result<Json<NewToken>, Problem> {
    caller.may_operate()?;
    let bad = |message: String, hint: String| {
        Problem::refused(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", message, hint)
    };
    // A subject is the default project of its leases, so it must be a name like one.
    Project::new(question.subject.as_str()).map_err(|e| bad(e.to_string(), String::new()))?;
    if question.ttl_s.is_some_and(|ttl| ttl == 0 || ttl > TTL_MAX_S) {
        return Err(bad("ttl_s is out of range".to_owned(), format!("use 1 to {TTL_MAX_S}")));
    }
    if question.role == Role::Host {
        let host = HostId::new(question.subject.as_str());
        api.book.host(&host.map_err(|e| bad(e.to_string(), String::new()))?).await?;
    }
    let ttl = question.ttl_s.map(Duration::from_secs);
    Ok(Json(api.auth.create(question.role, &question.subject, ttl).await?))
}

/// List tokens, without their secrets.
#[utoipa::path(get, path = "/tokens", tag = "tokens", security(("token" = ["operator"])),
    responses((status = 200, body = Vec<TokenInfo>), (status = "default", body = ErrorBody)))]
async fn list(State(api): State<Shared>, caller: Caller) -> Result<Json<Vec<TokenInfo>>, Problem> {
    caller.may_operate()?;
    Ok(Json(api.auth.list().await?))
}

/// Make a token worthless; its open streams end.
#[utoipa::path(delete, path = "/tokens/{token}", tag = "tokens",
    security(("token" = ["operator"])),
    params(("token" = String, Path, description = "the id of a token, not its secret")),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn delete(
    State(api): State<Shared>,
    caller: Caller,
    Path(token): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    if api.auth.revoke(&token).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    // The text is not repeated: it might be a secret given by mistake.
    let hint = "`toci token list` shows them; an id is not the secret";
    Err(Problem::not_found("no_such_token", "no live token has this id", hint))
}
