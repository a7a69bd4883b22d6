//! TE HOST. Carves a machine into test environments, serves them to leases, makes them blank again.
//!
//! Planning is pure (`plan`, `carve`); `libvirt`, `ovs`, `netdev`, `disk`, `dhcp` and `sandbox`
//! are thin adapters that execute plans. Architecture invariant: `libvirt` is the only file that
//! uses the `virt` crate.

pub mod address;
pub mod agent;
mod bench;
pub mod carve;
pub mod commands;
pub mod config;
pub mod console;
pub mod dhcp;
pub mod disk;
pub mod disk_image;
pub mod facts;
pub mod first_boot;
pub mod gateway;
pub mod gateway_port;
pub mod guests;
pub mod host;
pub mod image;
pub mod libvirt;
pub mod machines;
pub mod names;
pub mod netdev;
pub mod ovs;
pub mod plan;
pub mod power;
pub mod probe;
pub mod run;
pub mod sandbox;
pub mod screenshot;
pub mod state;
pub mod successor;
pub mod te;
mod view;
