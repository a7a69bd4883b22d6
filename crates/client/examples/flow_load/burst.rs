//! Many changes at once.

use crate::world::{
    BURST_PROJECTS, LIMIT, admin, burst_project, ms, now_us, propose, ready, spread,
};
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Numbers of its changes begin here: a number belongs to one project of a source.
const FIRST: usize = 100_000;

pub(crate) async fn run(address: &str, folder: &Path, changes: usize) -> Result<Value> {
    let admin = admin(address, folder).await?;
    let nodes = admin.nodes().await?.len();
    ready(&admin, nodes).await?;
    for project in 0..BURST_PROJECTS {
        let own = (0..changes).filter(|n| n % BURST_PROJECTS == project);
        let numbers: Vec<usize> = own.map(|n| FIRST + n).collect();
        propose(folder, &burst_project(project), &numbers)?;
    }
    let begun = (now_us(), Instant::now());
    admin.poke("local").await?;
    let ended = loop {
        let ended = admin.ended_items().await?;
        let own: Vec<_> = ended
            .into_iter()
            .filter(|item| item.pipeline == "check" && item.ended_us > begun.0)
            .collect();
        if own.len() >= changes {
            break own;
        }
        if begun.1.elapsed() > LIMIT {
            bail!("only {} of {changes} changes were through in time", own.len());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let took_s = begun.1.elapsed().as_secs_f64();
    ensure!(ended.iter().all(|item| item.end == "succeeded"), "{ended:?}");
    let runs = admin.runs(u32::try_from(changes)?).await?;
    let own = runs.iter().filter(|run| run.job == "trivial");
    let started = own.clone().filter_map(|run| Some(ms(begun.0, run.started_us?)));
    let queued = own.clone().map(|run| ms(begun.0, run.queued_us));
    let length = own.clone().filter_map(|run| Some(ms(run.started_us?, run.ended_us?)));
    // When the last one of each project was through: none may be left to the end.
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for run in own {
        let last = last.entry(run.project.as_str()).or_default();
        *last = (*last).max(run.ended_us.unwrap_or_default());
    }
    let last: Vec<f64> = last.values().map(|at| ms(begun.0, *at) / 1e3).collect();
    let first = last.iter().copied().fold(f64::INFINITY, f64::min);
    #[expect(clippy::cast_precision_loss, reason = "hundreds of changes")]
    let per_minute = changes as f64 / took_s * 60.0;
    Ok(json!({
        "changes": changes,
        "nodes": nodes,
        "took_s": took_s,
        "per_minute": per_minute,
        "queued_ms": spread(queued.collect()),
        "started_ms": spread(started.collect()),
        "run_ms": spread(length.collect()),
        "first_project_done_s": first,
        "last_project_done_s": last.iter().copied().fold(0.0, f64::max),
    }))
}
