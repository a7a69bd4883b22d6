//! `toci cloud`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Set up the cloud of a zone from one file: projects, users, quotas, networks, images, servers.
#[derive(Debug, Subcommand)]
pub enum CloudCommand {
    /// Read a zone file, and nothing else
    ///
    /// Prints every error with its place. Ends with 2 when there is one.
    ///
    /// Examples:
    ///   toci cloud check examples/zones/hp1.yaml
    #[command(verbatim_doc_comment)]
    Check {
        /// The zone file
        zone: PathBuf,
    },
    /// Say what `apply` would do; nothing is changed
    ///
    /// `+` is made, `~` is changed, `-` is deleted, `!` is left because it is somebody else's or cannot be changed, `?` is
    /// ours and no longer wished. Ends with 0 when all is as wished, with 117 when something is not.
    ///
    /// The cloud is the one of clouds.yaml that the zone names, or that OS_* of the environment say.
    ///
    /// Examples:
    ///   toci cloud plan examples/zones/hp1.yaml
    ///   toci cloud plan --prune --json zone.yaml
    #[command(verbatim_doc_comment)]
    Plan(ZoneArgs),
    /// Make the cloud as the zone says, step by step
    ///
    /// Safe to repeat: what is as wished is left alone, what drifted is put right, what is not ours is never touched. It
    /// stops at the first failure; apply again when its cause is mended. Ends with 110 when something was left as `plan`
    /// shows with `!`.
    ///
    /// Examples:
    ///   toci cloud apply examples/zones/hp1.yaml
    ///   OS_CLOUD=lab toci cloud apply zone.yaml --prune
    #[command(verbatim_doc_comment)]
    Apply(ZoneArgs),
}

/// A zone, and what to do about what it no longer has.
#[derive(Debug, Args)]
pub struct ZoneArgs {
    /// The zone file
    pub zone: PathBuf,
    /// Delete what is ours and no longer in the zone, unless something still uses it
    #[arg(long)]
    pub prune: bool,
}
