//! The simulated server: the real book on a real or pretended disk, driven as the lease task
//! drives it: apply, commit, then tell.

use crate::disk::Disk;
use crate::message::{Ask, Happening, Key, Stands};
use crate::runs::Mutation;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use toci_core::id::{Generation, HostId, Label, LeaseId, Project, TeId};
use toci_core::lease::{
    Answer, Book, Changes, Demand, Event, LeaseState, Policy, ReportedState, ReportedTe, Request,
    TeState,
};
use toci_core::refused::Refused;
use toci_core::time::Time;
use toci_store::{Batch, ClockMark, Credential};

/// A host that said nothing for so long is cut off.
const HOST_SILENCE: Duration = Duration::from_secs(15);

/// How far the mutated server's timers are ahead.
const AHEAD: Duration = Duration::from_secs(5);

/// What the server's process knows; a crash forgets it.
pub(crate) struct SimServer {
    pub(crate) book: Book,
    base: Time,
    started: Time,
    boot: u64,
    unwritten: BTreeSet<TeId>,
    credentials: BTreeMap<(LeaseId, TeId), Credential>,
    mutation: Mutation,
    /// Newest report of each host: boot, sequence, when.
    heard: BTreeMap<usize, (u64, u64, Time)>,
    streams: BTreeSet<usize>,
}

/// What came of one event.
pub(crate) struct Outcome {
    pub(crate) answer: Result<Answer, Refused>,
    pub(crate) changes: Changes,
    /// The commit failed; nothing was told.
    pub(crate) failed: bool,
}

impl SimServer {
    pub(crate) fn start(
        disk: &mut Disk,
        now: Time,
        wall: Time,
        boot: u64,
        mutation: Mutation,
    ) -> anyhow::Result<SimServer> {
        let (mut rows, mark) = disk.claim()?;
        if mutation == Mutation::DropQueue {
            rows.leases.retain(|l| l.state != LeaseState::Waiting);
        }
        let base = mark.resume(wall, &boot.to_string(), now.since(Time(0)));
        let book = Book::load(rows, Policy::default(), base);
        Ok(SimServer {
            book,
            base,
            started: now,
            boot,
            unwritten: BTreeSet::new(),
            credentials: BTreeMap::new(),
            mutation,
            heard: BTreeMap::new(),
            streams: BTreeSet::new(),
        })
    }

    pub(crate) fn clock(&self, now: Time) -> Time {
        self.base.after(now.since(self.started))
    }

    /// Apply, commit. With `fail`, the disk is full.
    pub(crate) fn handle(
        &mut self,
        disk: &mut Disk,
        event: Event,
        credential: Option<Credential>,
        now: Time,
        fail: bool,
        forget: bool,
    ) -> anyhow::Result<Outcome> {
        let is_tick = event == Event::Tick;
        let hasty = is_tick && self.mutation == Mutation::TimersRunAhead;
        let ahead = if hasty { AHEAD } else { Duration::ZERO };
        let answer = self.book.on(event, self.clock(now).after(ahead));
        if let (Ok(Answer::Lease(lease)), Some(c)) = (&answer, credential) {
            self.credentials.insert((*lease, c.te.clone()), Credential { lease: *lease, ..c });
        }
        let mut changes = self.book.take_changes();
        self.unwritten.append(&mut changes.te_rows);
        if changes.durable || (is_tick && !self.unwritten.is_empty()) {
            if fail {
                self.read_again(disk)?;
                return Ok(Outcome { answer, changes, failed: true });
            }
            if !forget {
                disk.commit(&self.batch(&changes, now))?;
            }
            self.unwritten.clear();
            self.credentials.clear();
        }
        Ok(Outcome { answer, changes, failed: false })
    }

    fn read_again(&mut self, disk: &mut Disk) -> anyhow::Result<()> {
        self.unwritten.clear();
        self.credentials.clear();
        for heard in self.heard.values_mut() {
            heard.1 = 0;
        }
        self.book = self.book.reload(disk.read()?);
        Ok(())
    }

    fn batch(&self, changes: &Changes, now: Time) -> Batch {
        let book = &self.book;
        let live = |lease: &LeaseId| book.lease(*lease).is_some_and(|l| !l.state.is_over());
        Batch {
            hosts: changes.host_rows.iter().filter_map(|h| book.host(h).cloned()).collect(),
            removed_hosts: changes.removed_hosts.iter().cloned().collect(),
            tes: self.unwritten.iter().filter_map(|te| book.te(te).cloned()).collect(),
            leases: changes.leases.iter().filter_map(|l| book.lease(*l).cloned()).collect(),
            credentials: self.credentials.values().filter(|c| live(&c.lease)).cloned().collect(),
            budgets: changes.budgets.iter().filter_map(|p| book.budget(p).cloned()).collect(),
            mark: ClockMark { boot: self.boot.to_string(), boot_us: now.0, book: self.clock(now) },
        }
    }

    /// The wishes that go out, and to whom.
    pub(crate) fn wishes(&self, changes: &Changes, hosts: &[HostId]) -> Vec<(usize, Happening)> {
        hosts
            .iter()
            .enumerate()
            .filter(|(i, id)| changes.wishes.contains(*id) && self.streams.contains(i))
            .map(|(host, id)| (host, Happening::Wish { host, wish: self.book.desired(id) }))
            .collect()
    }

    /// A host opened its stream: it gets the present wish.
    pub(crate) fn hello(&mut self, host: usize, id: &HostId) -> Happening {
        self.streams.insert(host);
        Happening::Wish { host, wish: self.book.desired(id) }
    }

    /// Whether a report is news; notes it if so.
    pub(crate) fn is_news(&mut self, host: usize, boot: u64, sequence: u64, now: Time) -> bool {
        let news = self.heard.get(&host).is_none_or(|(b, s, _)| (*b, *s) < (boot, sequence));
        if news {
            self.heard.insert(host, (boot, sequence, now));
        }
        news
    }

    pub(crate) fn is_streaming(&self, host: usize) -> bool {
        self.streams.contains(&host)
    }

    /// Hosts that have become silent.
    pub(crate) fn silent(&mut self, hosts: &[HostId], now: Time) -> Vec<HostId> {
        let mut out = vec![];
        for (i, id) in hosts.iter().enumerate() {
            let fresh = self.heard.get(&i).is_some_and(|(_, _, at)| now.since(*at) < HOST_SILENCE);
            if !fresh && self.book.is_connected(id) {
                self.streams.remove(&i);
                out.push(id.clone());
            }
        }
        out
    }

    /// How a lease stands, with the keys once it is active.
    pub(crate) fn stands(&self, disk: &mut Disk, id: LeaseId) -> anyhow::Result<Stands> {
        let row = match self.book.lease(id) {
            Some(row) => row.clone(),
            None => match disk.lease(id)? {
                Some(row) if row.state.is_over() => row,
                Some(_) | None => return Ok(Stands::Unknown),
            },
        };
        Ok(match row.state {
            LeaseState::Waiting => Stands::Waiting,
            LeaseState::Granted { .. } => Stands::Granted,
            LeaseState::Over { .. } => Stands::Over,
            LeaseState::Active { .. } | LeaseState::Held { .. } => {
                let credentials = disk.credentials(id)?;
                let key = |(te, generation): &(TeId, Generation)| {
                    let c = credentials.iter().find(|c| c.te == *te)?;
                    let nonce = c.te_json.parse().ok()?;
                    Some(Key { te: te.clone(), generation: *generation, nonce })
                };
                Stands::Active(row.tes.iter().filter_map(key).collect())
            }
        })
    }

    /// The mutated server takes a TE for clean as soon as it is vacated.
    pub(crate) fn pretended_reports(&self) -> Vec<Event> {
        let mut events = vec![];
        for host in self.book.hosts() {
            let tes: Vec<ReportedTe> = self
                .book
                .tes_of(&host.id)
                .map(|te| ReportedTe {
                    id: te.id.clone(),
                    number: te.number,
                    shape: te.shape.clone(),
                    labels: te.labels.clone(),
                    generation: te.generation,
                    state: if te.state.lease().is_some() {
                        ReportedState::Serving
                    } else {
                        ReportedState::Clean
                    },
                })
                .collect();
            if self.book.tes_of(&host.id).any(|te| te.state == TeState::Resetting) {
                events.push(Event::HostReport { host: host.id.clone(), tes });
            }
        }
        events
    }
}

/// The event of a client's message.
pub(crate) fn event_of(client: usize, ask: &Ask) -> anyhow::Result<Event> {
    let secs = Duration::from_secs;
    Ok(match ask {
        Ask::Request { key, count, timeout_s, wait_s, priority } => Event::Request(Request {
            owner: format!("c{client}"),
            project: Project::new(format!("p{}", client % 2))?,
            demand: Demand { label: Some(Label::new("devtest")?), shape: None },
            count: *count,
            priority: *priority,
            timeout: Some(secs(*timeout_s)),
            wait_timeout: wait_s.map(secs),
            purpose: String::new(),
            idempotency_key: Some(key.clone()),
        }),
        Ask::Heartbeat(lease) => Event::Heartbeat(*lease),
        Ask::Extend(lease, s) => Event::Extend { lease: *lease, length: secs(*s) },
        Ask::Hold(lease, s) => {
            Event::Hold { lease: *lease, length: secs(*s), reason: String::new() }
        }
        Ask::Release(lease) => Event::Release { lease: *lease, reason: String::new() },
    })
}

/// The server's own time, for telling a lease that has just become active.
pub(crate) fn s_now(server: &Option<SimServer>, now: Time) -> Time {
    server.as_ref().map_or(now, |s| s.clock(now))
}
