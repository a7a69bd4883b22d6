//! The steps from the ports that are there to those that should be.

use super::{FoundPort, Hosts, Leg, PortMark};
use core::fmt;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What holds for all ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whose mark they carry.
    pub owner: String,
    /// The security groups that they are in, by what the cloud knows them by; none: as the cloud likes.
    pub groups: Option<BTreeSet<String>>,
}

/// Something about a port that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// What it is called.
    Name {
        /// Now.
        old: String,
        /// Then.
        new: String,
    },
    /// Its addresses.
    Address {
        /// Now.
        old: BTreeSet<IpAddr>,
        /// Then.
        new: IpAddr,
    },
    /// Addresses of others may be used on it.
    PortSecurity,
    /// Further addresses are allowed on it.
    Allowed {
        /// Now; none then.
        old: BTreeSet<String>,
    },
    /// Its security groups.
    Groups {
        /// Now.
        old: BTreeSet<String>,
        /// Then.
        new: BTreeSet<String>,
    },
    /// It does not say whose it is.
    Mark,
}

/// One thing to do; doing it again does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Delete a port of ours.
    Delete {
        /// Which.
        id: String,
        /// What it is called.
        name: String,
    },
    /// Make one.
    Create {
        /// What it is called.
        name: String,
        /// For what.
        leg: Leg,
        /// Whose it is.
        mark: PortMark,
    },
    /// Put one right.
    Repair {
        /// Which.
        id: String,
        /// What it is called then.
        name: String,
        /// What differs.
        differences: Vec<Difference>,
        /// Whose it is.
        mark: PortMark,
    },
}

/// A leg that gets no port, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What its port would be called.
    pub name: String,
    /// Why.
    pub why: String,
}

/// What to do, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// What is in the way and not ours.
    pub refused: Vec<Refusal>,
}

/// From the ports of the network to those that the hosts need.
#[must_use]
pub fn plan(policy: &Policy, hosts: &Hosts, found: &[FoundPort]) -> Plan {
    let owner = policy.owner.as_str();
    let mut plan = Plan::default();
    let mut kept: BTreeSet<&str> = BTreeSet::new();
    let mut macs: BTreeSet<&str> = BTreeSet::new();
    let wished =
        hosts.iter().flat_map(|(host, legs)| legs.iter().flatten().map(move |l| (host, l)));
    for (host, leg) in wished {
        let name = leg.name(host);
        let mark = PortMark { owner: owner.to_owned(), host: host.to_string() };
        if !macs.insert(&leg.mac) {
            let why = format!("another TE host has the MAC {} too", leg.mac);
            plan.refused.push(Refusal { name, why });
            continue;
        }
        let Some(port) = found.iter().find(|port| port.mac == leg.mac) else {
            plan.steps.push(Step::Create { name, leg: leg.clone(), mark });
            continue;
        };
        if port.description == crate::deploy::mark(owner, host.as_str()) {
            // The server's own: `toci host deploy` has made it as it should be, and takes it away.
            continue;
        }
        if let Some(why) = not_ours(port, owner) {
            plan.refused.push(Refusal { name, why });
            continue;
        }
        kept.insert(&port.id);
        let differences = differences(policy, &name, leg, &mark, port);
        if !differences.is_empty() {
            plan.steps.push(Step::Repair { id: port.id.clone(), name, differences, mark });
        }
    }
    let gone = found.iter().filter(|port| !kept.contains(port.id.as_str()));
    let gone = gone.filter(|port| is_unwished(port, owner, hosts));
    let deletions = gone.map(|port| Step::Delete { id: port.id.clone(), name: port.name.clone() });
    // First: what is made may take over their MACs and addresses.
    plan.steps.splice(0..0, deletions.collect::<Vec<Step>>());
    plan
}

fn not_ours(port: &FoundPort, owner: &str) -> Option<String> {
    let FoundPort { id, name, mac, device_owner, .. } = port;
    match PortMark::read(&port.description) {
        Some(mark) if mark.owner == owner => None,
        Some(mark) => Some(format!("port {name} ({id}) with the MAC {mac} is `{}`'s", mark.owner)),
        None if !device_owner.is_empty() => {
            Some(format!("port {name} ({id}) with the MAC {mac} is plugged into {device_owner}"))
        }
        None => None,
    }
}

fn differences(
    policy: &Policy,
    name: &str,
    leg: &Leg,
    mark: &PortMark,
    port: &FoundPort,
) -> Vec<Difference> {
    let mut out = Vec::new();
    if PortMark::read(&port.description).as_ref() != Some(mark) {
        out.push(Difference::Mark);
    }
    if port.name != name {
        out.push(Difference::Name { old: port.name.clone(), new: name.to_owned() });
    }
    if let Some(new) = leg.address
        && port.addresses != BTreeSet::from([new])
    {
        out.push(Difference::Address { old: port.addresses.clone(), new });
    }
    if !port.port_security {
        out.push(Difference::PortSecurity);
    }
    if !port.allowed.is_empty() {
        out.push(Difference::Allowed { old: port.allowed.clone() });
    }
    if let Some(new) = policy.groups.as_ref().filter(|groups| **groups != port.groups) {
        out.push(Difference::Groups { old: port.groups.clone(), new: new.clone() });
    }
    out
}

/// Ours, and of a host that is gone or has told that it has no such leg.
fn is_unwished(port: &FoundPort, owner: &str, hosts: &Hosts) -> bool {
    let Some(mark) = PortMark::read(&port.description) else { return false };
    let silent = hosts.iter().any(|(host, legs)| host.as_str() == mark.host && legs.is_none());
    mark.owner == owner && !silent
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Name { old, new } => write!(f, "name: {old} -> {new}"),
            Difference::Address { old, new } => {
                let old: Vec<String> = old.iter().map(ToString::to_string).collect();
                write!(f, "address: {} -> {new}", old.join(", "))
            }
            Difference::PortSecurity => f.write_str("port security: off -> on"),
            Difference::Allowed { old } => {
                let old: Vec<&str> = old.iter().map(String::as_str).collect();
                write!(f, "allowed addresses: {} -> none", old.join(", "))
            }
            Difference::Groups { old, new } => {
                let each = |groups: &BTreeSet<String>| {
                    let each: Vec<&str> = groups.iter().map(String::as_str).collect();
                    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
                };
                write!(f, "security groups: {} -> {}", each(old), each(new))
            }
            Difference::Mark => f.write_str("adopted"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Delete { name, .. } => write!(f, "- port {name}"),
            Step::Create { name, leg, .. } => {
                write!(f, "+ port {name}: {}", leg.mac)?;
                leg.address.map_or(Ok(()), |address| write!(f, ", {address}"))
            }
            Step::Repair { name, differences, .. } => {
                let each: Vec<String> = differences.iter().map(ToString::to_string).collect();
                write!(f, "~ port {name}: {}", each.join("; "))
            }
        }
    }
}
