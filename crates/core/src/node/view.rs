//! What the world should do now, and how things stand, for people.

use super::fit::Fit;
use super::model::{Node, NodeState};
use super::pause::ProviderPause;
use super::pool::Pool;
use crate::id::{NodeId, ProviderName, RunId};
use crate::time::Time;
use std::collections::BTreeMap;

/// Everything that is wanted at a moment. Work on a node that is not in it any more is to be stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// To be built.
    pub builds: Vec<NodeId>,
    /// To be tested.
    pub tests: Vec<NodeId>,
    /// Their guards are to be written.
    pub hand_overs: Vec<NodeId>,
    /// To be deleted.
    pub deletes: Vec<NodeId>,
    /// Machines that no node is, to be deleted.
    pub aliens: Vec<(ProviderName, String)>,
}

/// How a provider stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderView {
    /// Its name.
    pub name: ProviderName,
    /// Machines at most.
    pub max_servers: u64,
    /// Its nodes by state.
    pub nodes: BTreeMap<&'static str, u64>,
    /// Labels it offers.
    pub labels: Vec<String>,
    /// It has been asked and answers.
    pub reachable: bool,
    /// What is wrong, for people.
    pub problems: Vec<String>,
    /// Somebody has paused it: no build is begun.
    pub paused: Option<ProviderPause>,
    /// After failures, until when no build is begun for some label; none: builds go on.
    pub paused_until: Option<Time>,
}

impl Pool {
    /// What is wanted now.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for (id, entry) in &self.nodes {
            match entry.row.state {
                NodeState::Building => wanted.builds.push(*id),
                NodeState::Testing => wanted.tests.push(*id),
                NodeState::Handing(_) => wanted.hand_overs.push(*id),
                NodeState::Deleting if entry.not_before <= self.now => wanted.deletes.push(*id),
                NodeState::Deleting | NodeState::Ready | NodeState::InUse(_) | NodeState::Held => {}
            }
        }
        for (name, provider) in &self.providers {
            wanted.aliens.extend(provider.aliens.iter().map(|alien| (name.clone(), alien.clone())));
        }
        wanted
    }

    /// Why a run waits; none when it does not.
    #[must_use]
    pub fn waiting(&self, run: RunId) -> Option<String> {
        let waiter = self.requests.get(&run)?;
        let label = &waiter.label;
        if waiter.resumes {
            return Some("its provider is asked whether its nodes are still there".to_owned());
        }
        let mut why = Vec::new();
        for provider in self.providers.values() {
            let name = &provider.spec.name;
            match provider.fit(label, waiter.request.count) {
                None => continue,
                Some(Fit::Taken(figures) | Fit::Never(figures)) => {
                    why.push(figures);
                    continue;
                }
                Some(Fit::Fits | Fit::Unknown) => {}
            }
            let here =
                self.nodes.values().filter(|e| e.row.provider == *name && e.row.label == *label);
            let pending = here
                .filter(|e| matches!(e.row.state, NodeState::Building | NodeState::Testing))
                .count();
            if let Some(pause) = &provider.row.paused {
                why.push(format!("{name} is paused by {}: {}", pause.by, pause.reason));
                continue;
            }
            why.push(match (&provider.unreachable, provider.row.troubles.get(label)) {
                (Some(reason), _) => format!("{name} cannot be reached: {reason}"),
                (None, Some(t)) if t.until > self.now => {
                    let s = t.until.since(self.now).as_secs();
                    format!("{name} is left alone for {s} s: {}", t.reason)
                }
                (None, _) if provider.full.get(label).is_some_and(|full| full.until > self.now) => {
                    let reason = provider.full.get(label).map_or("", |full| &full.reason);
                    format!("{name} has no room: {reason}")
                }
                (None, _) if pending > 0 => match self.slow_builds(provider, label) {
                    0 => format!("{name} makes {pending} nodes of {label}"),
                    slow => format!(
                        "{name} makes {pending} nodes of {label}, {slow} of them for longer than usual"
                    ),
                },
                (None, _) => {
                    let here = || self.nodes.values().filter(|e| e.row.provider == *name);
                    let stuck = match here().filter(|e| self.is_overdue(e)).count() {
                        0 => String::new(),
                        stuck => format!(", {stuck} of them cannot be deleted"),
                    };
                    let (used, most) = (here().count(), provider.quota().servers);
                    format!("{used} of {most} machines of {name} exist{stuck}")
                }
            });
        }
        Some(why.join("; "))
    }

    /// Nodes that are being deleted for too long: somebody has to see why.
    pub fn overdue(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|entry| self.is_overdue(entry)).map(|entry| &entry.row)
    }

    /// Whether a node is one of these.
    #[must_use]
    pub fn goes_too_slowly(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|entry| self.is_overdue(entry))
    }

    /// Runs that wait for nodes.
    pub fn waiting_runs(&self) -> impl Iterator<Item = RunId> {
        self.requests.keys().copied()
    }

    /// Every provider.
    #[must_use]
    pub fn provider_views(&self) -> Vec<ProviderView> {
        let view = |provider: &super::pool::Provider| {
            let mut nodes: BTreeMap<&'static str, u64> = BTreeMap::new();
            let mine = self.nodes.values().filter(|e| e.row.provider == provider.spec.name);
            for entry in mine {
                *nodes.entry(entry.row.state.word()).or_default() += 1;
            }
            let mut problems: Vec<String> = provider.unreachable.iter().cloned().collect();
            for (label, trouble) in &provider.row.troubles {
                let failures = trouble.failures;
                problems.push(format!(
                    "{failures} builds of {label} in a row failed: {}",
                    trouble.reason
                ));
            }
            for label in provider.spec.pools.keys() {
                let (slow, patience) =
                    (self.slow_builds(provider, label), self.patience(provider, label));
                if slow > 0 {
                    let s = patience.as_secs();
                    problems.push(format!("{slow} builds of {label} take longer than {s} s"));
                }
            }
            let full = provider.full.iter().filter(|(_, full)| full.until > self.now);
            problems.extend(full.map(|(label, f)| format!("no room for {label}: {}", f.reason)));
            problems.extend(provider.aliens.iter().map(|a| format!("{a} is no node of ours")));
            let pauses = provider.row.troubles.values().map(|t| t.until).filter(|t| *t > self.now);
            ProviderView {
                name: provider.spec.name.clone(),
                max_servers: provider.spec.quota.servers,
                nodes,
                labels: provider.spec.pools.keys().map(ToString::to_string).collect(),
                reachable: provider.answers(),
                problems,
                paused: provider.row.paused.clone(),
                paused_until: pauses.max(),
            }
        };
        self.providers.values().map(view).collect()
    }
}
