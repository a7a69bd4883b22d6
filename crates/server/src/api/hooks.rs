//! `/hooks`: what forges tell us. No token is asked for: each delivery is signed with the source's own secret.

use super::error::Problem;
use super::pipelines::gate;
use super::state::Shared;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use toci_edge::source::github::HookError;
use toci_wire::api::ErrorBody;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Longest webhook that is read, in bytes. GitHub sends up to 25 MB, mostly a few KiB; what is left out is found by
/// looking.
const HOOK_MAX_BYTES: usize = 8 << 20;

/// Webhooks that are read at once: nobody has to prove anything before its body is in memory.
const HOOKS_AT_ONCE_MAX: usize = 16;

static READING: Semaphore = Semaphore::const_new(HOOKS_AT_ONCE_MAX);

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(github))
}

/// Take a webhook of GitHub.
#[utoipa::path(post, path = "/hooks/github/{source}", tag = "pipelines", security(()),
    params(("source" = String, Path)),
    request_body(content = Object, description = "GitHub's payload, signed by X-Hub-Signature-256"),
    responses((status = 202, description = "it is passed on"),
        (status = "default", body = ErrorBody)))]
async fn github(
    State(api): State<Shared>,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let parts = gate(&api)?;
    let source = parts.github.iter().find(|(known, _)| known.as_str() == name);
    let Some((_, source)) = source else { return Err(not_configured()) };
    let (head, body) = request.into_parts();
    let read = async {
        let _place = READING.acquire().await.ok()?;
        to_bytes(body, HOOK_MAX_BYTES).await.ok()
    };
    let Some(body): Option<Bytes> = read.await else {
        let why = format!("a webhook may have {HOOK_MAX_BYTES} bytes");
        let hint = "what it says is found by looking";
        return Err(Problem::refused(StatusCode::PAYLOAD_TOO_LARGE, "too_long", why, hint));
    };
    let text = |name: &str| header(&head.headers, name);
    let (event, delivery) = (text("x-github-event"), text("x-github-delivery"));
    source
        .deliver(event, delivery, text("x-hub-signature-256"), &body)
        .map(|()| StatusCode::ACCEPTED)
        .map_err(|error| problem(&error))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn not_configured() -> Problem {
    let hint = "webhooks go to /api/v1/hooks/github/NAME of a [[source]] with webhook_secret_file";
    Problem::not_found("no_such_source", "there is no such source of webhooks", hint)
}

fn problem(error: &HookError) -> Problem {
    let text = error.to_string();
    match error {
        HookError::NotConfigured => not_configured(),
        HookError::Unsigned => {
            let hint = "the webhook's secret at GitHub is what webhook_secret_file holds";
            Problem::refused(StatusCode::UNAUTHORIZED, "unsigned", text, hint)
        }
        HookError::Malformed(_) => {
            let hint = "content type of the webhook at GitHub: application/json";
            Problem::refused(StatusCode::BAD_REQUEST, "malformed", text, hint)
        }
        HookError::Busy => {
            let hint = "nothing is lost";
            Problem::failed(StatusCode::SERVICE_UNAVAILABLE, "busy", text, hint)
        }
    }
}
