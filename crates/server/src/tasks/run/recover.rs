//! Runs that another server left behind, and what is left of runs on this machine.

use super::LEASE_OWNER;
use super::console::{CONSOLE_FILE, Console, Mark};
use super::desk::Parts;
use super::drive::folder_of;
use super::testenv::release;
use crate::clock::Clock;
use crate::tasks::log::Finished;
use std::path::Path;
use std::time::{Duration, SystemTime};
use toci_core::pipeline::{RunResult, RunWish};
use toci_core::run::record::Record;
use toci_core::run::steps::{COLLECT_LIMIT, State};
use toci_edge::node::Session;
use toci_store::LeaseFilter;
use tokio::sync::watch;

/// How long the nodes of one run are tried to be reached.
const REACH_LIMIT: Duration = Duration::from_secs(60);

/// Gives back every lease that a run of another server had: no run survives its server.
pub(super) async fn release_leases(parts: &Parts) {
    let filter = LeaseFilter { owner: Some(LEASE_OWNER.to_owned()), ..LeaseFilter::default() };
    match parts.book.leases(filter).await {
        Ok(leases) => {
            for lease in leases {
                if let Ok(id) = lease.id.parse() {
                    release(&parts.book, id, "its run was lost with the server").await;
                }
            }
        }
        // Without heartbeats they end by themselves.
        Err(error) => tracing::warn!(%error, "leases of lost runs could not be given back"),
    }
}

/// Makes sure that nothing of a run runs any more.
pub(super) async fn end_for_sure(parts: &Parts, record: &Record, why: &str) -> Vec<String> {
    let mut told = Vec::new();
    if let Some(lease) = record.lease {
        release(&parts.book, lease, why).await;
    }
    let mark = format!("ZUUL_UUID={}", record.run);
    for node in &record.nodes {
        let Some(way) = &node.way else { continue };
        let session = Session::Ssh {
            target: way.target.clone(),
            port: way.port,
            key: way.key.clone(),
            known_hosts: way.known_hosts.clone(),
        };
        match tokio::time::timeout(REACH_LIMIT, session.end_all(&mark)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => told.push(format!("{}: {error}", node.name)),
            Err(_) => told.push(format!("{} could not be reached in time", node.name)),
        }
    }
    parts.nodes.give_back(record.run).await;
    told
}

/// Brings a run to its end of which nobody knows what became of it.
pub(super) async fn lose(
    parts: &Parts,
    mut record: Record,
    why: &str,
    wish: Option<RunWish>,
    marks: watch::Sender<Mark>,
) -> Record {
    let clock = Clock::start();
    let told = end_for_sure(parts, &record, why).await;
    let folder = folder_of(parts, record.run);
    let mut console = Console::resume(&folder, marks);
    for line in told.iter().map(String::as_str).chain([why, "result: LOST"]) {
        console.line(clock.now(), format!("toci: {line}"));
    }
    console.finish(clock.now());
    record.note = why.to_owned();
    if let Some(wish) = wish {
        let mask = toci_edge::node::console::Mask::default();
        let finished =
            Finished { wish: &wish, result: RunResult::Lost, folder: &folder, mask: &mask };
        let work = parts.archive.archive(finished);
        if let Ok(Ok(archived)) = tokio::time::timeout(COLLECT_LIMIT, work).await {
            record.url = archived.url;
            keep_console_only(&folder);
        }
    }
    record.state = State::Over(RunResult::Lost);
    record.ended = Some(clock.now());
    record.waits_for.clear();
    if let Err(error) = parts.store.put_run(&record).await {
        tracing::error!(run = %record.run, error = ?error, "the end of a run cannot be written");
    }
    record
}

/// The archive has the rest.
pub(super) fn keep_console_only(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|e| e.file_name() != CONSOLE_FILE) {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
        let gone =
            if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        if let Err(error) = gone {
            tracing::warn!(path = %path.display(), %error, "cannot remove");
        }
    }
}

/// Removes folders of runs that nothing was written to for so long. `live` are left.
pub(super) fn tidy(folder: &Path, keep: Duration, live: &[String]) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if live.contains(&name) {
            continue;
        }
        let console = entry.path().join(CONSOLE_FILE);
        let changed = std::fs::metadata(&console).or_else(|_| entry.metadata());
        let age = changed.and_then(|m| m.modified()).map(|at| SystemTime::now().duration_since(at));
        if matches!(age, Ok(Ok(age)) if age > keep)
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove");
        }
    }
}
