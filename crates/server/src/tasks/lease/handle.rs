//! The handle by which everybody else reaches the lease book.

use super::clock::BookClock;
use super::convert;
use super::error::BookError;
use super::publish::Change;
use super::run::{Command, Input, Reply, State};
use super::{COMMANDS_MAX, LIST_DEFAULT};
use std::sync::Arc;
use std::time::Duration;
use toci_core::id::{Generation, HostId, LeaseId, TeId};
use toci_core::lease::{Book, Event, Lease, Policy};
use toci_core::refused::Refused;
use toci_store::{Credential, LeaseFilter, Store};
use toci_wire::api;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// A handle to the lease book; clones are cheap. The task behind it ends when all are dropped.
#[derive(Clone, Debug)]
pub struct LeaseBook {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Change>,
    store: Store,
    /// Leases of others are refused to this handle, if it is somebody's.
    owner: Option<Arc<str>>,
}

impl LeaseBook {
    /// Claims the book in the store, reads it and starts the task.
    pub async fn start(store: Store, policy: Policy) -> Result<LeaseBook, BookError> {
        let failed = |e| BookError::Failed(Arc::new(e));
        let (rows, mark) = store.claim_book(policy.ended_keep).await.map_err(failed)?;
        let clock = BookClock::resume(&mark);
        let book = Book::load(rows, policy, clock.now());
        let state = State::new(book, clock, store.clone());
        let events = state.audience.events.clone();
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        tokio::spawn(state.run(receiver));
        Ok(LeaseBook { commands, events, store, owner: None })
    }

    /// Resolves when the task has ended by itself: another server has taken the book over.
    pub async fn stopped(&self) {
        self.commands.closed().await;
    }

    /// The same book for somebody who may use their own leases only. Whose a lease is, is seen in the same step as
    /// what is done with it.
    #[must_use]
    pub fn of_owner(&self, owner: &str) -> LeaseBook {
        LeaseBook { owner: Some(owner.into()), ..self.clone() }
    }

    /// Asks for TEs. A repeated idempotency key gets the lease that it got before.
    pub async fn request(
        &self,
        owner: &str,
        request: api::LeaseRequest,
    ) -> Result<api::Lease, BookError> {
        let event = Event::Request(convert::request(owner, request)?);
        as_lease(self.send(Input::Request { event, follow: false }).await?)
    }

    /// The same, and the lease can be followed from the answer on.
    pub async fn request_and_follow(
        &self,
        owner: &str,
        request: api::LeaseRequest,
    ) -> Result<watch::Receiver<Arc<api::Lease>>, BookError> {
        let event = Event::Request(convert::request(owner, request)?);
        match self.send(Input::Request { event, follow: true }).await? {
            Reply::Following(receiver) => Ok(receiver),
            Reply::Lease(_) | Reply::Done => Err(BookError::Stopped),
        }
    }

    /// A holder (or, once it has begun to send them, a waiter) is alive.
    pub async fn heartbeat(&self, id: LeaseId) -> Result<api::Lease, BookError> {
        self.lease_event(id, Event::Heartbeat(id)).await
    }

    /// Makes it last at least so long from now, up to the maximum.
    pub async fn extend(&self, id: LeaseId, for_s: u64) -> Result<api::Lease, BookError> {
        let length = Duration::from_secs(for_s);
        self.lease_event(id, Event::Extend { lease: id, length }).await
    }

    /// Gives it back, or withdraws the request. Again is no harm.
    pub async fn release(&self, id: LeaseId, reason: String) -> Result<api::Lease, BookError> {
        match self.lease_event(id, Event::Release { lease: id, reason }).await {
            // Over so long that it is only in the store.
            Err(BookError::Refused(r)) if r.code == "no_such_lease" => {
                let lease = self.lease(id).await?;
                if let Some(caller) = &self.owner {
                    super::error::is_holder(caller, id, &lease.owner)?;
                }
                Ok(lease)
            }
            other => other,
        }
    }

    /// Keeps it for debugging.
    pub async fn hold(
        &self,
        id: LeaseId,
        for_s: u64,
        reason: String,
    ) -> Result<api::Lease, BookError> {
        let length = Duration::from_secs(for_s);
        self.lease_event(id, Event::Hold { lease: id, length, reason }).await
    }

    /// Takes it away.
    pub async fn revoke(&self, id: LeaseId, reason: String) -> Result<api::Lease, BookError> {
        self.lease_event(id, Event::Revoke { lease: id, reason }).await
    }

    /// A lease, live or over.
    pub async fn lease(&self, id: LeaseId) -> Result<api::Lease, BookError> {
        let at_hand = self
            .look(move |s| {
                let now = s.clock.now();
                s.book.lease(id).map(|row| convert::lease(&s.book, row, now))
            })
            .await?;
        if let Some(lease) = at_hand {
            return Ok(lease);
        }
        let row = self.store.lease(id).await.map_err(|e| BookError::Failed(Arc::new(e)))?;
        let row = row.ok_or_else(|| no_such_lease(id))?;
        self.look(move |s| convert::lease(&s.book, &row, s.clock.now())).await
    }

    /// Leases, newest first: all that are not over (the queue's limit bounds them), and those that are as the filter
    /// says.
    pub async fn leases(&self, filter: LeaseFilter) -> Result<Vec<api::Lease>, BookError> {
        let limit = if filter.limit == 0 { LIST_DEFAULT } else { filter.limit };
        let filter = LeaseFilter { limit, ..filter };
        let mut rows: Vec<Lease> = if filter.ended {
            let ended = self.store.ended_leases(&filter).await;
            ended.map_err(|e| BookError::Failed(Arc::new(e)))?
        } else {
            Vec::new()
        };
        self.look(move |s| {
            let fits = |l: &&Lease| {
                filter.owner.as_ref().is_none_or(|o| *o == l.owner)
                    && filter.project.as_ref().is_none_or(|p| p == l.project.as_str())
            };
            // A lease that ended meanwhile is in the rows already or not at all; the live are here.
            let live = s.book.leases().rev().filter(|l| !l.state.is_over()).filter(fits);
            rows.extend(live.cloned());
            rows.sort_by_key(|l| core::cmp::Reverse(l.id));
            rows.dedup_by_key(|l| l.id);
            let now = s.clock.now();
            rows.iter().map(|row| convert::lease(&s.book, row, now)).collect()
        })
        .await
    }

    /// The TE JSON of an active lease. For its holder only: it has the lease's private key.
    pub async fn lease_testenvs(&self, id: LeaseId) -> Result<Vec<api::LeaseTestenv>, BookError> {
        let lease = self.lease(id).await?;
        if let Some(caller) = &self.owner {
            super::error::is_holder(caller, id, &lease.owner)?;
        }
        match lease.state {
            api::LeaseState::Active | api::LeaseState::Held => {}
            api::LeaseState::Waiting
            | api::LeaseState::Granted
            | api::LeaseState::Released
            | api::LeaseState::Expired
            | api::LeaseState::Lost
            | api::LeaseState::Revoked
            | api::LeaseState::Refused => {
                let message = format!("lease {id} is not active");
                let hint = "its test environments are known once it is, and until it ends";
                return Err(Refused::new("not_active", message, hint).into());
            }
        }
        let credentials =
            self.store.credentials(id).await.map_err(|e| BookError::Failed(Arc::new(e)))?;
        let mut out = Vec::with_capacity(lease.testenvs.len());
        // In the order of the grant; one whose lease ended this moment has none left.
        for te in lease.testenvs {
            if let Some(c) = credentials.iter().find(|c| c.te.as_str() == te.testenv) {
                out.push(api::LeaseTestenv {
                    testenv: te.testenv,
                    generation: te.generation,
                    te_json: serde_json::from_str(&c.te_json).unwrap_or_default(),
                });
            }
        }
        if out.len() < lease.count as usize {
            return Err(Refused::new("lease_over", format!("lease {id} has just ended"), "").into());
        }
        Ok(out)
    }

    /// Follows one lease: its present value first, then every change, the end last.
    pub async fn watch_lease(
        &self,
        id: LeaseId,
    ) -> Result<watch::Receiver<Arc<api::Lease>>, BookError> {
        let receiver = self
            .look(move |s| {
                let now = s.clock.now();
                let lease = convert::lease(&s.book, s.book.lease(id)?, now);
                Some(s.audience.watch_lease(id, lease))
            })
            .await?;
        match receiver {
            Some(r) => Ok(r),
            None => Ok(watch::Sender::new(Arc::new(self.lease(id).await?)).subscribe()),
        }
    }

    /// Every TE.
    pub async fn testenvs(&self) -> Result<Vec<api::TestEnv>, BookError> {
        self.look(|s| s.book.tes().filter_map(|te| s.audience.testenv(&s.book, &te.id)).collect())
            .await
    }

    /// One TE.
    pub async fn testenv(&self, te: &TeId) -> Result<api::TestEnv, BookError> {
        let id = te.clone();
        let found = self.look(move |s| s.audience.testenv(&s.book, &id)).await?;
        found.ok_or_else(|| {
            let message = format!("there is no test environment {te}");
            Refused::new("no_such_testenv", message, "see `toci te list`").into()
        })
    }

    /// No new grants of it.
    pub async fn drain_te(&self, te: &TeId) -> Result<api::TestEnv, BookError> {
        self.te_event(te, Event::DrainTe { te: te.clone(), drain: true }).await
    }

    /// Grants of it again; ends a quarantine, by burn-in.
    pub async fn undrain_te(&self, te: &TeId) -> Result<api::TestEnv, BookError> {
        self.te_event(te, Event::DrainTe { te: te.clone(), drain: false }).await
    }

    /// Takes it out.
    pub async fn quarantine_te(
        &self,
        te: &TeId,
        reason: String,
    ) -> Result<api::TestEnv, BookError> {
        self.te_event(te, Event::Quarantine { te: te.clone(), reason }).await
    }

    /// Resets it; refused while it is leased.
    pub async fn reset_te(&self, te: &TeId) -> Result<api::TestEnv, BookError> {
        self.te_event(te, Event::ResetTe(te.clone())).await
    }

    /// Every host.
    pub async fn hosts(&self) -> Result<Vec<api::Host>, BookError> {
        self.look(|s| s.book.hosts().filter_map(|h| s.audience.host(&s.book, &h.id)).collect())
            .await
    }

    /// One host.
    pub async fn host(&self, host: &HostId) -> Result<api::Host, BookError> {
        let id = host.clone();
        let found = self.look(move |s| s.audience.host(&s.book, &id)).await?;
        found.ok_or_else(|| no_such_host(host))
    }

    /// No new grants on it.
    pub async fn drain_host(&self, host: &HostId) -> Result<api::Host, BookError> {
        self.apply(Event::DrainHost { host: host.clone(), drain: true }).await?;
        self.host(host).await
    }

    /// Grants on it again.
    pub async fn undrain_host(&self, host: &HostId) -> Result<api::Host, BookError> {
        self.apply(Event::DrainHost { host: host.clone(), drain: false }).await?;
        self.host(host).await
    }

    /// A host was enrolled. Again is no harm.
    pub async fn add_host(&self, host: &HostId) -> Result<api::Host, BookError> {
        self.apply(Event::AddHost(host.clone())).await?;
        self.host(host).await
    }

    /// Forgets a host and its TEs; refused while it has leases.
    pub async fn remove_host(&self, host: &HostId) -> Result<(), BookError> {
        self.apply(Event::RemoveHost(host.clone())).await.map(drop)
    }

    /// What is wanted of a host: the present wish first, then every new one. The host counts as
    /// connected while a receiver lives and its reports are fresh.
    pub async fn host_stream(
        &self,
        host: &HostId,
    ) -> Result<watch::Receiver<Arc<api::HostDesired>>, BookError> {
        let id = host.clone();
        let receiver = self
            .look(move |s| {
                s.book.host(&id)?;
                let wish = Arc::new(convert::desired(&s.book, &id));
                let link = s.audience.link(&id);
                link.wish.send_replace(wish);
                let mut receiver = link.wish.subscribe();
                receiver.mark_changed();
                Some((receiver, link.is_fresh(s.book.policy())))
            })
            .await?;
        let (receiver, fresh) = receiver.ok_or_else(|| no_such_host(host))?;
        if fresh {
            self.apply(Event::HostConnected(host.clone())).await?;
        }
        Ok(receiver)
    }

    /// A host's report. One that is older than the newest is taken no notice of.
    pub async fn host_report(
        &self,
        host: &HostId,
        report: api::HostReport,
    ) -> Result<(), BookError> {
        let host = host.clone();
        self.send(Input::Report { host, report: Box::new(report) }).await.map(drop)
    }

    /// A host serves a grant: durable when this returns.
    pub async fn host_serving(
        &self,
        host: &HostId,
        te: &TeId,
        report: api::ServingReport,
    ) -> Result<(), BookError> {
        let credential = Credential {
            lease: LeaseId(0),
            te: te.clone(),
            generation: Generation(report.generation),
            te_json: report.te_json.to_string(),
        };
        self.send(Input::Serving { host: host.clone(), credential }).await.map(drop)
    }

    /// Follows everything. Who lags behind is told so and reads the lists again.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.events.subscribe()
    }

    async fn lease_event(&self, lease: LeaseId, event: Event) -> Result<api::Lease, BookError> {
        let owner = self.owner.clone();
        as_lease(self.send(Input::OfLease { lease, owner, event }).await?)
    }

    async fn te_event(&self, te: &TeId, event: Event) -> Result<api::TestEnv, BookError> {
        self.apply(event).await?;
        self.testenv(te).await
    }

    async fn apply(&self, event: Event) -> Result<Reply, BookError> {
        self.send(Input::Plain(event)).await
    }

    async fn send(&self, input: Input) -> Result<Reply, BookError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Apply { input, reply };
        self.commands.send(command).await.map_err(|_| BookError::Stopped)?;
        answer.await.map_err(|_| BookError::Stopped)?
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, BookError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Look(Box::new(move |state| {
            // Who no longer listens does not need the answer.
            let _ = reply.send(look(state));
        }));
        self.commands.send(command).await.map_err(|_| BookError::Stopped)?;
        answer.await.map_err(|_| BookError::Stopped)
    }
}

fn as_lease(reply: Reply) -> Result<api::Lease, BookError> {
    match reply {
        Reply::Lease(lease) => Ok(*lease),
        // Only if so many leases ended in this batch that it is no longer at hand.
        Reply::Following(_) | Reply::Done => Err(BookError::Stopped),
    }
}

fn no_such_lease(id: LeaseId) -> BookError {
    Refused::new("no_such_lease", format!("there is no lease {id}"), "see `toci lease list`").into()
}

fn no_such_host(id: &HostId) -> BookError {
    Refused::new("no_such_host", format!("there is no host {id}"), "see `toci host list`").into()
}
