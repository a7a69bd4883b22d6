//! What is on the host, as observed. Only what is or could be ours.

use super::desired::Device;
use super::domain_xml::BootDevice;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// OVS bridges that are ours or have a name that we want.
    pub bridges: BTreeMap<String, BridgeWorld>,
    /// Network devices that we want or that have a name of ours, with their index and whether up.
    pub devices: BTreeMap<String, DeviceWorld>,
    /// What `ovs-ofctl diff-flows` says against the desired flows, by bridge; empty lines dropped.
    pub flow_differences: BTreeMap<String, Vec<String>>,
    /// Files in the image folder.
    pub disks: BTreeSet<PathBuf>,
    /// Domains with a name of ours.
    pub domains: BTreeMap<String, DomainWorld>,
    /// Our DHCP server, if it runs.
    pub dhcp: Option<DhcpWorld>,
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeWorld {
    /// Whether it carries our mark.
    pub ours: bool,
    /// OVSDB's `datapath_type`; `system` when empty.
    pub datapath: String,
    /// OVSDB's `fail_mode`.
    pub fail_mode: String,
    /// Ports other than the bridge's own.
    pub ports: BTreeMap<String, PortWorld>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortWorld {
    /// OVSDB's interface type.
    pub kind: String,
    /// `ofport_request`.
    pub ofport: Option<u16>,
    /// Whether it is protected.
    pub protected: bool,
    /// Fixed MAC.
    pub mac: Option<String>,
    /// What vswitchd says is wrong with it.
    pub error: Option<String>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceWorld {
    /// The kernel's number; changes when it is made anew.
    pub index: u32,
    /// Administratively up.
    pub up: bool,
    /// IPv4 addresses with prefix.
    pub addresses: Vec<String>,
    /// Where the default route goes that leads through it.
    pub route: Option<Ipv4Addr>,
}

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainWorld {
    /// Ours carry one.
    pub fingerprint: Option<String>,
    /// What it boots from next.
    pub boot: Option<BootDevice>,
    /// Whether it runs.
    pub on: bool,
}

/// Our DHCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpWorld {
    /// Its process.
    pub pid: i32,
    /// Fingerprint of the configuration it was started with.
    pub fingerprint: String,
    /// Index that `tedev` had when it was started: it is bound to that device.
    pub device_index: u32,
}

impl World {
    /// Whether a device is as it should be.
    pub(super) fn device_ok(&self, name: &str, wanted: &Device) -> bool {
        self.devices.get(name).is_some_and(|have| {
            have.up
                && wanted.address.as_ref().is_none_or(|a| have.addresses.contains(a))
                && (wanted.route.is_none() || wanted.route == have.route)
        })
    }
}
