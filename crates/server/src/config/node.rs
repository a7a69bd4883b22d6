//! `[[label]]`, `[[provider]]`, `[nodes]`: where the machines come from that jobs run on. Without a label there are none.

use super::node_libvirt::{self, AcceleratorFile, ImageConfigs, ImageFile};
use crate::tasks::node::PoolParts;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use toci_core::id::{Label, ProviderName};
use toci_core::node::{Amount, LabelSpec, Policy, PoolSpec, ProviderSpec, Settings};
use toci_edge::node::bounds::{Bounds, PROCESSES_MAX};
use toci_edge::provider::Provider;
use toci_edge::provider::fixed::{Fixed, FixedConfig, FixedMachine};
use toci_edge::provider::libvirt::{Libvirt, LibvirtConfig};
use toci_edge::provider::local::{Local, LocalConfig, pairs};

/// How long cleaning a static machine may take when nothing else is said.
const CLEANUP_LIMIT: Duration = Duration::from_secs(300);
/// Port of SSH.
const SSH_PORT: u16 = 22;

/// Settings of the node pool.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Labels and providers.
    pub settings: Settings,
    /// What it decides by.
    pub policy: Policy,
    /// How to reach each provider.
    pub kinds: BTreeMap<ProviderName, ProviderKind>,
}

/// How to reach a provider.
#[derive(Clone, Debug)]
pub enum ProviderKind {
    /// Sandboxes on this machine.
    Local(LocalConfig),
    /// Existing machines.
    Fixed(FixedConfig),
    /// Virtual machines.
    Libvirt(Box<LibvirtConfig>),
}

impl NodeConfig {
    /// What the pool is started with.
    #[must_use]
    pub fn parts(self) -> PoolParts {
        // Images are built one at a time, whoever wants them.
        let workshop = Arc::default();
        let provider = |kind: ProviderKind| -> Arc<dyn Provider> {
            match kind {
                ProviderKind::Local(config) => Arc::new(Local::new(config)),
                ProviderKind::Fixed(config) => Arc::new(Fixed::new(config)),
                ProviderKind::Libvirt(config) => {
                    Arc::new(Libvirt::new(*config, Arc::clone(&workshop)))
                }
            }
        };
        let providers = self.kinds.into_iter().map(|(name, kind)| (name, provider(kind))).collect();
        PoolParts { settings: self.settings, policy: self.policy, providers }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NodesFile {
    pause_min_s: Option<u64>,
    pause_max_s: Option<u64>,
    failures_max: Option<u32>,
    recheck_s: Option<u64>,
    spare_s: Option<u64>,
    reclaim_s: Option<u64>,
    hold_max_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelFile {
    name: Label,
    #[serde(default)]
    min_ready: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Local,
    Static,
    Libvirt,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderFile {
    pub(super) name: ProviderName,
    kind: Kind,
    pub(super) max_servers: Option<u16>,
    max_cpus: Option<u64>,
    max_memory_mib: Option<u64>,
    #[serde(default)]
    pub(super) pool: Vec<PoolFile>,
    // local
    pub(super) addresses: Option<String>,
    pub(super) first_number: Option<u16>,
    pub(super) cgroup: Option<PathBuf>,
    // static
    pub(super) ssh_key_file: Option<PathBuf>,
    pub(super) known_hosts_file: Option<PathBuf>,
    pub(super) cleanup: Option<String>,
    pub(super) cleanup_limit_s: Option<u64>,
    // libvirt, and ssh_key_file
    pub(super) uri: Option<String>,
    pub(super) folder: Option<PathBuf>,
    pub(super) network: Option<String>,
    pub(super) bridge: Option<String>,
    pub(super) ssh_user: Option<String>,
    pub(super) accelerator: Option<AcceleratorFile>,
    pub(super) boot_limit_s: Option<u64>,
}

impl ProviderFile {
    /// What means something for local only.
    fn of_local(&self) -> [(&'static str, bool); 3] {
        [
            ("cgroup", self.cgroup.is_some()),
            ("pool.disk_mib", self.pool.iter().any(|pool| pool.disk_mib.is_some())),
            ("pool.processes", self.pool.iter().any(|pool| pool.processes.is_some())),
        ]
    }

    /// What means something for libvirt only.
    fn of_libvirt(&self) -> [(&'static str, bool); 9] {
        [
            ("uri", self.uri.is_some()),
            ("folder", self.folder.is_some()),
            ("network", self.network.is_some()),
            ("bridge", self.bridge.is_some()),
            ("ssh_user", self.ssh_user.is_some()),
            ("accelerator", self.accelerator.is_some()),
            ("boot_limit_s", self.boot_limit_s.is_some()),
            ("pool.image", self.pool.iter().any(|pool| pool.image.is_some())),
            ("pool.disk_gib", self.pool.iter().any(|pool| pool.disk_gib.is_some())),
        ]
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolFile {
    pub(super) label: Label,
    max: Option<u64>,
    pub(super) cpus: Option<u64>,
    pub(super) memory_mib: Option<u64>,
    disk_mib: Option<u64>,
    processes: Option<u32>,
    #[serde(default)]
    pub(super) machines: Vec<String>,
    pub(super) image: Option<String>,
    pub(super) disk_gib: Option<u64>,
}

/// What nodes are described by.
#[derive(Debug, Default)]
pub(super) struct NodeFiles {
    pub(super) nodes: NodesFile,
    pub(super) labels: Vec<LabelFile>,
    pub(super) providers: Vec<ProviderFile>,
    pub(super) images: Vec<ImageFile>,
}

pub(super) fn filled_in(files: NodeFiles, state: &Path) -> Result<Option<NodeConfig>, String> {
    let NodeFiles { nodes, labels, providers, images } = files;
    let images = node_libvirt::images(images)?;
    if labels.is_empty() && providers.is_empty() {
        return Ok(None);
    }
    let mut names = BTreeSet::new();
    for label in &labels {
        if !names.insert(label.name.clone()) {
            return Err(format!("label {} is there twice", label.name));
        }
    }
    let mut settings = Settings::default();
    settings
        .labels
        .extend(labels.into_iter().map(|l| LabelSpec { name: l.name, min_ready: l.min_ready }));
    let mut kinds = BTreeMap::new();
    for file in providers {
        let name = file.name.clone();
        let surroundings = (state, &images);
        let (spec, kind) =
            provider(file, &names, surroundings).map_err(|e| format!("provider {name}: {e}"))?;
        settings.providers.push(spec);
        if kinds.insert(name.clone(), kind).is_some() {
            return Err(format!("provider {name} is there twice"));
        }
    }
    for label in &settings.labels {
        let offered = settings.providers.iter().any(|p| p.offers(&label.name, 1));
        if !offered {
            let name = &label.name;
            return Err(format!("label {name}: no [[provider]] has a [[provider.pool]] with it"));
        }
    }
    Ok(Some(NodeConfig { settings, policy: policy(&nodes)?, kinds }))
}

fn provider(
    file: ProviderFile,
    labels: &BTreeSet<Label>,
    (state, images): (&Path, &ImageConfigs),
) -> Result<(ProviderSpec, ProviderKind), String> {
    let mut pools = BTreeMap::new();
    for pool in &file.pool {
        if !labels.contains(&pool.label) {
            return Err(format!("its pool's label {} is no [[label]]", pool.label));
        }
        let cost = Amount {
            servers: 1,
            cpus: pool.cpus.unwrap_or(0),
            memory_mib: pool.memory_mib.unwrap_or(0),
        };
        let machines = u64::try_from(pool.machines.len()).unwrap_or(u64::MAX);
        let most = if file.kind == Kind::Static { machines } else { u64::MAX };
        let spec = PoolSpec { max: pool.max.unwrap_or(u64::MAX).min(most), cost };
        if pools.insert(pool.label.clone(), spec).is_some() {
            return Err(format!("label {} is there twice", pool.label));
        }
    }
    let (kind, most) = match file.kind {
        Kind::Local => local(&file)?,
        Kind::Static => fixed(&file)?,
        Kind::Libvirt => node_libvirt::libvirt(&file, state, images)?,
    };
    if file.kind != Kind::Libvirt {
        only(&file.of_libvirt())?;
    }
    if file.kind != Kind::Local {
        only(&file.of_local())?;
    }
    let spec = ProviderSpec {
        name: file.name,
        quota: Amount {
            servers: most,
            cpus: file.max_cpus.unwrap_or(u64::MAX),
            memory_mib: file.max_memory_mib.unwrap_or(u64::MAX),
        },
        pools,
    };
    Ok((spec, kind))
}

/// Refuses settings that mean nothing for a kind of provider.
pub(super) fn only(given: &[(&str, bool)]) -> Result<(), String> {
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((name, _)) => Err(format!("{name} means nothing for its kind")),
        None => Ok(()),
    }
}

fn local(file: &ProviderFile) -> Result<(ProviderKind, u64), String> {
    only(&[
        ("ssh_key_file", file.ssh_key_file.is_some()),
        ("known_hosts_file", file.known_hosts_file.is_some()),
        ("cleanup", file.cleanup.is_some()),
        ("cleanup_limit_s", file.cleanup_limit_s.is_some()),
        ("pool.machines", file.pool.iter().any(|pool| !pool.machines.is_empty())),
    ])?;
    let max = file.max_servers.ok_or("max_servers is missing")?;
    let addresses = file.addresses.as_deref().map(range).transpose()?;
    if let Some((first, last)) = addresses
        && pairs(first, last).len() < usize::from(max)
    {
        let have = pairs(first, last).len();
        return Err(format!(
            "addresses has {have} pairs (an even address and the odd one after it), and max_servers is {max}"
        ));
    }
    let first_number = file.first_number.unwrap_or(0);
    if first_number.checked_add(max).is_none() {
        return Err("first_number and max_servers together are more than 65535".to_owned());
    }
    if let Some(cgroup) = file.cgroup.as_ref().filter(|cgroup| !cgroup.is_absolute()) {
        return Err(format!("cgroup `{}` is not absolute", cgroup.display()));
    }
    for pool in &file.pool {
        let zero = pool.processes == Some(0) || pool.memory_mib == Some(0);
        if zero || pool.disk_mib == Some(0) || pool.cpus == Some(0) {
            let label = &pool.label;
            return Err(format!(
                "pool {label}: processes, memory_mib, disk_mib, cpus are at least 1"
            ));
        }
    }
    let bounds = |pool: &PoolFile| {
        let bounds = Bounds {
            processes: pool.processes.unwrap_or(PROCESSES_MAX),
            memory_mib: pool.memory_mib,
            disk_mib: pool.disk_mib,
            cpus: pool.cpus,
            cgroup: file.cgroup.clone(),
        };
        (pool.label.clone(), bounds)
    };
    let bounds = file.pool.iter().map(bounds).collect();
    let config = LocalConfig { max, first_number, addresses, bounds };
    Ok((ProviderKind::Local(config), u64::from(max)))
}

fn fixed(file: &ProviderFile) -> Result<(ProviderKind, u64), String> {
    only(&[
        ("addresses", file.addresses.is_some()),
        ("first_number", file.first_number.is_some()),
        ("max_cpus", file.max_cpus.is_some()),
        ("max_memory_mib", file.max_memory_mib.is_some()),
    ])?;
    let missing = |what: &str| format!("{what} is missing");
    let mut machines = Vec::new();
    for pool in &file.pool {
        for text in &pool.machines {
            machines.push(machine(text, &pool.label)?);
        }
    }
    let mut targets = BTreeSet::new();
    if let Some(twice) = machines.iter().find(|m| !targets.insert((m.target.clone(), m.port))) {
        return Err(format!("machine {}:{} is there twice", twice.target, twice.port));
    }
    let config = FixedConfig {
        key: file.ssh_key_file.clone().ok_or_else(|| missing("ssh_key_file"))?,
        known_hosts: file.known_hosts_file.clone().ok_or_else(|| missing("known_hosts_file"))?,
        cleanup: file.cleanup.clone().ok_or_else(|| {
            "cleanup is missing: the command that makes a used machine as if it were new".to_owned()
        })?,
        cleanup_limit: file.cleanup_limit_s.map_or(CLEANUP_LIMIT, Duration::from_secs),
        machines,
    };
    let all = u64::try_from(config.machines.len()).unwrap_or(u64::MAX);
    let most = file.max_servers.map_or(all, |max| all.min(u64::from(max)));
    Ok((ProviderKind::Fixed(config), most))
}

/// `USER@HOST` or `USER@HOST:PORT`.
fn machine(text: &str, label: &Label) -> Result<FixedMachine, String> {
    let bad = || format!("machine `{text}`: use USER@HOST or USER@HOST:PORT");
    let (user, rest) = text.split_once('@').ok_or_else(bad)?;
    let (host, port) = match rest.rsplit_once(':') {
        // An IPv6 address without brackets has more colons, and no port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().map_err(|_| bad())?)
        }
        Some(_) | None => (rest, SSH_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let plain = |s: &str| {
        !s.is_empty()
            && !s.starts_with('-')
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b))
    };
    if !plain(user) || !plain(host) {
        return Err(bad());
    }
    Ok(FixedMachine {
        target: format!("{user}@{host}"),
        port,
        label: label.clone(),
        address: host.parse::<IpAddr>().ok(),
    })
}

/// `FIRST-LAST`.
fn range(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), String> {
    let bad =
        || format!("addresses is `{text}`: use FIRST-LAST, for example 198.18.1.200-198.18.1.239");
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let parse = |s: &str| s.trim().parse::<Ipv4Addr>().map_err(|_| bad());
    let (first, last) = (parse(first)?, parse(last)?);
    if first > last { Err(bad()) } else { Ok((first, last)) }
}

fn policy(file: &NodesFile) -> Result<Policy, String> {
    let usual = Policy::default();
    let seconds = |given: Option<u64>, usual: Duration| given.map_or(usual, Duration::from_secs);
    let policy = Policy {
        pause_min: seconds(file.pause_min_s, usual.pause_min),
        pause_max: seconds(file.pause_max_s, usual.pause_max),
        failures_max: file.failures_max.unwrap_or(usual.failures_max),
        recheck: seconds(file.recheck_s, usual.recheck),
        spare: seconds(file.spare_s, usual.spare),
        reclaim: seconds(file.reclaim_s, usual.reclaim),
        hold_max: seconds(file.hold_max_s, usual.hold_max),
    };
    if policy.failures_max == 0 || policy.pause_min.is_zero() || policy.recheck.is_zero() {
        return Err("nodes: failures_max, pause_min_s and recheck_s are at least 1".to_owned());
    }
    Ok(policy)
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
