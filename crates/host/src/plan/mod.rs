//! Plan, then execute: what should be on the host, what is, and the steps from one to the other.
//!
//! ```text
//! config + carving ──▶ desired() ─┐
//!                                 ├──▶ plan() ──▶ Plan: Display shows it, apply() executes it
//! observe() ─────────▶ World ─────┘
//! ```
//!
//! Everything here is pure. Execution makes no choices.

mod desired;
mod diff;
mod dnsmasq;
mod domain_xml;
mod flows;
mod reset;
mod world;

pub(crate) use desired::seed_ofport;
pub use desired::{
    Bridge, Desired, Device, DomainSpec, FailMode, HostFacts, Port, PortKind, SANDBOX_UPLINK,
    TeSpec, desired, te_specs,
};
#[cfg(test)]
pub(crate) use diff::tests;
pub use diff::{Plan, Step, plan, teardown};
pub use dnsmasq::{DhcpSpec, dnsmasq_conf};
pub use domain_xml::{
    BootDevice, MachineSpec, NicSpec, boot_device, domain_xml, fingerprint_in, with_boot_device,
};
pub(crate) use flows::private_zone;
pub use flows::{Guests, public_flows};
pub use reset::{reset_plan, vacate_plan};
pub use world::{BridgeWorld, DeviceWorld, DhcpWorld, DomainWorld, PortWorld, World};
