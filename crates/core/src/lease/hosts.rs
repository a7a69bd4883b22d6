//! What hosts say, and what is done to TEs and hosts by hand.

use super::book::{Answer, Book, HostEntry, Timer};
use super::ends::clip;
use super::model::{End, Host, LeaseState, Te, TeState};
use super::policy::{HOST_TES_MAX, TE_LABELS_MAX};
use crate::id::{Generation, HostId, Label, LeaseId, ShapeName, TeId};
use crate::refused::Refused;
use std::collections::BTreeSet;

/// A TE as its host tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedTe {
    /// The TE.
    pub id: TeId,
    /// Its number on the host.
    pub number: u32,
    /// Its shape.
    pub shape: ShapeName,
    /// What it offers.
    pub labels: Vec<Label>,
    /// Newest generation that the host has seen.
    pub generation: Generation,
    /// Where it stands.
    pub state: ReportedState,
}

/// Where a TE stands on its host (wire `TeReportState`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportedState {
    /// Being built or reset.
    Resetting,
    /// Blank and nobody's.
    Clean,
    /// Open for the generation.
    Serving,
    /// Something is wrong, for people.
    Broken(String),
}

impl Book {
    pub(super) fn add_host(&mut self, id: &HostId) -> Result<Answer, Refused> {
        if !self.hosts.contains_key(id) {
            let row = Host { id: id.clone(), draining: false, enrolled: self.now };
            let entry = HostEntry { row, connected: None, tes: BTreeSet::new() };
            self.hosts.insert(id.clone(), entry);
            self.touch_host(id);
        }
        Ok(Answer::Host(id.clone()))
    }

    pub(super) fn remove_host(&mut self, id: &HostId) -> Result<Answer, Refused> {
        let host = self.hosts.get(id).ok_or_else(|| Book::no_such_host(id))?;
        let leased = host.tes.iter().filter_map(|t| self.tes.get(t)?.state.lease()).next();
        if let Some(lease) = leased {
            return Err(Refused::new(
                "host_in_use",
                format!("host {id} has lease {lease}"),
                format!("drain the host and wait, or revoke {lease}"),
            ));
        }
        for te in host.tes.clone() {
            if let Some(te) = self.tes.remove(&te) {
                self.index.set(&te, None);
            }
        }
        self.hosts.remove(id);
        self.changes.removed_hosts.insert(id.clone());
        self.changes.durable = true;
        Ok(Answer::Done)
    }

    fn touch_host(&mut self, id: &HostId) {
        self.changes.hosts.insert(id.clone());
        self.changes.host_rows.insert(id.clone());
        self.changes.durable = true;
    }

    pub(super) fn drain_host(&mut self, id: &HostId, drain: bool) -> Result<Answer, Refused> {
        let host = self.hosts.get_mut(id).ok_or_else(|| Book::no_such_host(id))?;
        if host.row.draining != drain {
            host.row.draining = drain;
            self.touch_host(id);
            self.reindex_host(id);
        }
        Ok(Answer::Host(id.clone()))
    }

    pub(super) fn host_link(&mut self, id: &HostId, up: bool) -> Result<Answer, Refused> {
        let host = self.hosts.get(id).ok_or_else(|| Book::no_such_host(id))?;
        if host.connected.is_some() != up {
            self.set_connected(id, up);
        }
        Ok(Answer::Host(id.clone()))
    }

    pub(super) fn set_connected(&mut self, id: &HostId, up: bool) {
        let Some(host) = self.hosts.get_mut(id) else { return };
        host.connected = up.then_some(self.now);
        self.changes.hosts.insert(id.clone());
        self.reindex_host(id);
    }

    fn reindex_host(&mut self, id: &HostId) {
        let Some(host) = self.hosts.get(id) else { return };
        for te_id in host.tes.clone() {
            self.changes.tes.insert(te_id.clone());
            if let Some(te) = self.tes.remove(&te_id) {
                self.reindex(&te);
                self.tes.insert(te_id.clone(), te);
            }
            self.arm_te(&te_id);
        }
    }

    pub(super) fn drain_te(&mut self, id: &TeId, drain: bool) -> Result<Answer, Refused> {
        let te = self.known_te(id)?;
        let burn_in = !drain && te.state == TeState::Quarantined;
        self.update_te(id, |te| {
            te.draining = drain;
            if burn_in {
                // A new generation, so that an older `Clean` is not taken for its result.
                te.generation = te.generation.next();
                te.state = TeState::BurnIn;
                te.reason.clear();
            }
        });
        Ok(Answer::Te(id.clone()))
    }

    fn known_te(&self, id: &TeId) -> Result<&Te, Refused> {
        let te = self.tes.get(id).filter(|te| te.state != TeState::Gone);
        te.ok_or_else(|| Book::no_such_te(id))
    }

    fn in_use(te: &Te, lease: LeaseId) -> Refused {
        Refused::new(
            "testenv_in_use",
            format!("{} has lease {lease}", te.id),
            format!("wait for its end, or take it away: `toci lease revoke {lease} --reason WHY`"),
        )
    }

    pub(super) fn quarantine_by_hand(
        &mut self,
        id: &TeId,
        reason: &str,
    ) -> Result<Answer, Refused> {
        let te = self.known_te(id)?;
        if let Some(lease) = te.state.lease() {
            return Err(Book::in_use(te, lease));
        }
        let reason = if reason.is_empty() { "taken out by an operator" } else { reason };
        self.quarantine(id, reason);
        Ok(Answer::Te(id.clone()))
    }

    pub(super) fn quarantine(&mut self, id: &TeId, reason: &str) {
        self.update_te(id, |te| {
            te.state = TeState::Quarantined;
            te.strikes = 0;
            te.reason = clip(reason);
        });
    }

    pub(super) fn reset_by_hand(&mut self, id: &TeId) -> Result<Answer, Refused> {
        let te = self.known_te(id)?;
        match &te.state {
            TeState::Granted(l) | TeState::Confirmed(l) | TeState::Leased(l) | TeState::Held(l) => {
                return Err(Book::in_use(te, *l));
            }
            TeState::Quarantined => {
                return Err(Refused::new(
                    "quarantined",
                    format!("{id} is quarantined: {}", te.reason),
                    format!("`toci te undrain {id}` returns it by a burn-in"),
                ));
            }
            TeState::Unknown | TeState::Ready | TeState::Resetting | TeState::BurnIn => {
                self.reset_again(id);
            }
            TeState::Gone => return Err(Book::no_such_te(id)),
        }
        Ok(Answer::Te(id.clone()))
    }

    /// A reset that must not be confused with the one before: under a new generation.
    fn reset_again(&mut self, id: &TeId) {
        self.update_te(id, |te| {
            te.generation = te.generation.next();
            if te.state != TeState::BurnIn {
                te.state = TeState::Resetting;
            }
        });
    }

    /// A failure of a TE that nobody has: try once more, or take it out.
    pub(super) fn strike(&mut self, id: &TeId, reason: &str, reset_again: bool) {
        self.update_te(id, |te| te.strikes += 1);
        let Some(te) = self.tes.get(id) else { return };
        if te.strikes >= self.policy.strikes_max || te.state == TeState::BurnIn {
            self.quarantine(id, reason);
        } else if reset_again {
            self.reset_again(id);
        }
    }

    /// Sets the limit of a reset; it only counts while the host is connected. A timer that is set
    /// already is early enough, for the limit only ever moves away.
    pub(super) fn arm_te(&mut self, id: &TeId) {
        if let Some(due) = self.te_due(id)
            && self.te_armed.insert(id.clone())
        {
            self.timers.insert((due, Timer::Te(id.clone())));
        }
    }

    fn te_due(&self, id: &TeId) -> Option<crate::time::Time> {
        let te = self.tes.get(id)?;
        let connected = self.hosts.get(&te.host)?.connected?;
        match te.state {
            TeState::Resetting | TeState::BurnIn => {
                Some(te.since.max(connected).after(self.policy.reset_limit))
            }
            TeState::Unknown
            | TeState::Ready
            | TeState::Granted(_)
            | TeState::Confirmed(_)
            | TeState::Leased(_)
            | TeState::Held(_)
            | TeState::Quarantined
            | TeState::Gone => None,
        }
    }

    pub(super) fn te_timer(&mut self, id: &TeId) {
        self.te_armed.remove(id);
        match self.te_due(id) {
            Some(due) if due <= self.now => {
                let limit = self.policy.reset_limit.as_secs();
                self.quarantine(id, &format!("its reset did not finish in {limit} s"));
            }
            Some(_) => self.arm_te(id),
            None => {}
        }
    }

    pub(super) fn host_serving(
        &mut self,
        host: &HostId,
        id: &TeId,
        generation: Generation,
    ) -> Result<Answer, Refused> {
        let te = self.tes.get(id).filter(|te| te.host == *host);
        let te = te.ok_or_else(|| Book::no_such_te(id))?;
        let lease = match te.state.lease() {
            Some(lease) if te.generation == generation => lease,
            Some(_) | None => {
                return Err(Refused::new(
                    "stale_generation",
                    format!("{id} is at generation {} and not {generation}", te.generation),
                    "cut it off; the wish on the stream says what to do",
                ));
            }
        };
        if te.state == TeState::Granted(lease) {
            self.update_te(id, |te| te.state = TeState::Confirmed(lease));
        }
        self.activate_if_complete(lease);
        // The credentials must be on disk before the host is told that they are.
        self.changes.durable = true;
        Ok(Answer::Lease(lease))
    }

    fn activate_if_complete(&mut self, id: LeaseId) {
        let now = self.now;
        let Some(entry) = self.leases.get(&id) else { return };
        let all =
            entry.row.tes.iter().all(|(te, _)| {
                self.tes.get(te).is_some_and(|te| te.state == TeState::Confirmed(id))
            });
        if !all || !matches!(entry.row.state, LeaseState::Granted { .. }) {
            return;
        }
        let expires = now.after(entry.row.timeout);
        if let Some(entry) = self.leases.get_mut(&id) {
            entry.row.active = Some(now);
            entry.heard = Some(now);
        }
        self.set_state(id, LeaseState::Active { expires });
        self.each_te(id, |state| *state = TeState::Leased(id));
    }

    pub(super) fn host_report(
        &mut self,
        host: &HostId,
        reported: Vec<ReportedTe>,
    ) -> Result<Answer, Refused> {
        let entry = self.hosts.get(host).ok_or_else(|| Book::no_such_host(host))?;
        let bad = |message: String| Err(Refused::new("bad_report", message, ""));
        if reported.len() > HOST_TES_MAX {
            return bad(format!("more than {HOST_TES_MAX} test environments on one host"));
        }
        for te in &reported {
            if te.labels.len() > TE_LABELS_MAX {
                return bad(format!("{} has more than {TE_LABELS_MAX} labels", te.id));
            }
            if self.tes.get(&te.id).is_some_and(|known| known.host != *host) {
                return bad(format!("{} is another host's", te.id));
            }
        }
        let here: BTreeSet<&TeId> = reported.iter().map(|te| &te.id).collect();
        let missing: Vec<TeId> = entry.tes.iter().filter(|t| !here.contains(t)).cloned().collect();
        for id in missing {
            self.te_is_gone(&id);
        }
        for te in reported {
            self.te_report(host, te);
        }
        Ok(Answer::Host(host.clone()))
    }

    fn te_is_gone(&mut self, id: &TeId) {
        let Some(te) = self.tes.get(id) else { return };
        if let Some(lease) = te.state.lease() {
            self.end(lease, End::Revoked, &format!("{id} is gone from its host"));
        }
        self.update_te(id, |te| te.state = TeState::Gone);
    }

    fn te_report(&mut self, host: &HostId, mut report: ReportedTe) {
        report.labels.sort();
        report.labels.dedup();
        let id = report.id.clone();
        if !self.tes.contains_key(&id) {
            let te = Te {
                id: id.clone(),
                host: host.clone(),
                number: report.number,
                shape: report.shape.clone(),
                labels: report.labels.clone(),
                generation: report.generation,
                state: TeState::Gone,
                draining: false,
                strikes: 0,
                reason: String::new(),
                since: self.now,
            };
            self.tes.insert(id.clone(), te);
            if let Some(entry) = self.hosts.get_mut(host) {
                entry.tes.insert(id.clone());
            }
            self.changes.hosts.insert(host.clone());
        }
        let as_known = self.tes.get(&id).is_some_and(|te| {
            te.state != TeState::Gone
                && te.number == report.number
                && te.shape == report.shape
                && te.labels == report.labels
        });
        if !as_known {
            self.update_te(&id, |te| {
                te.number = report.number;
                te.shape = report.shape;
                te.labels = report.labels;
                if te.state == TeState::Gone {
                    te.state = TeState::Unknown;
                }
            });
        }
        self.te_standing(&id, report.generation, report.state);
    }

    /// Brings a TE's state in line with its host's word.
    fn te_standing(&mut self, id: &TeId, generation: Generation, report: ReportedState) {
        let Some(te) = self.tes.get(id) else { return };
        if generation > te.generation {
            // The host has seen more than this server remembers (a restored backup): its word
            // counts, and whatever this server believed of the TE is over.
            if let Some(lease) = te.state.lease() {
                self.end(lease, End::Revoked, &format!("{id} went on to a newer generation"));
            }
            self.update_te(id, |te| {
                te.generation = generation;
                if te.state == TeState::Ready {
                    te.state = TeState::Resetting;
                }
            });
        }
        let Some(te) = self.tes.get(id) else { return };
        let caught_up = generation >= te.generation;
        match te.state.clone() {
            TeState::Unknown | TeState::Resetting | TeState::BurnIn if caught_up => match report {
                ReportedState::Clean => self.update_te(id, |te| te.state = TeState::Ready),
                ReportedState::Broken(reason) => self.strike(id, &reason, true),
                ReportedState::Resetting | ReportedState::Serving => {}
            },
            TeState::Ready => match report {
                ReportedState::Clean if caught_up => {}
                ReportedState::Broken(reason) if caught_up => self.strike(id, &reason, true),
                ReportedState::Clean
                | ReportedState::Broken(_)
                | ReportedState::Resetting
                | ReportedState::Serving => {
                    self.update_te(id, |te| te.state = TeState::Resetting);
                }
            },
            TeState::Granted(l) | TeState::Confirmed(l) | TeState::Leased(l) | TeState::Held(l)
                if caught_up =>
            {
                self.leased_te_report(id, l, report);
            }
            // Not caught up: the host has not yet seen the newest wish; its answer will come.
            TeState::Unknown
            | TeState::Resetting
            | TeState::BurnIn
            | TeState::Granted(_)
            | TeState::Confirmed(_)
            | TeState::Leased(_)
            | TeState::Held(_)
            | TeState::Quarantined
            | TeState::Gone => {}
        }
    }

    /// The host speaks of the very generation that is leased: unless it serves it, that is over.
    fn leased_te_report(&mut self, id: &TeId, lease: LeaseId, report: ReportedState) {
        let what = match &report {
            ReportedState::Serving => return,
            ReportedState::Resetting | ReportedState::Clean => "its host has ended it".to_owned(),
            ReportedState::Broken(reason) => format!("its host says: {reason}"),
        };
        let now = self.now;
        let Some(entry) = self.leases.get(&lease) else { return };
        match entry.row.state {
            LeaseState::Granted { .. } => self.take_back(lease),
            LeaseState::Active { expires } | LeaseState::Held { expires } => {
                // The host's clock may be a little ahead of ours.
                let over = expires.since(now) <= super::fence::LIMIT_JITTER;
                let end = if over { End::Expired } else { End::Revoked };
                self.end(lease, end, &format!("{id}: {what}"));
            }
            LeaseState::Waiting | LeaseState::Over { .. } => {}
        }
        // It is `Resetting` now, and the same word is judged as that of a TE that nobody has.
        match report {
            ReportedState::Clean => self.update_te(id, |te| {
                if te.state == TeState::Resetting {
                    te.state = TeState::Ready;
                }
            }),
            ReportedState::Broken(reason) => self.strike(id, &reason, true),
            ReportedState::Resetting | ReportedState::Serving => {}
        }
    }
}
