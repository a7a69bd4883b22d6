//! A TE between two leases.

use super::desired::DomainSpec;
use super::desired::TeSpec;
use super::diff::{Plan, Step};
use super::domain_xml::domain_xml;
use super::world::World;

/// Machines off, and nothing else: the first half of a reset, and all of a quarantine.
#[must_use]
pub fn vacate_plan(te: &TeSpec, world: &World) -> Plan {
    let on = |name: &str| world.domains.get(name).is_some_and(|d| d.on);
    let steps = te
        .machines
        .iter()
        .filter(|m| on(&m.name))
        .map(|m| Step::PowerOff { domain: m.name.clone() })
        .collect();
    Plan { steps, conflicts: Vec::new() }
}

/// Machines off, disks blank, consoles forgotten, domains as the shape says: boot order too, and
/// NVRAM by being defined anew. A domain that is as it should be is not touched.
#[must_use]
pub fn reset_plan(te: &TeSpec, world: &World) -> Plan {
    let mut p = vacate_plan(te, world);
    for m in &te.machines {
        p.steps.push(Step::BlankDisk { path: m.disk.clone(), bytes: m.disk_bytes });
    }
    p.steps.push(Step::DropConsoles { te: te.number });
    p.steps.push(Step::DropConnections { te: te.number });
    for m in &te.machines {
        let (xml, fingerprint) = domain_xml(m);
        let have = world.domains.get(&m.name);
        let why = match have {
            None => "is missing",
            Some(d) if d.fingerprint.as_ref() != Some(&fingerprint) => "differs",
            Some(d) if d.boot != Some(m.boot) => "boot order changed",
            Some(_) => continue,
        };
        let spec = DomainSpec { xml, fingerprint, boot: m.boot };
        p.steps.push(Step::Define { domain: m.name.clone(), spec, why });
    }
    p
}
