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
}

/// Look after providers of nodes.
#[derive(Debug, Subcommand)]
pub enum ProviderCommand {
    /// Show all providers
    List,
}
