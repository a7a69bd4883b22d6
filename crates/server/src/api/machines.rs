//! What only a host can do for a caller: power, console, screenshot, image. Carried by the relay.

use super::error::Problem;
use super::extract::{Caller, Question, host_id, te_id};
use super::state::{Shared, StreamGuard};
use crate::relay::{Answer, RelayError, Ticket};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use toci_core::id::{HostId, LeaseId, TeId};
use toci_wire::api::{
    ErrorBody, ImagePushed, MachineState, OperationKind, OperationResult, PowerRequest,
};
use tokio::sync::oneshot::error::RecvError;
use tokio::time::error::Elapsed;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Longest wait for a host's answer, and for the first byte of one.
pub(crate) const OPERATION_LIMIT: Duration = Duration::from_secs(60);
/// Longest time that an image may stand still on its way, and that the host may take after its last byte.
pub(crate) const IMAGE_STALL_LIMIT: Duration = Duration::from_secs(120);
/// Largest image, in bytes.
pub(crate) const IMAGE_MAX_BYTES: u64 = 256 << 30;
/// Longest name of a machine, in bytes.
const MACHINE_NAME_MAX_BYTES: usize = 64;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(power))
        .routes(routes!(console))
        .routes(routes!(screenshot))
        .routes(routes!(view))
        .routes(routes!(push_image))
}

/// Where an operation goes.
struct Target {
    te: TeId,
    host: HostId,
    generation: u64,
    lease: Option<LeaseId>,
}

/// The TE, if the caller holds it or is an operator.
async fn target(api: &Shared, caller: &Caller, te: &str) -> Result<Target, Problem> {
    caller.may_lease()?;
    let te = te_id(te)?;
    let found = api.book.testenv(&te).await?;
    let lease: Option<LeaseId> = match &found.lease {
        Some(id) => Some(super::extract::lease_id(id)?),
        None => None,
    };
    match lease {
        Some(id) => caller.may_use(&api.book.lease(id).await?)?,
        None => caller.may_operate().map_err(|_| {
            Problem::refused(
                StatusCode::FORBIDDEN,
                "not_holder",
                format!("nobody holds {te} now"),
                "ask for a lease first: `toci lease run`",
            )
        })?,
    }
    let host = host_id(&found.host)?;
    Ok(Target { te, host, generation: found.generation, lease })
}

fn start(
    api: &Shared,
    target: &Target,
    kind: OperationKind,
    input: Option<Body>,
) -> Result<Ticket, Problem> {
    api.metrics.operations.add(1);
    let started = api.relay.start(&target.host, &target.te, target.generation, kind, input);
    started.map_err(|error| {
        api.metrics.operations_failed.add(1);
        error.into()
    })
}

/// The answer, if it comes in time.
async fn answer(api: &Shared, target: &Target, ticket: &mut Ticket) -> Result<Answer, Problem> {
    let answer = tokio::time::timeout(OPERATION_LIMIT, &mut ticket.answer).await;
    judged(api, target, answer)
}

/// The answer to an image, if it comes, or bytes move, in time.
async fn answer_to_image(
    api: &Shared,
    target: &Target,
    ticket: &mut Ticket,
    moved: &AtomicU64,
) -> Result<Answer, Problem> {
    let mut seen = 0;
    loop {
        let answer = tokio::time::timeout(IMAGE_STALL_LIMIT, &mut ticket.answer).await;
        let now = moved.load(Ordering::Relaxed);
        if answer.is_ok() || now == seen {
            return judged(api, target, answer);
        }
        seen = now;
    }
}

fn judged(
    api: &Shared,
    target: &Target,
    answer: Result<Result<Answer, RecvError>, Elapsed>,
) -> Result<Answer, Problem> {
    let problem = match answer {
        Ok(Ok(Answer::Result(OperationResult::Refused { code, message }))) => {
            Problem::refused(StatusCode::CONFLICT, &code, message, "")
        }
        Ok(Ok(Answer::Result(OperationResult::Failed { message }))) => {
            Problem::failed(StatusCode::BAD_GATEWAY, "host_failed", message, "")
        }
        Ok(Ok(Answer::HostGone) | Err(_)) => RelayError::HostGone(target.host.clone()).into(),
        Ok(Ok(answer)) => return Ok(answer),
        Err(_) => Problem::failed(
            StatusCode::GATEWAY_TIMEOUT,
            "host_too_slow",
            format!("{} did not answer in time", target.host),
            "look at it: `toci host show`; then try again",
        ),
    };
    api.metrics.operations_failed.add(1);
    Err(problem)
}

fn senseless(api: &Shared, target: &Target) -> Problem {
    api.metrics.operations_failed.add(1);
    Problem::failed(
        StatusCode::BAD_GATEWAY,
        "host_failed",
        format!("{} gave an answer that belongs to another question", target.host),
        "is its toci-host of the same version as the server?",
    )
}

fn machine_name(name: &str) -> Result<(), Problem> {
    if name.is_empty() || name.len() > MACHINE_NAME_MAX_BYTES {
        return Err(Problem::not_found(
            "no_such_machine",
            "a machine's name has 1 to 64 characters",
            "`toci te show` lists the machines",
        ));
    }
    Ok(())
}

/// Switch machines, or ask how they are.
#[utoipa::path(post, path = "/testenvs/{te}/power", tag = "machines",
    security(("token" = ["client"])), request_body = PowerRequest,
    params(("te" = String, Path, description = "`<host>-<N>`")),
    responses((status = 200, body = Vec<MachineState>), (status = "default", body = ErrorBody)))]
async fn power(
    State(api): State<Shared>,
    caller: Caller,
    Path(te): Path<String>,
    Question(question): Question<PowerRequest>,
) -> Result<Json<Vec<MachineState>>, Problem> {
    if let Some(machine) = &question.machine {
        machine_name(machine)?;
    }
    let target = target(&api, &caller, &te).await?;
    let kind = OperationKind::Power { machine: question.machine, action: question.action };
    let mut ticket = start(&api, &target, kind, None)?;
    match answer(&api, &target, &mut ticket).await? {
        Answer::Result(OperationResult::Machines { machines }) => Ok(Json(machines)),
        Answer::Result(_) | Answer::Output(_) | Answer::HostGone => Err(senseless(&api, &target)),
    }
}

/// How to read a console.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct How {
    /// Go on as it grows.
    #[serde(default)]
    follow: bool,
}

/// A machine's serial console.
#[utoipa::path(get, path = "/testenvs/{te}/machines/{machine}/console", tag = "machines",
    security(("token" = ["client"])), params(("te" = String, Path), ("machine" = String, Path), How),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = "default", body = ErrorBody)))]
async fn console(
    State(api): State<Shared>,
    caller: Caller,
    Path((te, machine)): Path<(String, String)>,
    Query(how): Query<How>,
) -> Result<Response, Problem> {
    let kind = |machine| OperationKind::Console { machine, follow: how.follow };
    bytes_of(&api, &caller, &te, machine, kind, "text/plain; charset=utf-8").await
}

/// A machine's screen.
#[utoipa::path(get, path = "/testenvs/{te}/machines/{machine}/screenshot", tag = "machines",
    security(("token" = ["client"])), params(("te" = String, Path), ("machine" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "image/png"),
        (status = "default", body = ErrorBody)))]
async fn screenshot(
    State(api): State<Shared>,
    caller: Caller,
    Path((te, machine)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let kind = |machine| OperationKind::Screenshot { machine };
    bytes_of(&api, &caller, &te, machine, kind, "image/png").await
}

/// What its host sees of a test environment: power, ports, flows and definitions.
#[utoipa::path(get, path = "/testenvs/{te}/view", tag = "machines",
    security(("token" = ["client"])), params(("te" = String, Path)),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = "default", body = ErrorBody)))]
async fn view(
    State(api): State<Shared>,
    caller: Caller,
    Path(te): Path<String>,
) -> Result<Response, Problem> {
    output_of(&api, &caller, &te, OperationKind::View, "text/plain; charset=utf-8").await
}

async fn bytes_of(
    api: &Shared,
    caller: &Caller,
    te: &str,
    machine: String,
    kind: impl FnOnce(String) -> OperationKind,
    content_type: &'static str,
) -> Result<Response, Problem> {
    machine_name(&machine)?;
    output_of(api, caller, te, kind(machine), content_type).await
}

async fn output_of(
    api: &Shared,
    caller: &Caller,
    te: &str,
    kind: OperationKind,
    content_type: &'static str,
) -> Result<Response, Problem> {
    let target = target(api, caller, te).await?;
    let mut ticket = start(api, &target, kind, None)?;
    let body = match answer(api, &target, &mut ticket).await? {
        Answer::Output(body) => body,
        Answer::Result(_) | Answer::HostGone => return Err(senseless(api, &target)),
    };
    let until = over(api.clone(), caller.clone(), target.lease);
    let bytes = body.into_data_stream().take_until(Box::pin(until));
    let mut response = Response::new(Body::from_stream(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Returns when bytes of a TE may no longer flow to the caller: the lease is over, the token is revoked, or the
/// server stops. An operator who looks at a TE that nobody holds is not bound to a lease.
async fn over(api: Shared, caller: Caller, lease: Option<LeaseId>) {
    let mut guard = StreamGuard::new(&api, caller.0);
    let lease_over = async {
        let Some(id) = lease else { return std::future::pending().await };
        if let Ok(mut lease) = api.book.watch_lease(id).await {
            // An error means that the book is gone, so the server stops.
            let _ = lease.wait_for(|lease| lease.state.is_over()).await;
        }
    };
    tokio::select! {
        () = lease_over => {}
        () = guard.ended() => {}
    }
}

/// Put an image (qcow2 or raw) on a machine's disk.
#[utoipa::path(put, path = "/testenvs/{te}/machines/{machine}/image", tag = "machines",
    security(("token" = ["client"])), params(("te" = String, Path), ("machine" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = ImagePushed), (status = "default", body = ErrorBody)))]
async fn push_image(
    State(api): State<Shared>,
    caller: Caller,
    Path((te, machine)): Path<(String, String)>,
    request: Request,
) -> Result<Json<ImagePushed>, Problem> {
    machine_name(&machine)?;
    let target = target(&api, &caller, &te).await?;
    let moved = Arc::new(AtomicU64::new(0));
    let bytes = measured(request.into_body().into_data_stream(), moved.clone());
    let kind = OperationKind::PushImage { machine };
    let mut ticket = start(&api, &target, kind, Some(Body::from_stream(bytes)))?;
    let answer = answer_to_image(&api, &target, &mut ticket, &moved).await?;
    match answer {
        Answer::Result(OperationResult::Image { bytes, sha256, format }) => {
            Ok(Json(ImagePushed { bytes, sha256, format }))
        }
        Answer::Result(_) | Answer::Output(_) | Answer::HostGone => Err(senseless(&api, &target)),
    }
}

/// The same bytes, counted, up to the largest image.
fn measured(
    bytes: impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static,
    moved: Arc<AtomicU64>,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static {
    bytes.map(move |piece| {
        let piece = piece?;
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if moved.fetch_add(length, Ordering::Relaxed).saturating_add(length) > IMAGE_MAX_BYTES {
            return Err(axum::Error::new(format!("the image is longer than {IMAGE_MAX_BYTES}")));
        }
        Ok(piece)
    })
}
