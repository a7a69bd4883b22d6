//! `toci host`.

use super::host_deploy::{DeployArgs, HostImageCommand, RemoveArgs, RollbackArgs, UpgradeArgs};
use crate::duration::parse_some;
use clap::Subcommand;
use core::time::Duration;
use std::path::PathBuf;

/// Look after TE hosts.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Show all hosts
    List,
    /// Show one host
    Show {
        /// The host, for example tehost1
        host: String,
    },
    /// Make a one-time token with which a new host can introduce itself
    ///
    /// Examples:
    ///   toci host enrol --host tehost1 --output enrol.token
    ///   toci host enrol --ttl 10m
    /// Then, on the host: name the file as `enrol_token_file` in toci-host.toml and start `toci-host run`.
    #[command(verbatim_doc_comment, visible_alias = "enroll")]
    Enrol {
        /// The only name that the token is good for; otherwise any new name
        #[arg(long)]
        host: Option<String>,
        /// How long it is good for; otherwise one hour
        #[arg(long, value_name = "DURATION", value_parser = parse_some)]
        ttl: Option<Duration>,
        /// Write the token to this new file (mode 0600) instead of standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// No new grants on any of its test environments
    Drain {
        /// The host
        host: String,
    },
    /// Grant its test environments again
    Undrain {
        /// The host
        host: String,
    },
    /// Set machines up as TE hosts, or bring them up to date: over SSH, or as servers of a cloud
    ///
    /// Over SSH: packages, program, configuration, enrolment and service: whatever differs is made so; a second time
    /// there is nothing to do. The host's key must be known (--known-hosts, --host-key, or OpenSSH's own files).
    ///
    /// In a cloud: a server for each name, of an image that `toci host image build` has made, with its configuration
    /// and a one-time token. @ADDRESS@ in the configuration becomes the address that the test network gives it.
    ///
    /// Examples:
    ///   toci host deploy tehost1 --ssh root@192.0.2.7 --config te.toml --plan
    ///   toci host deploy tehost1 --ssh root@192.0.2.7 --config te.toml --set ADDRESS=172.16.0.7/22
    ///   toci host deploy tehost1 tehost2 --cloud hp1 --image te-host --flavor baremetal --network tripleo-bm-test \
    ///     --access-network private --key-pair ops --config te.toml
    #[command(verbatim_doc_comment)]
    Deploy(Box<DeployArgs>),
    /// Replace the program of hosts in place; leases go on
    ///
    /// When the new version does not serve well in time, the one before it is put back.
    Upgrade(Box<UpgradeArgs>),
    /// Go back to the version before; leases go on
    Rollback(Box<RollbackArgs>),
    /// Take a host out of service, and remove from its machine what `deploy` put there; a cloud's server is deleted
    ///
    /// Waits until no lease uses it. A machine that was not set up by `deploy` is not known here: --forget.
    Remove(Box<RemoveArgs>),
    /// Images that TE hosts boot from
    #[command(subcommand)]
    Image(HostImageCommand),
}
