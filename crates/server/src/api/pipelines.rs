//! `/pipelines`, `/items`, `/reconfigure`, `/sources`: the gate.

use super::alerts::{say_paused, say_paused_in};
use super::error::Problem;
use super::extract::{Caller, Question};
use super::state::Shared;
use crate::config::SourceConfig;
use crate::gate::{GateParts, GateStartError};
use crate::tasks::event::{self, Link, Standing};
use crate::tasks::pipeline::GateError;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;
use toci_core::event::{
    ChangeKey, ProjectKey, ProjectName, RefName, RefUpdate, Revision, SourceName,
};
use toci_core::id::ItemId;
use toci_core::layout::PipelineName;
use toci_core::pipeline::{
    Input, ItemView, JobView, PipelineView, QueueView, ReportWish, Subject, WaitingView,
};
use toci_edge::source::SourceError;
use toci_store::EndedFilter;
use toci_wire::api::{
    ChangeSource, EndedItem, ErrorBody, Pipeline, PipelineItem, PipelineJob, PipelineOrder,
    PipelineQueue, Promote, ReferenceOrder, Report, WaitingChange,
};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Items that left and are listed, unless `limit` says otherwise.
const ENDED_LISTED: usize = 100;

type Answered<T> = Result<Json<T>, Problem>;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(item))
        .routes(routes!(ended))
        .routes(routes!(enqueue))
        .routes(routes!(dequeue))
        .routes(routes!(promote))
        .routes(routes!(reconfigure))
        .routes(routes!(sources))
        .routes(routes!(poke))
}

/// List pipelines with their queues.
#[utoipa::path(get, path = "/pipelines", tag = "pipelines", security(("token" = ["read_only"])),
    responses((status = 200, body = Vec<Pipeline>), (status = "default", body = ErrorBody)))]
async fn list(State(api): State<Shared>, caller: Caller) -> Answered<Vec<Pipeline>> {
    caller.may_look()?;
    let status = gate(&api)?.gate.status().await?;
    let mut pipelines: Vec<Pipeline> = status.into_iter().map(pipeline).collect();
    say_paused(&api, &mut pipelines);
    Ok(Json(pipelines))
}

/// Show a pipeline.
#[utoipa::path(get, path = "/pipelines/{pipeline}", tag = "pipelines",
    security(("token" = ["read_only"])), params(("pipeline" = String, Path)),
    responses((status = 200, body = Pipeline), (status = "default", body = ErrorBody)))]
async fn show(
    State(api): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answered<Pipeline> {
    caller.may_look()?;
    let status = gate(&api)?.gate.status().await?;
    let found = status.into_iter().find(|p| p.name.0 == name);
    let mut found = found.map(pipeline).ok_or_else(|| {
        let what = format!("there is no pipeline {}", name.chars().take(80).collect::<String>());
        Problem::not_found("no_such_pipeline", what, "see `toci pipeline list`")
    })?;
    say_paused(&api, std::slice::from_mut(&mut found));
    Ok(Json(found))
}

/// Show an item.
#[utoipa::path(get, path = "/items/{id}", tag = "pipelines",
    security(("token" = ["read_only"])), params(("id" = String, Path)),
    responses((status = 200, body = PipelineItem), (status = "default", body = ErrorBody)))]
async fn item(
    State(api): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answered<PipelineItem> {
    caller.may_look()?;
    let none = || {
        let hint = "it may have left its pipeline: see /ended-items";
        Problem::not_found("no_such_item", "there is no such item", hint)
    };
    let id: ItemId = id.parse().map_err(|_| none())?;
    let view = gate(&api)?.gate.item(id).await?.ok_or_else(none)?;
    let mut item = item_of(view);
    say_paused_in(&api, &mut item);
    Ok(Json(item))
}

/// Which of the items that left.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WhichEnded {
    /// Of this pipeline.
    pipeline: Option<String>,
    /// Of this project.
    project: Option<String>,
    /// Of this change: `[SOURCE:]NUMBER[,PATCHSET]`.
    change: Option<String>,
    /// That ended so: `succeeded`, `failed`, ...
    result: Option<String>,
    /// That left before this one, an id: the next page.
    before: Option<String>,
    /// So many at most: 1 to 1000; 100 unless it is said.
    limit: Option<usize>,
}

impl WhichEnded {
    fn filter(self) -> Result<EndedFilter, Problem> {
        let mut filter = EndedFilter {
            pipeline: self.pipeline.unwrap_or_default(),
            project: self.project.unwrap_or_default(),
            ended_as: self.result.unwrap_or_default().replace('_', "-"),
            limit: self.limit.unwrap_or(ENDED_LISTED),
            ..EndedFilter::default()
        };
        if let Some(text) = &self.change {
            let (source, rest) = text.split_once(':').unwrap_or(("", text));
            let (number, patchset) = rest.split_once(',').unwrap_or((rest, ""));
            filter.number = number.parse().map_err(|_| bad(format!("`{text}` is no change")))?;
            (filter.source, filter.patchset) = (source.to_owned(), patchset.to_owned());
        }
        if let Some(text) = &self.before {
            let id = text.parse().map_err(|_| bad(format!("`{text}` is no item's id")))?;
            filter.before = Some(id);
        }
        Ok(filter)
    }
}

/// List the items that left their pipelines, the newest first, page by page.
#[utoipa::path(get, path = "/ended-items", tag = "pipelines", security(("token" = ["read_only"])),
    params(WhichEnded),
    responses((status = 200, body = Vec<EndedItem>), (status = "default", body = ErrorBody)))]
async fn ended(
    State(api): State<Shared>,
    caller: Caller,
    Query(which): Query<WhichEnded>,
) -> Answered<Vec<EndedItem>> {
    caller.may_look()?;
    let ended = gate(&api)?.gate.ended(&which.filter()?).await?;
    Ok(Json(ended.iter().map(ended_item).collect()))
}

/// Put a change or a ref into a pipeline, whatever its triggers and requirements say.
#[utoipa::path(post, path = "/pipelines/{pipeline}/enqueue", tag = "pipelines",
    security(("token" = ["operator"])), params(("pipeline" = String, Path)),
    request_body = PipelineOrder,
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn enqueue(
    State(api): State<Shared>,
    caller: Caller,
    Path(pipeline): Path<String>,
    Question(order): Question<PipelineOrder>,
) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    let parts = gate(&api)?;
    let subject = subject_of(parts, &order).await?;
    let changes = match &subject {
        Subject::Change(key) => event::gather(&parts.sources, key).await?,
        Subject::Ref(_) | Subject::Branch { .. } => Vec::new(),
    };
    let pipeline = PipelineName(pipeline);
    parts.gate.submit(Input::Enqueue { pipeline, subject, changes }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Throw a change or a ref out of a pipeline; nothing is told.
#[utoipa::path(post, path = "/pipelines/{pipeline}/dequeue", tag = "pipelines",
    security(("token" = ["operator"])), params(("pipeline" = String, Path)),
    request_body = PipelineOrder,
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn dequeue(
    State(api): State<Shared>,
    caller: Caller,
    Path(pipeline): Path<String>,
    Question(order): Question<PipelineOrder>,
) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    let parts = gate(&api)?;
    let subject = subject_of(parts, &order).await?;
    parts.gate.submit(Input::Dequeue { pipeline: PipelineName(pipeline), subject }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Move changes to the heads of their queues. What was built without them is built anew.
#[utoipa::path(post, path = "/pipelines/{pipeline}/promote", tag = "pipelines",
    security(("token" = ["operator"])), params(("pipeline" = String, Path)),
    request_body = Promote,
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn promote(
    State(api): State<Shared>,
    caller: Caller,
    Path(pipeline): Path<String>,
    Question(order): Question<Promote>,
) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    let parts = gate(&api)?;
    let mut changes = Vec::new();
    for text in &order.changes {
        changes.push(change_of(parts, text).await?);
    }
    parts.gate.submit(Input::Promote { pipeline: PipelineName(pipeline), changes }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Read the layout anew. Queues are kept; a layout that is wrong changes nothing.
#[utoipa::path(post, path = "/reconfigure", tag = "pipelines", security(("token" = ["operator"])),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn reconfigure(State(api): State<Shared>, caller: Caller) -> Result<StatusCode, Problem> {
    caller.may_operate()?;
    match gate(&api)?.reconfigure().await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(GateStartError::Gate(error)) => Err(error.into()),
        Err(error) => Err(Problem::refused(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_layout",
            error.to_string(),
            "the old layout stays in use; correct the file and try again",
        )),
    }
}

/// List sources: whether each is heard, and since when.
#[utoipa::path(get, path = "/sources", tag = "pipelines", security(("token" = ["read_only"])),
    responses((status = 200, body = Vec<ChangeSource>), (status = "default", body = ErrorBody)))]
async fn sources(State(api): State<Shared>, caller: Caller) -> Answered<Vec<ChangeSource>> {
    caller.may_look()?;
    let parts = gate(&api)?;
    let found = parts.config.sources.iter().filter_map(|config| {
        let (name, kind) = match config {
            SourceConfig::Git(git) => (&git.name, "git"),
            SourceConfig::Gerrit(gerrit) => (&gerrit.name, "gerrit"),
            SourceConfig::Github(github) => (&github.name, "github"),
        };
        Some(source_of(name, kind, parts.sources.standing(name)?))
    });
    Ok(Json(found.collect()))
}

/// Say that a source has news, e.g. from a hook of its repositories: it is looked at once.
#[utoipa::path(post, path = "/sources/{source}/poke", tag = "pipelines",
    security(("token" = ["client"])), params(("source" = String, Path)),
    responses((status = 204), (status = "default", body = ErrorBody)))]
async fn poke(
    State(api): State<Shared>,
    caller: Caller,
    Path(source): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may_lease()?;
    let source = gate(&api)?.sources.by_word(&source).ok_or_else(no_such_source)?;
    source.poke();
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn gate(api: &Shared) -> Result<&Arc<GateParts>, Problem> {
    api.gate.as_ref().ok_or_else(|| {
        Problem::refused(
            StatusCode::NOT_FOUND,
            "no_gate",
            "this server has no pipelines: it only leases test environments",
            "give it a [layout] and a [[source]] in toci.toml (docs/server.md)",
        )
    })
}

fn no_such_source() -> Problem {
    Problem::not_found("no_such_source", "there is no such source", "they stand in toci.toml")
}

fn bad(message: impl ToString) -> Problem {
    let hint = "changes are [SOURCE:]NUMBER[,PATCHSET]";
    Problem::refused(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", message.to_string(), hint)
}

async fn subject_of(parts: &GateParts, order: &PipelineOrder) -> Result<Subject, Problem> {
    match (&order.change, &order.reference) {
        (Some(text), None) => Ok(Subject::Change(change_of(parts, text).await?)),
        (None, Some(reference)) => Ok(Subject::Ref(update_of(parts, reference)?)),
        (None, None) | (Some(_), Some(_)) => Err(bad("name a change or a reference, one of them")),
    }
}

async fn change_of(parts: &GateParts, text: &str) -> Result<ChangeKey, Problem> {
    event::named(&parts.sources, text).await?.ok_or_else(|| {
        let what = format!("no source has a change {}", text.chars().take(80).collect::<String>());
        Problem::not_found("no_such_change", what, "changes are [SOURCE:]NUMBER[,PATCHSET]")
    })
}

fn update_of(parts: &GateParts, order: &ReferenceOrder) -> Result<RefUpdate, Problem> {
    let (source, project) = match order.project.split_once(':') {
        Some((source, project)) => (SourceName::new(source).map_err(bad)?, project),
        None => {
            let first = parts.sources.first().ok_or_else(no_such_source)?;
            (first.name().clone(), order.project.as_str())
        }
    };
    let name = ProjectName::new(project).map_err(bad)?;
    let revision = |text: &Option<String>| match text {
        Some(text) => Revision::new(text.clone()).map_err(bad),
        None => Ok(Revision::none()),
    };
    Ok(RefUpdate {
        project: ProjectKey { source, name },
        reference: RefName::new(order.name.clone()).map_err(bad)?,
        old: revision(&order.old)?,
        new: revision(&order.new)?,
    })
}

impl From<GateError> for Problem {
    fn from(error: GateError) -> Problem {
        match error {
            GateError::Refused(refused) => {
                Problem::refused(StatusCode::CONFLICT, refused.code, refused.message, refused.hint)
            }
            GateError::Failed(_) | GateError::Stopped => Problem::failed(
                StatusCode::SERVICE_UNAVAILABLE,
                "gate_failed",
                error.to_string(),
                "see the server's log, and try again",
            ),
        }
    }
}

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Problem {
        let hint = "see the server's log, and try again";
        Problem::failed(StatusCode::BAD_GATEWAY, "source_failed", error.to_string(), hint)
    }
}

fn pipeline(view: PipelineView) -> Pipeline {
    Pipeline {
        name: view.name.0,
        description: view.description,
        dependent: view.dependent,
        failures: view.failures,
        disabled: view.disabled,
        queues: view.queues.into_iter().map(queue).collect(),
        waiting: view.waiting.into_iter().map(waiting).collect(),
    }
}

fn waiting(view: WaitingView) -> WaitingChange {
    let change = view.change.as_ref();
    WaitingChange {
        subject: view.key.to_string(),
        project: change.map(|c| c.project.name.to_string()).unwrap_or_default(),
        title: change.map(|c| c.title.clone()).unwrap_or_default(),
        url: change.map(|c| c.url.clone()).unwrap_or_default(),
        needs: view.needs.to_string(),
        since_us: view.since.0,
        waits_for: view.waits_for,
    }
}

fn queue(view: QueueView) -> PipelineQueue {
    let items = view.heads.into_iter().flatten().map(item_of).collect();
    PipelineQueue { name: view.name, window: view.window, items }
}

pub(super) fn item_of(view: ItemView) -> PipelineItem {
    let change = view.change;
    PipelineItem {
        id: view.id.to_string(),
        pipeline: view.pipeline.0,
        project: view.project,
        subject: subject(&view.subject),
        title: change.as_ref().map(|c| c.title.clone()).unwrap_or_default(),
        url: change.map(|c| c.url).unwrap_or_default(),
        live: view.live,
        active: view.active,
        position: u32::try_from(view.position).unwrap_or(u32::MAX),
        ahead: view.ahead.map(|id| id.to_string()),
        failing: view.failing.into_iter().map(str::to_owned).collect(),
        enqueued_us: view.enqueued.0,
        waits_for: view.waits_for,
        jobs: view.jobs.into_iter().map(job).collect(),
    }
}

fn job(view: JobView) -> PipelineJob {
    PipelineJob {
        name: view.name.0,
        voting: view.voting,
        run: view.run.map(|id| id.to_string()),
        attempt: view.attempt,
        started_us: view.started.map(|t| t.0),
        ended_us: view.ended.map(|t| t.0),
        result: view.result.map(|r| r.word().to_owned()),
        url: view.url,
        note: view.note,
        waits_for: view.waits_for,
    }
}

fn source_of(name: &SourceName, kind: &str, standing: Standing) -> ChangeSource {
    let (state, why) = match standing.link {
        Link::Unknown => ("unknown", String::new()),
        Link::Up => ("up", String::new()),
        Link::Down(why) => ("down", why),
    };
    ChangeSource {
        name: name.to_string(),
        kind: kind.to_owned(),
        state: state.to_owned(),
        since_us: standing.since.0,
        why,
        event_us: standing.event.map(|at| at.0),
        malformed: standing.malformed,
        last_malformed: standing.last_malformed,
    }
}

pub(super) fn ended_item(ended: &toci_store::EndedItem) -> EndedItem {
    let left = &ended.left;
    EndedItem {
        id: left.item.to_string(),
        pipeline: left.pipeline.0.clone(),
        project: left.project.name.to_string(),
        subject: subject(&left.subject),
        title: left.title.clone(),
        url: left.url.clone(),
        end: left.end.word().replace('-', "_"),
        enqueued_us: left.enqueued.0,
        ended_us: ended.at.0,
        jobs: left.jobs.iter().cloned().map(job).collect(),
        message: left.message.clone(),
    }
}

pub(super) fn told(report: &ReportWish) -> Report {
    Report {
        item: report.item.to_string(),
        pipeline: report.pipeline.0.clone(),
        subject: subject(&report.subject),
        action: report.action.word().to_owned(),
        message: report.message.clone(),
    }
}

fn subject(subject: &Subject) -> String {
    match subject {
        Subject::Change(key) => key.to_string(),
        Subject::Ref(update) => format!("{} {}", update.reference, update.new),
        Subject::Branch { branch, .. } => branch.to_string(),
    }
}
