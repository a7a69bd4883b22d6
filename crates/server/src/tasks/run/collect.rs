//! What is fetched when a run is over: of the node `logs/` of its workspace, the job's artifacts and what the rules of
//! [`toci_core::log::collect`] name; of its test environments what their hosts see.

use super::console::make_folder;
use super::environment::Places;
use crate::relay::Relay;
use crate::tasks::lease::LeaseBook;
use crate::tasks::log::TestenvLogs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toci_core::log::collect::{NODE_LIMIT, NODE_MAX_BYTES, NodeView, Rules};
use toci_core::run::steps::COLLECT_LIMIT;
use toci_edge::node::Session;
use toci_edge::node::unpack::{Unpacked, unpack};

/// Bytes that are fetched from one node at most.
pub(super) const FETCH_MAX_BYTES: u64 = 4 << 30;
/// Globs of artifacts of one job at most.
const ARTIFACTS_MAX: usize = 100;

/// What is collected of runs, and the way to the hosts of their test environments.
#[derive(Clone, Debug, Default)]
pub struct Collection {
    /// What.
    pub rules: Rules,
    /// None: nothing is asked of hosts.
    pub testenvs: Option<TestenvLogs>,
}

impl Collection {
    pub(crate) fn of(rules: Rules, book: &LeaseBook, relay: &Arc<Relay>) -> Collection {
        let testenvs = Some(TestenvLogs::new(book.clone(), relay.clone()));
        Collection { rules, testenvs }
    }
}

/// Looks at a node as it was planned. What is missing is told; what has come is kept.
pub(super) async fn look(session: &Session, view: &NodeView, folder: &Path) -> Option<String> {
    let into = folder.join(&view.folder);
    let archive = into.with_extension("fetched.tar");
    if let Err(error) = make_folder(folder) {
        return Some(format!("{}: {error}", view.folder));
    }
    let what = "look at the node".to_owned();
    let came = session.stream(what, &view.script, &archive, NODE_MAX_BYTES, NODE_LIMIT).await;
    let unpacked = unpacked(&archive, &into).await;
    match (came, unpacked) {
        (Ok(_), Ok(_)) => None,
        (Ok(_), Err(why)) => Some(format!("{} is not whole: {why}", view.folder)),
        (Err(error), _) => Some(format!("{} is not whole: {error}", view.folder)),
    }
}

/// Unpacks an archive, which goes.
async fn unpacked(archive: &Path, into: &Path) -> Result<Unpacked, String> {
    let (from, into) = (archive.to_owned(), into.to_owned());
    let done = tokio::task::spawn_blocking(move || unpack(&from, &into)).await;
    let _ = tokio::fs::remove_file(archive).await;
    done.map_err(|e| e.to_string()).and_then(|d| d.map_err(|e| e.to_string()))
}

/// Fetches it below the run's folder. What cannot be fetched is told and left; the rest is there.
pub(super) async fn collect(
    session: &Session,
    places: &Places,
    artifacts: &[String],
    folder: &Path,
) -> Vec<String> {
    let mut told = Vec::new();
    // Brackets make it a glob, which finds nothing where a plain name would be an error.
    let logs = ["log[s]".to_owned()];
    fetch(session, places, &logs, folder, &mut told).await;
    let (good, bad): (Vec<&String>, Vec<&String>) = artifacts
        .iter()
        .partition(|glob| !glob.starts_with('/') && !glob.split('/').any(|p| p == ".."));
    for glob in bad {
        told.push(format!("artifacts: `{glob}` leads out of the workspace and is left out"));
    }
    if good.len() > ARTIFACTS_MAX {
        told.push(format!("artifacts: only the first {ARTIFACTS_MAX} globs are looked for"));
    }
    let globs: Vec<String> = good.into_iter().take(ARTIFACTS_MAX).cloned().collect();
    if !globs.is_empty() {
        fetch(session, places, &globs, &folder.join("artifacts"), &mut told).await;
    }
    told
}

async fn fetch(
    session: &Session,
    places: &Places,
    globs: &[String],
    into: &Path,
    told: &mut Vec<String>,
) {
    match try_fetch(session, places, globs, into, COLLECT_LIMIT).await {
        Ok(Unpacked { left_out: 0, .. }) => {}
        Ok(Unpacked { left_out, .. }) => {
            told.push(format!("{left_out} links, devices and the like are not kept"));
        }
        Err(why) => told.push(format!("logs are not whole: {why}")),
    }
}

async fn try_fetch(
    session: &Session,
    places: &Places,
    globs: &[String],
    into: &Path,
    limit: Duration,
) -> Result<Unpacked, String> {
    let archive = into.with_extension("fetched.tar");
    if let Some(parent) = archive.parent() {
        make_folder(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
    }
    let fetched =
        session.fetch_some(&places.workspace, globs, &archive, FETCH_MAX_BYTES, limit).await;
    // What has come of it is worth having, whatever came next.
    let unpacked = unpacked(&archive, into).await;
    match fetched {
        Ok(_) => unpacked,
        Err(error) => Err(error.to_string()),
    }
}
