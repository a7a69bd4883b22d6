//! Secrets from files.

use std::io::Read;
use std::path::Path;
pub use toci_wire::secret::Secret;

/// Longest secret in a file, in bytes (private keys fit).
pub const SECRET_MAX_BYTES: usize = 64 << 10;

/// A file that holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum BadSecret {
    /// It could not be read.
    #[error("read secret file {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is empty, too long or not text.
    #[error("{path} must hold 1 to {SECRET_MAX_BYTES} bytes of text and nothing but the secret")]
    Malformed {
        /// Which file.
        path: String,
    },
}

/// A secret from a file that holds nothing else; white space around it is ignored.
pub fn secret_in(path: &Path) -> Result<Secret, BadSecret> {
    let name = || path.display().to_string();
    let read = |source| BadSecret::Read { path: name(), source };
    let limit = u64::try_from(SECRET_MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(read)?.take(limit).read_to_end(&mut bytes).map_err(read)?;
    let text = String::from_utf8(bytes).map_err(|_| BadSecret::Malformed { path: name() })?;
    if text.len() > SECRET_MAX_BYTES || text.trim().is_empty() {
        return Err(BadSecret::Malformed { path: name() });
    }
    Ok(Secret::new(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_from_a_file_and_is_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s");
        std::fs::write(&file, " hush\n").unwrap();
        let secret = secret_in(&file).unwrap();
        assert_eq!(secret.reveal(), "hush");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        for bad in [" \n".to_owned(), "x".repeat(SECRET_MAX_BYTES + 1)] {
            std::fs::write(&file, bad).unwrap();
            assert!(matches!(secret_in(&file), Err(BadSecret::Malformed { .. })));
        }
        std::fs::write(&file, [0xff]).unwrap();
        assert!(matches!(secret_in(&file), Err(BadSecret::Malformed { .. })));
        let missing = secret_in(&folder.path().join("none"));
        assert!(matches!(missing, Err(BadSecret::Read { .. })));
    }
}
