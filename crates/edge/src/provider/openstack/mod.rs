//! The provider `openstack`: servers of a cloud.
//!
//! ```text
//!   image file, debootstrap, diskimage-builder ──build──▶ image in Glance ──boots once──▶ ready
//!                                                              │
//!   create: volume, ports, floating IP, server, all with our mark ──ACTIVE──▶ host key from its console ──SSH answers──▶ Machine
//! ```
//!
//! * **Marks.** Servers and volumes carry our mark in their metadata, ports and floating IPs in their description, images in their
//!   properties, key pairs in their name ([`marks`]). What a node has is found by its mark, so nothing that was begun
//!   can be lost; what no node knows is an alien and deleted; what has no mark of ours is never touched. That is why
//!   ports and volumes are made here and not by Nova, which gives them no mark.
//! * **Trust.** The host key is read from the server's console over the cloud's API before anybody but the image has
//!   run something there ([`host_key`]); no private key travels, and every image with cloud-init tells it. Where a cloud
//!   has no console, one is made here and given in user data; then it also is in the cloud's database and metadata
//!   service.
//! * **Room.** What the project's quotas leave to us is told to the pool ([`room`]), with what a node of each label takes.
//!   A refusal for want of room is no failed build.
//! * Images of ours are looked after by [`super::image`]: whenever somebody lists or creates, and after each step.

pub mod config;
mod delete;
mod host_key;
mod marks;
mod port;
mod room;
mod seen;
mod server;
mod shelf;
mod things;
mod volume;

pub use config::{FlavorChoice, HostKeySource, ImageChoice, ImageFormat, OpenStackConfig, Shape};
pub use delete::{DELETE_AGAIN, DELETE_WAIT};
pub use host_key::told as told_host_key;
pub use port::OpenStack;
pub use volume::VOLUME_DELETE_WAIT;
