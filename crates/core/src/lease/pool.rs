//! Indexes of the book: which TEs are free for which demand, and who waits for them.

use super::model::{Demand, Te};
use super::policy::IDLE_POOLS_MAX;
use crate::id::{LeaseId, TeId};
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};

/// Order in which free TEs are given out: those that offer least first (so that rare labels stay
/// free for those who ask for them), then the one that has been idle longest.
pub(super) type FreeKey = (usize, Time, TeId);

/// Whether a TE can be granted, now or some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    /// It exists, but its host is cut off, or it drains or is quarantined.
    OutOfReach,
    /// It is in use or being reset.
    Later,
    /// It is free now.
    Now,
}

#[derive(Clone, Debug)]
struct Slot {
    usability: Use,
    key: FreeKey,
}

/// All TEs that would do for one demand.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    slots: BTreeMap<TeId, Slot>,
    free: BTreeSet<FreeKey>,
    out_of_reach: usize,
}

impl Pool {
    fn remove(&mut self, id: &TeId) {
        if let Some(slot) = self.slots.remove(id) {
            match slot.usability {
                Use::OutOfReach => self.out_of_reach -= 1,
                Use::Later => {}
                Use::Now => {
                    self.free.remove(&slot.key);
                }
            }
        }
    }

    fn insert(&mut self, te: &Te, usability: Use) {
        let key = (te.labels.len(), te.since, te.id.clone());
        match usability {
            Use::OutOfReach => self.out_of_reach += 1,
            Use::Later => {}
            Use::Now => {
                self.free.insert(key.clone());
            }
        }
        self.slots.insert(te.id.clone(), Slot { usability, key });
    }

    /// TEs that exist.
    pub(super) fn exist(&self) -> usize {
        self.slots.len()
    }

    /// TEs that are free or will be.
    pub(super) fn reachable(&self) -> usize {
        self.slots.len() - self.out_of_reach
    }

    /// Free TEs, in the order in which they are given out.
    pub(super) fn free(&self) -> impl Iterator<Item = &TeId> {
        self.free.iter().map(|(_, _, id)| id)
    }

    /// How many are free.
    pub(super) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Every TE with its usability.
    pub(super) fn members(&self) -> impl Iterator<Item = (&TeId, Use)> {
        self.slots.iter().map(|(id, s)| (id, s.usability))
    }

    /// Whether some TE is in both.
    pub(super) fn shares_with(&self, other: &Pool) -> bool {
        self.slots.keys().any(|id| other.slots.contains_key(id))
    }
}

/// Requests for the same kind and number of TEs, which are served in order of rank.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// By rank, then number.
    pub(super) waiting: BTreeSet<(i64, LeaseId)>,
    /// Since when fewer TEs exist than are asked for.
    pub(super) short_since: Option<Time>,
}

/// What a queue is for.
pub(super) type QueueKey = (Demand, u32);

/// Pools and queues by demand.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    pools: BTreeMap<Demand, Pool>,
    pub(super) queues: BTreeMap<QueueKey, Queue>,
    pub(super) waiting_count: usize,
}

impl Index {
    /// The pool of a demand, made from `tes` when it is the first of its kind.
    pub(super) fn pool_of<'a>(
        &mut self,
        demand: &Demand,
        tes: impl Iterator<Item = (&'a Te, Use)>,
    ) -> &Pool {
        if !self.pools.contains_key(demand) {
            self.drop_idle_pools();
            let mut pool = Pool::default();
            for (te, usability) in tes.filter(|(te, _)| demand.fits(te)) {
                pool.insert(te, usability);
            }
            self.pools.insert(demand.clone(), pool);
        }
        self.pools.entry(demand.clone()).or_default()
    }

    /// The pool of a demand that somebody waits for.
    pub(super) fn pool(&self, demand: &Demand) -> Option<&Pool> {
        self.pools.get(demand)
    }

    fn drop_idle_pools(&mut self) {
        if self.pools.len() >= IDLE_POOLS_MAX {
            let queues = &self.queues;
            self.pools.retain(|d, _| queues.keys().any(|(q, _)| q == d));
        }
    }

    /// Takes note of a TE that changed; `None` means that it is no more.
    pub(super) fn set(&mut self, te: &Te, usability: Option<Use>) {
        for (demand, pool) in &mut self.pools {
            pool.remove(&te.id);
            if let Some(usability) = usability
                && demand.fits(te)
            {
                pool.insert(te, usability);
            }
        }
    }

    /// Puts a request in its place.
    pub(super) fn enqueue(&mut self, key: QueueKey, rank: i64, id: LeaseId) {
        if self.queues.entry(key).or_default().waiting.insert((rank, id)) {
            self.waiting_count += 1;
        }
    }

    /// Takes a request out.
    pub(super) fn dequeue(&mut self, key: &QueueKey, rank: i64, id: LeaseId) {
        if let Some(queue) = self.queues.get_mut(key) {
            if queue.waiting.remove(&(rank, id)) {
                self.waiting_count -= 1;
            }
            if queue.waiting.is_empty() {
                self.queues.remove(key);
            }
        }
    }
}
