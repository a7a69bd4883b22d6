//! `/alerts`, `/jobs/{job}/pause`, `/jobs/{job}/resume`: what somebody has to look at, and pausing by hand.

use super::error::Problem;
use super::extract::{Caller, Question};
use super::pipelines::gate;
use super::state::{Api, Shared};
use crate::tasks::run::PauseError;
use crate::testnet::TestnetHealth;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use toci_wire::api::{
    Alerts, ErrorBody, JobPause, NodeAlert, PauseOrder, Pipeline, PipelineItem, ProviderAlert,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

type Answered<T> = Result<Json<T>, Problem>;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(pause)).routes(routes!(resume))
}

/// What somebody has to look at: what fails again and again, what is paused.
#[utoipa::path(get, path = "/alerts", tag = "runs", security(("token" = ["read_only"])),
    responses((status = 200, body = Alerts), (status = "default", body = ErrorBody)))]
async fn list(State(api): State<Shared>, caller: Caller) -> Answered<Alerts> {
    caller.may_look()?;
    alerts(&api).await.map(Json)
}

pub(super) async fn alerts(api: &Api) -> Result<Alerts, Problem> {
    let mut alerts = Alerts::default();
    if let Some(gate) = &api.gate {
        alerts.troubles = gate.runs.troubles().into_iter().map(super::runs::trouble).collect();
        alerts.paused_jobs = gate.runs.pauses().into_iter().map(shown).collect();
    }
    if let Some(nodes) = &api.nodes {
        let unwell = nodes.providers().await?.into_iter().filter(|provider| {
            !provider.reachable
                || provider.paused.is_some()
                || provider.paused_until_us.is_some()
                || !provider.problems.is_empty()
        });
        let alert = |provider: toci_wire::api::Provider| ProviderAlert {
            provider: provider.name,
            problems: provider.problems,
            paused: provider.paused,
            paused_until_us: provider.paused_until_us,
        };
        alerts.providers = unwell.map(alert).collect();
        let alert = |node: toci_wire::api::Node| NodeAlert {
            node: node.id,
            name: node.name,
            provider: node.provider,
            since_us: node.since_us,
            reason: node.reason,
        };
        alerts.nodes = nodes.overdue().await?.into_iter().map(alert).collect();
    }
    alerts.testnet = api.testnet.as_ref().and_then(TestnetHealth::alert);
    Ok(alerts)
}

/// Begin no run of this job any more, until it is resumed. What runs goes on.
#[utoipa::path(post, path = "/jobs/{job}/pause", tag = "runs",
    security(("token" = ["operator"])), params(("job" = String, Path)),
    request_body = PauseOrder,
    responses((status = 200, body = JobPause), (status = "default", body = ErrorBody)))]
async fn pause(
    State(api): State<Shared>,
    caller: Caller,
    Path(job): Path<String>,
    Question(order): Question<PauseOrder>,
) -> Answered<JobPause> {
    caller.may_operate()?;
    let parts = gate(&api)?;
    let layout = parts.gate.layout().await?;
    if !layout.jobs.iter().any(|known| known.name.0 == job) {
        let what = format!("the layout has no job {}", job.chars().take(80).collect::<String>());
        return Err(Problem::not_found("no_such_job", what, "see `toci config check`"));
    }
    let pause = parts.runs.pause(&job, caller.subject(), &order.reason).await?;
    Ok(Json(shown(pause)))
}

/// Let runs of this job begin again.
#[utoipa::path(post, path = "/jobs/{job}/resume", tag = "runs",
    security(("token" = ["operator"])), params(("job" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn resume(
    State(api): State<Shared>,
    caller: Caller,
    Path(job): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    if gate(&api)?.runs.resume(&job).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let what = format!("job {} is not paused", job.chars().take(80).collect::<String>());
    Err(Problem::refused(StatusCode::CONFLICT, "not_paused", what, "see `toci alerts`"))
}

pub(super) fn shown(pause: toci_store::JobPause) -> JobPause {
    let toci_store::JobPause { job, since, by, reason } = pause;
    JobPause { job, since_us: since.0, by, reason }
}

/// Says of each job that waits because it is paused that it does.
pub(super) fn say_paused(api: &Api, pipelines: &mut [Pipeline]) {
    let items = pipelines.iter_mut().flat_map(|p| &mut p.queues).flat_map(|q| &mut q.items);
    items.for_each(|item| say_paused_in(api, item));
}

pub(super) fn say_paused_in(api: &Api, item: &mut PipelineItem) {
    let Some(gate) = &api.gate else { return };
    let pauses = gate.runs.pauses();
    for job in item.jobs.iter_mut().filter(|job| job.started_us.is_none() && job.result.is_none()) {
        if let Some(pause) = pauses.iter().find(|pause| pause.job == job.name) {
            job.waits_for = format!("it to be resumed; paused by {}: {}", pause.by, pause.reason);
        }
    }
}

impl From<PauseError> for Problem {
    fn from(error: PauseError) -> Problem {
        match error {
            PauseError::TooMany => Problem::refused(
                StatusCode::CONFLICT,
                "too_many_paused",
                error.to_string(),
                "resume one with `toci run resume JOB`",
            ),
            PauseError::Failed(_) => Problem::failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "pause_failed",
                error.to_string(),
                "see the server's log, and try again",
            ),
        }
    }
}
