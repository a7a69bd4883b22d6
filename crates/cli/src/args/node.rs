//! `toci node`, `toci provider`.

use crate::duration::parse_some;
use clap::Subcommand;
use core::time::Duration;

/// Look after nodes: machines that jobs run on.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Show all nodes
    List,
    /// Show one node
    Show {
        /// The node, for example N12
        node: String,
    },
    /// Keep a node to look at it: at once when it is ready, otherwise when its run is over
    ///
    /// Example: toci node hold N12 --for 4h --reason 'why does the overcloud not come up'
    #[command(verbatim_doc_comment)]
    Hold {
        /// The node
        node: String,
        /// For how long
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_some)]
        length: Duration,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Keep the nodes of failures to come
    #[command(subcommand)]
    Autohold(AutoholdCommand),
    /// Delete a node, also one that is held; refused while a run has it
    Delete {
        /// The node
        node: String,
    },
    /// Show all images that machines are made of
    Images,
    /// Make an image anew; the old one stays in use until a machine came up from the new one
    Rebuild {
        /// The image's name, for example debian
        image: String,
    },
    /// Make no node of a bad image any more: the one before it serves again, or a new one is made
    Withdraw {
        /// The image, as `toci node images` calls it, for example debian-0123456789ab-1700000000
        image: String,
    },
}

/// Keep the nodes of the next failures of a job, and the test environments that they had.
#[derive(Debug, Subcommand)]
pub enum AutoholdCommand {
    /// Show all such wishes
    List,
    /// Keep the nodes of the next failures of a job
    ///
    /// Example: toci node autohold add devtest --change 1234 --for 4h --reason 'why does the overcloud not come up'
    #[command(verbatim_doc_comment)]
    Add {
        /// The job
        job: String,
        /// Only of this project
        #[arg(long)]
        project: Option<String>,
        /// Only of this change: 1234, or 1234,5
        #[arg(long, conflicts_with = "reference")]
        change: Option<String>,
        /// Only of this ref or branch: refs/heads/master, or master
        #[arg(long = "ref", value_name = "REF")]
        reference: Option<String>,
        /// Of so many failures
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// How long the nodes of each are kept
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_some)]
        length: Duration,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Delete such a wish; what it has held already stays held
    Delete {
        /// The wish, for example A12
        autohold: String,
    },
}

/// Look after providers of nodes.
#[derive(Debug, Subcommand)]
pub enum ProviderCommand {
    /// Show all providers
    List,
    /// Build no node there any more, until it is resumed; what is there is used and deleted as ever
    ///
    /// Example: toci provider pause rack1 --reason 'its switch is replaced'
    #[command(verbatim_doc_comment)]
    Pause {
        /// The provider's name
        provider: String,
        /// Why, for those who wait
        #[arg(long)]
        reason: String,
    },
    /// Build nodes there again; where builds failed before, one is tried at once
    Resume {
        /// The provider's name
        provider: String,
    },
}
