//! `geard` by its 2014 name: the flags of origin.md 1.8 and the broker on its own.

use std::ffi::OsString;
use std::process::ExitCode;

/// Run as `geard` with these arguments, the program's name first.
pub fn geard_main(_args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::SUCCESS
}
