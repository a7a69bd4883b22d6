//! `toci run`.

use clap::Subcommand;

/// Look at runs of jobs, follow their consoles, stop them.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Show what runs and waits, and what ended lately
    List {
        /// So many that are over
        #[arg(long, default_value_t = 20, value_name = "N")]
        ended: u32,
    },
    /// Show one run
    Show {
        /// The run: its id, or as many of its first digits as tell it from others
        run: String,
    },
    /// Show a run's console from its start, and go on while it is written
    ///
    /// Ends with 0 when the run succeeded, with 1 when it did not.
    ///
    /// Example: toci run console 5f3c1a2
    #[command(verbatim_doc_comment)]
    Console {
        /// The run: its id, or its first digits
        run: String,
    },
    /// Begin no run of a job any more, until it is resumed; what runs goes on
    Pause {
        /// The job's name
        job: String,
        /// Why, for those who wait
        #[arg(long)]
        reason: String,
    },
    /// Let runs of a job begin again
    Resume {
        /// The job's name
        job: String,
    },
    /// Stop a run: it ends as ABORTED, and its logs are kept
    Cancel {
        /// The run: its id, or its first digits
        run: String,
    },
}
