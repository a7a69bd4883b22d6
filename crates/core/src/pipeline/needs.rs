//! Changes that need each other: what has to enter before a change, and whether what an item needs is still there.

use super::gate::Gate;
use super::input::Subject;
use super::item::Item;
use super::matching;
use crate::event::{Change, ChangeKey, ChangeState};
use crate::id::ItemId;
use crate::layout::Manager;
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};

/// Changes that may enter together because one needs the other.
const CLOSURE_MAX: usize = 500;

/// Why something does not enter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Because {
    #[error("it is in already")]
    Already,
    #[error("its project has no jobs there")]
    NoJobs,
    #[error("only changes can be merged")]
    NotAChange,
    #[error("the ref was deleted")]
    RefDeleted,
    #[error("its source has not shown {0}")]
    Unknown(ChangeKey),
    #[error("it is merged already")]
    Merged,
    #[error("{0} cannot be merged: {1}")]
    NotMergeable(ChangeKey, String),
    #[error("{0} does not meet the pipeline's requirements: {1}")]
    Required(ChangeKey, String),
    #[error("it needs {0}, which is gated in another queue")]
    OtherQueue(ChangeKey),
    #[error("these changes need each other: {}", chain(.0))]
    Cycle(Vec<ChangeKey>),
    #[error("more than {CLOSURE_MAX} changes would have to enter with it")]
    TooMany,
}

impl Because {
    /// A stable word for programs.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Because::Already => "already_enqueued",
            Because::NoJobs => "no_jobs",
            Because::NotAChange => "not_a_change",
            Because::RefDeleted => "ref_deleted",
            Because::Unknown(_) => "unknown_change",
            Because::Merged => "already_merged",
            Because::NotMergeable(..) => "not_mergeable",
            Because::Required(..) => "requirements",
            Because::OtherQueue(_) => "other_queue",
            Because::Cycle(_) => "dependency_cycle",
            Because::TooMany => "too_many_needed",
        }
    }
}

fn chain(cycle: &[ChangeKey]) -> String {
    let first = cycle.first();
    let names: Vec<String> = cycle.iter().chain(first).map(ToString::to_string).collect();
    names.join(" needs ")
}

/// What became of the changes that an item needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// All are merged, or ahead and well.
    Met,
    /// This one is ahead and failing.
    Failing(ItemId),
    /// This one will not be merged before it.
    Broken(ChangeKey),
}

impl Gate {
    /// Everything that enters for this change, in order, itself included. Changes of a cycle are one group.
    pub(super) fn plan_entry(
        &self,
        lane: usize,
        key: &ChangeKey,
        forced: bool,
        now: Time,
    ) -> Result<Vec<Vec<ChangeKey>>, Because> {
        let pipeline = self.pipeline(lane);
        let mut search = Search::new(self, lane, key, forced, now);
        search.visit(key)?;
        let mut groups = search.groups;
        let cycle = groups.iter().find(|group| group.len() > 1);
        if let Some(cycle) = cycle.filter(|_| !pipeline.allow_cycles) {
            return Err(Because::Cycle(self.walk_cycle(cycle)));
        }
        match pipeline.manager {
            Manager::Dependent => {}
            // The change that is tested stands last, also in its cycle.
            Manager::Independent => {
                if let Some(last) = groups.last_mut() {
                    last.retain(|other| other != key);
                    last.push(key.clone());
                }
            }
        }
        Ok(groups)
    }

    /// A way round through these changes, each of which can be reached from each.
    fn walk_cycle(&self, among: &[ChangeKey]) -> Vec<ChangeKey> {
        let mut path: Vec<ChangeKey> = Vec::new();
        let mut at = among.first().cloned();
        while let Some(key) = at {
            if let Some(start) = path.iter().position(|known| *known == key) {
                return path.split_off(start);
            }
            let needs = self.views.get(&key).map(|c| c.needs.as_slice()).unwrap_or_default();
            at = needs.iter().find(|n| among.contains(n)).cloned();
            path.push(key);
        }
        path
    }

    /// Whether the change may enter; for a change that another one needs, whether it may go in before that.
    fn entry_of(&self, search: &Search<'_>, key: &ChangeKey) -> Result<Found, Because> {
        let Some(change) = self.views.get(key) else { return Err(Because::Unknown(key.clone())) };
        let lane = search.lane;
        let own = *key == search.root;
        match self.pipeline(lane).manager {
            Manager::Independent => self.entry_to_test(search, change, own),
            Manager::Dependent => self.entry_to_merge(search, change, own),
        }
    }

    fn entry_to_test(
        &self,
        search: &Search<'_>,
        change: &Change,
        own: bool,
    ) -> Result<Found, Because> {
        if !own {
            let there = change.state == ChangeState::Merged;
            return Ok(if there { Found::Satisfied } else { Found::Enters });
        }
        if self.lanes[search.lane].live.contains_key(&Subject::Change(change.key.clone())) {
            return Err(Because::Already);
        }
        if !self.takes_part(search.lane, &change.project) {
            return Err(Because::NoJobs);
        }
        self.required(search, change)?;
        Ok(Found::Enters)
    }

    fn entry_to_merge(
        &self,
        search: &Search<'_>,
        change: &Change,
        own: bool,
    ) -> Result<Found, Because> {
        let lane = &self.lanes[search.lane];
        let here = lane.by_project.get(&change.project);
        let root = self.views.get(&search.root).and_then(|c| lane.by_project.get(&c.project));
        let inside = lane.live.contains_key(&Subject::Change(change.key.clone()));
        if change.state == ChangeState::Merged {
            return if own { Err(Because::Merged) } else { Ok(Found::Satisfied) };
        }
        if own && inside {
            return Err(Because::Already);
        }
        if here.is_none() && own {
            return Err(Because::NoJobs);
        }
        if here != root {
            return Err(Because::OtherQueue(change.key.clone()));
        }
        if inside {
            return Ok(Found::Satisfied);
        }
        if let Some(why) = matching::unmergeable(self.pipeline(search.lane), change) {
            return Err(Because::NotMergeable(change.key.clone(), why));
        }
        self.required(search, change)?;
        Ok(Found::Enters)
    }

    fn required(&self, search: &Search<'_>, change: &Change) -> Result<(), Because> {
        if search.forced {
            return Ok(());
        }
        match matching::objection(self.pipeline(search.lane), change, search.now) {
            Some(why) => Err(Because::Required(change.key.clone(), why)),
            None => Ok(()),
        }
    }

    /// How it stands with the changes that an item in a queue needs.
    pub(super) fn needs_of(&self, lane: usize, item: &Item) -> Needs {
        let pipeline = self.pipeline(lane);
        let Some(change) = self.view(&item.subject) else { return Needs::Met };
        if pipeline.manager == Manager::Independent {
            // What it needs came in with it, or is not waited for.
            return Needs::Met;
        }
        let mut failing = None;
        for key in change.needs.iter().filter(|key| **key != change.key) {
            if self.views.get(key).is_some_and(|c| c.state == ChangeState::Merged) {
                continue;
            }
            let subject = Subject::Change(key.clone());
            let ahead = self.lanes[lane].live.get(&subject).and_then(|id| self.items.get(id));
            match ahead {
                Some(other) if item.bundle.is_some() && other.bundle == item.bundle => {}
                Some(other)
                    if other.order < item.order
                        && self.queue_of(lane, other) == self.queue_of(lane, item) =>
                {
                    if !other.failing.is_empty() {
                        failing.get_or_insert(other.id);
                    }
                }
                Some(_) | None => return Needs::Broken(key.clone()),
            }
        }
        failing.map_or(Needs::Met, Needs::Failing)
    }
}

enum Found {
    /// It goes in.
    Enters,
    /// It is merged, or ahead already.
    Satisfied,
}

/// Tarjan's search for strongly connected changes: it finds them with those that are needed first.
struct Search<'a> {
    gate: &'a Gate,
    lane: usize,
    forced: bool,
    now: Time,
    root: ChangeKey,
    index: BTreeMap<ChangeKey, usize>,
    low: BTreeMap<ChangeKey, usize>,
    stack: Vec<ChangeKey>,
    on_stack: BTreeSet<ChangeKey>,
    groups: Vec<Vec<ChangeKey>>,
}

impl<'a> Search<'a> {
    fn new(gate: &'a Gate, lane: usize, root: &ChangeKey, forced: bool, now: Time) -> Search<'a> {
        Search {
            gate,
            lane,
            forced,
            now,
            root: root.clone(),
            index: BTreeMap::new(),
            low: BTreeMap::new(),
            stack: Vec::new(),
            on_stack: BTreeSet::new(),
            groups: Vec::new(),
        }
    }

    /// The depth is at most [`CLOSURE_MAX`].
    fn visit(&mut self, key: &ChangeKey) -> Result<(), Because> {
        match self.gate.entry_of(self, key)? {
            Found::Satisfied => return Ok(()),
            Found::Enters => {}
        }
        let number = self.index.len();
        if number >= CLOSURE_MAX {
            return Err(Because::TooMany);
        }
        self.index.insert(key.clone(), number);
        self.low.insert(key.clone(), number);
        self.stack.push(key.clone());
        self.on_stack.insert(key.clone());
        for need in self.needs_to_enter(key) {
            let low = if let Some(known) = self.index.get(&need) {
                if !self.on_stack.contains(&need) {
                    continue;
                }
                *known
            } else {
                self.visit(&need)?;
                match self.low.get(&need) {
                    Some(low) => *low,
                    None => continue,
                }
            };
            let own = self.low.entry(key.clone()).or_insert(low);
            *own = low.min(*own);
        }
        if self.low.get(key) == Some(&number) {
            let at = self.stack.iter().position(|k| k == key).unwrap_or(0);
            let group = self.stack.split_off(at);
            for member in &group {
                self.on_stack.remove(member);
            }
            self.groups.push(group);
        }
        Ok(())
    }

    fn needs_to_enter(&self, key: &ChangeKey) -> Vec<ChangeKey> {
        if self.gate.pipeline(self.lane).ignore_dependencies
            && self.gate.pipeline(self.lane).manager == Manager::Independent
        {
            return Vec::new();
        }
        self.gate.views.get(key).map(|c| c.needs.clone()).unwrap_or_default()
    }
}
