//! Who is next: grants in order of rank, all TEs of a request or none.

use super::book::Book;
use super::model::{LeaseState, TeState};
use super::pool::QueueKey;
use crate::id::{LeaseId, TeId};
use std::collections::BTreeSet;

impl Book {
    /// Grants all that can be granted. Looks only at queues that have a free TE, and at each of
    /// them until its head is blocked, so the work is that of the grants made.
    pub(super) fn grant_all(&mut self) {
        if !core::mem::take(&mut self.stale) {
            return;
        }
        let mut heads: BTreeSet<(i64, LeaseId, QueueKey)> = BTreeSet::new();
        for (key, queue) in &self.index.queues {
            let some_free = self.index.pool(&key.0).is_some_and(|p| p.free_count() > 0);
            if let Some((rank, id)) = queue.waiting.first()
                && some_free
            {
                heads.insert((*rank, *id, key.clone()));
            }
        }
        // Free TEs that an older request of several TEs is collecting.
        let mut reserved: BTreeSet<TeId> = BTreeSet::new();
        while let Some((_, id, key)) = heads.pop_first() {
            let Some(pool) = self.index.pool(&key.0) else { continue };
            let count = key.1 as usize;
            let chosen: Vec<TeId> =
                pool.free().filter(|te| !reserved.contains(*te)).take(count).cloned().collect();
            if chosen.len() == count {
                self.grant(id, chosen);
                let next = self.index.queues.get(&key).and_then(|q| q.waiting.first().copied());
                if let Some((rank, id)) = next {
                    heads.insert((rank, id, key));
                }
            } else if pool.reachable() >= count {
                // It will be served when enough of its TEs come back: younger requests must not
                // take them away one by one. Those of the same queue are blocked with it.
                reserved.extend(pool.free().cloned());
            }
        }
    }

    fn grant(&mut self, id: LeaseId, chosen: Vec<TeId>) {
        let Some(entry) = self.leases.get_mut(&id) else { return };
        let row = &mut entry.row;
        let (key, rank) = ((row.demand.clone(), row.count), row.rank);
        row.state = LeaseState::Granted { since: self.now };
        row.tes.clear();
        let project = row.project.clone();
        self.leave_queue(&key, rank, id, &project);
        let mut tes = Vec::with_capacity(chosen.len());
        for te_id in chosen {
            self.update_te(&te_id, |te| {
                te.generation = te.generation.next();
                te.state = TeState::Granted(id);
            });
            if let Some(te) = self.tes.get(&te_id) {
                tes.push((te_id, te.generation));
            }
        }
        if let Some(entry) = self.leases.get_mut(&id) {
            entry.row.tes = tes;
        }
        self.arm_lease(id);
        self.touch_lease(id);
    }

    /// Takes a request out of its queue.
    pub(super) fn leave_queue(
        &mut self,
        key: &QueueKey,
        rank: i64,
        id: LeaseId,
        project: &crate::id::Project,
    ) {
        self.index.dequeue(key, rank, id);
        if let Some(n) = self.waiting_of.get_mut(project) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.waiting_of.remove(project);
            }
        }
        // Who waits behind a request that left may be next.
        self.stale = true;
    }

    /// Takes a grant back that was not confirmed in time: the request returns to its old place.
    pub(super) fn take_back(&mut self, id: LeaseId) {
        let Some(entry) = self.leases.get_mut(&id) else { return };
        let row = &mut entry.row;
        row.state = LeaseState::Waiting;
        let tes = core::mem::take(&mut row.tes);
        let (key, rank) = ((row.demand.clone(), row.count), row.rank);
        *self.waiting_of.entry(row.project.clone()).or_default() += 1;
        for (te_id, _) in tes {
            let silent = self.tes.get(&te_id).is_some_and(|te| {
                matches!(te.state, TeState::Granted(_)) && self.is_connected(&te.host)
            });
            self.update_te(&te_id, |te| te.state = TeState::Resetting);
            if silent {
                self.strike(&te_id, "its host did not confirm a grant in time", false);
            }
        }
        self.enqueue(key, rank, id);
        self.arm_lease(id);
        self.touch_lease(id);
    }
}
