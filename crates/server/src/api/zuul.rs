//! What tools written for Zuul 2 read: `/status.json` and `/status/change/<C,P>` (origin.md 7.8). No token is asked for, as
//! Zuul asked for none; nothing secret is in them.

use super::error::Problem;
use super::pipelines::gate;
use super::state::Shared;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use toci_core::id::ItemId;
use toci_core::pipeline::{ItemView, JobView, PipelineView, QueueView, Subject};
use toci_core::time::Time;

pub(super) async fn status(State(api): State<Shared>) -> Result<Json<Value>, Problem> {
    let status = gate(&api)?.gate.status().await?;
    let now = crate::clock::now();
    let pipelines: Vec<Value> = status.iter().map(|p| pipeline(p, now)).collect();
    Ok(Json(json!({
        "zuul_version": concat!("toci ", env!("CARGO_PKG_VERSION")),
        "trigger_event_queue": {"length": 0},
        "result_event_queue": {"length": 0},
        "pipelines": pipelines,
    })))
}

pub(super) async fn change(
    State(api): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let status = gate(&api)?.gate.status().await?;
    let now = crate::clock::now();
    let all = || status.iter().flat_map(|p| &p.queues).flat_map(|q| q.heads.iter().flatten());
    let names = names(all());
    let found: Vec<Value> =
        all().filter(|i| short(i) == id).map(|i| item(i, &names, now)).collect();
    Ok(Json(Value::from(found)))
}

fn names<'a>(items: impl Iterator<Item = &'a ItemView>) -> BTreeMap<ItemId, String> {
    items.map(|item| (item.id, short(item))).collect()
}

fn pipeline(view: &PipelineView, now: Time) -> Value {
    let queues: Vec<Value> = view.queues.iter().map(|q| queue(q, view.dependent, now)).collect();
    json!({"name": view.name, "description": view.description, "change_queues": queues})
}

fn queue(view: &QueueView, dependent: bool, now: Time) -> Value {
    let names = names(view.heads.iter().flatten());
    let heads: Vec<Vec<Value>> =
        view.heads.iter().map(|head| head.iter().map(|i| item(i, &names, now)).collect()).collect();
    json!({"name": view.name, "window": view.window, "dependent": dependent, "heads": heads})
}

/// `C,P` of a change; the new commit of a ref.
fn short(view: &ItemView) -> String {
    match &view.subject {
        Subject::Change(key) => key.short(),
        Subject::Ref(update) => update.new.to_string(),
        Subject::Branch { branch, .. } => branch.to_string(),
    }
}

fn item(view: &ItemView, names: &BTreeMap<ItemId, String>, now: Time) -> Value {
    let change = view.change.as_ref();
    let behind: Vec<&String> = view.behind.iter().filter_map(|id| names.get(id)).collect();
    json!({
        "active": view.active,
        "live": view.live,
        "url": change.map(|c| c.url.as_str()),
        "id": short(view),
        "item_ahead": view.ahead.and_then(|id| names.get(&id)),
        "items_behind": behind,
        "failing_reasons": view.failing,
        "zuul_ref": view.reference,
        "project": view.project,
        "enqueue_time": view.enqueued.0 / 1000,
        "owner": change.map(|c| json!({
            "name": c.owner.name, "username": c.owner.username, "email": c.owner.email,
        })),
        "remaining_time": null,
        "jobs": view.jobs.iter().map(|j| job(j, view, now)).collect::<Vec<_>>(),
    })
}

fn job(view: &JobView, item: &ItemView, now: Time) -> Value {
    let seconds = |t: Time| {
        // Zuul's times are floating seconds; microseconds of this century fit into one.
        #[expect(clippy::cast_precision_loss, reason = "times are below 2^53 microseconds")]
        let micros = t.0 as f64;
        micros / 1_000_000.0
    };
    let elapsed = view.started.map(|start| view.ended.unwrap_or(now).since(start).as_millis());
    json!({
        "name": view.name,
        "elapsed_time": elapsed,
        "remaining_time": null,
        "estimated_time": null,
        "url": view.url,
        "result": view.result.map(toci_core::pipeline::RunResult::word),
        "voting": view.voting,
        "uuid": view.run,
        "launch_time": view.wanted.map(seconds),
        "start_time": view.started.map(seconds),
        "end_time": view.ended.map(seconds),
        "pipeline": item.pipeline,
        "canceled": view.result == Some(toci_core::pipeline::RunResult::Canceled),
        "retry": view.attempt > 1,
        "number": view.attempt,
        "worker": null,
    })
}
