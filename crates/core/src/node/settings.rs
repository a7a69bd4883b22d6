//! What an operator configures: labels and providers.

use crate::id::{Label, ProviderName};
use std::collections::BTreeMap;

/// What a node takes, or what there is of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Machines.
    pub servers: u64,
    /// CPUs.
    pub cpus: u64,
    /// Memory, MiB.
    pub memory_mib: u64,
}

impl Amount {
    /// Nothing.
    pub const NONE: Amount = Amount { servers: 0, cpus: 0, memory_mib: 0 };

    /// What is left; none when it does not suffice.
    #[must_use]
    pub fn less(self, part: Amount) -> Option<Amount> {
        Some(Amount {
            servers: self.servers.checked_sub(part.servers)?,
            cpus: self.cpus.checked_sub(part.cpus)?,
            memory_mib: self.memory_mib.checked_sub(part.memory_mib)?,
        })
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Amount) -> Amount {
        Amount {
            servers: self.servers.saturating_add(other.servers),
            cpus: self.cpus.saturating_add(other.cpus),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
        }
    }

    /// Of each the smaller.
    #[must_use]
    pub fn least(self, other: Amount) -> Amount {
        Amount {
            servers: self.servers.min(other.servers),
            cpus: self.cpus.min(other.cpus),
            memory_mib: self.memory_mib.min(other.memory_mib),
        }
    }

    /// Of a need that this does not suffice for: what is needed and what there is, of each kind that is short; none when
    /// it suffices.
    #[must_use]
    pub fn short_of(self, need: Amount) -> Option<(String, String)> {
        let kinds = [
            (need.servers, self.servers, "server", "servers"),
            (need.cpus, self.cpus, "CPU", "CPUs"),
            (need.memory_mib, self.memory_mib, "MiB of memory", "MiB of memory"),
        ];
        let of = |n: u64, one: &str, more: &str| format!("{n} {}", if n == 1 { one } else { more });
        let short = || kinds.iter().filter(|(need, have, ..)| need > have);
        short().next()?;
        let needed: Vec<String> =
            short().map(|(need, _, one, more)| of(*need, one, more)).collect();
        let there: Vec<String> = short().map(|(_, have, one, more)| of(*have, one, more)).collect();
        Some((needed.join(" and "), there.join(" and ")))
    }

    /// How often a part fits into it.
    #[must_use]
    pub fn holds(self, part: Amount) -> u64 {
        let times = |have: u64, part: u64| have.checked_div(part).unwrap_or(u64::MAX);
        times(self.servers, part.servers)
            .min(times(self.cpus, part.cpus))
            .min(times(self.memory_mib, part.memory_mib))
    }

    /// So many of it.
    #[must_use]
    pub fn times(self, n: u32) -> Amount {
        let n = u64::from(n);
        Amount {
            servers: self.servers.saturating_mul(n),
            cpus: self.cpus.saturating_mul(n),
            memory_mib: self.memory_mib.saturating_mul(n),
        }
    }
}

/// A kind of node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSpec {
    /// What jobs ask for.
    pub name: Label,
    /// So many are kept ready.
    pub min_ready: u32,
}

/// How a provider makes nodes of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// So many at most.
    pub max: u64,
    /// What one takes.
    pub cost: Amount,
}

/// Where nodes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderSpec {
    /// Its name.
    pub name: ProviderName,
    /// All that may be taken of it.
    pub quota: Amount,
    /// What it offers.
    pub pools: BTreeMap<Label, PoolSpec>,
}

impl ProviderSpec {
    /// Whether so many nodes of a label can be there at all.
    #[must_use]
    pub fn offers(&self, label: &Label, count: u32) -> bool {
        self.pools.get(label).is_some_and(|pool| {
            pool.max >= u64::from(count) && self.quota.less(pool.cost.times(count)).is_some()
        })
    }
}

/// What a provider has learnt from its cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// All that our nodes together may take: what the cloud's quotas leave to us beside what others have.
    pub capacity: Amount,
    /// All of the cloud's quotas, whoever uses them: what is more than that can never be there.
    pub quota: Amount,
    /// What a node of a label takes, where the cloud knows it better than the settings.
    pub costs: BTreeMap<Label, Amount>,
}

/// All of it. The first label is the default one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Labels.
    pub labels: Vec<LabelSpec>,
    /// Providers.
    pub providers: Vec<ProviderSpec>,
}
