//! The gateway's command line: what the 2014 clients of a TE host send over SSH (origin.md 2.3).
//!
//! The text is compared, never given to a shell: `parse` turns it into a [`Command`] or says why not,
//! and [`output`] prints what the original pipelines would have printed. Pure, total, fuzzed.

mod command;
pub mod output;
mod parse;

pub use command::{BootDevice, Command, MACHINE_NAME_MAX_BYTES, MachineName, PowerVerb, Refused};
pub use parse::{ALLOWED, COMMAND_MAX_BYTES, fuzz_command, parse};
