//! Settings of an OpenStack provider, as the server has checked them.

use crate::openstack::Cloud;
use crate::provider::image::ImageConfig;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toci_core::id::Label;

/// How long a cloud may take until a server is ACTIVE when nothing else is said: an image has to be brought to a host.
pub const LAUNCH_LIMIT: Duration = Duration::from_secs(600);

/// Settings.
#[derive(Clone, Debug)]
pub struct OpenStackConfig {
    /// The provider's name.
    pub name: String,
    /// The cloud, and who we are there.
    pub cloud: Arc<Cloud>,
    /// Our mark on what is ours; none: one is made and kept in `state`.
    pub owner: Option<String>,
    /// Folder on this machine: keys, records, logs of builds.
    pub state: PathBuf,
    /// Folder on this machine where built images wait until the cloud has them.
    pub built: PathBuf,
    /// Who commands run as.
    pub user: String,
    /// Private key for it; none: one is made.
    pub key: Option<PathBuf>,
    /// How a server's host key is known.
    pub host_key: HostKeySource,
    /// External network that floating IPs come from, by name or id; none: nodes are reached at their fixed addresses.
    pub floating_network: Option<String>,
    /// By name or id, for all ports.
    pub security_groups: Vec<String>,
    /// Availability zones, one after the other; none: where the cloud likes.
    pub zones: Vec<String>,
    /// Metadata is on a disk too.
    pub config_drive: bool,
    /// What servers are given besides.
    pub user_data: Option<String>,
    /// How our images are kept in the cloud.
    pub image_format: ImageFormat,
    /// From the request until a server is ACTIVE.
    pub launch_limit: Duration,
    /// From then until it answers over SSH.
    pub boot_limit: Duration,
    /// What a node of a label is.
    pub shapes: BTreeMap<Label, Shape>,
    /// The images of ours that labels name.
    pub images: BTreeMap<String, ImageConfig>,
}

/// How a server's host key is known before it is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostKeySource {
    /// The server makes it and tells it on its console, as cloud-init does. Nobody but the image runs there before.
    #[default]
    Console,
    /// It is made here and given to the server in its user data, for cloud-init.
    UserData,
}

/// How images are kept in a cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageFormat {
    /// Small.
    #[default]
    Qcow2,
    /// As large as its disk; what Ceph wants.
    Raw,
}

impl ImageFormat {
    /// Glance's and qemu-img's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Raw => "raw",
        }
    }
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What it boots from.
    pub image: ImageChoice,
    /// What it takes.
    pub flavor: FlavorChoice,
    /// Networks, by name or id; the first one is the one that it is reached by. None: the only one there is.
    pub networks: Vec<String>,
    /// It boots from a volume of this size, GiB, instead of its host's disk.
    pub volume_gib: Option<u64>,
}

/// Which image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageChoice {
    /// One that is built here.
    Ours(String),
    /// One that the cloud has, by name or id; of several of one name the newest.
    Clouds(String),
}

/// Which flavor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlavorChoice {
    /// This one, by name or id.
    Named(String),
    /// The smallest that has all of it.
    AtLeast {
        /// CPUs.
        cpus: u64,
        /// MiB.
        memory_mib: u64,
        /// Disk, GiB.
        disk_gib: u64,
        /// Its name has this in it.
        filter: Option<String>,
    },
}
