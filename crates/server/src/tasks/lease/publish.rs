//! Who is told what: watchers of one lease, hosts, and those who follow everything.

use super::EVENTS_MAX;
use super::convert;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;
use toci_core::id::{HostId, LeaseId, TeId};
use toci_core::lease::{Book, Changes, LeaseState, Policy, TeState};
use toci_core::time::Time;
use toci_wire::api;
use tokio::sync::{broadcast, watch};

/// Something changed; the value is as it is now.
#[derive(Clone, Debug)]
pub enum Change {
    /// A lease.
    Lease(Arc<api::Lease>),
    /// A test environment.
    TestEnv(Arc<api::TestEnv>),
    /// A host.
    Host(Arc<api::Host>),
    /// A host or a TE that is no longer known.
    Gone(Arc<api::Gone>),
}

fn gone(what: &str, id: &str) -> Change {
    Change::Gone(Arc::new(api::Gone { what: what.to_owned(), id: id.to_owned() }))
}

/// A host's link, as long as the server lives.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) wish: watch::Sender<Arc<api::HostDesired>>,
    /// Boot id and sequence of the newest report, and the boot id before.
    pub(super) newest: Option<(String, u64)>,
    pub(super) older_boot: Option<String>,
    pub(super) heard: Option<(Instant, Time)>,
    pub(super) status: Option<api::HostStatus>,
}

impl Link {
    fn new() -> Link {
        Link {
            wish: watch::Sender::new(Arc::default()),
            newest: None,
            older_boot: None,
            heard: None,
            status: None,
        }
    }

    /// Whether the newest report is recent.
    pub(super) fn is_fresh(&self, policy: &Policy) -> bool {
        self.heard.is_some_and(|(at, _)| at.elapsed() < policy.report_every * 3)
    }

    /// Whether a report is news; notes it if so.
    pub(super) fn is_news(&mut self, boot: &str, sequence: u64) -> bool {
        if self.older_boot.as_deref() == Some(boot) {
            return false;
        }
        match &self.newest {
            Some((known, last)) if known == boot && sequence <= *last => return false,
            Some((known, _)) if known != boot => self.older_boot = Some(known.clone()),
            Some(_) | None => {}
        }
        self.newest = Some((boot.to_owned(), sequence));
        true
    }
}

/// Everything around the book that is told, and what is only known while the server lives.
#[derive(Debug)]
pub(super) struct Audience {
    pub(super) events: broadcast::Sender<Change>,
    leases: HashMap<LeaseId, watch::Sender<Arc<api::Lease>>>,
    links: BTreeMap<HostId, Link>,
    pub(super) machines: HashMap<TeId, Vec<api::MachineState>>,
}

impl Audience {
    pub(super) fn new() -> Audience {
        Audience {
            events: broadcast::Sender::new(EVENTS_MAX),
            leases: HashMap::new(),
            links: BTreeMap::new(),
            machines: HashMap::new(),
        }
    }

    pub(super) fn link(&mut self, host: &HostId) -> &mut Link {
        self.links.entry(host.clone()).or_insert_with(Link::new)
    }

    /// What the newest reports said may not have been kept, so the same ones are news again.
    pub(super) fn forget_sequences(&mut self) {
        for link in self.links.values_mut() {
            link.newest = None;
        }
    }

    pub(super) fn links(&self) -> impl Iterator<Item = (&HostId, &Link)> {
        self.links.iter()
    }

    pub(super) fn forget_host(&mut self, host: &HostId) {
        self.links.remove(host);
        self.machines
            .retain(|te, _| te.as_str().rsplit_once('-').map(|p| p.0) != Some(host.as_str()));
    }

    pub(super) fn host(&self, book: &Book, id: &HostId) -> Option<api::Host> {
        let row = book.host(id)?;
        let link = self.links.get(id);
        Some(api::Host {
            id: id.as_str().to_owned(),
            connection: convert::connection(book, id),
            draining: row.draining,
            testenvs: book.tes_of(id).map(|te| te.id.as_str().to_owned()).collect(),
            status: link.and_then(|l| l.status.clone()),
            seen_us: link.and_then(|l| l.heard.map(|(_, t)| t.0)),
            enrolled_us: row.enrolled.0,
        })
    }

    pub(super) fn testenv(&self, book: &Book, id: &TeId) -> Option<api::TestEnv> {
        let te = book.te(id).filter(|te| te.state != TeState::Gone)?;
        let machines = self.machines.get(id).cloned().unwrap_or_default();
        Some(convert::testenv(book, te, machines))
    }

    /// A receiver of one lease, its present value first.
    pub(super) fn watch_lease(
        &mut self,
        id: LeaseId,
        now: api::Lease,
    ) -> watch::Receiver<Arc<api::Lease>> {
        let now = Arc::new(now);
        if now.state.is_over() {
            return watch::Sender::new(now).subscribe();
        }
        match self.leases.get(&id) {
            Some(sender) if sender.receiver_count() > 0 => sender.subscribe(),
            Some(_) | None => {
                let sender = watch::Sender::new(now);
                let receiver = sender.subscribe();
                self.leases.insert(id, sender);
                receiver
            }
        }
    }

    /// Lets the effects of a batch out. Called only when its rows are on disk.
    pub(super) fn publish(&mut self, book: &Book, changes: &Changes, now: Time) {
        for host in &changes.removed_hosts {
            self.forget_host(host);
        }
        for host in &changes.wishes {
            if let Some(link) = self.links.get(host)
                && link.wish.receiver_count() > 0
            {
                link.wish.send_replace(Arc::new(convert::desired(book, host)));
            }
        }
        let followed = self.events.receiver_count() > 0;
        for id in &changes.leases {
            if let Some(row) = book.lease(*id)
                && (followed || self.leases.contains_key(id))
            {
                self.tell_lease(*id, convert::lease(book, row, now), followed);
            }
        }
        if !followed {
            return;
        }
        // Nobody is left to hear an event when sending it fails.
        for id in &changes.tes {
            let _ = self.events.send(match self.testenv(book, id) {
                Some(te) => Change::TestEnv(Arc::new(te)),
                None => gone("testenv", id.as_str()),
            });
        }
        for host in &changes.removed_hosts {
            let _ = self.events.send(gone("host", host.as_str()));
        }
        for host in changes.hosts.iter().filter_map(|id| self.host(book, id)) {
            let _ = self.events.send(Change::Host(Arc::new(host)));
        }
    }

    fn tell_lease(&mut self, id: LeaseId, lease: api::Lease, followed: bool) {
        let over = lease.state.is_over();
        let lease = Arc::new(lease);
        if followed {
            let _ = self.events.send(Change::Lease(lease.clone()));
        }
        if let Some(sender) = self.leases.get(&id) {
            if sender.receiver_count() > 0 {
                sender.send_replace(lease);
            }
            if over || sender.receiver_count() == 0 {
                self.leases.remove(&id);
            }
        }
    }

    /// Tells those who wait their new place, once in a while; drops watchers that went away.
    pub(super) fn refresh_waiting(&mut self, book: &Book) {
        self.leases.retain(|_, sender| sender.receiver_count() > 0);
        let someone_waits = self
            .leases
            .keys()
            .any(|id| book.lease(*id).is_some_and(|l| l.state == LeaseState::Waiting));
        if !someone_waits {
            return;
        }
        for (id, waiting) in book.all_waiting() {
            if let Some(sender) = self.leases.get(&id) {
                let waiting = Some(convert::api_waiting(waiting));
                sender.send_if_modified(|lease| {
                    let changed = lease.waiting != waiting;
                    if changed {
                        Arc::make_mut(lease).waiting = waiting;
                    }
                    changed
                });
            }
        }
    }

    /// After a failed commit: whatever was told may be newer than what is known now.
    pub(super) fn tell_all(&mut self, book: &Book, now: Time) {
        let ids: Vec<LeaseId> = self.leases.keys().copied().collect();
        for id in ids {
            if let Some(row) = book.lease(id) {
                self.tell_lease(id, convert::lease(book, row, now), false);
            }
        }
    }
}
