//! `toci host deploy` and what follows it.

use crate::duration::parse_some;
use clap::{Args, Subcommand};
use core::time::Duration;
use std::path::PathBuf;
use toci_wire::te_host::Destination;

/// How a machine is reached.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Where the machine is")]
pub struct SshArgs {
    /// The machine, as root@ADDRESS or root@ADDRESS:PORT; otherwise as the inventory remembers it
    #[arg(long, value_name = "DESTINATION")]
    pub ssh: Option<Destination>,
    /// Private key for it; otherwise OpenSSH's usual ones
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Option<PathBuf>,
    /// Host keys that are believed; otherwise OpenSSH's usual files
    #[arg(long, value_name = "FILE", conflicts_with = "host_key")]
    pub known_hosts: Option<PathBuf>,
    /// The machine's host key itself, such as "ssh-ed25519 AAAA…"
    #[arg(long, value_name = "KEY")]
    pub host_key: Option<String>,
    /// File that remembers machines by name; otherwise toci/te-hosts.toml in $XDG_CONFIG_HOME or ~/.config
    #[arg(long, env = "TOCI_INVENTORY", value_name = "FILE", hide_env_values = true)]
    pub inventory: Option<PathBuf>,
}

/// Whose server of which cloud a host is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "In a cloud")]
pub struct CloudArgs {
    /// The hosts are servers of this cloud of clouds.yaml
    #[arg(long, value_name = "CLOUD", conflicts_with = "ssh")]
    pub cloud: Option<String>,
    /// Region of it; otherwise its own
    #[arg(long, value_name = "REGION", requires = "cloud")]
    pub region: Option<String>,
    /// Whose mark servers, ports and floating IPs carry
    #[arg(long, value_name = "NAME", default_value = "toci")]
    pub owner: String,
}

/// What servers are made of. Names or ids of the cloud.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Servers of a cloud")]
pub struct TeServerArgs {
    /// The image, as `toci host image build` makes it; of several of this name the newest
    #[arg(long, value_name = "IMAGE", requires = "cloud")]
    pub image: Option<String>,
    /// The flavor
    #[arg(long, value_name = "FLAVOR", requires = "cloud")]
    pub flavor: Option<String>,
    /// The test network: the second card, which the host's bridge takes over
    #[arg(long, value_name = "NETWORK", requires = "cloud")]
    pub network: Option<String>,
    /// The network of the first card: SSH, and the way to the server
    #[arg(long, value_name = "NETWORK", requires = "cloud")]
    pub access_network: Option<String>,
    /// They are reached by floating IPs of this network
    #[arg(long, value_name = "NETWORK", requires = "cloud")]
    pub floating_network: Option<String>,
    /// Security group of the first card; otherwise the project's default; may be given again
    #[arg(long, value_name = "GROUP", requires = "cloud")]
    pub security_group: Vec<String>,
    /// Key pair that may log in as root; without it nobody can
    #[arg(long, value_name = "NAME", requires = "cloud")]
    pub key_pair: Option<String>,
    /// Make its SSH host key here and put it into the user data: for servers without a console to tell it on, such as bare metal
    #[arg(long, requires = "cloud")]
    pub give_host_key: bool,
    /// Availability zone
    #[arg(long, value_name = "ZONE", requires = "cloud")]
    pub availability_zone: Option<String>,
    /// How long a server may take from the request until it has introduced itself
    #[arg(long, value_name = "DURATION", value_parser = parse_some, default_value = "30m")]
    pub boot_within: Duration,
}

/// How patient to be, and what may be disturbed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "How")]
pub struct ApplyArgs {
    /// Wait until no lease uses the host; no new ones are granted meanwhile
    #[arg(long, conflicts_with = "now")]
    pub drain: bool,
    /// Do not care for leases that use the host
    #[arg(long)]
    pub now: bool,
    /// How long a version may take to serve well before the one before it is put back
    #[arg(long, value_name = "DURATION", value_parser = parse_some, default_value = "60s")]
    pub well_within: Duration,
    /// How long the host's test environments may take to be ready
    #[arg(long, value_name = "DURATION", value_parser = parse_some, default_value = "10m")]
    pub ready_within: Duration,
    /// The program to bring; otherwise the toci-host beside this toci
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
}

/// `toci host deploy`.
#[derive(Clone, Debug, Args)]
pub struct DeployArgs {
    /// The hosts' names, for example tehost1
    #[arg(required = true)]
    pub hosts: Vec<String>,
    /// toci-host.toml as it should be there; @NAME@ in it becomes the host's name, @NUMBER@ the digits at its end
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// What @KEY@ in the configuration becomes; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Only show what differs
    #[arg(long)]
    pub plan: bool,
    /// See the heading
    #[command(flatten)]
    pub cloud: CloudArgs,
    /// See the heading
    #[command(flatten)]
    pub server: TeServerArgs,
    /// See the heading
    #[command(flatten)]
    pub ssh: SshArgs,
    /// See the heading
    #[command(flatten)]
    pub apply: ApplyArgs,
}

/// `toci host upgrade`.
#[derive(Clone, Debug, Args)]
pub struct UpgradeArgs {
    /// The hosts, one after the other; the first that fails is the last
    #[arg(required = true)]
    pub hosts: Vec<String>,
    /// Only show what differs
    #[arg(long)]
    pub plan: bool,
    /// See the heading
    #[command(flatten)]
    pub ssh: SshArgs,
    /// See the heading
    #[command(flatten)]
    pub apply: ApplyArgs,
}

/// `toci host rollback`.
#[derive(Clone, Debug, Args)]
pub struct RollbackArgs {
    /// The host
    pub host: String,
    /// How long the version may take to serve well
    #[arg(long, value_name = "DURATION", value_parser = parse_some, default_value = "60s")]
    pub well_within: Duration,
    /// How long the host's test environments may take to be ready
    #[arg(long, value_name = "DURATION", value_parser = parse_some, default_value = "10m")]
    pub ready_within: Duration,
    /// See the heading
    #[command(flatten)]
    pub ssh: SshArgs,
}

/// `toci host remove`.
#[derive(Clone, Debug, Args)]
pub struct RemoveArgs {
    /// The host
    pub host: String,
    /// Revoke the leases that use it instead of waiting for their end
    #[arg(long)]
    pub now: bool,
    /// Only forget it at the server, whatever is on its machine
    #[arg(long)]
    pub forget: bool,
    /// See the heading
    #[command(flatten)]
    pub cloud: CloudArgs,
    /// See the heading
    #[command(flatten)]
    pub ssh: SshArgs,
}

/// `toci host image build`.
#[derive(Clone, Debug, Args)]
pub struct ImageBuildArgs {
    /// The image to make: NAME.qcow2; what is said meanwhile goes to NAME.log beside it
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Release of Debian
    #[arg(long, default_value = "bookworm")]
    pub release: String,
    /// Folder of our elements; otherwise that of the source tree around the current folder or around this program
    #[arg(long, value_name = "FOLDER")]
    pub elements: Option<PathBuf>,
    /// One more element, of diskimage-builder or in ELEMENTS_PATH; may be given again
    #[arg(long, value_name = "NAME")]
    pub element: Vec<String>,
    /// The program; otherwise the toci-host beside this toci
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
}

/// `toci host image`.
#[derive(Debug, Subcommand)]
pub enum HostImageCommand {
    /// Make an image of a TE host with diskimage-builder: whatever boots it becomes the TE host that its user data say
    ///
    /// Example:
    ///   toci host image build --output te-host.qcow2
    #[command(verbatim_doc_comment)]
    Build(ImageBuildArgs),
}
