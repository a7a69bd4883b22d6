//! Settings of a libvirt provider, as the server has checked them.

use crate::provider::image::ImageConfig;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use toci_core::id::Label;

/// How long a machine may take from its start to its first answer over SSH when nothing else is said. Under TCG a
/// Debian with systemd takes a minute on two busy cores.
pub const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibvirtConfig {
    /// The provider's name.
    pub name: String,
    /// libvirt's connection URI.
    pub uri: String,
    /// Folder on libvirt's host that is ours alone: images, disks, consoles.
    pub folder: PathBuf,
    /// Folder on this machine: keys, records, logs of builds.
    pub state: PathBuf,
    /// Folder on this machine where built images wait until libvirt has them.
    pub built: PathBuf,
    /// What machines are connected to.
    pub network: Network,
    /// Who commands run as.
    pub user: String,
    /// Private key for it; none: one is made.
    pub key: Option<PathBuf>,
    /// KVM or not.
    pub accelerator: Accelerator,
    /// From the start of a machine to its first answer.
    pub boot_limit: Duration,
    /// What a machine of a label is.
    pub shapes: BTreeMap<Label, Shape>,
    /// The images that labels name.
    pub images: BTreeMap<String, ImageConfig>,
}

/// What machines are connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// A network of libvirt, whose DHCP server knows the address.
    Libvirt(String),
    /// An existing bridge; the machine tells its address on its console.
    Bridge(String),
    /// QEMU's user networking: outwards only, and a port of this machine to its SSH server.
    User,
}

/// KVM or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accelerator {
    /// KVM where an image was seen to boot with it.
    #[default]
    Auto,
    /// Always.
    Kvm,
    /// Never.
    Tcg,
}

/// What a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its image's name.
    pub image: String,
    /// CPUs.
    pub cpus: u64,
    /// MiB.
    pub memory_mib: u64,
    /// Size of its disk, GiB; what is not in the image is empty.
    pub disk_gib: u64,
}
