//! Speculative merges: carries out what the gate wants merged, a few at a time, the most urgent first.

use super::GateHandle;
use crate::clock::now;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use toci_core::chain::Chain;
use toci_core::event::ProjectKey;
use toci_core::id::BuildSetId;
use toci_core::pipeline::{Input, MergeOutcome, MergeWish, Wanted};
use toci_edge::git::{Merger, Mirrors};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Merges at a time: git works on the disk.
const MERGES_MAX: usize = 4;
/// Refs of items that left are removed so often.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// Merges until the gate stops.
pub(crate) async fn run(gate: GateHandle, merger: Arc<Merger>) {
    let mut wanted = gate.wanted();
    let mut busy: BTreeSet<BuildSetId> = BTreeSet::new();
    let mut merges: JoinSet<(BuildSetId, MergeOutcome)> = JoinSet::new();
    loop {
        let pause = begin(&mut wanted, &merger, &mut busy, &mut merges);
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(merged) = merges.join_next() => {
                // A merge that panicked is wanted still, and stays busy: a bug, not to be repeated for ever.
                let Ok((build_set, outcome)) = merged else { continue };
                tell(&outcome, build_set);
                if gate.deliver(Input::Merge { build_set, outcome }, None).await.is_none() {
                    return;
                }
                busy.remove(&build_set);
            }
            () = tokio::time::sleep(pause), if pause < Duration::MAX => {}
        }
    }
}

/// Begins what is due. Answers how long the next one has to wait.
fn begin(
    wanted: &mut watch::Receiver<Arc<Wanted>>,
    merger: &Arc<Merger>,
    busy: &mut BTreeSet<BuildSetId>,
    merges: &mut JoinSet<(BuildSetId, MergeOutcome)>,
) -> Duration {
    let wanted = Arc::clone(&wanted.borrow_and_update());
    let now = now();
    let free = MERGES_MAX.saturating_sub(merges.len());
    let fresh = wanted.merges.iter().filter(|wish| !busy.contains(&wish.build_set));
    let (due, later): (Vec<&MergeWish>, Vec<&MergeWish>) =
        fresh.partition(|wish| wish.not_before <= now);
    let pause = later.iter().map(|wish| wish.not_before.since(now)).min();
    let due: Vec<MergeWish> = due.into_iter().take(free).cloned().collect();
    for wish in due {
        busy.insert(wish.build_set);
        let merger = Arc::clone(merger);
        merges.spawn(async move { (wish.build_set, merger.merge(&wish).await) });
    }
    pause.unwrap_or(Duration::MAX)
}

fn tell(outcome: &MergeOutcome, build_set: BuildSetId) {
    match outcome {
        MergeOutcome::Merged { .. } => tracing::info!(%build_set, "merged"),
        MergeOutcome::Conflict { files, with } => {
            tracing::info!(%build_set, ?files, ?with, "a merge has conflicts");
        }
        MergeOutcome::Gone { why } => {
            tracing::info!(%build_set, why, "what is to be merged is not there");
        }
        MergeOutcome::Failed { why } => tracing::warn!(%build_set, why, "a merge failed"),
    }
}

/// Removes the refs of items that are in no pipeline any more, now and then.
pub(crate) async fn sweep(gate: GateHandle, mirrors: Arc<Mirrors>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let (Ok(layout), Ok(status)) = (gate.layout().await, gate.status().await) else { return };
        let items = status.iter().flat_map(|p| &p.queues).flat_map(|q| q.heads.iter().flatten());
        let kept: BTreeSet<&str> = items.filter_map(|item| item.reference.as_deref()).collect();
        let projects: BTreeSet<&ProjectKey> = layout.projects.keys().collect();
        for project in projects.into_iter().filter(|p| mirrors.path(p).exists()) {
            let swept = async {
                let mirror = mirrors.open(project).await?;
                let gone = mirror.sweep(|reference| kept.contains(reference)).await?;
                // Merges go on meanwhile.
                drop(mirror);
                mirrors.tidy(project).await.map(|()| gone)
            };
            match swept.await {
                Ok(gone) => tracing::debug!(%project, gone, "swept"),
                Err(error) => {
                    tracing::warn!(%project, why = %Chain(&error), "a mirror is not swept");
                }
            }
        }
    }
}
