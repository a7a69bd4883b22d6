//! The host link: what a host says, and the stream by which it hears. Only for the host itself.

use super::error::Problem;
use super::extract::{Caller, Question, host_id, te_id};
use super::sse;
use super::state::Shared;
use crate::relay::{Answer, Passage};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use toci_wire::api::{ErrorBody, HostDesired, HostReport, OperationResult, ServingReport};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Plain calls.
pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(report))
        .routes(routes!(serving))
        .routes(routes!(operation_result))
}

/// Calls that stream.
pub(crate) fn streams() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(stream))
        .routes(routes!(operation_output))
        .routes(routes!(operation_input))
}

/// What the server wants of the host: the whole wish at once, then after each change.
#[utoipa::path(get, path = "/hosts/{host}/stream", tag = "host link",
    security(("token" = ["host"])), params(("host" = String, Path)),
    responses((status = 200, body = HostDesired, content_type = "text/event-stream",
        description = "events `desired` (HostDesired) and `operation` (Operation)"),
        (status = "default", body = ErrorBody)))]
async fn stream(
    State(api): State<Shared>,
    caller: Caller,
    Path(host): Path<String>,
) -> Result<Response, Problem> {
    let host = host_id(&host)?;
    caller.is_host(&host)?;
    let desired = api.book.host_stream(&host).await?;
    let link = api.relay.connect(&host);
    Ok(sse::host_stream(&api, caller.0, desired, link))
}

/// All that is on the host.
#[utoipa::path(post, path = "/hosts/{host}/report", tag = "host link",
    security(("token" = ["host"])), request_body = HostReport, params(("host" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn report(
    State(api): State<Shared>,
    caller: Caller,
    Path(host): Path<String>,
    Question(question): Question<HostReport>,
) -> Result<StatusCode, Problem> {
    let host = host_id(&host)?;
    caller.is_host(&host)?;
    api.book.host_report(&host, question).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The acknowledgement of a grant.
#[utoipa::path(post, path = "/hosts/{host}/testenvs/{te}/serving", tag = "host link",
    security(("token" = ["host"])), request_body = ServingReport,
    params(("host" = String, Path), ("te" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn serving(
    State(api): State<Shared>,
    caller: Caller,
    Path((host, te)): Path<(String, String)>,
    Question(question): Question<ServingReport>,
) -> Result<StatusCode, Problem> {
    let host = host_id(&host)?;
    caller.is_host(&host)?;
    api.book.host_serving(&host, &te_id(&te)?, question).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How an operation ended.
#[utoipa::path(post, path = "/hosts/{host}/operations/{operation}/result", tag = "host link",
    security(("token" = ["host"])), request_body = OperationResult,
    params(("host" = String, Path), ("operation" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn operation_result(
    State(api): State<Shared>,
    caller: Caller,
    Path((host, operation)): Path<(String, String)>,
    Question(question): Question<OperationResult>,
) -> Result<StatusCode, Problem> {
    let host = host_id(&host)?;
    caller.is_host(&host)?;
    api.relay.answer(&host, &operation, Answer::Result(question))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The bytes that an operation asked for. Answered when all of them went to whoever asked.
#[utoipa::path(post, path = "/hosts/{host}/operations/{operation}/output", tag = "host link",
    security(("token" = ["host"])),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("host" = String, Path), ("operation" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn operation_output(
    State(api): State<Shared>,
    caller: Caller,
    Path((host, operation)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let host = host_id(&host)?;
    caller.is_host(&host)?;
    let (bytes, passed) = Passage::new(request.into_body().into_data_stream());
    let body = Body::from_stream(bytes.boxed());
    api.relay.answer(&host, &operation, Answer::Output(body))?;
    match passed.await {
        Ok(()) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(_) => Err(Problem::refused(
            StatusCode::GONE,
            "operation_gone",
            "whoever asked for these bytes has left",
            "stop sending them",
        )),
    }
}

/// The bytes that belong to an operation.
#[utoipa::path(get, path = "/hosts/{host}/operations/{operation}/input", tag = "host link",
    security(("token" = ["host"])),
    params(("host" = String, Path), ("operation" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = ErrorBody)))]
async fn operation_input(
    State(api): State<Shared>,
    caller: Caller,
    Path((host, operation)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let host = host_id(&host)?;
    caller.is_host(&host)?;
    let mut response = Response::new(api.relay.input(&host, &operation)?);
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, octets);
    Ok(response)
}
