//! `toci-host.toml`. Every error names file, line, column, key and what was expected.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use toci_core::id::{HostId, Label, ShapeName};
use toci_wire::settings::{SettingsError, SettingsText, Wrong};
use toci_wire::te_json::PRIVATE_NETWORK;

use crate::address::{AddressRange, Cidr};
use crate::names::{NODE_NICS_MAX, NODES_MAX};

/// Where the configuration is looked for when `--config` is absent.
pub const DEFAULT_PATH: &str = "/etc/toci/toci-host.toml";

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the host on the server; TE ids are `<name>-<N>`.
    pub name: HostId,
    /// Everything the host keeps, images too.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// How it stands on the machine.
    #[serde(default)]
    pub mode: Mode,
    /// Where the server is; absent with `run --standalone`.
    pub server: Option<Server>,
    /// The public bridge.
    pub network: Network,
    /// Only in sandbox mode.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// What is left to the machine itself.
    #[serde(default)]
    pub reserve: Reserve,
    /// How the accelerator is chosen.
    #[serde(default)]
    pub accelerator: Accelerator,
    /// How the host is carved, in the order of TE numbers.
    #[serde(default)]
    pub testenv: Vec<TestenvEntry>,
    /// What TEs are made of.
    #[serde(default)]
    pub shape: BTreeMap<ShapeName, Shape>,
}

/// How the host stands on its machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Own libvirtd and Open vSwitch in own namespaces; touches nothing of the machine.
    #[default]
    Sandbox,
    /// The machine's own libvirtd and Open vSwitch.
    Host,
}

impl Mode {
    /// As written in the configuration and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Sandbox => "sandbox",
            Mode::Host => "host",
        }
    }
}

/// The control plane.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// `http://…`, `https://…` or `unix:PATH`.
    pub url: String,
    /// PEM file of the CA, for `https` with a private one.
    pub ca: Option<PathBuf>,
    /// One-time token, used when there is no credential in the state yet.
    pub enrol_token_file: Option<PathBuf>,
}

/// `br-ctlplane`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Address of `tedev`; the gateway listens on it.
    pub address: Cidr,
    /// Port of the gateway.
    #[serde(default = "default_gateway_port")]
    pub gateway_port: u16,
    /// TE N's seed gets the Nth.
    pub seed_addresses: AddressRange,
    /// Serve DHCP to the seeds ourselves; false where Neutron does.
    #[serde(default = "yes")]
    pub dhcp: bool,
    /// Default route and nothing else that DHCP tells a seed; absent: no default route.
    pub router: Option<Ipv4Addr>,
    /// Host mode: the physical NIC to put on the bridge.
    pub uplink: Option<String>,
    /// What the client calls its interface towards the seed (TE JSON `seed-route-dev`).
    #[serde(default = "default_seed_route_dev")]
    pub seed_route_dev: String,
}

/// Only in sandbox mode.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    /// Address of the veth end in the namespace that started the sandbox.
    pub outside_address: Option<Cidr>,
    /// Instead of an address: the bridge of Open vSwitch there that the veth end is a port of. With neither there is no
    /// link.
    pub outside_bridge: Option<String>,
    /// The default route leads there: for a server that is not on that network. The machine has to pass packets on, and
    /// the others have to know the way back.
    #[serde(default)]
    pub default_route: bool,
}

impl Sandbox {
    /// Whether there is a veth.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.outside_address.is_some() || self.outside_bridge.is_some()
    }
}

/// What is left to the machine itself.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// MiB.
    #[serde(default = "default_reserve_memory")]
    pub memory_mib: u64,
    /// Whole CPUs.
    #[serde(default)]
    pub cpus: u32,
    /// MiB where the images lie.
    #[serde(default = "default_reserve_disk")]
    pub disk_mib: u64,
}

impl Default for Reserve {
    fn default() -> Self {
        Reserve { memory_mib: default_reserve_memory(), cpus: 0, disk_mib: default_reserve_disk() }
    }
}

/// How the accelerator is chosen.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accelerator {
    /// Kernel for the KVM boot probe; absent: the newest `/boot/vmlinuz-*`.
    pub probe_kernel: Option<PathBuf>,
    /// Do not even try KVM.
    #[serde(default)]
    pub never_kvm: bool,
}

/// One line of the carving.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestenvEntry {
    /// A key of `[shape.…]`.
    pub shape: ShapeName,
    /// What these TEs offer.
    #[serde(default)]
    pub labels: Vec<Label>,
    /// How many; absent: as many as fit.
    pub count: Option<u32>,
}

/// What a TE is made of.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Virtual CPUs for each real one when carving. Default 1.
    #[serde(default = "one")]
    pub cpu_overcommit: f64,
    /// Virtual disk for each real one when carving: disks are copy-on-write, and most stay nearly empty. Default 1.
    #[serde(default = "one")]
    pub disk_overcommit: f64,
    /// `amd64` or `i386`, as in the TE JSON.
    #[serde(default)]
    pub arch: Arch,
    /// The seed: two NICs, public and private.
    pub seed: Machine,
    /// The blank machines.
    pub nodes: Nodes,
}

/// Architecture of the machines, in the words of the TE JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 64 bit.
    #[default]
    Amd64,
    /// 32 bit.
    I386,
}

impl Arch {
    /// The TE JSON's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::I386 => "i386",
        }
    }

    /// libvirt's word (origin.md 3.4).
    #[must_use]
    pub fn libvirt(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64",
            Arch::I386 => "i686",
        }
    }
}

/// A seed.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Virtual CPUs.
    pub cpus: u32,
    /// MiB.
    pub memory_mib: u64,
    /// GB (2^30 bytes).
    pub disk_gb: u64,
}

/// The nodes.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nodes {
    /// How many.
    pub count: u32,
    /// Virtual CPUs of each.
    pub cpus: u32,
    /// MiB of each.
    pub memory_mib: u64,
    /// GB (2^30 bytes) of each; the real disk is 1 GB larger, as in the origin (3.3).
    pub disk_gb: u64,
    /// NICs of each, all on the private bridge.
    #[serde(default = "one_nic")]
    pub nics: u32,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("read configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error(transparent)]
    Bad(#[from] SettingsError),
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(path, &text)
    }

    /// Checks the text of a file.
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let name = path.display().to_string();
        let text = SettingsText::new(&name, text);
        let config: Config = text.read()?;
        config.check().map_err(|wrong| text.refuse(&wrong))?;
        Ok(config)
    }

    /// Where packets go that are for nobody on `br-ctlplane`; only a sandbox has a say in that.
    #[must_use]
    pub fn default_route(&self) -> Option<Ipv4Addr> {
        let outside = self.sandbox.outside_address?.address;
        let is_used = self.sandbox.default_route && self.mode == Mode::Sandbox;
        (is_used && self.network.address.contains(outside)).then_some(outside)
    }

    fn check(&self) -> Result<(), Wrong> {
        let no = |key: &str, why: String| Err(Wrong::at(key, why));
        if !self.state.is_absolute() {
            return no("state", "use an absolute path".into());
        }
        for hidden in HIDDEN_IN_SANDBOX {
            if self.mode == Mode::Sandbox && self.state.starts_with(hidden) {
                return no("state", format!("{hidden} is private in a sandbox; use another place"));
            }
        }
        let net = &self.network;
        if !net.address.contains(net.seed_addresses.first)
            || !net.address.contains(net.seed_addresses.last)
        {
            return no(
                "network.seed_addresses",
                format!("lies outside {}/{}", net.address.network(), net.address.prefix),
            );
        }
        let private: Result<Cidr, String> = PRIVATE_NETWORK.parse();
        if private.is_ok_and(|private| private.overlaps(net.address)) {
            let why = format!("overlaps {PRIVATE_NETWORK}, the private network of every TE");
            return no("network.address", why);
        }
        let own = net.address.address;
        if (net.seed_addresses.first..=net.seed_addresses.last).contains(&own) {
            return no("network.seed_addresses", format!("contains the host's own address {own}"));
        }
        if self.mode == Mode::Sandbox && net.uplink.is_some() {
            return no(
                "network.uplink",
                "is for mode = \"host\"; a sandbox has sandbox.outside_address or outside_bridge"
                    .into(),
            );
        }
        if self.sandbox.outside_address.is_some() && self.sandbox.outside_bridge.is_some() {
            let why =
                "is instead of sandbox.outside_address: the end of a veth is one or the other";
            return no("sandbox.outside_bridge", why.into());
        }
        if self.sandbox.default_route && self.default_route().is_none() {
            let why = "needs mode = \"sandbox\" and sandbox.outside_address in network.address";
            return no("sandbox.default_route", why.into());
        }
        for (name, shape) in &self.shape {
            check_shape(shape).map_err(|wrong| wrong.below(name.as_str()).below("shape"))?;
        }
        for (number, entry) in self.testenv.iter().enumerate() {
            if !self.shape.contains_key(&entry.shape) {
                let why = format!("there is no [shape.{}]", entry.shape);
                return Err(Wrong::at("shape", why).entry("testenv", number));
            }
        }
        Ok(())
    }
}

fn check_shape(shape: &Shape) -> Result<(), Wrong> {
    let no = |key: &str, why: String| Err(Wrong::at(key, why));
    if !(shape.cpu_overcommit.is_finite() && shape.cpu_overcommit > 0.0) {
        return no("cpu_overcommit", "use a number above 0".into());
    }
    if !(shape.disk_overcommit.is_finite() && shape.disk_overcommit >= 1.0) {
        return no("disk_overcommit", "use a number of at least 1".into());
    }
    let machine_ok = |cpus: u32, memory: u64, disk: u64| {
        (1..=64).contains(&cpus)
            && (16..=1 << 20).contains(&memory)
            && (1..=1 << 14).contains(&disk)
    };
    let wanted = "use cpus 1 to 64, memory_mib 16 to 1048576, disk_gb 1 to 16384";
    let Machine { cpus, memory_mib, disk_gb } = shape.seed;
    if !machine_ok(cpus, memory_mib, disk_gb) {
        return no("seed", wanted.into());
    }
    let n = shape.nodes;
    if n.count > NODES_MAX {
        return no("nodes.count", format!("use at most {NODES_MAX}"));
    }
    if !machine_ok(n.cpus, n.memory_mib, n.disk_gb) {
        return no("nodes", wanted.into());
    }
    if !(1..=NODE_NICS_MAX).contains(&n.nics) {
        return no("nodes.nics", format!("use 1 to {NODE_NICS_MAX}"));
    }
    Ok(())
}

/// Folders that a sandbox replaces by its own; the state must not lie below one.
pub const HIDDEN_IN_SANDBOX: [&str; 9] = [
    "/run/libvirt",
    "/run/openvswitch",
    "/run/lock",
    "/var/lib/libvirt",
    "/var/log/libvirt",
    "/var/cache/libvirt",
    "/etc/libvirt",
    "/etc/openvswitch",
    "/sys",
];

fn default_state() -> PathBuf {
    "/var/lib/toci-host".into()
}
fn default_gateway_port() -> u16 {
    22
}
fn default_seed_route_dev() -> String {
    "eth1".into()
}
fn default_reserve_memory() -> u64 {
    2048
}
fn default_reserve_disk() -> u64 {
    4096
}
fn yes() -> bool {
    true
}
fn one() -> f64 {
    1.0
}
fn one_nic() -> u32 {
    1
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const EXAMPLE: &str = r#"
name = "tehost1"
state = "/work/state"
[network]
address = "198.18.1.2/24"
seed_addresses = "198.18.1.101-198.18.1.199"
[[testenv]]
shape = "seed-2"
labels = ["devtest"]
count = 2
[shape.seed-2]
cpu_overcommit = 8.0
seed  = { cpus = 1, memory_mib = 384, disk_gb = 2 }
nodes = { count = 2, cpus = 1, memory_mib = 384, disk_gb = 2 }
"#;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("t.toml"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn the_example_loads() {
        let c = parse(EXAMPLE).unwrap();
        assert_eq!(c.mode, Mode::Sandbox);
        assert_eq!(c.network.seed_addresses.nth(1), Some("198.18.1.101".parse().unwrap()));
        assert_eq!(c.network.seed_addresses.nth(100), None);
        assert_eq!(c.network.address.netmask().to_string(), "255.255.255.0");
    }

    #[test]
    fn a_typo_is_named_with_its_place() {
        let e = parse(&EXAMPLE.replace("count = 2\n[", "cuont = 2\n[")).unwrap_err();
        assert!(e.starts_with("t.toml:10:1: testenv[0].cuont: unknown field"), "{e}");
    }

    #[test]
    fn values_that_do_not_fit_together_are_named() {
        for (from, to, expected) in [
            (
                "198.18.1.101-",
                "198.18.2.101-",
                "6:18: network.seed_addresses: `198.18.2.101-198.18.1.199` is not a range",
            ),
            (
                "198.18.1.101-",
                "198.18.0.101-",
                "6:18: network.seed_addresses: lies outside 198.18.1.0/24",
            ),
            (
                "198.18.1.101-",
                "198.18.1.1-",
                "6:18: network.seed_addresses: contains the host's own address",
            ),
            (
                "shape = \"seed-2\"",
                "shape = \"seed-3\"",
                "8:9: testenv[0].shape: there is no [shape.seed-3]",
            ),
            (
                "count = 2, cpus",
                "count = 65, cpus",
                "14:19: shape.seed-2.nodes.count: use at most 64",
            ),
            (
                "[[testenv]]",
                "[sandbox]\ndefault_route = true\n[[testenv]]",
                "8:17: sandbox.default_route: needs mode",
            ),
            (
                "[[testenv]]",
                "[sandbox]\noutside_address = \"198.18.1.1/24\"\noutside_bridge = \"br-x\"\n[[testenv]]",
                "9:18: sandbox.outside_bridge: is instead of sandbox.outside_address",
            ),
            ("/work/state", "/run/lock/x", "3:9: state: /run/lock is private in a sandbox"),
            ("198.18.1.", "192.0.2.", "5:11: network.address: overlaps 192.0.2.0/24, the private"),
            (
                "198.18.1.2/24",
                "198.18.1.2",
                "5:11: network.address: `198.18.1.2` is not an IPv4 address with prefix",
            ),
        ] {
            let e = parse(&EXAMPLE.replace(from, to)).unwrap_err();
            assert!(e.starts_with(&format!("t.toml:{expected}")), "{from} -> {to}: {e}");
        }
    }
}
