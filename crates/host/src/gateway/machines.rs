//! What the gateway needs of a TE: a port, implemented over libvirt by the agent and in memory by tests.

use futures_util::future::BoxFuture;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use toci_wire::ssh_command::BootDevice;
pub use toci_wire::ssh_command::PowerVerb;
pub use toci_wire::ssh_command::output::{DomainState, Row};

/// Why a machine did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// There is no such machine.
    #[error("failed to get domain '{0}'")]
    NoDomain(String),
    /// `start` of one that runs.
    #[error("Domain is already active")]
    AlreadyActive,
    /// `destroy` or `reset` of one that is off.
    #[error("Requested operation is not valid: domain is not running")]
    NotRunning,
    /// The seed's disk is to be exchanged.
    #[error("{0} is running; its image would change under it: use virsh destroy {0} first")]
    SeedRuns(String),
    /// libvirt's own words.
    #[error("{0}")]
    Failed(String),
}

/// Where the seed's image lies and how large its disk may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedImage {
    /// The qcow2 file that the seed boots from, e.g. `…/images/seed_1.qcow2`.
    pub path: PathBuf,
    /// Size of the seed's disk by its shape, bytes.
    pub disk_bytes: u64,
}

/// The machines of one TE. Every method is given one of `names()`, never anything else.
///
/// A call is never dropped half-way: when a session is cut, closing the gateway waits for the calls that
/// are under way, so that none of them can take effect in the next lease. They must end by themselves.
pub trait Machines: Send + Sync + std::fmt::Debug + 'static {
    /// Number of the TE on its host.
    fn number(&self) -> u32;
    /// Domain names, seed first.
    fn names(&self) -> &[String];
    /// All of them, as libvirt has them now.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Row>, MachineError>>;
    /// Starts, pulls the plug, or presses reset.
    fn power<'a>(
        &'a self,
        machine: &'a str,
        verb: PowerVerb,
    ) -> BoxFuture<'a, Result<(), MachineError>>;
    /// The definition as it runs, or as it will be at the next start.
    fn xml<'a>(
        &'a self,
        machine: &'a str,
        inactive: bool,
    ) -> BoxFuture<'a, Result<String, MachineError>>;
    /// What the machine boots from at its next start.
    fn set_boot_device<'a>(
        &'a self,
        machine: &'a str,
        device: BootDevice,
    ) -> BoxFuture<'a, Result<(), MachineError>>;
    /// Lets this address at the seed, until the lease is over. Again: nothing.
    fn admit(&self, address: Ipv4Addr) -> BoxFuture<'_, Result<(), MachineError>>;
    /// Where `copyseed` goes.
    fn seed_image(&self) -> SeedImage;
    /// Puts a checked qcow2 file in place of the seed's image, if the seed is off: then it cannot be
    /// started, by anybody, before that is done.
    fn exchange_seed<'a>(&'a self, ready: &'a Path) -> BoxFuture<'a, Result<(), MachineError>>;
}
