//! Which key opens which TE, now. Each TE has a door; a grant opens it for one generation's key and
//! closing it cuts whoever is inside and waits until they are gone.
//!
//! ```text
//!            open(g)                    close(g') with g' >= g, expiry, open(g'' > g)
//!  shut ───────────────▶ open for g ───────────────────────────────────────────────▶ shut
//! ```
//! A generation that was shut is shut for good: the door remembers the newest one.

use super::key::PublicKey;
use super::limits::{COMMANDS_OF_LEASE_MAX, CONNECTIONS_OF_LEASE_MAX};
use super::machines::Machines;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use toci_core::id::{Generation, LeaseId, TeId};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What opens a TE to its holder.
#[derive(Clone, Debug)]
pub struct TeGrant {
    /// The TE.
    pub te: TeId,
    /// The generation of the grant.
    pub generation: Generation,
    /// The lease, for logs and messages.
    pub lease: LeaseId,
    /// The lease's key.
    pub key: PublicKey,
    /// By the host's own monotonic clock; [`Gateway::open`](super::Gateway::open) again moves it.
    pub expires: Instant,
    /// The TE's machines.
    pub machines: Arc<dyn Machines>,
}

/// Why a door was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefused {
    /// A newer generation was seen, or this one was shut.
    #[error("{te} is past generation {asked}: generation {newest} was seen")]
    OldGeneration {
        /// The TE.
        te: TeId,
        /// Asked for.
        asked: Generation,
        /// The newest that was open or shut.
        newest: Generation,
    },
    /// The same generation with another key.
    #[error("{te} is open for generation {generation} with another key")]
    OtherKey {
        /// The TE.
        te: TeId,
        /// The generation.
        generation: Generation,
    },
}

/// An open door and who is inside.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) grant: TeGrant,
    /// Moved by extension.
    pub(super) expires: watch::Sender<Instant>,
    /// Cancelled when it is shut.
    pub(super) shut: CancellationToken,
    /// Everything that acts for the grant is a receiver; when there is none, nobody is inside.
    inside: watch::Sender<()>,
    pub(super) connections: Arc<Semaphore>,
    pub(super) commands: Arc<Semaphore>,
    /// One permit: one `copyseed` at a time.
    pub(super) upload: Arc<Semaphore>,
}

/// Proof that somebody is inside; keep it as long as anything may act.
#[derive(Clone, Debug)]
pub(super) struct Inside(#[expect(dead_code, reason = "held, not read")] watch::Receiver<()>);

impl Open {
    fn new(grant: TeGrant) -> Open {
        Open {
            expires: watch::Sender::new(grant.expires),
            grant,
            shut: CancellationToken::new(),
            inside: watch::Sender::new(()),
            connections: Arc::new(Semaphore::new(CONNECTIONS_OF_LEASE_MAX)),
            commands: Arc::new(Semaphore::new(COMMANDS_OF_LEASE_MAX)),
            upload: Arc::new(Semaphore::new(1)),
        }
    }

    /// Whether the generation may act now.
    pub(super) fn is_open(&self) -> bool {
        !self.shut.is_cancelled() && Instant::now() < *self.expires.borrow()
    }

    /// Goes in; `None` once it is shut.
    pub(super) fn enter(&self) -> Option<Inside> {
        // In this order: whoever is in before it is shut is waited for.
        let inside = Inside(self.inside.subscribe());
        self.is_open().then_some(inside)
    }

    /// Waits until nobody is inside any more.
    async fn empty(&self) {
        self.inside.closed().await;
    }
}

#[derive(Debug, Default)]
struct Door {
    /// This generation and everything older is dead for good.
    dead: Option<Generation>,
    open: Option<Arc<Open>>,
    /// Shut, but perhaps somebody is still on the way out.
    leaving: Vec<Arc<Open>>,
}

/// All doors of a host.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<BTreeMap<TeId, Door>>);

impl Doors {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TeId, Door>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens, or moves the expiry of what is open; `Some` when a door was newly opened.
    pub(super) async fn open(&self, grant: TeGrant) -> Result<Option<Arc<Open>>, OpenRefused> {
        let (te, generation) = (grant.te.clone(), grant.generation);
        loop {
            let leaving = {
                let mut doors = self.lock();
                let door = doors.entry(te.clone()).or_default();
                let newest = door.dead.max(door.open.as_ref().map(|o| o.grant.generation));
                match &door.open {
                    Some(open) if open.grant.generation == generation => {
                        if open.grant.key != grant.key {
                            return Err(OpenRefused::OtherKey { te, generation });
                        }
                        open.expires.send_replace(grant.expires);
                        return Ok(None);
                    }
                    Some(_) | None => {}
                }
                if let Some(newest) = newest.filter(|n| *n >= generation) {
                    return Err(OpenRefused::OldGeneration { te, asked: generation, newest });
                }
                if let Some(older) = door.open.as_ref().map(|o| o.grant.generation) {
                    shut(door, older);
                }
                if door.leaving.is_empty() {
                    let open = Arc::new(Open::new(grant));
                    door.open = Some(Arc::clone(&open));
                    return Ok(Some(open));
                }
                door.leaving.clone()
            };
            self.see_off(&te, leaving).await;
        }
    }

    /// Shuts every generation up to this one, for good, and waits until nobody is inside.
    pub(super) async fn close(&self, te: &TeId, generation: Generation) {
        let leaving = {
            let mut doors = self.lock();
            let door = doors.entry(te.clone()).or_default();
            shut(door, generation);
            door.leaving.clone()
        };
        self.see_off(te, leaving).await;
    }

    /// As `close` for every TE.
    pub(super) async fn close_all(&self) {
        let open: Vec<(TeId, Generation)> = {
            let doors = self.lock();
            let open = doors
                .iter()
                .filter_map(|(te, d)| d.open.as_ref().map(|o| (te.clone(), o.grant.generation)));
            open.collect()
        };
        for (te, generation) in open {
            self.close(&te, generation).await;
        }
    }

    async fn see_off(&self, te: &TeId, leaving: Vec<Arc<Open>>) {
        for open in leaving {
            open.empty().await;
            if let Some(door) = self.lock().get_mut(te) {
                door.leaving.retain(|l| !Arc::ptr_eq(l, &open));
            }
        }
    }

    /// The open door that this key opens.
    pub(super) fn find(&self, key: &russh::keys::PublicKey) -> Option<Arc<Open>> {
        let doors = self.lock();
        let open = doors.values().filter_map(|d| d.open.as_ref());
        open.filter(|o| o.is_open()).find(|o| o.grant.key.is(key)).map(Arc::clone)
    }
}

fn shut(door: &mut Door, generation: Generation) {
    door.dead = door.dead.max(Some(generation));
    if door.open.as_ref().is_some_and(|o| o.grant.generation <= generation)
        && let Some(open) = door.open.take()
    {
        open.shut.cancel();
        door.leaving.push(open);
    }
}
