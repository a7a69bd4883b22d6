//! `[[label]]`, `[[provider]]`, `[nodes]`: where the machines come from that jobs run on. Without a label there are none.

use crate::tasks::node::PoolParts;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toci_core::id::{Label, ProviderName};
use toci_core::node::{Amount, LabelSpec, Policy, PoolSpec, ProviderSpec, Settings};
use toci_edge::provider::Provider;
use toci_edge::provider::fixed::{Fixed, FixedConfig, FixedMachine};
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
}

impl NodeConfig {
    /// What the pool is started with.
    #[must_use]
    pub fn parts(self) -> PoolParts {
        let provider = |kind: ProviderKind| -> Arc<dyn Provider> {
            match kind {
                ProviderKind::Local(config) => Arc::new(Local::new(config)),
                ProviderKind::Fixed(config) => Arc::new(Fixed::new(config)),
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
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderFile {
    name: ProviderName,
    kind: Kind,
    max_servers: Option<u16>,
    max_cpus: Option<u64>,
    max_memory_mib: Option<u64>,
    #[serde(default)]
    pool: Vec<PoolFile>,
    // local
    addresses: Option<String>,
    first_number: Option<u16>,
    // static
    ssh_key_file: Option<PathBuf>,
    known_hosts_file: Option<PathBuf>,
    cleanup: Option<String>,
    cleanup_limit_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolFile {
    label: Label,
    max: Option<u64>,
    cpus: Option<u64>,
    memory_mib: Option<u64>,
    #[serde(default)]
    machines: Vec<String>,
}

pub(super) fn filled_in(
    nodes: &NodesFile,
    labels: Vec<LabelFile>,
    providers: Vec<ProviderFile>,
) -> Result<Option<NodeConfig>, String> {
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
        let (spec, kind) = provider(file, &names).map_err(|e| format!("provider {name}: {e}"))?;
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
    Ok(Some(NodeConfig { settings, policy: policy(nodes)?, kinds }))
}

fn provider(
    file: ProviderFile,
    labels: &BTreeSet<Label>,
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
fn only(given: &[(&str, bool)]) -> Result<(), String> {
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
    Ok((ProviderKind::Local(LocalConfig { max, first_number, addresses }), u64::from(max)))
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
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct File {
        nodes: NodesFile,
        label: Vec<LabelFile>,
        provider: Vec<ProviderFile>,
    }

    fn load(text: &str) -> Result<Option<NodeConfig>, String> {
        let file: File = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        filled_in(&file.nodes, file.label, file.provider)
    }

    /// The settings of docs/nodes.md.
    fn documented() -> String {
        let page = include_str!("../../../../docs/nodes.md");
        page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap().to_owned()
    }

    #[test]
    fn the_documented_settings_load_and_name_the_defaults() {
        let config = load(&documented()).unwrap().unwrap();
        assert_eq!(config.policy, Policy::default());
        assert_eq!(config.settings.labels[0].name.as_str(), "devtest-node");
        assert!(config.kinds.values().any(|k| matches!(k, ProviderKind::Local(_))));
        let fixed = config.kinds.values().find_map(|k| match k {
            ProviderKind::Fixed(fixed) => Some(fixed),
            ProviderKind::Local(_) => None,
        });
        let machine = &fixed.unwrap().machines[1];
        assert_eq!((machine.target.as_str(), machine.port), ("root@192.0.2.8", 2222));
        assert!(load("").unwrap().is_none());
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let label = "[[label]]\nname = \"a\"\n";
        let local = "[[provider]]\nname = \"p\"\nkind = \"local\"\n";
        let pool = "[[provider.pool]]\nlabel = \"a\"\n";
        let fixed = "[[provider]]\nname = \"p\"\nkind = \"static\"\nssh_key_file = \"/k\"\nknown_hosts_file = \"/h\"\n";
        for (text, expected) in [
            (label.to_owned(), "label a: no [[provider]] has"),
            (format!("{label}{label}"), "label a is there twice"),
            (format!("{label}{local}{pool}"), "provider p: max_servers is missing"),
            (
                format!("{label}{local}max_servers = 1\n[[provider.pool]]\nlabel = \"b\"\n"),
                "provider p: its pool's label b is no [[label]]",
            ),
            (
                format!(
                    "{label}{local}max_servers = 2\naddresses = \"198.18.1.1-198.18.1.3\"\n{pool}"
                ),
                "provider p: addresses has 1 pairs",
            ),
            (
                format!("{label}{local}max_servers = 2\naddresses = \"198.18.1.9\"\n{pool}"),
                "provider p: addresses is `198.18.1.9`: use FIRST-LAST",
            ),
            (
                format!("{label}{local}max_servers = 2\ncleanup = \"x\"\n{pool}"),
                "provider p: cleanup means nothing for its kind",
            ),
            (
                format!("{label}{fixed}{pool}machines = [\"root@h\"]\n"),
                "provider p: cleanup is missing",
            ),
            (
                format!("{label}{fixed}cleanup = \"x\"\n{pool}machines = [\"h\"]\n"),
                "provider p: machine `h`: use USER@HOST",
            ),
            (
                format!("{label}{fixed}cleanup = \"x\"\n{pool}machines = [\"a@-oProxyCommand\"]\n"),
                "provider p: machine `a@-oProxyCommand`: use USER@HOST",
            ),
            (
                format!("{label}{fixed}cleanup = \"x\"\n{pool}machines = [\"a@h\", \"a@h:22\"]\n"),
                "provider p: machine a@h:22 is there twice",
            ),
            (
                format!("{label}{local}max_servers = 2\nmax_server = 2\n{pool}"),
                "unknown field `max_server`",
            ),
        ] {
            let error = load(&text).expect_err(&text);
            assert!(error.starts_with(expected), "{text}\ngave {error}");
        }
    }
}
