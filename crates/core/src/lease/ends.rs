//! How leases last and end: heartbeats, extension, hold, and the one way out (`end`).

use super::book::{Answer, Book, Timer};
use super::model::{End, HoldBudget, Lease, LeaseState, TeState};
use super::policy::{TEXT_MAX_BYTES, TICK_TIMERS_MAX};
use crate::id::{LeaseId, Project, TeId};
use crate::refused::Refused;
use crate::time::Time;
use core::time::Duration;

impl Book {
    pub(super) fn live(&self, id: LeaseId) -> Result<&Lease, Refused> {
        let lease = self.lease(id).ok_or_else(|| Book::no_such_lease(id))?;
        if lease.state.is_over() { Err(Book::over(lease)) } else { Ok(lease) }
    }

    pub(super) fn heartbeat(&mut self, id: LeaseId) -> Result<Answer, Refused> {
        self.live(id)?;
        let now = self.now;
        if let Some(entry) = self.leases.get_mut(&id) {
            let first = entry.heard.replace(now).is_none();
            if first {
                self.arm_lease(id);
            }
        }
        Ok(Answer::Lease(id))
    }

    pub(super) fn extend(&mut self, id: LeaseId, length: Duration) -> Result<Answer, Refused> {
        let lease = self.live(id)?;
        let (expires, active) = match (lease.state, lease.active) {
            (LeaseState::Active { expires }, Some(active)) => (expires, active),
            (
                LeaseState::Active { .. }
                | LeaseState::Waiting
                | LeaseState::Granted { .. }
                | LeaseState::Held { .. }
                | LeaseState::Over { .. },
                _,
            ) => {
                return Err(Refused::new(
                    "not_active",
                    format!("lease {id} is {}, so it cannot be extended", lease.state.word()),
                    "a waiting request is extended once it is active; a held one by `hold`",
                ));
            }
        };
        let limit = active.after(self.policy.lease_max);
        let wanted = self.now.after(length).min(limit);
        if wanted <= expires {
            if expires >= limit && self.now.after(length) > expires {
                let most = self.policy.lease_max.as_secs();
                return Err(Refused::new(
                    "at_maximum",
                    format!("lease {id} already lasts for the maximum of {most} s"),
                    "release it and ask again, or `hold` it for debugging",
                ));
            }
            return Ok(Answer::Lease(id));
        }
        self.set_state(id, LeaseState::Active { expires: wanted });
        self.wish_for(id);
        Ok(Answer::Lease(id))
    }

    pub(super) fn release(&mut self, id: LeaseId, reason: &str) -> Result<Answer, Refused> {
        let lease = self.lease(id).ok_or_else(|| Book::no_such_lease(id))?;
        match lease.state {
            LeaseState::Waiting => self.end(id, End::Refused, or(reason, "withdrawn")),
            LeaseState::Granted { .. } | LeaseState::Active { .. } | LeaseState::Held { .. } => {
                self.end(id, End::Released, reason);
            }
            // Asked for twice: it is given back already.
            LeaseState::Over { .. } => {}
        }
        Ok(Answer::Lease(id))
    }

    pub(super) fn revoke(&mut self, id: LeaseId, reason: &str) -> Result<Answer, Refused> {
        let lease = self.live(id)?;
        let end = match lease.state {
            LeaseState::Waiting => End::Refused,
            LeaseState::Granted { .. }
            | LeaseState::Active { .. }
            | LeaseState::Held { .. }
            | LeaseState::Over { .. } => End::Revoked,
        };
        self.end(id, end, or(reason, "revoked by an operator"));
        Ok(Answer::Lease(id))
    }

    pub(super) fn hold(
        &mut self,
        id: LeaseId,
        length: Duration,
        reason: &str,
    ) -> Result<Answer, Refused> {
        let lease = self.live(id)?;
        let unused = match lease.state {
            LeaseState::Active { .. } => Duration::ZERO,
            LeaseState::Held { expires } => expires.since(self.now) * lease.count,
            LeaseState::Waiting | LeaseState::Granted { .. } | LeaseState::Over { .. } => {
                return Err(Refused::new(
                    "not_active",
                    format!("lease {id} is {}, so it cannot be held", lease.state.word()),
                    "hold a lease that is active",
                ));
            }
        };
        if length > self.policy.hold_max || length.is_zero() {
            return Err(Refused::new(
                "bad_request",
                format!("a hold of {} s", length.as_secs()),
                format!("ask for 1 to {} s", self.policy.hold_max.as_secs()),
            ));
        }
        let (project, cost) = (lease.project.clone(), length * lease.count);
        let used = self.hold_used(&project).saturating_sub(unused);
        if used + cost > self.policy.hold_budget {
            let left = self.policy.hold_budget.saturating_sub(used).as_secs();
            return Err(Refused::new(
                "hold_budget",
                format!("project {project} has {left} s of its hold budget left"),
                "release a held lease, or ask for a shorter hold",
            ));
        }
        self.set_hold_used(&project, used + cost);
        if let Some(entry) = self.leases.get_mut(&id) {
            entry.row.reason = clip(reason);
        }
        self.set_state(id, LeaseState::Held { expires: self.now.after(length) });
        self.each_te(id, |state| *state = TeState::Held(id));
        self.wish_for(id);
        Ok(Answer::Lease(id))
    }

    /// What a project has used of its budget by now; it comes back evenly.
    fn hold_used(&self, project: &Project) -> Duration {
        let Some(budget) = self.budgets.get(project) else { return Duration::ZERO };
        let elapsed = self.now.since(budget.at).as_secs_f64();
        let rate = self.policy.hold_budget.as_secs_f64() / self.policy.hold_refill.as_secs_f64();
        budget.used.saturating_sub(Duration::from_secs_f64(elapsed * rate))
    }

    fn set_hold_used(&mut self, project: &Project, used: Duration) {
        let budget = HoldBudget { project: project.clone(), used, at: self.now };
        self.budgets.insert(project.clone(), budget);
        self.changes.budgets.insert(project.clone());
    }

    /// The one way out: whatever the lease had is vacated, for whatever reason.
    pub(super) fn end(&mut self, id: LeaseId, end: End, reason: &str) {
        let Some(entry) = self.leases.get_mut(&id) else { return };
        let now = self.now;
        let before = entry.row.state;
        if before.is_over() {
            return;
        }
        entry.row.state = LeaseState::Over { end, at: now };
        entry.row.reason = clip(reason);
        let row = entry.row.clone();
        match before {
            LeaseState::Waiting => {
                let key = (row.demand.clone(), row.count);
                self.leave_queue(&key, row.rank, id, &row.project);
            }
            LeaseState::Granted { .. } => self.vacate(&row),
            LeaseState::Active { .. } => {
                self.learn_length(&row, now);
                self.vacate(&row);
            }
            LeaseState::Held { expires } => {
                let unused = expires.since(now) * row.count;
                let used = self.hold_used(&row.project).saturating_sub(unused);
                self.set_hold_used(&row.project, used);
                self.vacate(&row);
            }
            LeaseState::Over { .. } => {}
        }
        self.touch_lease(id);
        self.ended.push_back(id);
        self.forget_old();
    }

    /// Vacate: the TEs are to be cut off and reset; they return by their host's word only.
    fn vacate(&mut self, row: &Lease) {
        for (te_id, generation) in &row.tes {
            let worked = row.active.is_some();
            self.update_te(te_id, |te| {
                if te.state.lease() == Some(row.id) && te.generation == *generation {
                    te.state = TeState::Resetting;
                    if worked {
                        te.strikes = 0;
                    }
                }
            });
        }
    }

    pub(super) fn set_state(&mut self, id: LeaseId, state: LeaseState) {
        if let Some(entry) = self.leases.get_mut(&id) {
            entry.row.state = state;
        }
        self.arm_lease(id);
        self.touch_lease(id);
    }

    pub(super) fn each_te(&mut self, id: LeaseId, mut change: impl FnMut(&mut TeState)) {
        let tes: Vec<TeId> =
            self.lease(id).into_iter().flat_map(|l| &l.tes).map(|(te, _)| te.clone()).collect();
        for te in tes {
            self.update_te(&te, |te| change(&mut te.state));
        }
    }

    /// The hosts of a lease must hear of its new limit.
    fn wish_for(&mut self, id: LeaseId) {
        let Some(entry) = self.leases.get(&id) else { return };
        for (te, _) in &entry.row.tes {
            if let Some(te) = self.tes.get(te) {
                self.changes.wishes.insert(te.host.clone());
            }
        }
    }

    /// When something is due for a lease, with what is done then.
    fn lease_due(&self, id: LeaseId) -> Option<(Time, Due)> {
        let entry = self.leases.get(&id)?;
        let lost = entry.heard.map(|h| (h.after(self.policy.lost_after), Due::Lost));
        match entry.row.state {
            LeaseState::Waiting => {
                let limit = entry.row.wait_until.map(|t| (t, Due::WaitedLongEnough));
                [lost, limit].into_iter().flatten().min()
            }
            LeaseState::Granted { since } => {
                Some((since.after(self.policy.grant_ack_limit), Due::NotConfirmed))
            }
            LeaseState::Active { expires } => {
                [lost, Some((expires, Due::Expired))].into_iter().flatten().min()
            }
            LeaseState::Held { expires } => Some((expires, Due::Expired)),
            LeaseState::Over { .. } => None,
        }
    }

    /// Sets the timer of a lease if none is set that is early enough.
    pub(super) fn arm_lease(&mut self, id: LeaseId) {
        let Some((due, _)) = self.lease_due(id) else { return };
        if let Some(entry) = self.leases.get_mut(&id)
            && entry.armed.is_none_or(|at| at > due)
        {
            entry.armed = Some(due);
            self.timers.insert((due, Timer::Lease(id)));
        }
    }

    /// Does all that is due.
    pub(super) fn tick(&mut self) {
        for _ in 0..TICK_TIMERS_MAX {
            match self.timers.first() {
                Some((at, _)) if *at <= self.now => {}
                Some(_) | None => break,
            }
            match self.timers.pop_first() {
                Some((_, Timer::Lease(id))) => self.lease_timer(id),
                Some((_, Timer::Te(te))) => self.te_timer(&te),
                None => break,
            }
        }
        self.refuse_impossible();
    }

    fn lease_timer(&mut self, id: LeaseId) {
        if let Some(entry) = self.leases.get_mut(&id) {
            entry.armed = None;
        }
        match self.lease_due(id) {
            Some((at, due)) if at <= self.now => match due {
                Due::Expired => self.end(id, End::Expired, "its time was over"),
                Due::NotConfirmed => self.take_back(id),
                Due::WaitedLongEnough => {
                    self.end(id, End::Refused, "it waited for as long as it was told to");
                }
                Due::Lost => {
                    let waiting =
                        self.lease(id).is_some_and(|l| matches!(l.state, LeaseState::Waiting));
                    let silence = self.policy.lost_after.as_secs();
                    let reason = format!("no heartbeat from its holder for {silence} s");
                    self.end(id, if waiting { End::Refused } else { End::Lost }, &reason);
                }
            },
            Some(_) => self.arm_lease(id),
            None => {}
        }
    }

    /// Requests that no longer can be granted are told so, after a grace in which a host may
    /// come back with its TEs.
    fn refuse_impossible(&mut self) {
        let (now, grace) = (self.now, self.policy.impossible_grace);
        let mut hopeless: Vec<LeaseId> = Vec::new();
        let exist: Vec<usize> = self
            .index
            .queues
            .keys()
            .map(|(demand, _)| self.index.pool(demand).map_or(0, super::pool::Pool::exist))
            .collect();
        for (((_, count), queue), exist) in self.index.queues.iter_mut().zip(exist) {
            if exist >= *count as usize {
                queue.short_since = None;
            } else if now.since(*queue.short_since.get_or_insert(now)) >= grace {
                hopeless.extend(queue.waiting.iter().map(|(_, id)| *id));
            }
        }
        for id in hopeless {
            self.end(id, End::Refused, "there are no longer enough test environments of its kind");
        }
    }
}

/// Why a timer of a lease went off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Expired,
    NotConfirmed,
    WaitedLongEnough,
    Lost,
}

fn or<'a>(given: &'a str, default: &'a str) -> &'a str {
    if given.is_empty() { default } else { given }
}

/// Text from people and hosts, cut to what is kept.
pub(super) fn clip(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
