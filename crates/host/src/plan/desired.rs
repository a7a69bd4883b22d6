//! What should be on the host, derived from its configuration and carving alone.

use super::dnsmasq::DhcpSpec;
use super::domain_xml::{BootDevice, MachineSpec, NicSpec, domain_xml};
use super::flows::{Guests, public_flows};
use crate::carve::Carved;
use crate::config::{Config, Mode, Shape};
use crate::names;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use toci_core::id::TeId;

/// Bytes in the GB of shapes (origin.md 3.4: qcow2 volumes sized in `G`).
const GB: u64 = 1 << 30;

/// What was found out about the machine and does not change while it is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Random, kept in the state: MAC addresses and UUIDs derive from it.
    pub host_key: String,
    /// Whether the boot probe proved KVM.
    pub kvm: bool,
    /// Whether Open vSwitch's kernel datapath works.
    pub system_datapath: bool,
    /// MAC of the physical NIC on the public bridge, if that takes it over: in host mode, with the kernel's datapath.
    pub uplink_mac: Option<String>,
}

impl HostFacts {
    /// MAC of the host's own device on the public bridge. Where the bridge takes over a NIC it is that NIC's: the network may
    /// know the host by it, as a cloud knows its servers.
    #[must_use]
    pub fn host_mac(&self) -> String {
        let derived = || names::mac(&self.host_key, names::HOST_DEVICE);
        self.uplink_mac.clone().unwrap_or_else(derived)
    }
}

/// One TE, wholly specified.
#[derive(Clone, Debug, PartialEq)]
pub struct TeSpec {
    /// `<host>-<N>`.
    pub id: TeId,
    /// N.
    pub number: u32,
    /// What it was carved as.
    pub carved: Carved,
    /// Its shape.
    pub shape: Shape,
    /// Address of the seed's public NIC.
    pub seed_address: Ipv4Addr,
    /// Machines, seed first.
    pub machines: Vec<MachineSpec>,
}

impl TeSpec {
    /// The seed.
    #[must_use]
    pub fn seed(&self) -> &MachineSpec {
        &self.machines[0]
    }

    /// The blank nodes.
    #[must_use]
    pub fn nodes(&self) -> &[MachineSpec] {
        &self.machines[1..]
    }

    /// The machine called `name`, if it is this TE's.
    #[must_use]
    pub fn machine(&self, name: &str) -> Option<&MachineSpec> {
        self.machines.iter().find(|m| m.name == name)
    }
}

/// What a bridge does before its flows are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailMode {
    /// Learns like any switch.
    Standalone,
    /// Forwards nothing: for the bridge whose flows keep tenants honest.
    Secure,
}

impl FailMode {
    /// OVSDB's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FailMode::Standalone => "standalone",
            FailMode::Secure => "secure",
        }
    }
}

/// Where a port's device comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// Open vSwitch makes it.
    Internal,
    /// It is there: a tap, a veth end or a NIC.
    System,
}

impl PortKind {
    /// OVSDB's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PortKind::Internal => "internal",
            PortKind::System => "",
        }
    }
}

/// A port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Where its device comes from.
    pub kind: PortKind,
    /// OpenFlow port number asked for; flows count on it.
    pub ofport: Option<u16>,
    /// Protected ports do not reach each other: seeds of different TEs.
    pub protected: bool,
    /// Fixed MAC of an internal port.
    pub mac: Option<String>,
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// `netdev` or `system`.
    pub datapath: &'static str,
    /// Before its flows are there.
    pub fail_mode: FailMode,
    /// By name.
    pub ports: BTreeMap<String, Port>,
}

/// A network device of ours that must be up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// A persistent tap that we make; otherwise it comes from elsewhere.
    pub tap: bool,
    /// Address to set, with prefix.
    pub address: Option<String>,
    /// The default route goes through it, to there.
    pub route: Option<Ipv4Addr>,
}

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainSpec {
    /// What to define.
    pub xml: String,
    /// Of the XML, carried in its metadata.
    pub fingerprint: String,
    /// What a blank machine boots from.
    pub boot: BootDevice,
}

/// All that should be there.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Desired {
    /// OVS bridges.
    pub bridges: BTreeMap<String, Bridge>,
    /// Network devices.
    pub devices: BTreeMap<String, Device>,
    /// Flow tables, by bridge.
    pub flows: BTreeMap<String, Vec<String>>,
    /// Disks: path and virtual size in bytes.
    pub disks: BTreeMap<PathBuf, u64>,
    /// Domains.
    pub domains: BTreeMap<String, DomainSpec>,
    /// Our DHCP server.
    pub dhcp: Option<DhcpSpec>,
}

/// The device that joins a sandbox to the namespace that started it.
pub const SANDBOX_UPLINK: &str = "uplink";

/// The carved TEs in full. `None` for a carving that names an unknown shape or more TEs than
/// there are addresses: the carving is then not one of this configuration.
#[must_use]
pub fn te_specs(config: &Config, facts: &HostFacts, carving: &[Carved]) -> Option<Vec<TeSpec>> {
    carving.iter().map(|carved| te_spec(config, facts, carved)).collect()
}

fn te_spec(config: &Config, facts: &HostFacts, carved: &Carved) -> Option<TeSpec> {
    let shape = config.shape.get(&carved.shape)?;
    let n = carved.number;
    let nic = |domain: &str, tap: String, index: u32| NicSpec {
        tap,
        mac: names::mac(&facts.host_key, &format!("{domain}/{index}")),
    };
    let machine = |name: String, cpus, memory_mib, disk_bytes, boot, nics| MachineSpec {
        uuid: names::uuid(&facts.host_key, &name),
        disk: config.state.join("images").join(names::disk(&name)),
        console: console_path(config, n, &name),
        arch: shape.arch,
        kvm: facts.kvm,
        offloads: facts.system_datapath,
        name,
        cpus,
        memory_mib,
        disk_bytes,
        boot,
        nics,
    };
    let seed = names::seed(n);
    let seed_nics = (0..2).map(|i| nic(&seed, names::seed_tap(n, i), i)).collect();
    let s = shape.seed;
    let mut machines =
        vec![machine(seed, s.cpus, s.memory_mib, s.disk_gb * GB, BootDevice::Hd, seed_nics)];
    let nodes = shape.nodes;
    for i in 0..nodes.count {
        let name = names::node(n, i);
        let nics = (0..nodes.nics).map(|j| nic(&name, names::node_tap(n, i, j), j)).collect();
        let disk = (nodes.disk_gb + 1) * GB;
        let boot = BootDevice::Network;
        machines.push(machine(name, nodes.cpus, nodes.memory_mib, disk, boot, nics));
    }
    Some(TeSpec {
        id: TeId::of(&config.name, n).ok()?,
        number: n,
        carved: carved.clone(),
        shape: shape.clone(),
        seed_address: config.network.seed_addresses.nth(n)?,
        machines,
    })
}

fn console_path(config: &Config, te: u32, domain: &str) -> PathBuf {
    config.state.join("consoles").join(format!("te{te}")).join(format!("{domain}.log"))
}

/// All that should be there for these TEs.
#[must_use]
pub fn desired(config: &Config, facts: &HostFacts, tes: &[TeSpec], guests: &Guests) -> Desired {
    let mut d = Desired::default();
    let datapath = if facts.system_datapath { "system" } else { "netdev" };
    let mut public = Bridge { datapath, fail_mode: FailMode::Secure, ports: BTreeMap::new() };
    let tap = || Device { tap: true, address: None, route: None };
    let plain = |ofport, protected| Port { kind: PortKind::System, ofport, protected, mac: None };

    public.ports.insert(
        names::HOST_DEVICE.into(),
        Port {
            kind: PortKind::Internal,
            ofport: Some(names::HOST_DEVICE_OFPORT),
            protected: false,
            mac: Some(facts.host_mac()),
        },
    );
    let address = Some(config.network.address.to_string());
    let route = config.default_route();
    d.devices.insert(names::HOST_DEVICE.into(), Device { tap: false, address, route });
    if let Some(uplink) = uplink(config) {
        public.ports.insert(uplink.clone(), plain(Some(names::UPLINK_OFPORT), false));
        d.devices.insert(uplink, Device { tap: false, address: None, route: None });
    }

    for te in tes {
        let mut private =
            Bridge { datapath, fail_mode: FailMode::Standalone, ports: BTreeMap::new() };
        for (m, machine) in te.machines.iter().enumerate() {
            for (i, nic) in machine.nics.iter().enumerate() {
                d.devices.insert(nic.tap.clone(), tap());
                if m == 0 && i == 0 {
                    public.ports.insert(nic.tap.clone(), plain(seed_ofport(te.number), true));
                } else {
                    private.ports.insert(nic.tap.clone(), plain(None, false));
                }
            }
            d.disks.insert(machine.disk.clone(), machine.disk_bytes);
            let (xml, fingerprint) = domain_xml(machine);
            let boot = machine.boot;
            d.domains.insert(machine.name.clone(), DomainSpec { xml, fingerprint, boot });
        }
        d.bridges.insert(names::private_bridge(te.number), private);
    }
    d.bridges.insert(names::PUBLIC_BRIDGE.into(), public);
    d.flows.insert(names::PUBLIC_BRIDGE.into(), public_flows(config, facts, tes, guests));
    if config.network.dhcp {
        d.dhcp = Some(DhcpSpec::of(config, tes));
    }
    d
}

/// OpenFlow port of the public NIC of a seed.
pub(crate) fn seed_ofport(te: u32) -> Option<u16> {
    u16::try_from(names::SEED_OFPORT_BASE + te).ok()
}

fn uplink(config: &Config) -> Option<String> {
    match config.mode {
        Mode::Host => config.network.uplink.clone(),
        Mode::Sandbox => config.sandbox.is_linked().then(|| SANDBOX_UPLINK.to_owned()),
    }
}
