//! `[[label]]`, `[[provider]]`, `[nodes]`: where the machines come from that jobs run on. Without a label there are none.

use super::node_libvirt::{self, AcceleratorFile, CPUS, ImageConfigs, ImageFile, MEMORY_MIB};
use super::node_openstack::{self, HostKeyFile, ImageFormatFile};
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
use toci_edge::provider::openstack::{OpenStack, OpenStackConfig};
use toci_wire::settings::Wrong;

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
    /// What jobs on nodes of a provider find in their environment: mirrors, proxies, the broker's address.
    pub environments: BTreeMap<ProviderName, BTreeMap<String, String>>,
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
    /// Servers of a cloud.
    OpenStack(Box<OpenStackConfig>),
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
                ProviderKind::OpenStack(config) => {
                    Arc::new(OpenStack::new(*config, Arc::clone(&workshop)))
                }
            }
        };
        let providers = self.kinds.into_iter().map(|(name, kind)| (name, provider(kind))).collect();
        let environments = self.environments.into_iter().map(|(name, e)| (name, Arc::new(e)));
        PoolParts {
            settings: self.settings,
            policy: self.policy,
            providers,
            environments: environments.collect(),
        }
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
    quota_wait_s: Option<u64>,
    late_min_s: Option<u64>,
    late_unknown_s: Option<u64>,
    delete_limit_s: Option<u64>,
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
    OpenStack,
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
    // openstack, and ssh_key_file, ssh_user, boot_limit_s
    pub(super) cloud: Option<String>,
    pub(super) region: Option<String>,
    pub(super) clouds_file: Option<PathBuf>,
    pub(super) owner: Option<String>,
    #[serde(default)]
    pub(super) networks: Vec<String>,
    pub(super) floating_network: Option<String>,
    #[serde(default)]
    pub(super) security_groups: Vec<String>,
    #[serde(default)]
    pub(super) zones: Vec<String>,
    pub(super) config_drive: Option<bool>,
    pub(super) user_data_file: Option<PathBuf>,
    pub(super) host_key: Option<HostKeyFile>,
    pub(super) image_format: Option<ImageFormatFile>,
    pub(super) launch_limit_s: Option<u64>,
    /// For jobs on its nodes.
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

/// A key, whether it is given, and the kinds of providers that it means something for.
type Given = (&'static str, bool, &'static [Kind]);

const LOCAL: &[Kind] = &[Kind::Local];
const STATIC: &[Kind] = &[Kind::Static];
const LIBVIRT: &[Kind] = &[Kind::Libvirt];
const OPENSTACK: &[Kind] = &[Kind::OpenStack];
/// Kinds whose nodes are virtual machines that we make.
const MACHINES: &[Kind] = &[Kind::Libvirt, Kind::OpenStack];
/// Kinds whose nodes take a share of something that is measured.
const MEASURED: &[Kind] = &[Kind::Local, Kind::Libvirt, Kind::OpenStack];

impl ProviderFile {
    /// What means something for some kinds only.
    fn of_kinds(&self) -> [Given; 29] {
        [
            ("max_cpus", self.max_cpus.is_some(), MEASURED),
            ("max_memory_mib", self.max_memory_mib.is_some(), MEASURED),
            ("addresses", self.addresses.is_some(), LOCAL),
            ("first_number", self.first_number.is_some(), LOCAL),
            ("cgroup", self.cgroup.is_some(), LOCAL),
            (
                "ssh_key_file",
                self.ssh_key_file.is_some(),
                &[Kind::Static, Kind::Libvirt, Kind::OpenStack],
            ),
            ("known_hosts_file", self.known_hosts_file.is_some(), STATIC),
            ("cleanup", self.cleanup.is_some(), STATIC),
            ("cleanup_limit_s", self.cleanup_limit_s.is_some(), STATIC),
            ("uri", self.uri.is_some(), LIBVIRT),
            ("folder", self.folder.is_some(), LIBVIRT),
            ("network", self.network.is_some(), LIBVIRT),
            ("bridge", self.bridge.is_some(), LIBVIRT),
            ("ssh_user", self.ssh_user.is_some(), MACHINES),
            ("accelerator", self.accelerator.is_some(), LIBVIRT),
            ("boot_limit_s", self.boot_limit_s.is_some(), MACHINES),
            ("cloud", self.cloud.is_some(), OPENSTACK),
            ("region", self.region.is_some(), OPENSTACK),
            ("clouds_file", self.clouds_file.is_some(), OPENSTACK),
            ("owner", self.owner.is_some(), OPENSTACK),
            ("networks", !self.networks.is_empty(), OPENSTACK),
            ("floating_network", self.floating_network.is_some(), OPENSTACK),
            ("security_groups", !self.security_groups.is_empty(), OPENSTACK),
            ("zones", !self.zones.is_empty(), OPENSTACK),
            ("config_drive", self.config_drive.is_some(), OPENSTACK),
            ("user_data_file", self.user_data_file.is_some(), OPENSTACK),
            ("host_key", self.host_key.is_some(), OPENSTACK),
            ("image_format", self.image_format.is_some(), OPENSTACK),
            ("launch_limit_s", self.launch_limit_s.is_some(), OPENSTACK),
        ]
    }
}

impl PoolFile {
    /// What means something for one kind only.
    fn of_kinds(&self) -> [Given; 10] {
        [
            ("disk_mib", self.disk_mib.is_some(), LOCAL),
            ("processes", self.processes.is_some(), LOCAL),
            ("machines", !self.machines.is_empty(), STATIC),
            ("image", self.image.is_some(), MACHINES),
            ("disk_gib", self.disk_gib.is_some(), MACHINES),
            ("flavor", self.flavor.is_some(), OPENSTACK),
            ("flavor_filter", self.flavor_filter.is_some(), OPENSTACK),
            ("cloud_image", self.cloud_image.is_some(), OPENSTACK),
            ("networks", !self.networks.is_empty(), OPENSTACK),
            ("volume_gib", self.volume_gib.is_some(), OPENSTACK),
        ]
    }
}

/// What is given and means nothing for this kind.
fn foreign(kind: Kind, given: &[Given]) -> Result<(), Wrong> {
    let foreign = given.iter().filter(|(_, _, kinds)| !kinds.contains(&kind));
    only(&foreign.map(|(key, is_given, _)| (*key, *is_given)).collect::<Vec<_>>())
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
    pub(super) flavor: Option<String>,
    pub(super) flavor_filter: Option<String>,
    pub(super) cloud_image: Option<String>,
    #[serde(default)]
    pub(super) networks: Vec<String>,
    pub(super) volume_gib: Option<u64>,
}

/// What nodes are described by.
#[derive(Debug, Default)]
pub(super) struct NodeFiles {
    pub(super) nodes: NodesFile,
    pub(super) labels: Vec<LabelFile>,
    pub(super) providers: Vec<ProviderFile>,
    pub(super) images: Vec<ImageFile>,
}

pub(super) fn filled_in(files: NodeFiles, state: &Path) -> Result<Option<NodeConfig>, Wrong> {
    let NodeFiles { nodes, labels, providers, images } = files;
    let images = node_libvirt::images(images)?;
    if labels.is_empty() && providers.is_empty() {
        return Ok(None);
    }
    let mut names = BTreeSet::new();
    for (number, label) in labels.iter().enumerate() {
        if !names.insert(label.name.clone()) {
            return Err(twice("name").entry("label", number));
        }
    }
    let mut settings = Settings::default();
    settings
        .labels
        .extend(labels.into_iter().map(|l| LabelSpec { name: l.name, min_ready: l.min_ready }));
    let (mut kinds, mut environments) = (BTreeMap::new(), BTreeMap::new());
    for (number, file) in providers.into_iter().enumerate() {
        let name = file.name.clone();
        let environment = environment(&file).map_err(|wrong| wrong.entry("provider", number))?;
        environments.insert(name.clone(), environment);
        let read = provider(file, &names, (state, &images));
        let (spec, kind) = read.map_err(|wrong| wrong.entry("provider", number))?;
        settings.providers.push(spec);
        if kinds.insert(name, kind).is_some() {
            return Err(twice("name").entry("provider", number));
        }
    }
    for (number, label) in settings.labels.iter().enumerate() {
        let offered = settings.providers.iter().any(|p| p.offers(&label.name, 1));
        if !offered {
            let why = "no [[provider]] has a [[provider.pool]] with it";
            return Err(Wrong::from(why).entry("label", number));
        }
    }
    let policy = policy(&nodes).map_err(|wrong| wrong.below("nodes"))?;
    Ok(Some(NodeConfig { settings, policy, kinds, environments }))
}

/// What jobs on a provider's nodes find in their environment.
fn environment(file: &ProviderFile) -> Result<BTreeMap<String, String>, Wrong> {
    for name in file.environment.keys() {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let digit = name.bytes().next().is_none_or(|b| b.is_ascii_digit());
        if digit || !name.bytes().all(plain) || name.starts_with("TOCI_") {
            let why = format!(
                "`{name}`: a name has a-z A-Z 0-9 _, no digit first, and TOCI_ is not for settings"
            );
            return Err(Wrong::at("environment", why));
        }
    }
    Ok(file.environment.clone())
}

/// What is named as something before it.
pub(super) fn twice(key: &str) -> Wrong {
    Wrong::at(key, "it is there twice")
}

/// What has no default.
pub(super) fn missing(key: &str, what: &str) -> Wrong {
    Wrong::at(
        key,
        if what.is_empty() { "it is missing".to_owned() } else { format!("it is missing: {what}") },
    )
}

fn provider(
    file: ProviderFile,
    labels: &BTreeSet<Label>,
    (state, images): (&Path, &ImageConfigs),
) -> Result<(ProviderSpec, ProviderKind), Wrong> {
    foreign(file.kind, &file.of_kinds())?;
    let mut pools = BTreeMap::new();
    for (number, pool) in file.pool.iter().enumerate() {
        foreign(file.kind, &pool.of_kinds()).map_err(|wrong| wrong.entry("pool", number))?;
        if !labels.contains(&pool.label) {
            let why = format!("{} is no [[label]]", pool.label);
            return Err(Wrong::at("label", why).entry("pool", number));
        }
        // A virtual machine always has some; of the others it is known only if it is said.
        let (cpus, memory_mib) = match file.kind {
            Kind::Local | Kind::Static => (0, 0),
            // The cloud tells what a flavor has.
            Kind::OpenStack if pool.flavor.is_some() => (0, 0),
            Kind::Libvirt | Kind::OpenStack => (CPUS, MEMORY_MIB),
        };
        let cost = Amount {
            servers: 1,
            cpus: pool.cpus.unwrap_or(cpus),
            memory_mib: pool.memory_mib.unwrap_or(memory_mib),
        };
        let machines = u64::try_from(pool.machines.len()).unwrap_or(u64::MAX);
        let most = if file.kind == Kind::Static { machines } else { u64::MAX };
        let spec = PoolSpec { max: pool.max.unwrap_or(u64::MAX).min(most), cost };
        if pools.insert(pool.label.clone(), spec).is_some() {
            return Err(twice("label").entry("pool", number));
        }
    }
    let (kind, most) = match file.kind {
        Kind::Local => local(&file)?,
        Kind::Static => fixed(&file)?,
        Kind::Libvirt => node_libvirt::libvirt(&file, state, images)?,
        Kind::OpenStack => node_openstack::openstack(&file, state, images)?,
    };
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
pub(super) fn only(given: &[(&str, bool)]) -> Result<(), Wrong> {
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((key, _)) => Err(Wrong::at(key, "it means nothing for this kind")),
        None => Ok(()),
    }
}

fn local(file: &ProviderFile) -> Result<(ProviderKind, u64), Wrong> {
    let max = file.max_servers.ok_or_else(|| missing("max_servers", ""))?;
    let addresses = file.addresses.as_deref().map(range).transpose();
    let addresses = addresses.map_err(|why| Wrong::at("addresses", why))?;
    if let Some((first, last)) = addresses
        && pairs(first, last).len() < usize::from(max)
    {
        let have = pairs(first, last).len();
        let why = format!(
            "it has {have} pairs (an even address and the odd one after it), and max_servers is {max}"
        );
        return Err(Wrong::at("addresses", why));
    }
    let first_number = file.first_number.unwrap_or(0);
    if first_number.checked_add(max).is_none() {
        return Err(Wrong::at("first_number", "with max_servers it is more than 65535"));
    }
    if let Some(cgroup) = file.cgroup.as_ref().filter(|cgroup| !cgroup.is_absolute()) {
        return Err(Wrong::at("cgroup", format!("`{}` is not absolute", cgroup.display())));
    }
    for (number, pool) in file.pool.iter().enumerate() {
        positive(&[
            ("processes", pool.processes.map(u64::from)),
            ("memory_mib", pool.memory_mib),
            ("disk_mib", pool.disk_mib),
            ("cpus", pool.cpus),
        ])
        .map_err(|wrong| wrong.entry("pool", number))?;
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

/// Refuses what is given as 0.
pub(super) fn positive(given: &[(&str, Option<u64>)]) -> Result<(), Wrong> {
    match given.iter().find(|(_, value)| *value == Some(0)) {
        Some((key, _)) => Err(Wrong::at(key, "it is 0: use at least 1")),
        None => Ok(()),
    }
}

fn fixed(file: &ProviderFile) -> Result<(ProviderKind, u64), Wrong> {
    let mut machines = Vec::new();
    let mut targets = BTreeSet::new();
    for (in_list, pool) in file.pool.iter().enumerate() {
        for (number, text) in pool.machines.iter().enumerate() {
            let read = machine(text, &pool.label).and_then(|machine| {
                let target = format!("{}:{}", machine.target, machine.port);
                match targets.insert(target.clone()) {
                    true => Ok(machine),
                    false => Err(format!("{target} is there twice")),
                }
            });
            let at = |why| Wrong::from(why).entry("machines", number).entry("pool", in_list);
            machines.push(read.map_err(at)?);
        }
    }
    let key = file.ssh_key_file.clone();
    let known_hosts = file.known_hosts_file.clone();
    let config = FixedConfig {
        key: key.ok_or_else(|| missing("ssh_key_file", ""))?,
        known_hosts: known_hosts.ok_or_else(|| missing("known_hosts_file", ""))?,
        cleanup: file.cleanup.clone().ok_or_else(|| {
            missing("cleanup", "the command that makes a used machine as if it were new")
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
    let bad = || format!("`{text}`: use USER@HOST or USER@HOST:PORT");
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
    let bad = || format!("it is `{text}`: use FIRST-LAST, for example 198.18.1.200-198.18.1.239");
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let parse = |s: &str| s.trim().parse::<Ipv4Addr>().map_err(|_| bad());
    let (first, last) = (parse(first)?, parse(last)?);
    if first > last { Err(bad()) } else { Ok((first, last)) }
}

fn policy(file: &NodesFile) -> Result<Policy, Wrong> {
    positive(&[
        ("failures_max", file.failures_max.map(u64::from)),
        ("pause_min_s", file.pause_min_s),
        ("recheck_s", file.recheck_s),
        ("late_min_s", file.late_min_s),
        ("late_unknown_s", file.late_unknown_s),
        ("delete_limit_s", file.delete_limit_s),
    ])?;
    let usual = Policy::default();
    let seconds = |given: Option<u64>, usual: Duration| given.map_or(usual, Duration::from_secs);
    Ok(Policy {
        pause_min: seconds(file.pause_min_s, usual.pause_min),
        pause_max: seconds(file.pause_max_s, usual.pause_max),
        failures_max: file.failures_max.unwrap_or(usual.failures_max),
        recheck: seconds(file.recheck_s, usual.recheck),
        spare: seconds(file.spare_s, usual.spare),
        reclaim: seconds(file.reclaim_s, usual.reclaim),
        hold_max: seconds(file.hold_max_s, usual.hold_max),
        quota_wait: seconds(file.quota_wait_s, usual.quota_wait),
        late_min: seconds(file.late_min_s, usual.late_min),
        late_unknown: seconds(file.late_unknown_s, usual.late_unknown),
        delete_limit: seconds(file.delete_limit_s, usual.delete_limit),
    })
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
