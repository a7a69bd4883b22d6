//! `/hosts`: what operators do with hosts, and how a host introduces itself.

use super::error::Problem;
use super::extract::{Caller, Question, host_id};
use super::state::Shared;
use crate::auth::{TokenError, hash_of, random_token};
use crate::clock::wall;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use std::time::Duration;
use toci_core::id::HostId;
use toci_store::Enrolment;
use toci_wire::api::{
    EnrolRequest, EnrolTokenRequest, EnrolTokenResponse, Enrolled, ErrorBody, Host,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a one-time token is good for when nothing else is asked for, seconds.
const ENROL_DEFAULT_S: u64 = 3600;
/// How long a one-time token may be good for, seconds.
const ENROL_MAX_S: u64 = 30 * 24 * 3600;

type Answered<T> = Result<Json<T>, Problem>;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(enrol_token))
        .routes(routes!(enrol))
        .routes(routes!(show, delete))
        .routes(routes!(drain))
        .routes(routes!(undrain))
}

/// List hosts.
#[utoipa::path(get, path = "/hosts", tag = "hosts", security(("token" = ["read_only"])),
    responses((status = 200, body = Vec<Host>), (status = "default", body = ErrorBody)))]
async fn list(State(api): State<Shared>, caller: Caller) -> Answered<Vec<Host>> {
    caller.may_look()?;
    Ok(Json(api.book.hosts().await?))
}

/// Show a host.
#[utoipa::path(get, path = "/hosts/{host}", tag = "hosts", security(("token" = ["read_only"])),
    params(("host" = String, Path)),
    responses((status = 200, body = Host), (status = "default", body = ErrorBody)))]
async fn show(
    State(api): State<Shared>,
    caller: Caller,
    Path(host): Path<String>,
) -> Answered<Host> {
    caller.may_look()?;
    Ok(Json(api.book.host(&host_id(&host)?).await?))
}

/// Forget a host; refused while it has leases. Its tokens die.
#[utoipa::path(delete, path = "/hosts/{host}", tag = "hosts", security(("token" = ["operator"])),
    params(("host" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn delete(
    State(api): State<Shared>,
    caller: Caller,
    Path(host): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    let host = host_id(&host)?;
    api.book.remove_host(&host).await?;
    api.auth.revoke_host(host.as_str()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// No new grants on it.
#[utoipa::path(post, path = "/hosts/{host}/drain", tag = "hosts",
    security(("token" = ["operator"])), params(("host" = String, Path)),
    responses((status = 200, body = Host), (status = "default", body = ErrorBody)))]
async fn drain(
    State(api): State<Shared>,
    caller: Caller,
    Path(host): Path<String>,
) -> Answered<Host> {
    caller.may_operate()?;
    Ok(Json(api.book.drain_host(&host_id(&host)?).await?))
}

/// Grant on it again.
#[utoipa::path(post, path = "/hosts/{host}/undrain", tag = "hosts",
    security(("token" = ["operator"])), params(("host" = String, Path)),
    responses((status = 200, body = Host), (status = "default", body = ErrorBody)))]
async fn undrain(
    State(api): State<Shared>,
    caller: Caller,
    Path(host): Path<String>,
) -> Answered<Host> {
    caller.may_operate()?;
    Ok(Json(api.book.undrain_host(&host_id(&host)?).await?))
}

/// Make a one-time token with which a host can introduce itself.
///
/// Bound to a name, it also lets a host that is enrolled already come back under that name (a reinstalled one);
/// its old token dies then.
#[utoipa::path(post, path = "/hosts/enrol-tokens", tag = "hosts",
    security(("token" = ["operator"])), request_body = Option<EnrolTokenRequest>,
    responses((status = 200, body = EnrolTokenResponse), (status = "default", body = ErrorBody)))]
async fn enrol_token(
    State(api): State<Shared>,
    caller: Caller,
    Question(question): Question<EnrolTokenRequest>,
) -> Answered<EnrolTokenResponse> {
    caller.may_operate()?;
    let host = question.host.as_deref().map(new_name).transpose()?;
    let ttl_s = question.ttl_s.unwrap_or(ENROL_DEFAULT_S);
    if ttl_s == 0 || ttl_s > ENROL_MAX_S {
        return Err(Problem::refused(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_request",
            format!("ttl_s is {ttl_s}"),
            format!("use 1 to {ENROL_MAX_S} seconds"),
        ));
    }
    let token = random_token()?;
    let expires = wall().after(Duration::from_secs(ttl_s));
    api.store.add_enrol_token(&hash_of(&token), host.as_ref(), expires).await?;
    Ok(Json(EnrolTokenResponse { token, expires_us: expires.0 }))
}

/// Introduce a host, with its one-time token in the body and no other.
#[utoipa::path(post, path = "/hosts/enrol", tag = "hosts", security(()),
    request_body = EnrolRequest,
    responses((status = 200, body = Enrolled), (status = "default", body = ErrorBody)))]
async fn enrol(
    State(api): State<Shared>,
    Question(question): Question<EnrolRequest>,
) -> Answered<Enrolled> {
    let host = new_name(&question.host)?;
    let token = random_token()?;
    let done = api.store.enrol(&hash_of(&question.token), &host, &hash_of(&token), wall()).await?;
    match done {
        Enrolment::Done => {
            // An older token of the same host has died in the store; forget that it was good.
            api.auth.forget_all();
            api.book.add_host(&host).await?;
            tracing::info!(%host, "host enrolled");
            Ok(Json(Enrolled { host: host.to_string(), token }))
        }
        Enrolment::BadToken => {
            api.metrics.auth_refused.add(1);
            Err(Problem::refused(
                StatusCode::FORBIDDEN,
                "bad_enrol_token",
                "this one-time token is unknown, used, expired, or made for another name",
                "ask an operator for a new one: `toci host enrol`",
            ))
        }
        Enrolment::HostExists => Err(Problem::refused(
            StatusCode::CONFLICT,
            "host_exists",
            format!("a host named {host} is enrolled already"),
            format!(
                "choose another name, or, if this is that host anew, ask an operator for a token made for it: `toci host enrol --host {host}`"
            ),
        )),
    }
}

fn new_name(text: &str) -> Result<HostId, Problem> {
    HostId::new(text).map_err(|error| {
        Problem::refused(StatusCode::UNPROCESSABLE_ENTITY, "bad_name", error.to_string(), "")
    })
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Problem {
        match error {
            TokenError::Store(error) => error.into(),
            error @ (TokenError::Write { .. } | TokenError::Random(_)) => Problem::failed(
                StatusCode::INTERNAL_SERVER_ERROR,
                "no_token_made",
                error.to_string(),
                "",
            ),
        }
    }
}
