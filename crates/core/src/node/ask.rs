//! Requests: what is refused at once, what waits, and how each ends.

use super::fit::Fit;
use super::model::NodeState;
use super::plan::ELSEWHERE;
use super::policy::{COUNT_MAX, HISTORY_MAX, REQUESTS_MAX};
use super::pool::{Entry, Outcome, Pool, Provider};
use crate::id::{Label, NodeId, ProviderName, RunId};
use crate::layout::Precedence;
use crate::refused::Refused;
use crate::time::Time;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A run's wish for nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose.
    pub run: RunId,
    /// Which; none: the default label.
    pub label: Option<Label>,
    /// How many.
    pub count: u32,
    /// The higher goes first.
    pub precedence: Precedence,
    /// Among equals, the smaller goes first.
    pub relative_priority: u32,
    /// Among equals, the older goes first.
    pub since: Time,
    /// For people.
    pub job: String,
}

/// A request that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) label: Label,
    pub(super) request: Request,
    /// It had nodes before a restart and waits until it is known that they are still there.
    pub(super) resumes: bool,
    /// Failed builds of its label while it was the first to wait for one, by provider.
    pub(super) failures: BTreeMap<ProviderName, u32>,
    /// Since when no provider can ever serve it, by what is known now.
    pub(super) impossible: Option<Time>,
}

/// Where a request stands: the smaller goes first.
pub(super) type Rank = (Reverse<Precedence>, u32, Time, RunId);

impl Waiter {
    pub(super) fn rank(&self) -> Rank {
        let r = &self.request;
        (Reverse(r.precedence), r.relative_priority, r.since, r.run)
    }
}

impl Pool {
    pub(super) fn ask(&mut self, request: Request) -> Result<(), Refused> {
        let run = request.run;
        if let Some(waiter) = self.requests.get_mut(&run) {
            // What may change while it waits.
            waiter.request.precedence = request.precedence;
            waiter.request.relative_priority = request.relative_priority;
            return Ok(());
        }
        let had = self.nodes_of(run).len();
        let label = self.reasonable(&request)?;
        if had == 0 {
            self.check_possible(&label, request.count)?;
        }
        if had > 0 && had < request.count as usize {
            return Err(Refused::new(
                "nodes_lost",
                format!("of the {} nodes of this run {had} are left", request.count),
                "try it again as another run",
            ));
        }
        for entry in self.nodes.values_mut().filter(|e| e.row.state.run() == Some(run)) {
            entry.reclaim = None;
        }
        if had == 0 {
            self.history.push_back(label.clone());
            while self.history.len() > HISTORY_MAX {
                self.history.pop_front();
            }
        }
        let (failures, impossible) = (BTreeMap::new(), None);
        let waiter = Waiter { label, request, resumes: had > 0, failures, impossible };
        self.requests.insert(run, waiter);
        Ok(())
    }

    /// Refuses what makes no sense.
    fn reasonable(&self, request: &Request) -> Result<Label, Refused> {
        let known: Vec<&str> = self.settings.labels.iter().map(|l| l.name.as_str()).collect();
        let known = known.join(", ");
        let Some(label) = request.label.as_ref().or(self.default_label()) else {
            return Err(Refused::new(
                "no_label",
                "there are no nodes",
                "add a [[label]] and a [[provider]] to the settings",
            ));
        };
        if !self.settings.labels.iter().any(|l| l.name == *label) {
            return Err(Refused::new(
                "unknown_label",
                format!("there are no nodes with the label {label}"),
                format!("the labels are: {known}"),
            ));
        }
        if request.count == 0 || request.count > COUNT_MAX {
            return Err(Refused::new(
                "bad_request",
                format!("{} nodes in one request", request.count),
                format!("ask for 1 to {COUNT_MAX}"),
            ));
        }
        if self.requests.len() >= REQUESTS_MAX {
            return Err(Refused::new(
                "queue_full",
                format!("{REQUESTS_MAX} runs wait for nodes already"),
                "try again later",
            ));
        }
        Ok(label.clone())
    }

    /// Refuses what can never be served. Where quotas once allowed it, it may wait for them to be raised again.
    fn check_possible(&self, label: &Label, count: u32) -> Result<(), Refused> {
        let Some(why) = self.never(label, count).filter(|_| !self.was_possible(label, count))
        else {
            return Ok(());
        };
        Err(Refused::new(
            "never_fits",
            format!("no provider has room for {count} nodes of {label}: {why}"),
            "have a provider's max_servers, max_cpus, max_memory_mib or its cloud's quota raised, or ask for fewer or smaller nodes",
        ))
    }

    /// What a run has.
    pub(super) fn nodes_of(&self, run: RunId) -> Vec<NodeId> {
        let of_run = |(id, e): (&NodeId, &Entry)| (e.row.state.run() == Some(run)).then_some(*id);
        self.nodes.iter().filter_map(of_run).collect()
    }

    /// Ends those requests that are served, or that lost what they had.
    pub(super) fn answer(&mut self) {
        let runs: Vec<RunId> = self.requests.keys().copied().collect();
        for run in runs {
            let Some(waiter) = self.requests.get(&run) else { continue };
            let (count, resumes) = (waiter.request.count as usize, waiter.resumes);
            let in_use = NodeState::InUse(run);
            let known = |e: &&Entry| {
                !resumes || self.providers.get(&e.row.provider).is_some_and(|p| p.listed.is_some())
            };
            let all = self.nodes.values().filter(|e| e.row.state == in_use);
            let had = all.clone().count();
            let nodes: Vec<NodeId> = all.filter(known).map(|e| e.row.id).collect();
            if nodes.len() >= count {
                self.end(run, Outcome::Served(nodes));
            } else if resumes && had < count {
                self.end(run, Outcome::GivenUp("its node was lost".to_owned()));
            }
        }
    }

    pub(super) fn end(&mut self, run: RunId, outcome: Outcome) {
        if self.requests.remove(&run).is_some() {
            self.changes.outcomes.insert(run, outcome);
        }
    }

    /// A node of a label failed at a provider: the first who waits for one and may have had it bears it.
    pub(super) fn bear(&mut self, provider: &ProviderName, label: &Label, reason: &str) {
        let mut waiters: Vec<&Waiter> =
            self.requests.values().filter(|w| w.label == *label && !w.resumes).collect();
        waiters.sort_by_key(|waiter| waiter.rank());
        let runs: Vec<RunId> = waiters.iter().map(|waiter| waiter.request.run).collect();
        let may_have_it = |run: &RunId| self.place_of(*run).is_none_or(|place| place == provider);
        let Some(run) = runs.into_iter().find(may_have_it) else { return };
        let Some(waiter) = self.requests.get_mut(&run) else { return };
        *waiter.failures.entry(provider.clone()).or_default() += 1;
        let (failures, count) = (waiter.failures.clone(), waiter.request.count);
        let spent = |name: &ProviderName| {
            failures.get(name).is_some_and(|failed| *failed >= self.policy.failures_max)
        };
        if !spent(provider) {
            return;
        }
        // Others may be well: it waits for their room, and has nothing more to do with this one.
        let hopeful = |p: &Provider| {
            let fits = matches!(p.fit(label, count), Some(Fit::Fits | Fit::Taken(_)));
            fits && p.row.paused.is_none() && !spent(&p.spec.name)
        };
        if !self.providers.values().any(hopeful) {
            let all: u32 = failures.values().sum();
            let why = format!("{all} nodes of {label} failed one after the other: {reason}");
            self.end(run, Outcome::GivenUp(why));
            self.give_back(run);
            return;
        }
        self.release(run, ELSEWHERE);
    }

    /// Where a run has nodes.
    pub(super) fn place_of(&self, run: RunId) -> Option<&ProviderName> {
        let of_run = |e: &&Entry| e.row.state.run() == Some(run);
        self.nodes.values().find(of_run).map(|e| &e.row.provider)
    }

    /// Where a run has some of its nodes, and how many it lacks there; none when it has none or all.
    pub(super) fn lacking(&self, run: RunId) -> Option<(&ProviderName, &Label, usize)> {
        let (waiter, place) = (self.requests.get(&run)?, self.place_of(run)?);
        let need = (waiter.request.count as usize).checked_sub(self.nodes_of(run).len())?;
        (need > 0).then_some((place, &waiter.label, need))
    }

    /// How many nodes of a label are ready at a provider.
    pub(super) fn ready_at(&self, provider: &ProviderName, label: &Label) -> usize {
        let ready = |e: &&Entry| {
            e.row.state == NodeState::Ready && e.row.label == *label && e.row.provider == *provider
        };
        self.nodes.values().filter(ready).count()
    }
}
