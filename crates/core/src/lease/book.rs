//! The book itself: what it holds, how it is loaded, and the one entry for every event.

use super::change::Changes;
use super::hosts::ReportedTe;
use super::model::{Demand, HoldBudget, Host, Lease, LeaseState, Te, TeState};
use super::policy::Policy;
use super::pool::{Index, Pool, QueueKey, Use};
use super::request::Request;
use crate::id::{Generation, HostId, LeaseId, Project, TeId};
use crate::refused::Refused;
use crate::time::Time;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Everything that can happen to the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client asks for TEs.
    Request(Request),
    /// A holder is alive. In the queue it is optional, but a request that sent one must go on, so
    /// that a waiter that died leaves the queue.
    Heartbeat(LeaseId),
    /// A holder wants it to last at least so long from now.
    Extend {
        /// The lease.
        lease: LeaseId,
        /// From now.
        length: Duration,
    },
    /// A holder gives it back, or withdraws the request.
    Release {
        /// The lease.
        lease: LeaseId,
        /// For people.
        reason: String,
    },
    /// Keep it for debugging.
    Hold {
        /// The lease.
        lease: LeaseId,
        /// From now.
        length: Duration,
        /// For people.
        reason: String,
    },
    /// An operator takes it away.
    Revoke {
        /// The lease.
        lease: LeaseId,
        /// For people.
        reason: String,
    },
    /// No new grants of this TE, or again.
    DrainTe {
        /// The TE.
        te: TeId,
        /// False: grant it again; ends a quarantine, by burn-in.
        drain: bool,
    },
    /// Take a TE out.
    Quarantine {
        /// The TE.
        te: TeId,
        /// For people.
        reason: String,
    },
    /// Reset a TE that nobody has.
    ResetTe(TeId),
    /// A host was enrolled. Again is no harm.
    AddHost(HostId),
    /// Forget a host.
    RemoveHost(HostId),
    /// No new grants on a host, or again.
    DrainHost {
        /// The host.
        host: HostId,
        /// False: grant again.
        drain: bool,
    },
    /// A host's stream is open and its reports are fresh.
    HostConnected(HostId),
    /// A host is silent.
    HostCutOff(HostId),
    /// All that is on a host.
    HostReport {
        /// The host.
        host: HostId,
        /// Its TEs; one that is missing is gone.
        tes: Vec<ReportedTe>,
    },
    /// A host has opened its gateway for a grant.
    HostServing {
        /// The host.
        host: HostId,
        /// The TE.
        te: TeId,
        /// The generation of the grant.
        generation: Generation,
    },
    /// Time has passed.
    Tick,
}

/// What an event was about, for the answer to whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This lease.
    Lease(LeaseId),
    /// This TE.
    Te(TeId),
    /// This host.
    Host(HostId),
    /// Nothing in particular.
    Done,
}

/// All that is kept of a book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Every host.
    pub hosts: Vec<Host>,
    /// Every TE.
    pub tes: Vec<Te>,
    /// Every lease that is not over and the newest of those that are, in order of number.
    pub leases: Vec<Lease>,
    /// Grants that a host has confirmed and that are not over.
    pub confirmed: BTreeSet<(LeaseId, TeId)>,
    /// Hold budgets.
    pub budgets: Vec<HoldBudget>,
}

/// A host and what is known of it while the book lives.
#[derive(Clone, Debug)]
pub(super) struct HostEntry {
    pub(super) row: Host,
    /// Since when it is connected; none while it is cut off.
    pub(super) connected: Option<Time>,
    pub(super) tes: BTreeSet<TeId>,
}

/// A lease and what is known of it while the book lives.
#[derive(Clone, Debug)]
pub(super) struct LeaseEntry {
    pub(super) row: Lease,
    /// Last sign of life of its holder.
    pub(super) heard: Option<Time>,
    /// The earliest timer that is set for it.
    pub(super) armed: Option<Time>,
}

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Lease(LeaseId),
    Te(TeId),
}

/// All TEs, leases and the queue. See [`super`].
#[derive(Clone, Debug)]
pub struct Book {
    pub(super) policy: Policy,
    pub(super) now: Time,
    pub(super) hosts: BTreeMap<HostId, HostEntry>,
    pub(super) tes: BTreeMap<TeId, Te>,
    pub(super) leases: BTreeMap<LeaseId, LeaseEntry>,
    pub(super) next_lease: u64,
    pub(super) index: Index,
    pub(super) by_key: HashMap<(String, String), LeaseId>,
    pub(super) waiting_of: BTreeMap<Project, u32>,
    pub(super) budgets: BTreeMap<Project, HoldBudget>,
    pub(super) ended: VecDeque<LeaseId>,
    pub(super) timers: BTreeSet<(Time, Timer)>,
    /// TEs that have a timer.
    pub(super) te_armed: BTreeSet<TeId>,
    pub(super) lengths: BTreeMap<Demand, Duration>,
    pub(super) changes: Changes,
    /// Something was freed or asked for since the last round of grants.
    pub(super) stale: bool,
}

impl Book {
    /// An empty book.
    #[must_use]
    pub fn new(policy: Policy) -> Book {
        Book {
            policy,
            now: Time(i64::MIN),
            hosts: BTreeMap::new(),
            tes: BTreeMap::new(),
            leases: BTreeMap::new(),
            next_lease: 1,
            index: Index::default(),
            by_key: HashMap::new(),
            waiting_of: BTreeMap::new(),
            budgets: BTreeMap::new(),
            ended: VecDeque::new(),
            timers: BTreeSet::new(),
            te_armed: BTreeSet::new(),
            lengths: BTreeMap::new(),
            changes: Changes::default(),
            stale: true,
        }
    }

    /// The book as the store has it. Nobody is connected yet and every holder gets a fresh
    /// grace: that the server was away is not the holders' fault.
    #[must_use]
    pub fn load(rows: Rows, policy: Policy, now: Time) -> Book {
        let mut book = Book::new(policy);
        book.now = now;
        for row in rows.hosts {
            let entry = HostEntry { row: row.clone(), connected: None, tes: BTreeSet::new() };
            book.hosts.insert(row.id, entry);
        }
        for te in rows.tes {
            if let Some(host) = book.hosts.get_mut(&te.host) {
                host.tes.insert(te.id.clone());
                book.tes.insert(te.id.clone(), te);
            }
        }
        for budget in rows.budgets {
            book.budgets.insert(budget.project.clone(), budget);
        }
        for lease in rows.leases {
            book.load_lease(lease, &rows.confirmed);
        }
        book
    }

    fn load_lease(&mut self, mut row: Lease, confirmed: &BTreeSet<(LeaseId, TeId)>) {
        let id = row.id;
        self.next_lease = self.next_lease.max(id.0 + 1);
        if let Some(key) = &row.idempotency_key {
            self.by_key.insert((row.owner.clone(), key.clone()), id);
        }
        let mut heard = None;
        let te_state: Option<fn(LeaseId) -> TeState> = match &mut row.state {
            LeaseState::Waiting => {
                *self.waiting_of.entry(row.project.clone()).or_default() += 1;
                None
            }
            LeaseState::Granted { since } => {
                *since = self.now;
                Some(TeState::Granted)
            }
            LeaseState::Active { .. } => {
                heard = Some(self.now);
                Some(TeState::Leased)
            }
            LeaseState::Held { .. } => Some(TeState::Held),
            LeaseState::Over { at, .. } => {
                let at = *at;
                self.ended.push_back(id);
                self.learn_length(&row, at);
                None
            }
        };
        if let Some(state) = te_state {
            for (te_id, _) in &row.tes {
                if let Some(te) = self.tes.get_mut(te_id) {
                    te.state = state(id);
                    if matches!(te.state, TeState::Granted(_))
                        && confirmed.contains(&(id, te_id.clone()))
                    {
                        te.state = TeState::Confirmed(id);
                    }
                }
            }
        }
        let waiting = matches!(row.state, LeaseState::Waiting);
        let (key, rank) = ((row.demand.clone(), row.count), row.rank);
        self.leases.insert(id, LeaseEntry { row, heard, armed: None });
        if waiting {
            self.enqueue(key, rank, id);
        }
        self.arm_lease(id);
        self.forget_old();
    }

    /// The book as the store has it, after a commit failed: connections and signs of life are
    /// taken over from the book that could not be written.
    #[must_use]
    pub fn reload(&self, rows: Rows) -> Book {
        let mut book = Book::load(rows, self.policy.clone(), self.now);
        for (id, old) in &self.hosts {
            if old.connected.is_some() && book.hosts.contains_key(id) {
                book.set_connected(id, true);
            }
        }
        for (id, entry) in &mut book.leases {
            if let Some(old) = self.leases.get(id) {
                entry.heard = entry.heard.or(old.heard);
            }
        }
        book.changes.wishes = book.hosts.keys().cloned().collect();
        book
    }

    /// Takes up an event: all of it, or nothing when it is refused. What changed is in
    /// [`Book::take_changes`].
    pub fn on(&mut self, event: Event, now: Time) -> Result<Answer, Refused> {
        self.now = self.now.max(now);
        let answer = match event {
            Event::Request(request) => self.request(request),
            Event::Heartbeat(lease) => self.heartbeat(lease),
            Event::Extend { lease, length } => self.extend(lease, length),
            Event::Release { lease, reason } => self.release(lease, &reason),
            Event::Hold { lease, length, reason } => self.hold(lease, length, &reason),
            Event::Revoke { lease, reason } => self.revoke(lease, &reason),
            Event::DrainTe { te, drain } => self.drain_te(&te, drain),
            Event::Quarantine { te, reason } => self.quarantine_by_hand(&te, &reason),
            Event::ResetTe(te) => self.reset_by_hand(&te),
            Event::AddHost(host) => self.add_host(&host),
            Event::RemoveHost(host) => self.remove_host(&host),
            Event::DrainHost { host, drain } => self.drain_host(&host, drain),
            Event::HostConnected(host) => self.host_link(&host, true),
            Event::HostCutOff(host) => self.host_link(&host, false),
            Event::HostReport { host, tes } => self.host_report(&host, tes),
            Event::HostServing { host, te, generation } => {
                self.host_serving(&host, &te, generation)
            }
            Event::Tick => {
                self.tick();
                Ok(Answer::Done)
            }
        }?;
        self.grant_all();
        Ok(answer)
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        core::mem::take(&mut self.changes)
    }

    /// When a `Tick` has something to do; the server ticks at least once a second anyway.
    #[must_use]
    pub fn next_due(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// A lease that is live or recent.
    #[must_use]
    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id).map(|e| &e.row)
    }

    /// Every lease at hand, oldest first.
    pub fn leases(&self) -> impl DoubleEndedIterator<Item = &Lease> {
        self.leases.values().map(|e| &e.row)
    }

    /// A TE.
    #[must_use]
    pub fn te(&self, id: &TeId) -> Option<&Te> {
        self.tes.get(id)
    }

    /// Every TE, also those that are gone.
    pub fn tes(&self) -> impl Iterator<Item = &Te> {
        self.tes.values()
    }

    /// A host.
    #[must_use]
    pub fn host(&self, id: &HostId) -> Option<&Host> {
        self.hosts.get(id).map(|e| &e.row)
    }

    /// Every host.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values().map(|e| &e.row)
    }

    /// The TEs of a host that are not gone.
    pub fn tes_of(&self, id: &HostId) -> impl Iterator<Item = &Te> {
        self.hosts
            .get(id)
            .into_iter()
            .flat_map(|h| h.tes.iter())
            .filter_map(|t| self.tes.get(t))
            .filter(|t| t.state != TeState::Gone)
    }

    /// Whether a host is connected.
    #[must_use]
    pub fn is_connected(&self, id: &HostId) -> bool {
        self.hosts.get(id).is_some_and(|h| h.connected.is_some())
    }

    /// The hold budget of a project, as last written.
    #[must_use]
    pub fn budget(&self, project: &Project) -> Option<&HoldBudget> {
        self.budgets.get(project)
    }

    /// How a TE stands towards grants; none when it is gone.
    pub(super) fn usability(&self, te: &Te) -> Option<Use> {
        usability_of(&self.hosts, te)
    }

    /// Changes a TE and all that follows from it: indexes, what must be written, who is told.
    pub(super) fn update_te(&mut self, id: &TeId, change: impl FnOnce(&mut Te)) {
        let Some(mut te) = self.tes.remove(id) else { return };
        let before = te.clone();
        change(&mut te);
        if te == before {
            self.tes.insert(id.clone(), te);
            return;
        }
        if te.state != before.state {
            te.since = self.now;
        }
        let stored = |t: &Te| (t.state.word(), t.state.lease(), t.generation);
        let meta_changed = te.draining != before.draining
            || te.strikes != before.strikes
            || te.reason != before.reason
            || te.shape != before.shape
            || te.labels != before.labels
            || te.number != before.number;
        if meta_changed || stored(&te) != stored(&before) {
            self.changes.te_rows.insert(id.clone());
            // Readiness need not be on disk at once: the host would say it again.
            let only_ready =
                !meta_changed && te.state == TeState::Ready && te.generation == before.generation;
            self.changes.durable |= !only_ready;
        }
        if te.generation != before.generation || wish_of(&te) != wish_of(&before) {
            self.changes.wishes.insert(te.host.clone());
        }
        self.changes.tes.insert(id.clone());
        self.reindex(&te);
        self.tes.insert(id.clone(), te);
        self.arm_te(id);
    }

    /// Brings the indexes up to date with a TE. Anything but "in use" may change who is next.
    pub(super) fn reindex(&mut self, te: &Te) {
        let usability = self.usability(te);
        self.index.set(te, usability);
        self.stale |= usability != Some(Use::Later);
    }

    /// Notes that a lease must be written and told.
    pub(super) fn touch_lease(&mut self, id: LeaseId) {
        self.changes.leases.insert(id);
        self.changes.durable = true;
    }

    /// Puts a request in its queue.
    pub(super) fn enqueue(&mut self, key: QueueKey, rank: i64, id: LeaseId) {
        self.pool_of(&key.0);
        self.index.enqueue(key, rank, id);
        self.stale = true;
    }

    /// The pool of a demand.
    pub(super) fn pool_of(&mut self, demand: &Demand) -> &Pool {
        let hosts = &self.hosts;
        let usable = self.tes.values().filter_map(|te| Some((te, usability_of(hosts, te)?)));
        self.index.pool_of(demand, usable)
    }

    /// Drops the oldest ended leases from memory; the store keeps them.
    pub(super) fn forget_old(&mut self) {
        while self.ended.len() > self.policy.ended_keep {
            let Some(id) = self.ended.pop_front() else { return };
            if let Some(entry) = self.leases.remove(&id)
                && let Some(key) = entry.row.idempotency_key
            {
                self.by_key.remove(&(entry.row.owner, key));
            }
        }
    }

    /// Learns how long leases of a kind last, for estimates.
    pub(super) fn learn_length(&mut self, lease: &Lease, ended: Time) {
        let Some(active) = lease.active else { return };
        let length = ended.since(active);
        if let Some(mean) = self.lengths.get_mut(&lease.demand) {
            *mean = (*mean * 4 + length) / 5;
        } else if self.lengths.len() < super::policy::LENGTHS_MAX {
            self.lengths.insert(lease.demand.clone(), length);
        }
    }

    pub(super) fn no_such_lease(id: LeaseId) -> Refused {
        Refused::new("no_such_lease", format!("there is no lease {id}"), "see `toci lease list`")
    }

    pub(super) fn no_such_te(id: &TeId) -> Refused {
        let message = format!("there is no test environment {id}");
        Refused::new("no_such_testenv", message, "see `toci te list`")
    }

    pub(super) fn no_such_host(id: &HostId) -> Refused {
        Refused::new("no_such_host", format!("there is no host {id}"), "see `toci host list`")
    }

    pub(super) fn over(lease: &Lease) -> Refused {
        let colon = if lease.reason.is_empty() { "" } else { ": " };
        let message =
            format!("lease {} is over ({}{colon}{})", lease.id, lease.state.word(), lease.reason);
        Refused::new("lease_over", message, "ask for a new one")
    }
}

/// What a TE's state makes the server want of its host; see [`super::view`].
pub(super) fn wish_of(te: &Te) -> Option<Wish> {
    match &te.state {
        TeState::Unknown | TeState::Ready | TeState::Resetting => Some(Wish::Vacate),
        TeState::Granted(l) | TeState::Confirmed(l) | TeState::Leased(l) | TeState::Held(l) => {
            Some(Wish::Serve(*l))
        }
        TeState::BurnIn => Some(Wish::BurnIn),
        TeState::Quarantined => Some(Wish::Quarantine),
        TeState::Gone => None,
    }
}

/// What the server wants of a TE, without the time left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Serve(LeaseId),
    Vacate,
    BurnIn,
    Quarantine,
}

fn usability_of(hosts: &BTreeMap<HostId, HostEntry>, te: &Te) -> Option<Use> {
    let host_ok = hosts.get(&te.host).is_some_and(|h| h.connected.is_some() && !h.row.draining);
    let in_reach = |usability| if host_ok && !te.draining { usability } else { Use::OutOfReach };
    match &te.state {
        TeState::Gone => None,
        TeState::Quarantined => Some(Use::OutOfReach),
        TeState::Ready => Some(in_reach(Use::Now)),
        TeState::Unknown
        | TeState::Granted(_)
        | TeState::Confirmed(_)
        | TeState::Leased(_)
        | TeState::Held(_)
        | TeState::Resetting
        | TeState::BurnIn => Some(in_reach(Use::Later)),
    }
}
