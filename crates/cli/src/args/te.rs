//! `toci te`.

use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;
use toci_wire::api::PowerAction;

/// Look after test environments.
#[derive(Debug, Subcommand)]
pub enum TeCommand {
    /// Show all test environments
    List,
    /// Show one test environment and its machines
    Show {
        /// The test environment, for example tehost1-2
        te: String,
    },
    /// Switch machines on or off, or ask how they are
    ///
    /// Examples:
    ///   toci te power tehost1-1 status
    ///   toci te power tehost1-1 off --machine seed_1
    #[command(verbatim_doc_comment)]
    Power {
        /// The test environment
        te: String,
        /// What to do
        action: PowerWord,
        /// Only this machine, for example seed_1 or baremetalbrbm1_0; otherwise all
        #[arg(long, short)]
        machine: Option<String>,
    },
    /// Show a machine's serial console
    ///
    /// Example: toci te console tehost1-1 seed_1 --follow
    #[command(verbatim_doc_comment)]
    Console {
        /// The test environment
        te: String,
        /// The machine; otherwise the seed
        machine: Option<String>,
        /// Go on as it grows
        #[arg(long, short)]
        follow: bool,
    },
    /// Show what its host sees of a test environment: power, ports, flows and definitions of its machines
    View {
        /// The test environment
        te: String,
    },
    /// Save a picture of a machine's screen
    Screenshot {
        /// The test environment
        te: String,
        /// The machine; otherwise the seed
        machine: Option<String>,
        /// The PNG file; otherwise <machine>.png; `-` is standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Put an image onto a machine's disk and check that it arrived whole
    ///
    /// Examples:
    ///   toci te push-image tehost1-1 seed.qcow2
    ///   toci te push-image tehost1-1 disk.raw --machine seed_1   # only a seed takes one
    #[command(verbatim_doc_comment, name = "push-image")]
    PushImage {
        /// The test environment
        te: String,
        /// The image: qcow2 or raw
        image: PathBuf,
        /// The machine; otherwise the seed
        #[arg(long, short)]
        machine: Option<String>,
    },
    /// Make a free test environment blank again
    Reset {
        /// The test environment
        te: String,
    },
    /// No new grants; the running lease goes on
    Drain {
        /// The test environment
        te: String,
    },
    /// Grant it again; also the way out of quarantine, after a burn-in
    Undrain {
        /// The test environment
        te: String,
    },
    /// Take it out because something is wrong with it
    Quarantine {
        /// The test environment
        te: String,
        /// What is wrong; shown to people
        #[arg(long)]
        reason: String,
    },
}

/// What to do with a machine's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PowerWord {
    /// Start it
    On,
    /// Pull the plug
    Off,
    /// Press reset
    Reset,
    /// Only say how it is
    Status,
}

impl From<PowerWord> for PowerAction {
    fn from(word: PowerWord) -> PowerAction {
        match word {
            PowerWord::On => PowerAction::On,
            PowerWord::Off => PowerAction::Off,
            PowerWord::Reset => PowerAction::Reset,
            PowerWord::Status => PowerAction::Status,
        }
    }
}
