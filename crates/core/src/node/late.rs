//! Builds that take much longer than is usual at their provider: nobody counts on them who can be served elsewhere.

use super::model::NodeState;
use super::policy::BUILD_TIMES_MAX;
use super::pool::{Entry, Pool, Provider};
use crate::id::{Label, NodeId};
use core::time::Duration;

/// So many times what is usual is late.
const FACTOR: u32 = 3;

impl Provider {
    /// How long a build of a label usually takes here; none when none has come up yet.
    fn usual(&self, label: &Label) -> Option<Duration> {
        let mut times: Vec<Duration> = self.times.get(label)?.iter().copied().collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }
}

impl Pool {
    /// A node has come up for the first time.
    pub(super) fn note_build_time(&mut self, id: NodeId) {
        let Some(entry) = self.nodes.get(&id) else { return };
        let took = self.now.since(entry.begun);
        if let Some(provider) = self.providers.get_mut(&entry.row.provider) {
            let times = provider.times.entry(entry.row.label.clone()).or_default();
            times.push_back(took);
            while times.len() > BUILD_TIMES_MAX {
                times.pop_front();
            }
        }
    }

    /// How long a build of a label may take at a provider until it is late.
    pub(super) fn patience(&self, provider: &Provider, label: &Label) -> Duration {
        match provider.usual(label) {
            Some(usual) => usual.saturating_mul(FACTOR).max(self.policy.late_min),
            None => self.policy.late_unknown.max(self.policy.late_min),
        }
    }

    /// Whether what is being made or tested is not to be counted on: its provider does not answer, or it takes too long.
    pub(super) fn is_late(&self, entry: &Entry) -> bool {
        let Some(provider) = self.providers.get(&entry.row.provider) else { return true };
        let due = if entry.proven {
            entry.row.since.after(self.policy.late_min)
        } else {
            entry.begun.after(self.patience(provider, &entry.row.label))
        };
        self.is_silent(provider) || due <= self.now
    }

    /// Whether a provider does not answer, and would have by now.
    pub(super) fn is_silent(&self, provider: &Provider) -> bool {
        let never =
            provider.listed.is_none() && provider.begun.after(self.policy.late_min) <= self.now;
        never || provider.unreachable.is_some()
    }

    /// Builds of a label at a provider that take too long, while it answers.
    pub(super) fn slow_builds(&self, provider: &Provider, label: &Label) -> usize {
        let slow = |e: &&Entry| {
            let made = matches!(e.row.state, NodeState::Building | NodeState::Testing);
            let here = e.row.provider == provider.spec.name && e.row.label == *label;
            made && here && !e.proven && !self.is_silent(provider) && self.is_late(e)
        };
        self.nodes.values().filter(slow).count()
    }
}
