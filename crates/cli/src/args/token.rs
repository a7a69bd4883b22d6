//! `toci token`.

use crate::duration::parse_some;
use clap::Subcommand;
use core::time::Duration;
use std::path::PathBuf;
use toci_wire::api::Role;

/// Say who may use the API.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token
    ///
    /// Example: toci token create --role client --subject nightly --output nightly.token
    #[command(verbatim_doc_comment)]
    Create {
        /// What it is good for: client, host, operator or read_only
        #[arg(long)]
        role: Role,
        /// Who it stands for: the owner of its leases
        #[arg(long)]
        subject: String,
        /// How long it is good for; otherwise until it is revoked
        #[arg(long, value_name = "DURATION", value_parser = parse_some)]
        ttl: Option<Duration>,
        /// Write the token to this new file (mode 0600) instead of standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show all tokens, without their secrets
    List,
    /// Make a token worthless
    Revoke {
        /// Its id, as in `toci token list`
        id: String,
    },
}
