//! `toci host deploy` and what follows it.

use crate::duration::parse_some;
use clap::Args;
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
    /// The host's name, for example tehost1
    pub host: String,
    /// toci-host.toml as it should be there; @NAME@ in it becomes the host's name
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
    pub ssh: SshArgs,
}
