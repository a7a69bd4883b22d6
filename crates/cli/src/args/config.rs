//! `toci config`.

use clap::Subcommand;
use std::path::PathBuf;

/// Look at configuration, without a server.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read a layout: pipelines, jobs, projects in Zuul 2's YAML
    ///
    /// Prints every error with its place, and what keys mean that have no effect. Ends with 2 when there is an error.
    ///
    /// Example: toci config check examples/layouts/zuul2-full.yaml
    #[command(verbatim_doc_comment)]
    Check {
        /// The file
        layout: PathBuf,
        /// What `source:` means where it is left out, and what `gerrit` stands for
        #[arg(long, default_value = "gerrit", value_name = "NAME")]
        source: String,
    },
}
