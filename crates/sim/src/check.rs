//! What must hold after every step. Judged by what the simulation knows, not by what the server
//! or a fence believes.

use crate::client::SimClient;
use crate::disk::Disk;
use crate::host::SimHost;
use crate::message::Stands;
use crate::server::SimServer;
use std::collections::BTreeMap;
use toci_core::id::{Generation, LeaseId, TeId};
use toci_core::lease::{Book, LeaseState};
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
