//! `toci demo`: the whole walk of two changes on this machine, in a lab (network, process, mount and IPC namespaces) that
//! ends with the demo, however that ends.
//!
//! ```text
//! toci demo (outside) ──makes the namespaces──▶ init (process 1 of the lab) ──▶ inside: control plane, TE host, gate
//! ```

mod folder;
mod forge;
mod gerrit_host;
mod init;
mod outside;
mod ready;
mod story;

use crate::args::{DemoArgs, DemoCommand, DemoStage};
use crate::error::Result;
use std::process::ExitCode;

/// Runs `toci demo`.
///
/// # Errors
/// Not root, something is missing, or a part of the demo failed.
pub fn main(args: &DemoArgs) -> Result<ExitCode> {
    match &args.command {
        Some(DemoCommand::Stop { state }) => outside::stop(state),
        Some(DemoCommand::Enter { state, command }) => outside::enter(state, command),
        None => match args.run.stage {
            DemoStage::Outside => outside::run(&args.run),
            DemoStage::Init => init::run(&args.run),
            DemoStage::Inside => crate::commands::block_on(story::run(&args.run)),
        },
    }
}
