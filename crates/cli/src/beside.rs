//! Other programs of ours and of the system.

use crate::error::{CliError, Result};
use crate::exit::Exit;
use std::path::PathBuf;

/// A program beside ours, or in PATH.
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&in_path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut candidates = beside.into_iter().chain(folders.map(|folder| folder.join(name)));
    candidates.find(|path| path.is_file()).ok_or_else(|| {
        let hint = match name {
            "toci-host" => "build it: cargo build --workspace",
            _ => "apt-get install iproute2",
        };
        CliError::new(Exit::Failed, format!("{name} is missing"), hint)
    })
}
