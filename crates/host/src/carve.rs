//! How many TEs a host carries: the smallest of what memory, CPU and disk allow (origin.md 2.4),
//! with figures of each shape and a reserve. Pure.

use crate::config::{Config, Shape};
use crate::names::TE_NUMBER_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;
use toci_core::id::{Label, ShapeName};

/// MiB that a running machine costs above its memory: QEMU itself.
pub const MACHINE_OVERHEAD_MIB: u64 = 64;

/// What there is to carve, before the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// MiB.
    pub memory_mib: u64,
    /// CPUs.
    pub cpus: u32,
    /// MiB: free, plus what TEs already use.
    pub disk_mib: u64,
}

/// What a TE of a shape costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// MiB.
    pub memory_mib: u64,
    /// Real CPUs, a fraction because of overcommit.
    pub cpus: f64,
    /// MiB, as if every disk were full, less what the shape overcommits.
    pub disk_mib: u64,
}

impl Cost {
    /// Of one TE.
    #[must_use]
    pub fn of(shape: &Shape) -> Cost {
        let (seed, nodes) = (shape.seed, shape.nodes);
        let count = u64::from(nodes.count);
        let virtual_cpus = f64::from(seed.cpus) + f64::from(nodes.count * nodes.cpus);
        Cost {
            memory_mib: seed.memory_mib
                + count * nodes.memory_mib
                + (count + 1) * MACHINE_OVERHEAD_MIB,
            cpus: virtual_cpus / shape.cpu_overcommit,
            disk_mib: overcommitted(
                (seed.disk_gb + count * (nodes.disk_gb + 1)) * 1024,
                shape.disk_overcommit,
            ),
        }
    }
}

/// The share that is counted; never nothing.
fn overcommitted(mib: u64, factor: f64) -> u64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "MiB of disks are far below 2^53, the factor is at least 1"
    )]
    let share = (mib as f64 / factor).ceil() as u64;
    share.max(1)
}

/// One TE to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carved {
    /// From 1.
    pub number: u32,
    /// Its shape.
    pub shape: ShapeName,
    /// Its labels.
    pub labels: Vec<Label>,
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scarce {
    /// Memory.
    Memory,
    /// CPUs.
    Cpus,
    /// Disk.
    Disk,
    /// `network.seed_addresses` or TE numbers.
    Addresses,
}

impl fmt::Display for Scarce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scarce::Memory => "memory",
            Scarce::Cpus => "cpus",
            Scarce::Disk => "disk",
            Scarce::Addresses => "seed addresses",
        })
    }
}

/// A wish that does not fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "TE {number} of shape {shape} does not fit: not enough {scarce} \
     (a TE takes {memory} MiB memory, {cpus:.2} cpus, {disk} MiB disk); \
     lower its count, its shape or the reserve"
)]
pub struct DoesNotFit {
    /// The first that does not fit.
    pub number: u32,
    /// Its shape.
    pub shape: ShapeName,
    /// What ran out.
    pub scarce: Scarce,
    /// Cost of the shape, MiB.
    pub memory: u64,
    /// Cost of the shape, CPUs.
    pub cpus: f64,
    /// Cost of the shape, MiB.
    pub disk: u64,
}

/// Carves: entries in order, numbers from 1. An entry with a count must fit wholly; one without
/// takes as many as are left room for, perhaps none.
pub fn carve(config: &Config, there_is: Resources) -> Result<Vec<Carved>, DoesNotFit> {
    let mut memory = there_is.memory_mib.saturating_sub(config.reserve.memory_mib);
    let mut cpus = f64::from(there_is.cpus.saturating_sub(config.reserve.cpus));
    let mut disk = there_is.disk_mib.saturating_sub(config.reserve.disk_mib);
    let most = config.network.seed_addresses.len().min(TE_NUMBER_MAX);
    let mut carved: Vec<Carved> = Vec::new();
    for entry in &config.testenv {
        let Some(shape) = config.shape.get(&entry.shape) else { continue };
        let cost = Cost::of(shape);
        for _ in 0..entry.count.unwrap_or(u32::MAX) {
            let number = u32::try_from(carved.len()).unwrap_or(u32::MAX) + 1;
            let scarce = if number > most {
                Some(Scarce::Addresses)
            } else if cost.memory_mib > memory {
                Some(Scarce::Memory)
            } else if cost.cpus > cpus + 1e-9 {
                Some(Scarce::Cpus)
            } else if cost.disk_mib > disk {
                Some(Scarce::Disk)
            } else {
                None
            };
            match (scarce, entry.count) {
                (None, _) => {}
                (Some(_), None) => break,
                (Some(scarce), Some(_)) => {
                    return Err(DoesNotFit {
                        number,
                        shape: entry.shape.clone(),
                        scarce,
                        memory: cost.memory_mib,
                        cpus: cost.cpus,
                        disk: cost.disk_mib,
                    });
                }
            }
            memory -= cost.memory_mib;
            cpus -= cost.cpus;
            disk -= cost.disk_mib;
            carved.push(Carved {
                number,
                shape: entry.shape.clone(),
                labels: entry.labels.clone(),
            });
        }
    }
    Ok(carved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::EXAMPLE;
    use std::path::Path;

    fn config(from: &str, to: &str) -> Config {
        Config::parse(Path::new("t.toml"), &EXAMPLE.replace(from, to)).unwrap()
    }

    const ROOMY: Resources = Resources { memory_mib: 100_000, cpus: 100, disk_mib: 1_000_000 };

    #[test]
    fn a_count_is_met_or_refused_with_what_is_scarce() {
        let c = config("", "");
        assert_eq!(carve(&c, ROOMY).unwrap().len(), 2);
        // A TE: 3 * 384 + 3 * 64 MiB memory, 3/8 cpus, 2 + 2 * 3 GB disk.
        for (there_is, scarce) in [
            (Resources { memory_mib: 2048 + 2 * 1344 - 1, ..ROOMY }, Scarce::Memory),
            (Resources { cpus: 0, ..ROOMY }, Scarce::Cpus),
            (Resources { disk_mib: 4096 + 2 * 8192 - 1, ..ROOMY }, Scarce::Disk),
        ] {
            assert_eq!(carve(&c, there_is).unwrap_err().scarce, scarce);
        }
        let exact = Resources { memory_mib: 2048 + 2 * 1344, cpus: 1, disk_mib: 4096 + 2 * 8192 };
        assert_eq!(carve(&c, exact).unwrap().len(), 2);
        let c = config("[shape.seed-2]\n", "[shape.seed-2]\ndisk_overcommit = 8.0\n");
        let little = Resources { disk_mib: 4096 + 2 * 1024, ..ROOMY };
        assert_eq!(carve(&c, little).unwrap().len(), 2);
        assert!(carve(&c, Resources { disk_mib: little.disk_mib - 1, ..ROOMY }).is_err());
    }

    #[test]
    fn without_a_count_the_smallest_of_the_three_decides() {
        let c = config("count = 2\n[shape", "[shape");
        let n = |r| carve(&c, r).unwrap().len();
        assert_eq!(n(Resources { memory_mib: 2048 + 3 * 1344 + 5, ..ROOMY }), 3);
        assert_eq!(n(Resources { cpus: 3, ..ROOMY }), 8);
        assert_eq!(n(Resources { disk_mib: 4096 + 4 * 8192, ..ROOMY }), 4);
        assert_eq!(n(Resources { memory_mib: 0, ..ROOMY }), 0);
        let huge = Resources { memory_mib: 10_000_000, cpus: 1000, disk_mib: 100_000_000 };
        assert_eq!(n(huge), 99, "no more than there are seed addresses");
    }
}
