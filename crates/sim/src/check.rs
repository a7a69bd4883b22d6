//! What must hold after every step. Judged by what the simulation knows, not by what the server
//! or a fence believes.

use crate::client::SimClient;
use crate::disk::Disk;
use crate::host::SimHost;
use crate::message::Stands;
use crate::server::SimServer;
use std::collections::BTreeMap;
use toci_core::id::{Generation, LeaseId, TeId};
use toci_core::lease::fence::LIMIT_JITTER;
use toci_core::lease::{Book, End, LeaseState};
use toci_core::time::Time;

/// Every grant that was ever made: one lease for each generation.
#[derive(Default)]
pub(crate) struct Grants(BTreeMap<(TeId, Generation), LeaseId>);

impl Grants {
    /// A grant was made: nobody may still have the TE, and the generation must be new.
    pub(crate) fn made(
        &mut self,
        book: &Book,
        id: LeaseId,
        hosts: &[SimHost],
    ) -> Result<(), String> {
        let Some(lease) = book.lease(id) else { return Ok(()) };
        for (te, generation) in &lease.tes {
            let first = *self.0.entry((te.clone(), *generation)).or_insert(id);
            if first != id {
                return Err(format!("{te} generation {generation} went to {first} and to {id}"));
            }
            if !matches!(lease.state, LeaseState::Granted { .. }) {
                continue;
            }
            let open = hosts.iter().filter_map(|h| h.tes.get(te)).find_map(|t| {
                let older = t.fence.generation() < *generation;
                t.fence.open().filter(|_| older)
            });
            if let Some(open) = open {
                return Err(format!(
                    "{te} was granted to {id} while its host served {}",
                    open.lease
                ));
            }
        }
        Ok(())
    }
}

/// What holders may count on: how long a lease lasts, and how long they may be silent. In true time.
#[derive(Default)]
pub(crate) struct Promises {
    /// Until when at least, and the boot of the server that said so.
    until: BTreeMap<LeaseId, (Time, u64)>,
    heard: BTreeMap<LeaseId, Time>,
    started: Time,
    boot: u64,
}

impl Promises {
    /// A server started: every holder has a fresh grace.
    pub(crate) fn server_started(&mut self, now: Time, boot: u64) {
        (self.started, self.boot) = (now, boot);
    }

    /// The server took a sign of life of the holder.
    pub(crate) fn heard(&mut self, id: LeaseId, now: Time) {
        self.heard.insert(id, now);
    }

    /// A lease changed. One that ended by itself must not have ended before its time; says how it ended then.
    pub(crate) fn seen(
        &mut self,
        server: &SimServer,
        id: LeaseId,
        now: Time,
    ) -> Result<Option<End>, String> {
        let Some(lease) = server.book.lease(id) else { return Ok(None) };
        match lease.state {
            LeaseState::Active { expires } | LeaseState::Held { expires } => {
                let until = now.after(expires.since(server.clock(now)));
                let first = !self.until.contains_key(&id);
                if first && until.since(now) < lease.timeout {
                    let left = until.since(now);
                    return Err(format!("{id} was asked for {:?}, got {left:?}", lease.timeout));
                }
                self.until.insert(id, (until, self.boot));
                if first {
                    self.heard(id, now);
                }
                Ok(None)
            }
            LeaseState::Over { end: End::Expired, .. } => match self.until.remove(&id) {
                // After a reboot the wall clock decides, and it may be wrong (docs/design/0002, decision 7).
                // A host may end it a little early by its own clock; the book calls that an expiry too.
                Some((until, boot)) if boot == self.boot && now.after(LIMIT_JITTER) < until => {
                    Err(format!("{id} expired {:?} before its time", until.since(now)))
                }
                Some(_) => Ok(Some(End::Expired)),
                None => Ok(None),
            },
            LeaseState::Over { end: End::Lost, .. } => {
                let heard = self.heard.get(&id).copied().unwrap_or_default().max(self.started);
                let silence = now.since(heard);
                if silence < server.book.policy().lost_after {
                    return Err(format!("{id} was taken for lost after {silence:?} of silence"));
                }
                Ok(Some(End::Lost))
            }
            LeaseState::Over { end: End::Released | End::Revoked | End::Refused, .. }
            | LeaseState::Waiting
            | LeaseState::Granted { .. } => Ok(None),
        }
    }
}

/// No TE has two holders whose credentials work.
pub(crate) fn one_holder(
    clients: &[SimClient],
    hosts: &[SimHost],
    now: Time,
) -> Result<(), String> {
    let mut holders: BTreeMap<&TeId, (usize, Generation)> = BTreeMap::new();
    for (i, client) in clients.iter().enumerate() {
        for key in &client.keys {
            if !hosts.iter().any(|h| h.accepts(key, now)) {
                continue;
            }
            let mine = (i, key.generation);
            let other = *holders.entry(&key.te).or_insert(mine);
            if other != mine {
                return Err(format!(
                    "{} has two holders whose keys work: client {} (generation {}) and client {i} (generation {})",
                    key.te, other.0, other.1, key.generation
                ));
            }
        }
    }
    Ok(())
}

/// After a start: whatever was told is still known, and an active lease is not back in the queue.
pub(crate) fn nothing_lost(
    server: &SimServer,
    disk: &mut Disk,
    clients: &[SimClient],
) -> Result<(), String> {
    for (i, client) in clients.iter().enumerate() {
        for (id, told) in &client.told {
            let stands = server.stands(disk, *id).map_err(|e| e.to_string())?;
            let lost = match (told, &stands) {
                (_, Stands::Unknown) => true,
                (Stands::Active(_), Stands::Waiting | Stands::Granted) => true,
                (Stands::Active(a), Stands::Active(b)) => a != b,
                (
                    Stands::Waiting | Stands::Granted | Stands::Over | Stands::Unknown,
                    Stands::Waiting | Stands::Granted | Stands::Active(_) | Stands::Over,
                )
                | (Stands::Active(_), Stands::Over) => false,
            };
            if lost {
                return Err(format!("client {i} was told {id} is {told:?}, now it is {stands:?}"));
            }
        }
    }
    Ok(())
}

/// What is left over when there were no faults for long.
pub(crate) fn unserved(book: &Book) -> Vec<String> {
    let leases = book.leases().filter(|l| !l.state.is_over());
    let tes = book.tes().filter(|te| te.state != toci_core::lease::TeState::Ready);
    leases
        .map(|l| format!("{} is {} since {:?}", l.id, l.state.word(), l.requested))
        .chain(tes.map(|te| format!("{} is {:?} since {:?}", te.id, te.state, te.since)))
        .collect()
}
