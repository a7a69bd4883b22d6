//! A node's life: what each event does to it.

use super::model::{Hold, NodeState};
use super::pause::Trouble;
use super::policy::{NUMBER_MAX, TEXT_MAX_BYTES};
use super::pool::{Entry, Full, Pool, Provider, cut, shortened};
use crate::id::{NodeId, ProviderName, RunId};
use crate::refused::Refused;
use crate::time::Time;
use core::time::Duration;
use std::collections::BTreeSet;

/// Of a node that is to be deleted for long, while its provider has said nothing of it.
const NOT_TOLD: &str = "; its provider has not said yet that it is gone";

impl Pool {
    pub(super) fn give_back(&mut self, run: RunId) {
        self.requests.remove(&run);
        self.release(run, "its run is over");
    }

    /// Whatever a run has is deleted, or kept where somebody wants to look at it.
    pub(super) fn release(&mut self, run: RunId, reason: &str) {
        for id in self.nodes_of(run) {
            let held = self.nodes.get(&id).is_some_and(|e| e.row.hold.is_some());
            if held {
                self.set(id, NodeState::Held);
            } else {
                self.delete(id, reason);
            }
        }
    }

    pub(super) fn built(&mut self, id: NodeId, result: Result<String, String>) {
        let Some(entry) = self.in_state(id, NodeState::Building) else { return };
        match result {
            Ok(machine) => {
                entry.row.machine = machine;
                self.set(id, NodeState::Testing);
            }
            Err(reason) => self.failed_build(id, &reason),
        }
    }

    /// Its cloud has no room: nobody's fault, and there may be some soon.
    pub(super) fn no_room(&mut self, id: NodeId, reason: &str) {
        let Some(entry) = self.in_state(id, NodeState::Building) else { return };
        let (label, name) = (entry.row.label.clone(), entry.row.provider.clone());
        // First, for a node that goes makes room.
        self.delete(id, &format!("there is no room for it: {reason}"));
        let before = self.providers.get(&name).and_then(|p| p.full.get(&label));
        let times = before.map_or(0, |full| full.times).saturating_add(1);
        let until = self.now.after(self.pause(times));
        let Some(provider) = self.providers.get_mut(&name) else { return };
        provider.full.insert(label.clone(), Full { times, until, reason: shortened(reason) });
        if times == 1 {
            let told = format!("has no room for {label}: {}", shortened(reason));
            self.changes.news.push((name, told));
        }
    }

    pub(super) fn tested(&mut self, id: NodeId, result: Result<(), String>) {
        let now = self.now;
        let Some(entry) = self.in_state(id, NodeState::Testing) else { return };
        let proven = entry.proven;
        match result {
            Ok(()) => {
                entry.proven = true;
                entry.seen = now;
                self.set(id, NodeState::Ready);
                if !proven {
                    self.note_build_time(id);
                    self.well_again(id);
                }
            }
            Err(reason) if proven => self.lost(id, &reason),
            Err(reason) => self.failed_build(id, &reason),
        }
    }

    pub(super) fn handed(&mut self, id: NodeId, result: Result<(), String>) {
        let Some(entry) = self.nodes.get_mut(&id) else { return };
        let NodeState::Handing(run) = entry.row.state else { return };
        match result {
            Ok(()) => self.set(id, NodeState::InUse(run)),
            Err(reason) => {
                let (label, name) = (entry.row.label.clone(), entry.row.provider.clone());
                self.delete(id, &format!("it was not as ready as it said: {reason}"));
                self.bear(&name, &label, &reason);
                // What has befallen it may have befallen its neighbours: no run has to find that out one by one.
                let neighbour =
                    |e: &&Entry| e.row.state == NodeState::Ready && e.row.provider == name;
                let neighbours: Vec<NodeId> =
                    self.nodes.values().filter(neighbour).map(|e| e.row.id).collect();
                for id in neighbours {
                    self.set(id, NodeState::Testing);
                }
            }
        }
    }

    pub(super) fn lost(&mut self, id: NodeId, reason: &str) {
        let Some(entry) = self.nodes.get(&id) else { return };
        match entry.row.state {
            NodeState::Building => self.failed_build(id, reason),
            NodeState::Testing if !entry.proven => self.failed_build(id, reason),
            NodeState::Testing
            | NodeState::Ready
            | NodeState::Handing(_)
            | NodeState::InUse(_)
            | NodeState::Held => self.delete(id, &format!("lost: {reason}")),
            NodeState::Deleting => {}
        }
    }

    pub(super) fn deleted(&mut self, id: NodeId, result: Result<(), String>) {
        let pause = self.nodes.get(&id).map(|e| self.pause(e.failures + 1)).unwrap_or_default();
        let now = self.now;
        let Some(entry) = self.in_state(id, NodeState::Deleting) else { return };
        match result {
            Ok(()) => self.forget(id),
            Err(reason) => {
                entry.failures += 1;
                entry.not_before = now.after(pause);
                entry.row.reason = shortened(&format!("it cannot be deleted: {reason}"));
                self.changes.nodes.insert(id);
            }
        }
    }

    pub(super) fn listed(
        &mut self,
        name: &ProviderName,
        asked: Time,
        result: Result<BTreeSet<String>, String>,
    ) {
        let Some(provider) = self.providers.get_mut(name) else { return };
        let names = match result {
            Ok(names) => names,
            Err(reason) => {
                let reason = shortened(&reason);
                if provider.unreachable.replace(reason.clone()).is_none() {
                    self.changes.news.push((name.clone(), format!("cannot be reached: {reason}")));
                }
                return;
            }
        };
        if provider.unreachable.take().is_some() {
            self.changes.news.push((name.clone(), "can be reached again".to_owned()));
        }
        provider.listed = Some(asked);
        // Names that are taken, as after the loss of the database: no number is given twice.
        let numbers = names.iter().filter_map(|machine| number_of(machine, name));
        self.last_node = numbers.fold(self.last_node, u64::max);
        let mine = self.nodes.values().filter(|e| e.row.provider == *name);
        let known: BTreeSet<&str> = mine.clone().map(|e| e.row.name.as_str()).collect();
        provider.buried.retain(|_, at| *at >= asked);
        let alien = |name: &&String| {
            !known.contains(name.as_str()) && !provider.buried.contains_key(name.as_str())
        };
        let aliens: BTreeSet<String> = names.iter().filter(alien).cloned().collect();
        for name_of in aliens.difference(&provider.aliens) {
            let told = format!("has a machine {name_of} that no node is; it is deleted");
            self.changes.news.push((name.clone(), told));
        }
        provider.aliens = aliens;
        // One that came to be after the question was put may be missing from the answer.
        let missing: Vec<NodeId> = mine
            .filter(|e| !matches!(e.row.state, NodeState::Building | NodeState::Deleting))
            .filter(|e| e.row.since < asked && !names.contains(&e.row.name))
            .map(|e| e.row.id)
            .collect();
        for id in missing {
            self.lost(id, "its provider does not have it any more");
        }
    }

    pub(super) fn hold(
        &mut self,
        id: NodeId,
        length: Duration,
        reason: &str,
    ) -> Result<(), Refused> {
        self.check_hold(length)?;
        let until = self.now.after(length);
        let Some(entry) = self.nodes.get_mut(&id) else { return Err(no_such_node(id)) };
        let now_held = match entry.row.state {
            NodeState::Ready => true,
            NodeState::Held | NodeState::InUse(_) | NodeState::Handing(_) => false,
            NodeState::Building | NodeState::Testing | NodeState::Deleting => {
                let message = format!("node {id} is {}", entry.row.state.word());
                let hint = "only nodes that are ready, in use or held can be held";
                return Err(Refused::new("wrong_state", message, hint));
            }
        };
        entry.row.hold = Some(Hold { until, reason: shortened(reason) });
        self.changes.nodes.insert(id);
        if now_held {
            self.set(id, NodeState::Held);
        }
        Ok(())
    }

    pub(super) fn check_hold(&self, length: Duration) -> Result<(), Refused> {
        if length.is_zero() || length > self.policy.hold_max {
            let most = self.policy.hold_max.as_secs() / 3600;
            let message = format!("a hold of {} s", length.as_secs());
            return Err(Refused::new("bad_request", message, format!("use at most {most} h")));
        }
        Ok(())
    }

    pub(super) fn delete_by_hand(&mut self, id: NodeId) -> Result<(), Refused> {
        let Some(entry) = self.nodes.get(&id) else { return Err(no_such_node(id)) };
        match entry.row.state {
            NodeState::Handing(run) | NodeState::InUse(run) => Err(Refused::new(
                "in_use",
                format!("run {run} has node {id}"),
                "cancel the run: its node goes with it",
            )),
            NodeState::Building | NodeState::Testing | NodeState::Ready | NodeState::Held => {
                self.delete(id, "by hand");
                Ok(())
            }
            NodeState::Deleting => {
                // Try it at once.
                let now = self.now;
                if let Some(entry) = self.nodes.get_mut(&id) {
                    entry.not_before = now;
                }
                Ok(())
            }
        }
    }

    /// What time alone does.
    pub(super) fn pass_time(&mut self) {
        let now = self.now;
        let mut due: Vec<(NodeId, &'static str)> = Vec::new();
        let mut again: Vec<NodeId> = Vec::new();
        let mut overdue: Vec<NodeId> = Vec::new();
        for (id, entry) in &self.nodes {
            match entry.row.state {
                NodeState::Held if entry.row.hold.as_ref().is_none_or(|h| h.until <= now) => {
                    due.push((*id, "its hold is over"));
                }
                NodeState::InUse(_) if entry.reclaim.is_some_and(|until| until <= now) => {
                    due.push((*id, "its run did not go on after a restart"));
                }
                NodeState::Ready if now >= entry.seen.after(self.policy.recheck) => {
                    again.push(*id);
                }
                NodeState::Deleting if self.is_overdue(entry) && !entry.told_overdue => {
                    overdue.push(*id);
                }
                NodeState::Building
                | NodeState::Testing
                | NodeState::Ready
                | NodeState::Handing(_)
                | NodeState::InUse(_)
                | NodeState::Held
                | NodeState::Deleting => {}
            }
        }
        for (id, reason) in due {
            self.delete(id, reason);
        }
        for id in again {
            self.set(id, NodeState::Testing);
        }
        for id in overdue {
            self.tell_overdue(id);
        }
    }

    /// Whether a node should have been deleted long ago.
    pub(super) fn is_overdue(&self, entry: &Entry) -> bool {
        entry.row.state == NodeState::Deleting
            && entry.row.since.after(self.policy.delete_limit) <= self.now
    }

    fn tell_overdue(&mut self, id: NodeId) {
        let (limit, Some(entry)) = (self.policy.delete_limit, self.nodes.get_mut(&id)) else {
            return;
        };
        entry.told_overdue = true;
        if entry.failures == 0 && !entry.row.reason.ends_with(NOT_TOLD) {
            let why = cut(&entry.row.reason, TEXT_MAX_BYTES - NOT_TOLD.len());
            entry.row.reason = format!("{why}{NOT_TOLD}");
        }
        let (name, reason) = (&entry.row.name, &entry.row.reason);
        let told =
            format!("does not delete {name}, {} s after it was told to: {reason}", limit.as_secs());
        self.changes.news.push((entry.row.provider.clone(), told));
        self.changes.nodes.insert(id);
    }

    fn in_state(&mut self, id: NodeId, state: NodeState) -> Option<&mut Entry> {
        self.nodes.get_mut(&id).filter(|entry| entry.row.state == state)
    }

    fn failed_build(&mut self, id: NodeId, reason: &str) {
        let Some(entry) = self.nodes.get(&id) else { return };
        let (label, name) = (entry.row.label.clone(), entry.row.provider.clone());
        let failures = self.trouble(&name, &label).map_or(0, |t| t.failures) + 1;
        let until = self.now.after(self.pause(failures));
        if let Some(provider) = self.providers.get_mut(&name) {
            let trouble = Trouble { failures, until, reason: shortened(reason) };
            provider.row.troubles.insert(label.clone(), trouble);
            let told = format!("{failures} builds of {label} in a row failed: {reason}");
            self.provider_changed(&name, told);
        }
        self.delete(id, &format!("it was not built: {reason}"));
        self.bear(&name, &label, reason);
    }

    fn well_again(&mut self, id: NodeId) {
        let Some(entry) = self.nodes.get(&id) else { return };
        let (label, name) = (entry.row.label.clone(), entry.row.provider.clone());
        let provider: Option<&mut Provider> = self.providers.get_mut(&name);
        let mended = |p: &mut Provider| {
            p.full.remove(&label);
            p.row.troubles.remove(&label).is_some()
        };
        if provider.is_some_and(mended) {
            self.provider_changed(&name, format!("{label} can be built again"));
        }
    }

    pub(super) fn trouble(
        &self,
        provider: &ProviderName,
        label: &crate::id::Label,
    ) -> Option<&Trouble> {
        self.providers.get(provider)?.row.troubles.get(label)
    }
}

/// The number in the name of a node of a provider; none when it is no such name.
fn number_of(machine: &str, provider: &ProviderName) -> Option<u64> {
    let (place, number) = machine.rsplit_once('-')?;
    let is_ours = place.strip_suffix(provider.as_str())?.ends_with('-');
    let is_plain = number.bytes().all(|b| b.is_ascii_digit());
    number.parse().ok().filter(|number| is_ours && is_plain && *number <= NUMBER_MAX)
}

fn no_such_node(id: NodeId) -> Refused {
    Refused::new("no_such_node", format!("there is no node {id}"), "see `toci node list`")
}
