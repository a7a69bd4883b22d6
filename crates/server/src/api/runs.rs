//! `/runs`: what runs, its consoles, and stopping it.

use super::error::Problem;
use super::extract::Caller;
use super::sse;
use super::state::{Api, Shared};
use crate::tasks::run::RunDesk;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use std::sync::Arc;
use toci_core::id::RunId;
use toci_core::run::record::Record;
use toci_core::run::steps::{Part, State as Step};
use toci_core::run::trouble::Trouble;
use toci_wire::api::{ErrorBody, Run, RunState, RunTrouble};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Runs that are over and listed, unless `ended` says otherwise.
const ENDED_LISTED: usize = 20;
/// Runs that are over and listed at most.
const ENDED_LISTED_MAX: usize = 10_000;

type Answered<T> = Result<Json<T>, Problem>;

/// Plain calls.
pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(cancel))
        .routes(routes!(troubles))
}

/// Calls that stream.
pub(crate) fn streams() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(console))
}

/// Which runs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Which {
    /// So many that are over as well, the newest; 20 unless it is said.
    ended: Option<usize>,
}

/// List runs: all that are not over, then the newest that are.
#[utoipa::path(get, path = "/runs", tag = "runs", security(("token" = ["read_only"])),
    params(Which),
    responses((status = 200, body = Vec<Run>), (status = "default", body = ErrorBody)))]
async fn list(
    State(api): State<Shared>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Answered<Vec<Run>> {
    caller.may_look()?;
    let ended = which.ended.unwrap_or(ENDED_LISTED).min(ENDED_LISTED_MAX);
    let runs = desk(&api)?.list(ended).await?;
    let mut runs: Vec<Run> = runs.iter().map(|record| run(record)).collect();
    say_why(&api, &mut runs).await?;
    Ok(Json(runs))
}

/// Show a run.
#[utoipa::path(get, path = "/runs/{run}", tag = "runs", security(("token" = ["read_only"])),
    params(("run" = String, Path, description = "32 hex digits")),
    responses((status = 200, body = Run), (status = "default", body = ErrorBody)))]
async fn show(State(api): State<Shared>, caller: Caller, Path(id): Path<String>) -> Answered<Run> {
    caller.may_look()?;
    let mut run = run(&*found(desk(&api)?, run_id(&id)?).await?);
    say_why(&api, std::slice::from_mut(&mut run)).await?;
    Ok(Json(run))
}

/// Runs that wait for nodes say what keeps these.
async fn say_why(api: &Api, runs: &mut [Run]) -> Result<(), Problem> {
    let Some(nodes) = &api.nodes else { return Ok(()) };
    let waiting = runs.iter_mut().filter(|run| run.state == RunState::WaitingNode);
    let waiting: Vec<(RunId, &mut Run)> =
        waiting.filter_map(|run| Some((run.id.parse().ok()?, run))).collect();
    if waiting.is_empty() {
        return Ok(());
    }
    let why = nodes.waiting(waiting.iter().map(|(id, _)| *id).collect()).await?;
    for (id, run) in waiting {
        if let Some(why) = why.get(&id) {
            run.waits_for = format!("{}: {why}", run.waits_for);
        }
    }
    Ok(())
}

/// Stop a run. It ends as ABORTED; its logs are kept.
#[utoipa::path(post, path = "/runs/{run}/cancel", tag = "runs",
    security(("token" = ["operator"])),
    params(("run" = String, Path, description = "32 hex digits")),
    responses((status = 200, body = Run), (status = "default", body = ErrorBody)))]
async fn cancel(
    State(api): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answered<Run> {
    caller.may_operate()?;
    let (desk, id) = (desk(&api)?, run_id(&id)?);
    if !desk.abort(id) {
        let record = found(desk, id).await?;
        let result = record.result().map_or("not begun", |r| r.word());
        let message = format!("run {id} is over already: {result}");
        return Err(Problem::refused(StatusCode::CONFLICT, "run_over", message, ""));
    }
    Ok(Json(run(&*found(desk, id).await?)))
}

/// Follow a run's console.
///
/// Events: `console` with a `ConsoleText`, from the start on and then while it is written; at the end `run` with the
/// `Run`.
#[utoipa::path(get, path = "/runs/{run}/console", tag = "runs",
    security(("token" = ["read_only"])),
    params(("run" = String, Path, description = "32 hex digits")),
    responses((status = 200, content_type = "text/event-stream"), (status = "default", body = ErrorBody)))]
async fn console(
    State(api): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    caller.may_look()?;
    let (desk, id) = (desk(&api)?, run_id(&id)?);
    let record = found(desk, id).await?;
    let Some(reader) = desk.console(id) else {
        let message = format!("the console of run {id} is not at hand any more");
        let hint = match record.url.as_str() {
            "" => "it never began".to_owned(),
            url => format!("see {url}"),
        };
        return Err(Problem::refused(StatusCode::GONE, "console_gone", message, hint));
    };
    Ok(sse::console_stream(&api, caller.0, desk.clone(), id, reader))
}

/// Jobs and providers whose runs fail by the infrastructure, one after the other.
#[utoipa::path(get, path = "/run-troubles", tag = "runs", security(("token" = ["read_only"])),
    responses((status = 200, body = Vec<RunTrouble>), (status = "default", body = ErrorBody)))]
async fn troubles(State(api): State<Shared>, caller: Caller) -> Answered<Vec<RunTrouble>> {
    caller.may_look()?;
    Ok(Json(desk(&api)?.troubles().into_iter().map(trouble).collect()))
}

pub(super) fn trouble(trouble: Trouble) -> RunTrouble {
    let Trouble { of, failures, since, last } = trouble;
    RunTrouble { of, failures, since_us: since.0, last }
}

fn desk(api: &Api) -> Result<&RunDesk, Problem> {
    api.gate.as_ref().map(|gate| &gate.runs).ok_or_else(|| {
        let message = "this server has no gate, so nothing runs here";
        Problem::not_found("no_gate", message, "[layout] in toci.toml makes one")
    })
}

fn run_id(text: &str) -> Result<RunId, Problem> {
    text.parse().map_err(|_| {
        let message = format!("there is no run `{}`", text.chars().take(80).collect::<String>());
        Problem::not_found("no_such_run", message, "a run has 32 hex digits; see `toci run list`")
    })
}

async fn found(desk: &RunDesk, id: RunId) -> Result<Arc<Record>, Problem> {
    desk.get(id).await?.ok_or_else(|| {
        Problem::not_found("no_such_run", format!("there is no run {id}"), "see `toci run list`")
    })
}

/// A run as the API tells it.
pub(crate) fn run(record: &Record) -> Run {
    let text = |value: Option<&dyn std::fmt::Display>| value.map(|v| v.to_string());
    Run {
        id: record.run.to_string(),
        job: record.job.to_string(),
        voting: record.voting,
        attempt: record.attempt,
        pipeline: record.pipeline.to_string(),
        item: record.item.to_string(),
        project: text(record.project.as_ref().map(|p| p as _)).unwrap_or_default(),
        branch: text(record.branch.as_ref().map(|b| b as _)).unwrap_or_default(),
        subject: record.subject.clone(),
        state: match record.state {
            Step::WaitingNode => RunState::WaitingNode,
            Step::WaitingTestenv => RunState::WaitingTestenv,
            Step::Preparing { .. } => RunState::Preparing,
            Step::Running { part: Part::Pre, .. } => RunState::Pre,
            Step::Running { part: Part::Run, .. } => RunState::Running,
            Step::Post { .. } => RunState::Post,
            Step::Collecting { .. } => RunState::Collecting,
            Step::Over(_) => RunState::Over,
        },
        waits_for: record.waits_for.clone(),
        result: record.result().map(|r| r.word().to_owned()),
        nodes: record.nodes.iter().map(|n| n.name.clone()).collect(),
        lease: text(record.lease.as_ref().map(|l| l as _)),
        queued_us: record.queued.0,
        started_us: record.started.map(|t| t.0),
        ended_us: record.ended.map(|t| t.0),
        url: record.url.clone(),
        note: record.note.clone(),
    }
}
