//! Which program goes on when the agent makes way: upgrades and roll-backs exchange what a link leads to, and the next
//! agent is started through the link.

use crate::sandbox::own_program;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Exit code of an agent that makes way.
pub const EXIT_HAND_OVER: u8 = 75;

/// The path by which this program was called, links in it not followed; `None` when that cannot be told.
#[must_use]
pub fn called_as() -> Option<PathBuf> {
    let called = PathBuf::from(std::env::args_os().next()?);
    let own = std::env::current_exe().ok()?;
    let candidates = if called.components().count() > 1 {
        vec![std::path::absolute(&called).ok()?]
    } else {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(&called)).collect()
    };
    // What a caller says of our name need not be true.
    candidates.into_iter().find(|c| c.canonicalize().is_ok_and(|real| real == own))
}

/// This process becomes the program that is installed now, with the same arguments; the one that runs when that cannot be
/// started. Returns only when neither can.
pub fn become_it(program: Option<&Path>) -> std::io::Error {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut error = std::io::Error::from(std::io::ErrorKind::NotFound);
    for program in program.map(Path::to_owned).into_iter().chain(own_program().ok()) {
        error = Command::new(&program).args(&arguments).exec();
        tracing::error!(program = %program.display(), %error, "cannot be started");
    }
    error
}
