//! Unpacking what a node sent: a tar archive in GNU's format whose every byte may be a lie. Only plain files and folders
//! come out of it, below one folder, within limits; links and devices are left out.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// Files and folders of one archive at most.
pub const ENTRIES_MAX: usize = 50_000;
/// Longest name, in bytes.
const NAME_MAX_BYTES: u64 = 4096;
const BLOCK: usize = 512;

/// An archive that could not be unpacked to its end; what came before is there.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is no such archive.
    #[error("the node sent no proper archive: {0}")]
    Bad(&'static str),
    /// It has too many files.
    #[error("the node sent more than {ENTRIES_MAX} files")]
    TooMany,
    /// Something on this side.
    #[error("unpack {path}")]
    Here {
        /// What.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Plain files.
    pub files: usize,
    /// Links, devices and names that lead out of the folder.
    pub left_out: usize,
}

/// Unpacks an archive below a folder, which is made.
pub fn unpack(archive: &Path, into: &Path) -> Result<Unpacked, UnpackError> {
    let here = |path: &Path| {
        let path = path.to_owned();
        move |source| UnpackError::Here { path, source }
    };
    let file = File::open(archive).map_err(here(archive))?;
    let mut input = BufReader::with_capacity(64 << 10, file);
    make_folder(into).map_err(here(into))?;
    let mut out = Unpacked::default();
    let mut long_name = None;
    for _ in 0..ENTRIES_MAX {
        let Some(header) = Header::read(&mut input)? else { return Ok(out) };
        let mut content = (&mut input).take(header.size);
        match header.kind {
            b'L' if header.size <= NAME_MAX_BYTES => {
                let mut name = Vec::new();
                content.read_to_end(&mut name).map_err(here(archive))?;
                long_name = Some(until_zero(&name).to_vec());
            }
            b'0' | 0 | b'5' => {
                let name = long_name.take().unwrap_or(header.name);
                match place(into, &name) {
                    Some(path) if header.kind == b'5' => {
                        make_folder(&path).map_err(here(&path))?;
                    }
                    Some(path) => {
                        write(&path, &mut content).map_err(here(&path))?;
                        out.files += 1;
                    }
                    None => out.left_out += 1,
                }
            }
            b'K' => {}
            _ => {
                long_name = None;
                out.left_out += 1;
            }
        }
        let rest = content.limit() + padding(header.size);
        let skipped = io::copy(&mut (&mut input).take(rest), &mut io::sink());
        if skipped.map_err(here(archive))? != rest {
            return Err(UnpackError::Bad("it ends in the middle of a file"));
        }
    }
    Err(UnpackError::TooMany)
}

struct Header {
    name: Vec<u8>,
    size: u64,
    kind: u8,
}

impl Header {
    /// The next header; `None` at the end.
    fn read(input: &mut impl Read) -> Result<Option<Header>, UnpackError> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            match input.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) | Err(_) => return Err(UnpackError::Bad("it ends in the middle")),
                Ok(n) => have += n,
            }
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let told = octal(&block[148..156]).ok_or(UnpackError::Bad("a checksum is no number"))?;
        let blank =
            |(at, b): (usize, &u8)| u64::from(if (148..156).contains(&at) { 32 } else { *b });
        if block.iter().enumerate().map(blank).sum::<u64>() != told {
            return Err(UnpackError::Bad("a checksum is wrong"));
        }
        let size = octal(&block[124..136]).ok_or(UnpackError::Bad("a size is no number"))?;
        Ok(Some(Header { name: until_zero(&block[..100]).to_vec(), size, kind: block[156] }))
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(until_zero(field)).ok()?.trim();
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

/// Where a name lies below the folder; `None` when it would lie elsewhere.
fn place(into: &Path, name: &[u8]) -> Option<PathBuf> {
    let name = String::from_utf8_lossy(name);
    let mut path = into.to_owned();
    for part in Path::new(name.as_ref()).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// No link is ever made here, so no part of the path can be one.
fn write(path: &Path, content: &mut impl Read) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::copy(content, &mut file).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn tar(folder: &Path, arguments: &[&str]) -> PathBuf {
        let out = folder.join("x.tar");
        let ended = Command::new("tar")
            .args(["-cf", "x.tar", "--format=gnu"])
            .args(arguments)
            .current_dir(folder)
            .status()
            .expect("tar runs (Debian package tar)");
        assert!(ended.success());
        out
    }

    #[test]
    fn files_and_folders_come_out_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path();
        let long = format!("a/{}/{}", "x".repeat(90), "y".repeat(120));
        std::fs::create_dir_all(from.join(&long).parent().unwrap()).unwrap();
        std::fs::write(from.join(&long), vec![7; 1500]).unwrap();
        std::fs::write(from.join("a/empty"), b"").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("a/link")).unwrap();
        nix::unistd::mkfifo(&from.join("a/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let into = from.join("out");
        let done = unpack(&tar(from, &["a"]), &into).unwrap();
        assert_eq!(done, Unpacked { files: 2, left_out: 2 });
        assert_eq!(std::fs::read(into.join(&long)).unwrap(), vec![7; 1500]);
        assert!(into.join("a/empty").exists() && !into.join("a/link").exists());
    }

    #[test]
    fn nothing_leaves_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path();
        std::fs::write(from.join("evil"), b"x").unwrap();
        let archive = tar(from, &["-P", "--transform=s,evil,../../evil,", "evil"]);
        let into = from.join("deep/er");
        assert_eq!(unpack(&archive, &into).unwrap(), Unpacked { files: 0, left_out: 1 });
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("x");
        for bad in [vec![1; 700], vec![b'a'; 512], vec![1; 100]] {
            std::fs::write(&archive, bad).unwrap();
            let found = unpack(&archive, &folder.path().join("out"));
            assert!(matches!(found, Err(UnpackError::Bad(_))), "{found:?}");
        }
        let whole = std::fs::read(tar(folder.path(), &["x"])).unwrap();
        std::fs::write(&archive, &whole[..600]).unwrap();
        assert!(matches!(unpack(&archive, &folder.path().join("out")), Err(UnpackError::Bad(_))));
    }
}
