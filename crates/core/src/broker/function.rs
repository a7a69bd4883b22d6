//! Functions: their names, queues, and who can do them.

use super::job::JobNo;
use super::vocabulary::{ConnId, Precedence};
use std::collections::{BTreeMap, HashMap};

/// A function's place in the table. Places of dropped functions are reused; nothing refers to a
/// function that can be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FunctionId(u32);

/// A function that was ever named by a worker, a client or `create function`.
#[derive(Default)]
pub(super) struct Function {
    pub(super) name: Box<[u8]>,
    /// Queued jobs by order of arrival, one queue a precedence.
    queues: [BTreeMap<u64, JobNo>; 3],
    /// Jobs whose calendar time has not come.
    pub(super) scheduled: u32,
    /// Jobs that a worker within the process has taken and not begun.
    pub(super) taken: u32,
    /// Jobs that a worker works on.
    pub(super) running: u32,
    /// Connections that registered it, those within the process included.
    pub(super) workers: u32,
    /// Connections within the process that registered it.
    pub(super) inside: Vec<ConnId>,
    /// Connections that registered it and sleep, or wait for a job.
    pub(super) sleepers: Vec<ConnId>,
    /// Workers woken for it that have not yet asked for a job.
    pub(super) woken: u32,
    /// Most jobs of this function when one of that precedence is submitted; `None` is no limit.
    pub(super) max_queue: [Option<u32>; 3],
}

impl Function {
    pub(super) fn queued(&self) -> usize {
        self.queues.iter().map(BTreeMap::len).sum()
    }

    pub(super) fn queued_at(&self, precedence: Precedence) -> usize {
        self.queues[precedence.index()].len()
    }

    /// Jobs in any state, as `status` counts them.
    pub(super) fn total(&self) -> usize {
        self.queued() + (self.scheduled + self.taken + self.running) as usize
    }

    /// The first job of a queue and its place in the order of arrival.
    pub(super) fn head(&self, precedence: Precedence) -> Option<(u64, JobNo)> {
        self.queues[precedence.index()].first_key_value().map(|(s, n)| (*s, *n))
    }

    pub(super) fn push(&mut self, precedence: Precedence, sequence: u64, job: JobNo) {
        let before = self.queues[precedence.index()].insert(sequence, job);
        debug_assert!(before.is_none(), "a place in the order is given once");
    }

    pub(super) fn remove(&mut self, precedence: Precedence, sequence: u64) {
        let job = self.queues[precedence.index()].remove(&sequence);
        debug_assert!(job.is_some(), "a queued job is in its queue");
    }

    pub(super) fn queued_jobs(&self) -> Vec<JobNo> {
        self.queues.iter().flat_map(|q| q.values().copied()).collect()
    }

    /// Whether more jobs wait than workers are on their way to fetch one.
    pub(super) fn wants_a_worker(&self) -> bool {
        self.queued() > self.woken as usize
    }

    fn is_idle(&self) -> bool {
        self.workers == 0 && self.total() == 0
    }

    fn is_forgettable(&self) -> bool {
        self.is_idle() && self.max_queue == [None; 3]
    }
}

/// All functions, by place and by name.
#[derive(Default)]
pub(super) struct Functions {
    slots: Vec<Function>,
    free: Vec<u32>,
    by_name: HashMap<Box<[u8]>, FunctionId>,
    /// Names refused since unused ones were last looked for.
    refused: usize,
}

/// While the table is full, unused names are looked for once in so many new names, so that a
/// flood of names does not become a flood of searches.
const REFUSALS_A_SEARCH: usize = 4096;

impl Functions {
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<FunctionId> {
        self.by_name.get(name).copied()
    }

    /// The function of that name, made when there is none; `None` when `limit` is reached and no
    /// function can be forgotten.
    pub(super) fn get_or_add(&mut self, name: &[u8], limit: usize) -> Option<FunctionId> {
        if let Some(id) = self.find(name) {
            return Some(id);
        }
        if self.len() >= limit {
            if self.refused.is_multiple_of(REFUSALS_A_SEARCH) {
                self.forget_unused();
            }
            if self.len() >= limit {
                self.refused += 1;
                return None;
            }
            self.refused = 0;
        }
        let function = Function { name: name.into(), ..Function::default() };
        let id = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = function;
                FunctionId(place)
            }
            None => {
                let place = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(function);
                FunctionId(place)
            }
        };
        self.by_name.insert(name.into(), id);
        Some(id)
    }

    fn forget_unused(&mut self) {
        let unused: Vec<FunctionId> =
            self.iter().filter(|(_, f)| f.is_forgettable()).map(|(id, _)| id).collect();
        for id in unused {
            self.remove(id);
        }
    }

    /// Forget a function that has neither workers nor jobs.
    pub(super) fn remove(&mut self, id: FunctionId) {
        debug_assert!(self[id].is_idle(), "only an idle function is removed");
        let function = std::mem::take(&mut self.slots[id.0 as usize]);
        self.by_name.remove(&function.name);
        self.free.push(id.0);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (FunctionId, &Function)> {
        self.by_name.values().map(|id| (*id, &self[*id]))
    }

    /// All functions, by name.
    pub(super) fn sorted(&self) -> Vec<&Function> {
        let mut all: Vec<&Function> = self.iter().map(|(_, f)| f).collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

impl std::ops::Index<FunctionId> for Functions {
    type Output = Function;
    fn index(&self, id: FunctionId) -> &Function {
        &self.slots[id.0 as usize]
    }
}

impl std::ops::IndexMut<FunctionId> for Functions {
    fn index_mut(&mut self, id: FunctionId) -> &mut Function {
        &mut self.slots[id.0 as usize]
    }
}
