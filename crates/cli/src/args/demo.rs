//! `toci demo`.

use clap::{Args, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// Options of `toci demo`.
#[derive(Clone, Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  toci demo                            two changes are gated, each with a deployment of its own: the one
                                       that breaks it is thrown out, the other one is merged. Only images
                                       and logs stay, in the folder
  toci demo --gerrit                   the same, with reviews and votes on a real Gerrit
  toci demo --keep                     leave it up and say how to go on
  toci demo enter -- toci pipeline ended
                                       run a command inside the lab of a demo that is up
  toci demo stop                       end it

It needs root. It runs in namespaces of its own and touches nothing of the machine's network."
)]
pub struct DemoArgs {
    /// What to do; absent: run it.
    #[command(subcommand)]
    pub command: Option<DemoCommand>,
    /// How to run it.
    #[command(flatten)]
    pub run: DemoRun,
}

/// How to run the demo.
#[derive(Clone, Debug, Args)]
pub struct DemoRun {
    /// Leave everything up and say how to go on
    #[arg(long)]
    pub keep: bool,
    /// Review on a real Gerrit, fetched by Maven and started in the lab (needs a JDK)
    #[arg(long)]
    pub gerrit: bool,
    /// Folder for state, images and logs; images make the next run quick
    #[arg(long, value_name = "DIR", default_value = ".demo")]
    pub state: PathBuf,
    /// The deployment to run; otherwise examples/devtest/devtest.sh of the source tree
    #[arg(long, value_name = "SCRIPT")]
    pub script: Option<PathBuf>,
    /// How long the images took, before the lab was there.
    #[arg(long, hide = true, default_value_t = 0)]
    pub prepared_ms: u64,
    /// Which process of the demo this is.
    #[arg(long, hide = true, value_enum, default_value = "outside")]
    pub stage: DemoStage,
}

/// The processes of a demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoStage {
    /// What was started by hand; makes the lab and waits.
    Outside,
    /// Process 1 of the lab.
    Init,
    /// Tells and does the story.
    Inside,
}

/// What to do with a demo that is up.
#[derive(Clone, Debug, Subcommand)]
pub enum DemoCommand {
    /// End a demo that was started with --keep
    Stop {
        /// Its folder
        #[arg(long, value_name = "DIR", default_value = ".demo")]
        state: PathBuf,
    },
    /// Run a command inside the lab of a demo that is up
    Enter {
        /// Its folder
        #[arg(long, value_name = "DIR", default_value = ".demo")]
        state: PathBuf,
        /// The command; otherwise a shell
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
}
