//! Who may speak with a TE's seed: the addresses from which the holder of its lease came to the gateway, and those that the
//! holder named there (`admit ADDRESS`). They are kept on disk, so that an agent that is started anew, or another one that
//! takes over, lets the same ones in.

use crate::host::{Host, HostError};
use crate::names;
use crate::ovs::OvsError;
use crate::plan::{self, Guests};
use crate::state::{self, StateDir, StateError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use toci_core::id::Generation;

/// Most addresses of one lease: nodes of the largest job, with some room.
pub const GUESTS_MAX: usize = 64;

/// Why an address is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The holder's fault.
    #[error("{GUESTS_MAX} addresses may speak with the seed of one lease, and so many do already")]
    TooMany,
    /// It could not be written down.
    #[error("keep who may speak with the seed")]
    State(#[from] StateError),
    /// The switch did not learn of it; it is tried again within seconds.
    #[error("tell the switch who may speak with the seed")]
    Switch(#[from] OvsError),
}

/// Of one lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OfLease {
    generation: Generation,
    addresses: BTreeSet<Ipv4Addr>,
}

/// Of all TEs of a host, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestBook(BTreeMap<u32, OfLease>);

impl GuestBook {
    /// As it was written.
    pub(crate) fn read(
        state: &StateDir,
        tes: impl Iterator<Item = u32>,
    ) -> Result<GuestBook, StateError> {
        let mut book = GuestBook::default();
        for te in tes {
            if let Some(of_lease) = state::read_json(&state.guests(te))? {
                book.0.insert(te, of_lease);
            }
        }
        Ok(book)
    }

    /// For the flows.
    #[must_use]
    pub fn all(&self) -> Guests {
        self.0.iter().map(|(te, of_lease)| (*te, of_lease.addresses.clone())).collect()
    }

    fn has(&self, te: u32, generation: Generation, address: Ipv4Addr) -> bool {
        let of_lease = self.0.get(&te).filter(|of_lease| of_lease.generation == generation);
        of_lease.is_some_and(|of_lease| of_lease.addresses.contains(&address))
    }

    /// Adds one; those of another generation go.
    fn add(
        &mut self,
        te: u32,
        generation: Generation,
        address: Ipv4Addr,
    ) -> Result<&OfLease, AdmitError> {
        let nobody = || OfLease { generation, addresses: BTreeSet::new() };
        let of_lease = self.0.entry(te).or_insert_with(nobody);
        if of_lease.generation != generation {
            *of_lease = nobody();
        }
        if of_lease.addresses.len() >= GUESTS_MAX {
            return Err(AdmitError::TooMany);
        }
        of_lease.addresses.insert(address);
        Ok(of_lease)
    }
}

impl Host {
    /// Lets an address at a TE's seed until [`Host::dismiss`]. Whoever calls sees to it that the generation is not cut off
    /// meanwhile.
    pub async fn admit(
        &self,
        te: u32,
        generation: Generation,
        address: Ipv4Addr,
    ) -> Result<(), AdmitError> {
        // The second connection from there, and every further one, waits for nobody.
        if self.guests.read().await.has(te, generation, address) {
            return Ok(());
        }
        let mut book = self.guests.write().await;
        let of_lease = book.add(te, generation, address)?;
        let text = serde_json::to_vec(of_lease).unwrap_or_default();
        state::write_private(&self.state.guests(te), &text)?;
        tracing::info!(te, %generation, %address, "may speak with the seed");
        Ok(self.show_in(&book).await?)
    }

    /// Nobody may speak with a TE's seed any more.
    pub async fn dismiss(&self, te: u32) -> Result<(), HostError> {
        let mut book = self.guests.write().await;
        if !book.0.contains_key(&te) {
            return Ok(());
        }
        state::remove(&self.state.guests(te))?;
        book.0.remove(&te);
        Ok(self.show_in(&book).await?)
    }

    async fn show_in(&self, book: &GuestBook) -> Result<(), OvsError> {
        let flows = plan::public_flows(&self.config, &self.facts, &self.tes, &book.all());
        self.ovs.set_flows(names::PUBLIC_BRIDGE, &flows).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_those_of_one_lease_and_not_too_many() {
        let at = |n: u32| Ipv4Addr::from_bits(0x0a00_0000 + n);
        let (first, second) = (Generation(1), Generation(2));
        let mut book = GuestBook::default();
        for n in 0..u32::try_from(GUESTS_MAX).unwrap() {
            book.add(1, first, at(n)).unwrap();
        }
        assert!(matches!(book.add(1, first, at(99)), Err(AdmitError::TooMany)));
        assert!(book.has(1, first, at(0)) && !book.has(1, second, at(0)));
        book.add(1, second, at(99)).unwrap();
        assert_eq!(book.all(), [(1, BTreeSet::from([at(99)]))].into());
    }

    #[test]
    fn who_was_let_in_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let mut book = GuestBook::default();
        let of_lease = book.add(2, Generation(7), Ipv4Addr::LOCALHOST).unwrap();
        let text = serde_json::to_vec(of_lease).unwrap();
        state::write_private(&state.guests(2), &text).unwrap();
        assert_eq!(GuestBook::read(&state, 1..=3).unwrap(), book);
        state::remove(&state.guests(2)).unwrap();
        state::remove(&state.guests(2)).unwrap();
        assert_eq!(GuestBook::read(&state, 1..=3).unwrap(), GuestBook::default());
    }
}
