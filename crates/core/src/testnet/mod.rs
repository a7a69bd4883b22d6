//! The test network's ports: one for each TE host and each seed, so that the cloud knows their addresses and MACs.
//!
//! ```text
//! what hosts report ──▶ Hosts (legs, by host) ─┐
//!                                              ├──▶ plan() ──▶ Plan: whoever executes it makes no choices
//! the cloud's ports ──▶ FoundPort ─────────────┘
//! ```
//!
//! A port is found by its MAC, of which a network has only one; its description says whose it is. Ports of a host that is
//! known and has not reported yet are left alone: silence is not a wish. So is the port of a host that is a server of the cloud
//! itself, which bears the mark of [`crate::deploy::mark`].

mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Difference, Plan, Policy, Refusal, Step, plan};

use crate::id::HostId;
use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A NIC on the test network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The TE whose seed it belongs to, by its number on the host; absent for the host itself.
    pub testenv: Option<u32>,
    /// Lower case, with colons.
    pub mac: String,
    /// Its address; absent: one that the cloud chooses.
    pub address: Option<IpAddr>,
}

impl Leg {
    /// What its port is called: `te_<host>`, `te_<host>_<N>`.
    #[must_use]
    pub fn name(&self, host: &HostId) -> String {
        match self.testenv {
            None => format!("te_{host}"),
            Some(number) => format!("te_{host}_{number}"),
        }
    }
}

/// Every host that the server knows, with its legs if it has told them.
pub type Hosts = BTreeMap<HostId, Option<Vec<Leg>>>;

/// Whose a port is: written into its description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMark {
    /// Which toci.
    pub owner: String,
    /// Which TE host.
    pub host: String,
}

impl PortMark {
    const PREFIX: &'static str = "toci-testnet:";

    /// From a description.
    #[must_use]
    pub fn read(description: &str) -> Option<PortMark> {
        let (owner, host) = description.strip_prefix(PortMark::PREFIX)?.split_once(':')?;
        let some = !owner.is_empty() && !host.is_empty();
        some.then(|| PortMark { owner: owner.to_owned(), host: host.to_owned() })
    }
}

impl fmt::Display for PortMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}:{}", PortMark::PREFIX, self.owner, self.host)
    }
}

/// A port of the test network, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPort {
    /// What the cloud knows it by.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Lower case, with colons.
    pub mac: String,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Only its own MAC and addresses may be used on it.
    pub port_security: bool,
    /// Further addresses that may be used on it.
    pub allowed: BTreeSet<String>,
    /// The security groups that it is in, by what the cloud knows them by.
    pub groups: BTreeSet<String>,
    /// Holds our mark.
    pub description: String,
    /// What it is plugged into, e.g. `compute:nova`; empty for nothing that the cloud knows.
    pub device_owner: String,
}
