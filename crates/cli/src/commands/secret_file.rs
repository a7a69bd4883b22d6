//! Where a new secret goes: standard output, or a new file that only its owner can read.

use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::output;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes a secret. The file is made before the secret is asked for, so that none is lost: see [`SecretFile::open`].
pub(super) enum SecretFile<'a> {
    /// To standard output.
    Stdout,
    /// To this new file.
    File(&'a Path, std::fs::File),
}

impl SecretFile<'_> {
    /// Opens the destination.
    pub(super) fn open(path: Option<&Path>) -> Result<SecretFile<'_>> {
        let Some(path) = path else { return Ok(SecretFile::Stdout) };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|e| {
            CliError::new(
                Exit::Failed,
                format!("make {}: {e}", path.display()),
                "the file must be new and its folder writable",
            )
        })?;
        Ok(SecretFile::File(path, file))
    }

    /// Writes the secret; with a file, `story` goes to standard error.
    pub(super) fn write(self, secret: &str, story: &str) -> Result<()> {
        match self {
            SecretFile::Stdout => output::text_line(secret),
            SecretFile::File(path, mut file) => {
                if let Err(e) = writeln!(file, "{secret}").and_then(|()| file.sync_all()) {
                    // What is not whole must not be taken for a secret.
                    let _ = std::fs::remove_file(path);
                    return Err(CliError::new(
                        Exit::Failed,
                        format!("write {}: {e}; the secret is lost ({story})", path.display()),
                        "revoke it with `toci token revoke` if it is a token, and make another",
                    ));
                }
                output::complain(&format!("{story}, written to {}", path.display()));
                Ok(())
            }
        }
    }

    /// The asking failed: no empty file is left behind.
    pub(super) fn abandon(self) {
        if let SecretFile::File(path, _) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}
