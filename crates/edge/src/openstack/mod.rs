//! A client of OpenStack: the calls that toci needs, of Keystone, Nova, Neutron, Glance and Cinder.
//!
//! ```text
//!   clouds.yaml, OS_* ──config──▶ CloudSettings ──▶ Cloud: token and catalogue, one call with its retries
//!                                                     │
//!              identity · compute · network · image · volume: what is asked and answered, as types
//! ```
//!
//! * A [`Cloud`] is one user at one cloud; it is cheap to share and may be used by many at once. Its token is got when the
//!   first call needs one, anew before it ends, and anew once when a service does not take it.
//! * Every call goes through [`Cloud::call`]: what was not done because the service is busy is tried again, when the
//!   service says (`Retry-After`); what may have been done is tried again only when twice is as good as once.
//! * Errors say which: [`CloudError`]. Nothing of a token or a password is in them, or in `Debug`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use toci_edge::openstack::{Cloud, config};
//! let cloud = Cloud::open(&config::Place::here(), Some("hp1"), None)?;
//! for server in cloud.servers(&[]).await? {
//!     println!("{} {}", server.id, server.status);
//! }
//! # Ok(())
//! # }
//! ```

mod call;
mod compute;
pub mod config;
mod error;
mod identity;
mod image;
mod named;
mod network;
mod pace;
mod session;
#[cfg(test)]
mod tests;
mod volume;

pub use call::{CALL_ATTEMPTS_MAX, CALL_LIMIT, Call, PAGES_MAX, RETRY_WAIT_MAX};
pub use compute::{
    Attached, BootDisk, COMPUTE_MICROVERSION, Fault, Flavor, KeyPair, Limits, NewServer, Nic,
    Server, ServerAddress, ServerFlavor, USER_DATA_MAX_BYTES,
};
pub use error::{CloudError, OpenCloud};
pub use identity::TokenFacts;
pub use image::{Image, NewImage};
pub use named::{Named, NotOne, listed, one};
pub use network::{AllowedAddress, FixedIp, FloatingIp, Network, Port, QuotaUse, SecurityGroup};
pub use pace::CallCount;
pub use session::{CALLS_AT_ONCE_MAX, Cloud, Service};
pub use volume::{Attachment, NewVolume, VOLUME_MICROVERSION, Volume, VolumeLimits};
