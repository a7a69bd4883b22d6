//! All routes, and what holds for every one of them: figures, a time limit, errors as JSON.

use super::error::Problem;
use super::openapi;
use super::state::Shared;
use super::system;
use super::{
    alerts, git, hooks, hosts, leases, link, logs, machines, nodes, pipelines, runs, testenvs,
    tokens, zuul,
};
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use std::time::{Duration, Instant};
use toci_wire::api::PREFIX;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// Longest time for a plain call, its body included. Streams and operations have limits of their own.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(25);

/// Routes and document, both made from the same handlers.
pub(super) fn described() -> (Router<Shared>, OpenApi) {
    let plain = OpenApiRouter::new()
        .merge(leases::routes())
        .merge(testenvs::routes())
        .merge(hosts::routes())
        .merge(nodes::routes())
        .merge(tokens::routes())
        .merge(pipelines::routes())
        .merge(hooks::routes())
        .merge(runs::routes())
        .merge(alerts::routes())
        .merge(link::routes())
        .merge(system::routes())
        .layer(from_fn(in_time));
    let streams = OpenApiRouter::new()
        .merge(leases::streams())
        .merge(link::streams())
        .merge(runs::streams())
        .merge(machines::routes());
    OpenApiRouter::with_openapi(openapi::head())
        .nest(PREFIX, plain.merge(streams))
        .split_for_parts()
}

/// The API as it is served.
pub(crate) fn router(api: Shared) -> Router {
    let (router, _) = described();
    router
        .route("/healthz", get(system::healthz))
        .route("/metrics", get(system::metrics))
        .route("/status.json", get(zuul::status))
        .route("/status/change/{id}", get(zuul::change))
        .route("/p/{*path}", any(git::serve))
        .merge(logs::routes())
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(api.clone(), counted))
        .with_state(api)
}

async fn no_such_route(uri: Uri) -> Problem {
    Problem::not_found(
        "no_such_route",
        format!("there is nothing at {}", uri.path().chars().take(200).collect::<String>()),
        "all calls are in /api/v1/openapi.json",
    )
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    Problem::refused(
        StatusCode::METHOD_NOT_ALLOWED,
        "no_such_method",
        format!("{} does not take {method}", uri.path().chars().take(200).collect::<String>()),
        "all calls are in /api/v1/openapi.json",
    )
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(CALL_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::failed(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_slow",
            format!("the server could not answer within {} s", CALL_LIMIT.as_secs()),
            "it may have been carried out: look before you try again",
        )
        .into_response(),
    }
}

async fn counted(State(api): State<Shared>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    // Patterns and the usual methods only, so that nobody can make the figures grow without end.
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    let route = route.as_deref().unwrap_or("none");
    let method = match method {
        Method::GET | Method::POST | Method::PUT | Method::DELETE | Method::HEAD => method.as_str(),
        _ => "other",
    };
    let response = readable(response).await;
    api.metrics.request(method, route, response.status().as_u16(), begun.elapsed());
    response
}

/// Refusals that axum itself wrote (a path or a query that cannot be read) have plain text; say it as JSON.
async fn readable(response: Response) -> Response {
    let status = response.status();
    let json = response.headers().get(axum::http::header::CONTENT_TYPE);
    let is_json = json.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !status.is_client_error() || is_json {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), REFUSAL_MAX_BYTES).await;
    let text = text.map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
    let text = if text.is_empty() { format!("the call was refused: {status}") } else { text };
    let hint = "the parameters of every call are in /api/v1/openapi.json";
    Problem::refused(status, "bad_request", text, hint).into_response()
}

/// Longest refusal of axum's own that is passed on, in bytes.
const REFUSAL_MAX_BYTES: usize = 4096;
