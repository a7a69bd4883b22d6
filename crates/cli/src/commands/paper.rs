//! Completion scripts and man pages, made from the same tree as the command line.

use crate::args;
use crate::error::{CliError, Result};
use crate::exit::{Exit, help_section};
use clap_complete::Shell;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// Prints the completion script.
pub(super) fn completion(shell: Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "toci", &mut script);
    match io::stdout().write_all(&script) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::failed("write to standard output", &e))
        }
        Ok(()) | Err(_) => Ok(Exit::Ok.into()),
    }
}

/// Writes one page for each subcommand: `toci.1`, `toci-lease.1`, `toci-lease-run.1`, …
pub(super) fn man_pages(folder: &Path) -> Result<ExitCode> {
    let failed = |e: io::Error| {
        CliError::new(
            Exit::Failed,
            format!("write man pages to {}: {e}", folder.display()),
            "choose a folder that you may write to",
        )
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let tree = args::command().after_long_help(help_section());
    clap_mangen::generate_to(tree, folder).map_err(failed)?;
    Ok(Exit::Ok.into())
}
