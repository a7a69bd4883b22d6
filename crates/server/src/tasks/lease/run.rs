//! The loop of the lease task: batch, apply, commit, tell.

use super::clock::BookClock;
use super::error::BookError;
use super::publish::Audience;
use super::{BATCH_MAX, HISTORY_MAX};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use toci_core::chain::Chain;
use toci_core::id::{HostId, LeaseId, TeId};
use toci_core::lease::{Answer, Book, Changes, Event};
use toci_core::refused::Refused;
use toci_core::time::Time;
use toci_store::{Batch, Credential, Store, StoreError};
use toci_wire::api;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// How often the task looks at timers, links and places in the queue.
const TICK: Duration = Duration::from_secs(1);
/// Ended leases between two clearings of old history.
const PRUNE_EVERY: usize = 1_000;

/// An event with what belongs to it outside the core.
#[derive(Debug)]
pub(super) enum Input {
    /// For the book only.
    Plain(Event),
    /// About a lease, for its owner alone if one is named.
    OfLease { lease: LeaseId, owner: Option<Arc<str>>, event: Event },
    /// A request; its lease may be followed from the answer on.
    Request { event: Event, follow: bool },
    /// A confirmation with the TE JSON; the text is secret and not part of any `Debug` output.
    Serving { host: HostId, credential: Credential },
    /// A host's report.
    Report { host: HostId, report: Box<api::HostReport> },
}

/// The answer to an input, made when it is on disk.
#[derive(Debug)]
pub(super) enum Reply {
    /// It was about this lease.
    Lease(Box<api::Lease>),
    /// It made this lease, which can be followed from here.
    Following(watch::Receiver<Arc<api::Lease>>),
    /// It is done.
    Done,
}

pub(super) type Sender = oneshot::Sender<Result<Reply, BookError>>;

/// Another server has the book now.
struct TakenOver;

pub(super) type Look = Box<dyn FnOnce(&mut State) + Send>;

pub(super) enum Command {
    /// Changes the book; answered once that is on disk.
    Apply { input: Input, reply: Sender },
    /// Looks at the book as it is on disk.
    Look(Look),
}

/// What the task owns.
pub(super) struct State {
    pub(super) book: Book,
    pub(super) audience: Audience,
    pub(super) clock: BookClock,
    store: Store,
    /// Changes that are told but whose rows may wait for the next transaction.
    unwritten: BTreeSet<TeId>,
    credentials: BTreeMap<(LeaseId, TeId), Credential>,
    ended_since_prune: usize,
    /// The last commit failed: what is due is tried again with the next tick, not at once.
    failing: bool,
    /// A commit failed and the book could not be read again yet.
    broken: Option<Arc<StoreError>>,
}

/// A commit costs nearly the same for one command as for many: whoever is about to speak is heard first.
async fn hear_all(commands: &mut mpsc::Receiver<Command>, batch: &mut Vec<Command>) {
    loop {
        let before = batch.len();
        tokio::task::yield_now().await;
        while batch.len() < BATCH_MAX
            && let Ok(command) = commands.try_recv()
        {
            batch.push(command);
        }
        if batch.len() == before || batch.len() >= BATCH_MAX {
            return;
        }
    }
}

struct Pending {
    reply: Sender,
    answer: Result<Answer, BookError>,
    follow: bool,
}

impl State {
    pub(super) fn new(book: Book, clock: BookClock, store: Store) -> State {
        State {
            book,
            audience: Audience::new(),
            clock,
            store,
            unwritten: BTreeSet::new(),
            credentials: BTreeMap::new(),
            ended_since_prune: 0,
            failing: false,
            broken: None,
        }
    }

    /// Runs until every handle is dropped or another server takes the book over.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut next_tick = Instant::now();
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let wake = self.wake_at(next_tick);
            tokio::select! {
                biased;
                n = commands.recv_many(&mut batch, BATCH_MAX) => {
                    if n == 0 {
                        return;
                    }
                    hear_all(&mut commands, &mut batch).await;
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            let full_tick = Instant::now() >= next_tick;
            if full_tick {
                next_tick = Instant::now() + TICK;
            }
            if let Err(TakenOver) = self.round(&mut batch, full_tick).await {
                tracing::error!("another server has taken the lease book over; this one stops");
                return;
            }
        }
    }

    /// A due timer wakes the task between ticks, so that an expiry is not late.
    fn wake_at(&self, next_tick: Instant) -> Instant {
        match self.book.next_due() {
            Some(_) if self.failing => next_tick,
            Some(due) => (Instant::now() + due.since(self.clock.now())).min(next_tick),
            None => next_tick,
        }
    }

    /// One batch. A failed commit has been told to all concerned.
    async fn round(
        &mut self,
        commands: &mut Vec<Command>,
        full_tick: bool,
    ) -> Result<(), TakenOver> {
        if let Some(e) = self.broken.clone() {
            self.read_again(e).await;
        }
        let now = self.clock.now();
        let mut pending = Vec::new();
        let mut looks: Vec<Look> = Vec::new();
        for command in commands.drain(..) {
            match command {
                Command::Look(look) => looks.push(look),
                Command::Apply { input, reply } => {
                    let follow = matches!(input, Input::Request { follow: true, .. });
                    let answer = match &self.broken {
                        Some(e) => Err(BookError::Failed(e.clone())),
                        None => self.apply(input, now).map_err(BookError::from),
                    };
                    pending.push(Pending { reply, answer, follow });
                }
            }
        }
        if self.broken.is_none() {
            self.tick(now, full_tick);
        }
        let outcome = self.commit(full_tick).await;
        self.failing = outcome.is_err();
        let failure = match &outcome {
            Ok(changes) => {
                self.audience.publish(&self.book, changes, now);
                None
            }
            Err(e) => Some(e.clone()),
        };
        if full_tick {
            self.audience.refresh_waiting(&self.book);
        }
        for p in pending {
            let answer = match (&failure, p.answer) {
                (Some(e), Ok(_)) => Err(BookError::Failed(e.clone())),
                (_, Err(e)) => Err(e),
                (None, Ok(answer)) => Ok(self.reply(answer, p.follow, now)),
            };
            // Who no longer listens does not need the answer.
            let _ = p.reply.send(answer);
        }
        if let Some(e) = &failure {
            self.read_again(e.clone()).await;
        }
        for look in looks {
            look(self);
        }
        match failure {
            Some(e) if matches!(*e, StoreError::TakenOver) => Err(TakenOver),
            Some(_) | None => Ok(()),
        }
    }

    fn reply(&mut self, answer: Answer, follow: bool, now: Time) -> Reply {
        match answer {
            Answer::Lease(id) => {
                let lease = self.book.lease(id).map(|l| super::convert::lease(&self.book, l, now));
                match lease {
                    Some(lease) if follow => Reply::Following(self.audience.watch_lease(id, lease)),
                    Some(lease) => Reply::Lease(Box::new(lease)),
                    None => Reply::Done,
                }
            }
            Answer::Te(_) | Answer::Host(_) | Answer::Done => Reply::Done,
        }
    }

    fn apply(&mut self, input: Input, now: Time) -> Result<Answer, Refused> {
        match input {
            Input::Plain(event) | Input::Request { event, .. } => self.book.on(event, now),
            Input::OfLease { lease, owner, event } => {
                if let (Some(caller), Some(row)) = (owner, self.book.lease(lease)) {
                    super::error::is_holder(&caller, lease, &row.owner)?;
                }
                self.book.on(event, now)
            }
            Input::Serving { host, credential } => {
                let te = credential.te.clone();
                let generation = credential.generation;
                let answer = self.book.on(Event::HostServing { host, te, generation }, now)?;
                if let Answer::Lease(lease) = answer {
                    let key = (lease, credential.te.clone());
                    self.credentials.insert(key, Credential { lease, ..credential });
                }
                Ok(answer)
            }
            Input::Report { host, report } => self.report(&host, &report, now),
        }
    }

    fn report(
        &mut self,
        host: &HostId,
        report: &api::HostReport,
        now: Time,
    ) -> Result<Answer, Refused> {
        let tes = super::convert::reported(report)?;
        let known = self.book.host(host).is_some();
        if !known {
            return self.book.on(Event::HostConnected(host.clone()), now);
        }
        let link = self.audience.link(host);
        if !link.is_news(&report.boot_id, report.sequence) {
            return Ok(Answer::Host(host.clone()));
        }
        link.heard = Some((std::time::Instant::now(), now));
        link.status = Some(report.status.clone());
        let streaming = link.wish.receiver_count() > 0;
        for te in &report.testenvs {
            if let Ok(id) = TeId::new(te.testenv.clone()) {
                self.audience.machines.insert(id, te.machines.clone());
            }
        }
        let answer = self.book.on(Event::HostReport { host: host.clone(), tes }, now)?;
        if streaming {
            self.book.on(Event::HostConnected(host.clone()), now)?;
        }
        Ok(answer)
    }

    fn tick(&mut self, now: Time, full: bool) {
        if full {
            self.cut_off_silent_hosts(now);
            let live = self.book.leases().rev().any(|l| !l.state.is_over());
            if !live {
                self.clock.catch_up();
            }
        }
        let due = !self.failing && self.book.next_due().is_some_and(|due| due <= now);
        if full || due {
            // A tick is never refused.
            let _ = self.book.on(Event::Tick, now);
        }
    }

    fn cut_off_silent_hosts(&mut self, now: Time) {
        let policy = self.book.policy();
        let silent: Vec<HostId> = self
            .audience
            .links()
            .filter(|(id, link)| {
                self.book.is_connected(id)
                    && (!link.is_fresh(policy) || link.wish.receiver_count() == 0)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for host in silent {
            tracing::warn!(%host, "host is cut off");
            // It is known, for it is connected.
            let _ = self.book.on(Event::HostCutOff(host), now);
        }
    }

    /// Writes what changed. Rows that can wait are written with the next that cannot, or at the
    /// next full tick.
    async fn commit(&mut self, full_tick: bool) -> Result<Changes, Arc<StoreError>> {
        let mut changes = self.book.take_changes();
        self.unwritten.append(&mut changes.te_rows);
        let can_wait = self.unwritten.is_empty() || !full_tick;
        if can_wait && !changes.durable {
            return Ok(changes);
        }
        let batch = self.batch(&changes);
        self.store.commit(&batch).await.map_err(|e| {
            tracing::error!(error = %Chain(&e), "the lease book could not be written");
            Arc::new(e)
        })?;
        self.unwritten.clear();
        self.credentials.clear();
        self.ended_since_prune += batch.leases.iter().filter(|l| l.state.is_over()).count();
        if self.ended_since_prune >= PRUNE_EVERY {
            self.ended_since_prune = 0;
            if let Err(e) = self.store.prune_ended(HISTORY_MAX).await {
                tracing::warn!(error = %Chain(&e), "old leases could not be cleared");
            }
        }
        Ok(changes)
    }

    fn batch(&self, changes: &Changes) -> Batch {
        let book = &self.book;
        let live = |lease: &LeaseId| book.lease(*lease).is_some_and(|l| !l.state.is_over());
        Batch {
            hosts: changes.host_rows.iter().filter_map(|h| book.host(h).cloned()).collect(),
            removed_hosts: changes.removed_hosts.iter().cloned().collect(),
            tes: self.unwritten.iter().filter_map(|te| book.te(te).cloned()).collect(),
            leases: changes.leases.iter().filter_map(|l| book.lease(*l).cloned()).collect(),
            credentials: self.credentials.values().filter(|c| live(&c.lease)).cloned().collect(),
            budgets: changes.budgets.iter().filter_map(|p| book.budget(p).cloned()).collect(),
            mark: self.clock.mark(),
        }
    }

    /// Reads the book from the store, as after a restart, but goes on knowing who is connected.
    async fn read_again(&mut self, failure: Arc<StoreError>) {
        self.unwritten.clear();
        self.credentials.clear();
        self.audience.forget_sequences();
        match self.store.read_book(self.book.policy().ended_keep).await {
            Ok(rows) => {
                self.book = self.book.reload(rows);
                self.broken = None;
                self.audience.tell_all(&self.book, self.clock.now());
            }
            Err(e) => {
                tracing::error!(error = %Chain(&e), "the lease book could not be read again");
                self.broken = Some(failure);
            }
        }
    }
}
