//! The provider `libvirt`: virtual machines on a host's libvirt daemon, here or far away, reached through `virsh`.
//!
//! ```text
//!   image file, debootstrap, diskimage-builder ──build──▶ volume toci-image-… ──boots once──▶ ready
//!                                                              │
//!   create: seed disk (host key, user key, marker) + layer over it ──▶ machine toci-node-<node> ──▶ SSH, marker ──▶ Machine
//! ```
//!
//! * All files lie in one folder of libvirt's host, which is a storage pool and ours alone ([`volume`]).
//! * A machine is transient: when it stops, for whatever reason, libvirt forgets it. Its volumes are then left, and are
//!   found by their names ([`names`]).
//! * Its SSH host key is made here and given to it on a seed disk ([`seed`]); only that key is trusted. It is ready when
//!   it answers with that key and has left the marker that was made for this boot.
//! * Images are looked after by [`super::image`]: whenever somebody lists or creates, and after each step.

pub mod config;
mod machine;
mod names;
mod port;
mod seed;
mod shelf;
mod virsh;
mod volume;
mod xml;

pub use super::image::{ImageConfig, ImageSource};
pub use config::{Accelerator, LibvirtConfig, Network, Shape};
pub use port::Libvirt;
pub use virsh::{UPLOAD_LIMIT, VIRSH_LIMIT};
