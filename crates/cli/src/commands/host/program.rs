//! The program that is brought to a machine.

use crate::beside::find;
use crate::error::{CliError, Result};
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use toci_core::deploy::Version;
use toci_core::hex::hex;

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Where an ELF file says for which machine it is, and how long its begin must be to say so.
const ELF_MACHINE: std::ops::Range<usize> = 18..20;

/// A `toci-host` on this machine.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) sha256: String,
    pub(super) bytes: u64,
    /// In the words of `uname -m`.
    pub(super) arch: &'static str,
    pub(super) version: Version,
}

impl Program {
    /// The named one, or the one beside this `toci`.
    pub(super) fn open(named: Option<&Path>) -> Result<Program> {
        let path = named.map_or_else(|| find("toci-host"), |path| Ok(path.to_owned()))?;
        let failed = |e| CliError::failed(format!("read {}", path.display()), &e);
        let mut file = std::fs::File::open(&path).map_err(failed)?;
        let (mut hash, mut bytes, mut arch) = (Sha256::new(), 0u64, None);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let n = file.read(&mut chunk).map_err(failed)?;
            if n == 0 {
                break;
            }
            if bytes == 0 {
                arch = arch_of(&chunk[..n]);
            }
            hash.update(&chunk[..n]);
            bytes += u64::try_from(n).unwrap_or(0);
        }
        let arch = arch.ok_or_else(|| {
            CliError::usage(
                format!("{} is no program for a machine that we know", path.display()),
                "--binary wants a toci-host",
            )
        })?;
        let sha256 = hex(&hash.finalize());
        let version = Version::of(env!("CARGO_PKG_VERSION"), &sha256);
        Ok(Program { path, sha256, bytes, arch, version })
    }
}

/// The machine that an ELF file is for.
fn arch_of(begin: &[u8]) -> Option<&'static str> {
    if !begin.starts_with(b"\x7fELF") {
        return None;
    }
    match begin.get(ELF_MACHINE)? {
        [62, 0] => Some("x86_64"),
        [183, 0] => Some("aarch64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("toci-host");
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(18, 0);
        elf.extend([62, 0, 1, 0]);
        std::fs::write(&path, &elf).unwrap();
        let program = Program::open(Some(&path)).unwrap();
        assert_eq!((program.arch, program.bytes), ("x86_64", 22));
        let begin = format!("{}-{}", env!("CARGO_PKG_VERSION"), &program.sha256[..12]);
        assert_eq!(program.version.as_str(), begin);
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        assert!(Program::open(Some(&path)).unwrap_err().message.contains("no program"));
    }
}
