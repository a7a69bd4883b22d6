//! `toci lease`.

use crate::duration::{parse, parse_some};
use clap::{Args, Subcommand};
use core::time::Duration;
use std::ffi::OsString;

/// Use test environments.
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// Wait for a test environment, run a command with it, give it back
    Run(RunArgs),
    /// Show the leases that are running or waiting
    List {
        /// Also those that ended lately
        #[arg(long)]
        all: bool,
    },
    /// Show one lease
    Show {
        /// The lease, for example L7
        lease: String,
    },
    /// Let a lease last longer
    ///
    /// Example: toci lease extend L7 --for 1h
    #[command(verbatim_doc_comment)]
    Extend {
        /// The lease, for example L7
        lease: String,
        /// How long it should last from now on, up to the server's maximum
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_some)]
        duration: Duration,
    },
    /// Give a lease back, or withdraw a waiting request
    Release {
        /// The lease, for example L7
        lease: String,
        /// Shown to people
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Keep a test environment for debugging after the run
    ///
    /// Counts against the project's hold budget. Example: toci lease hold L7 --for 2h --reason "bug 42"
    #[command(verbatim_doc_comment)]
    Hold {
        /// The lease, for example L7
        lease: String,
        /// How long from now on
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_some)]
        duration: Duration,
        /// Why; shown to people
        #[arg(long)]
        reason: String,
    },
    /// Take a lease away from its holder (operators)
    Revoke {
        /// The lease, for example L7
        lease: String,
        /// Why; the holder sees it
        #[arg(long)]
        reason: String,
    },
}

/// Options of `toci lease run`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "\
Examples:
  toci lease run -- ./devtest.sh
  toci lease run --label devtest --timeout 3h --wait-timeout 30m -- ./devtest.sh
  toci lease run --hold-on-failure 1h -- make integration-test
  toci lease run -- sh -c 'jq . \"$TE_DATAFILE\"'",
    after_long_help = "\
Examples:
  toci lease run -- ./devtest.sh
  toci lease run --label devtest --timeout 3h --wait-timeout 30m -- ./devtest.sh
  toci lease run --hold-on-failure 1h -- make integration-test
  toci lease run -- sh -c 'jq . \"$TE_DATAFILE\"'

COMMAND finds in its environment:
  TE_DATAFILE   file with the (first) test environment as JSON: addresses, machines, a private key
                that is good for this lease only; removed at the end
  TE_DATAFILES  all of them, separated by colons, with --count
  TOCI_LEASE    the lease, for example L7
  TOCI_SERVER   where the server is

COMMAND runs in a process group of its own. SIGINT, SIGTERM and SIGHUP are passed on to it, then the lease is
released. When the lease ends first (its time is over, it is revoked, it is lost), the group gets TERM and after
--grace KILL. The server may restart meanwhile: the command goes on, up to the end of the lease.

Exit codes: COMMAND's own, or 128 + the signal that ended it; 110 refused, 111 nothing within --wait-timeout,
112 expired, 113 lost, 114 revoked, 115 server unreachable, 116 not allowed, 125 toci failed, 126 COMMAND cannot
be run, 127 COMMAND not found. See `toci --help`."
)]
pub struct RunArgs {
    /// Only test environments with this label
    #[arg(long, short)]
    pub label: Option<String>,
    /// Only test environments of this shape
    #[arg(long)]
    pub shape: Option<String>,
    /// How many test environments, all at once or none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Whose turn it counts as; otherwise the token's subject
    #[arg(long)]
    pub project: Option<String>,
    /// From 0 (low) to 100 (high); otherwise 50. Waiting raises it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub priority: Option<u8>,
    /// How long the test environment is wanted, from the grant on; waiting does not count
    #[arg(long, short, value_name = "DURATION", value_parser = parse_some)]
    pub timeout: Option<Duration>,
    /// How long to wait for a test environment; otherwise without limit
    #[arg(long, value_name = "DURATION", value_parser = parse_some)]
    pub wait_timeout: Option<Duration>,
    /// When COMMAND fails, keep the test environment this long for debugging
    #[arg(long, value_name = "DURATION", value_parser = parse_some)]
    pub hold_on_failure: Option<Duration>,
    /// Time between TERM and KILL when COMMAND has to end
    #[arg(long, value_name = "DURATION", value_parser = parse, default_value = "10s")]
    pub grace: Duration,
    /// What it is for, shown to people; otherwise COMMAND
    #[arg(long)]
    pub purpose: Option<String>,
    /// Say nothing but errors
    #[arg(long, short)]
    pub quiet: bool,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub command: Vec<OsString>,
}
