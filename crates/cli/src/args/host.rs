//! `toci host`.

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
    /// Forget a host and its token; refused while it has leases
    Remove {
        /// The host
        host: String,
    },
}
