//! Looking into the book: why and how long a request waits, and what is wanted of a host.

use super::book::{Book, Wish, wish_of};
use super::fence::Task;
use super::model::{Demand, Lease, LeaseState, Te, TeState};
use super::pool::Pool;
use crate::id::{Generation, HostId, LeaseId, TeId};
use core::time::Duration;
use std::collections::BTreeMap;

/// Why a request waits and how long it may take. Worked out when somebody looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Place among the requests that compete for the same TEs; 1 is next.
    pub position: u32,
    /// For people.
    pub reason: String,
    /// From recent lease times; none when too few TEs are in reach to say.
    pub estimate: Option<Duration>,
}

/// What is wanted of one TE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredTe {
    /// The TE.
    pub id: TeId,
    /// The generation that this speaks of.
    pub generation: Generation,
    /// What to do.
    pub task: Task,
}

impl Book {
    /// All that is wanted of a host, one for each of its TEs.
    #[must_use]
    pub fn desired(&self, host: &HostId) -> Vec<DesiredTe> {
        self.tes_of(host)
            .filter_map(|te| {
                let task = match wish_of(te)? {
                    Wish::Serve(lease) => Task::Serve { lease, left: self.left(lease) },
                    Wish::Vacate => Task::Vacate,
                    Wish::BurnIn => Task::BurnIn,
                    Wish::Quarantine => Task::Quarantine,
                };
                Some(DesiredTe { id: te.id.clone(), generation: te.generation, task })
            })
            .collect()
    }

    fn left(&self, id: LeaseId) -> Duration {
        let Some(lease) = self.lease(id) else { return Duration::ZERO };
        match lease.state {
            LeaseState::Active { expires } | LeaseState::Held { expires } => {
                expires.since(self.now)
            }
            LeaseState::Waiting | LeaseState::Granted { .. } => lease.timeout,
            LeaseState::Over { .. } => Duration::ZERO,
        }
    }

    /// Why one request waits; none when it does not.
    #[must_use]
    pub fn waiting(&self, id: LeaseId) -> Option<Waiting> {
        let lease = self.lease(id).filter(|l| l.state == LeaseState::Waiting)?;
        let pool = self.index.pool(&lease.demand)?;
        let mut position = 1;
        for ((demand, _), queue) in &self.index.queues {
            let other = self.index.pool(demand);
            if *demand == lease.demand || other.is_some_and(|o| o.shares_with(pool)) {
                position += queue.waiting.range(..(lease.rank, id)).count();
            }
        }
        Some(self.explain(lease, pool, position, &self.frees(pool, &lease.demand)))
    }

    /// Why every waiting request waits, worked out in one pass for each kind of demand.
    #[must_use]
    pub fn all_waiting(&self) -> Vec<(LeaseId, Waiting)> {
        let mut out = Vec::with_capacity(self.index.waiting_count);
        let demands: BTreeMap<&Demand, &Pool> =
            self.index.queues.keys().filter_map(|(d, _)| Some((d, self.index.pool(d)?))).collect();
        for (demand, pool) in &demands {
            let mut order: Vec<(i64, LeaseId, bool)> = Vec::new();
            for ((other, _), queue) in &self.index.queues {
                let mine = other == *demand;
                if mine || demands.get(other).is_some_and(|o| o.shares_with(pool)) {
                    order.extend(queue.waiting.iter().map(|(rank, id)| (*rank, *id, mine)));
                }
            }
            order.sort_unstable();
            let frees = self.frees(pool, demand);
            for (before, (_, id, mine)) in order.into_iter().enumerate() {
                if let Some(lease) = self.lease(id).filter(|_| mine) {
                    out.push((id, self.explain(lease, pool, before + 1, &frees)));
                }
            }
        }
        out
    }

    /// When the TEs of a pool should come free, soonest first, and how long a lease lasts: as those of
    /// its kind did lately, otherwise as those do that do not say.
    fn frees(&self, pool: &Pool, demand: &Demand) -> (Vec<Duration>, Duration) {
        let mean = self.lengths.get(demand).copied().unwrap_or(self.policy.lease_default);
        let mut frees: Vec<Duration> = pool
            .members()
            .filter(|(_, usability)| *usability != super::pool::Use::OutOfReach)
            .filter_map(|(id, _)| self.te(id))
            .map(|te| self.free_in(te, mean))
            .collect();
        frees.sort_unstable();
        (frees, mean)
    }

    fn free_in(&self, te: &Te, mean: Duration) -> Duration {
        let lease = te.state.lease().and_then(|id| self.lease(id));
        match (&te.state, lease.map(|l| (l.state, l.active))) {
            (_, Some((LeaseState::Active { expires }, Some(active)))) => {
                let left = mean.saturating_sub(self.now.since(active));
                left.min(expires.since(self.now))
            }
            (_, Some((LeaseState::Held { expires }, _))) => expires.since(self.now),
            (_, Some(_)) => mean,
            (
                TeState::Ready
                | TeState::Unknown
                | TeState::Resetting
                | TeState::BurnIn
                | TeState::Quarantined
                | TeState::Gone
                | TeState::Granted(_)
                | TeState::Confirmed(_)
                | TeState::Leased(_)
                | TeState::Held(_),
                None,
            ) => Duration::ZERO,
        }
    }

    fn explain(
        &self,
        lease: &Lease,
        pool: &Pool,
        position: usize,
        (frees, mean): &(Vec<Duration>, Duration),
    ) -> Waiting {
        let (exist, reachable) = (pool.exist(), pool.reachable());
        let (free, count) = (pool.free_count(), lease.count as usize);
        let kind = &lease.demand;
        let reason = if exist < count {
            format!("only {exist} TEs of {kind} are left and {count} are asked for")
        } else if reachable < count {
            format!(
                "{} of {exist} TEs of {kind} are out of reach (host cut off, draining or quarantined)",
                exist - reachable
            )
        } else if free == 0 {
            format!("all {reachable} TEs of {kind} are in use or being reset")
        } else if free < count {
            format!("{free} TEs of {kind} are free and kept for it until {count} are")
        } else {
            format!("{free} TEs of {kind} are free, but an older request collects them")
        };
        let estimate = (frees.len() >= count.max(1)).then(|| {
            // The TEs come free one after another, then again after a mean lease each.
            let nth = position + count - 2;
            let rounds = u32::try_from(nth / frees.len()).unwrap_or(u32::MAX);
            frees[nth % frees.len()].saturating_add(mean.saturating_mul(rounds))
        });
        Waiting { position: u32::try_from(position).unwrap_or(u32::MAX), reason, estimate }
    }
}
