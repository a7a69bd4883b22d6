//! The steps from what is to what should be.

use super::desired::{Bridge, Desired, DomainSpec, FailMode, Port};
use super::world::{BridgeWorld, PortWorld, World};
use crate::names;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// One thing to do. Each may be done again without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Pull the plug of a domain and wait until it is off.
    PowerOff {
        /// The domain.
        domain: String,
    },
    /// Forget a domain.
    Undefine {
        /// The domain.
        domain: String,
    },
    /// Remove a bridge with all its ports.
    DeleteBridge {
        /// The bridge.
        bridge: String,
    },
    /// Remove a port.
    DeletePort {
        /// The bridge.
        bridge: String,
        /// The port.
        port: String,
    },
    /// Remove a tap.
    DeleteTap {
        /// The device.
        device: String,
    },
    /// Remove a disk.
    DeleteDisk {
        /// The file.
        path: PathBuf,
    },
    /// Make a persistent tap.
    CreateTap {
        /// The device.
        device: String,
    },
    /// Make a bridge, without ports.
    CreateBridge {
        /// The bridge.
        bridge: String,
        /// `netdev` or `system`.
        datapath: &'static str,
        /// Before its flows are there.
        fail_mode: FailMode,
    },
    /// Make a port.
    CreatePort {
        /// The bridge.
        bridge: String,
        /// Its name and its device's.
        port: String,
        /// How.
        spec: Port,
    },
    /// Set a device up, and its address.
    SetDevice {
        /// The device.
        device: String,
        /// With prefix.
        address: Option<String>,
        /// Where the default route goes.
        route: Option<Ipv4Addr>,
    },
    /// Replace the flow table.
    SetFlows {
        /// The bridge.
        bridge: String,
        /// The whole table.
        flows: Vec<String>,
        /// How it differs now, for people.
        differences: Vec<String>,
    },
    /// Put a blank disk in place, atomically.
    BlankDisk {
        /// The file.
        path: PathBuf,
        /// Virtual size.
        bytes: u64,
    },
    /// Remove captured consoles of a TE.
    DropConsoles {
        /// The TE's number.
        te: u32,
    },
    /// Forget who has begun to speak with the private network of a TE.
    DropConnections {
        /// The TE's number.
        te: u32,
    },
    /// Define a domain.
    Define {
        /// The domain.
        domain: String,
        /// How.
        spec: DomainSpec,
        /// Why, for people.
        why: &'static str,
    },
    /// Start our DHCP server anew.
    StartDhcp {
        /// dnsmasq's configuration.
        conf: String,
        /// Of `conf`.
        fingerprint: String,
    },
    /// Stop our DHCP server.
    StopDhcp,
}

/// What to do, in order. Empty means that all is as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// What is in the way and is not ours to remove; nothing is done while there is any.
    pub conflicts: Vec<String>,
}

impl Plan {
    /// Nothing to do and nothing in the way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.conflicts.is_empty()
    }
}

/// From `world` to `want`.
#[must_use]
pub fn plan(want: &Desired, world: &World) -> Plan {
    let mut p = Plan::default();
    remove_domains(want, world, &mut p);
    remove_network(want, world, &mut p);
    for path in world.disks.iter().filter(|d| !want.disks.contains_key(*d)) {
        p.steps.push(Step::DeleteDisk { path: path.clone() });
    }
    create_network(want, world, &mut p);
    for (path, bytes) in want.disks.iter().filter(|(d, _)| !world.disks.contains(*d)) {
        p.steps.push(Step::BlankDisk { path: path.clone(), bytes: *bytes });
    }
    for (name, spec) in &want.domains {
        let have = world.domains.get(name);
        let why = match have {
            None => "is missing",
            Some(d) if d.fingerprint.is_none() => {
                p.conflicts.push(format!("domain {name} exists and was not made by toci"));
                continue;
            }
            Some(d) if d.fingerprint.as_ref() != Some(&spec.fingerprint) => "differs",
            Some(_) => continue,
        };
        p.steps.push(Step::Define { domain: name.clone(), spec: spec.clone(), why });
    }
    dhcp(want, world, &mut p);
    p
}

/// Removes everything of ours.
#[must_use]
pub fn teardown(world: &World) -> Plan {
    let mut p = plan(&Desired::default(), world);
    p.conflicts.clear();
    p
}

fn remove_domains(want: &Desired, world: &World, p: &mut Plan) {
    for (name, d) in &world.domains {
        if want.domains.contains_key(name) || d.fingerprint.is_none() {
            continue;
        }
        if d.on {
            p.steps.push(Step::PowerOff { domain: name.clone() });
        }
        p.steps.push(Step::Undefine { domain: name.clone() });
    }
}

fn remove_network(want: &Desired, world: &World, p: &mut Plan) {
    if want.dhcp.is_none() && world.dhcp.is_some() {
        p.steps.push(Step::StopDhcp);
    }
    for (name, have) in &world.bridges {
        match want.bridges.get(name) {
            None if have.ours => p.steps.push(Step::DeleteBridge { bridge: name.clone() }),
            None => {}
            Some(_) if !have.ours => p.conflicts.push(format!(
                "bridge {name} exists and was not made by toci; remove it (ovs-vsctl del-br {name})"
            )),
            Some(b) if !bridge_ok(b, have) => {
                p.steps.push(Step::DeleteBridge { bridge: name.clone() });
            }
            Some(b) => {
                for (port, _) in have.ports.iter().filter(|(n, q)| !port_kept(b, n, q)) {
                    p.steps.push(Step::DeletePort { bridge: name.clone(), port: port.clone() });
                }
            }
        }
    }
    for device in world.devices.keys() {
        if names::is_tap(device) && !want.devices.contains_key(device) {
            p.steps.push(Step::DeleteTap { device: device.clone() });
        }
    }
}

fn create_network(want: &Desired, world: &World, p: &mut Plan) {
    for (device, spec) in &want.devices {
        if spec.tap && !world.devices.contains_key(device) {
            p.steps.push(Step::CreateTap { device: device.clone() });
        }
    }
    for (name, bridge) in &want.bridges {
        let have = world.bridges.get(name).filter(|h| h.ours && bridge_ok(bridge, h));
        if have.is_none() {
            p.steps.push(Step::CreateBridge {
                bridge: name.clone(),
                datapath: bridge.datapath,
                fail_mode: bridge.fail_mode,
            });
        }
        for (port, spec) in &bridge.ports {
            if !have.is_some_and(|h| h.ports.get(port).is_some_and(|q| port_ok(spec, q))) {
                p.steps.push(Step::CreatePort {
                    bridge: name.clone(),
                    port: port.clone(),
                    spec: spec.clone(),
                });
            }
        }
    }
    for (device, spec) in &want.devices {
        if !world.device_ok(device, spec) {
            p.steps.push(Step::SetDevice {
                device: device.clone(),
                address: spec.address.clone(),
                route: spec.route,
            });
        }
    }
    for (bridge, flows) in &want.flows {
        let differences = match world.flow_differences.get(bridge) {
            Some(lines) if lines.is_empty() => continue,
            Some(lines) => lines.clone(),
            None => Vec::new(),
        };
        p.steps.push(Step::SetFlows { bridge: bridge.clone(), flows: flows.clone(), differences });
    }
}

fn dhcp(want: &Desired, world: &World, p: &mut Plan) {
    let Some(spec) = &want.dhcp else { return };
    let index = world.devices.get(names::HOST_DEVICE).map(|d| d.index);
    let ok = world.dhcp.as_ref().is_some_and(|have| {
        have.fingerprint == spec.fingerprint && Some(have.device_index) == index
    });
    if !ok {
        p.steps.push(Step::StartDhcp {
            conf: spec.conf.clone(),
            fingerprint: spec.fingerprint.clone(),
        });
    }
}

fn bridge_ok(want: &Bridge, have: &BridgeWorld) -> bool {
    want.datapath == have.datapath && want.fail_mode.as_str() == have.fail_mode
}

fn port_kept(want: &Bridge, name: &str, have: &PortWorld) -> bool {
    want.ports.get(name).is_some_and(|w| port_ok(w, have))
}

fn port_ok(want: &Port, have: &PortWorld) -> bool {
    want.kind.as_str() == have.kind
        && want.ofport == have.ofport
        && want.protected == have.protected
        && want.mac == have.mac
        && have.error.is_none()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in &self.conflicts {
            writeln!(f, "! {c}")?;
        }
        for s in &self.steps {
            writeln!(f, "{s}")?;
        }
        if self.is_empty() {
            writeln!(f, "nothing to do")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::PowerOff { domain } => write!(f, "~ domain {domain}: power off"),
            Step::Undefine { domain } => write!(f, "- domain {domain}"),
            Step::DeleteBridge { bridge } => write!(f, "- bridge {bridge}"),
            Step::DeletePort { bridge, port } => write!(f, "- port {port} of {bridge}"),
            Step::DeleteTap { device } => write!(f, "- tap {device}"),
            Step::DeleteDisk { path } => write!(f, "- disk {}", path.display()),
            Step::CreateTap { device } => write!(f, "+ tap {device}"),
            Step::CreateBridge { bridge, datapath, fail_mode } => {
                write!(f, "+ bridge {bridge} ({datapath}, {})", fail_mode.as_str())
            }
            Step::CreatePort { bridge, port, spec } => {
                write!(f, "+ port {port} of {bridge}")?;
                if let Some(n) = spec.ofport {
                    write!(f, " as {n}")?;
                }
                if spec.protected { write!(f, ", protected") } else { Ok(()) }
            }
            Step::SetDevice { device, address, route } => {
                write!(f, "~ device {device}: up")?;
                if let Some(address) = address {
                    write!(f, ", {address}")?;
                }
                route.map_or(Ok(()), |route| write!(f, ", default route to {route}"))
            }
            Step::SetFlows { bridge, flows, differences } => {
                write!(f, "~ flows of {bridge}: {} in all", flows.len())?;
                for d in differences {
                    write!(f, "\n    {d}")?;
                }
                Ok(())
            }
            Step::BlankDisk { path, bytes } => {
                write!(f, "+ disk {}: blank, {} MiB", path.display(), bytes >> 20)
            }
            Step::DropConsoles { te } => write!(f, "- consoles of TE {te}"),
            Step::DropConnections { te } => write!(f, "- connections into TE {te}"),
            Step::Define { domain, why, .. } => write!(f, "+ domain {domain} ({why})"),
            Step::StartDhcp { .. } => write!(f, "+ dhcp on {}", names::HOST_DEVICE),
            Step::StopDhcp => write!(f, "- dhcp on {}", names::HOST_DEVICE),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;
