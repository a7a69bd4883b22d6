//! How an image is made: by other people's programs, in namespaces of their own, with a log.

use super::{ImageConfig, ImageSource};
use crate::program::Call;
use crate::provider::ProviderError;
use ring::digest::{SHA256, digest};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_core::hex::hex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest log of a build, in bytes; what is said after that is not kept.
pub const BUILD_LOG_MAX_BYTES: u64 = 16 << 20;
/// Longest build of an image when nothing else is said.
pub const IMAGE_BUILD_LIMIT: Duration = Duration::from_secs(3600);
/// So many of a log's last lines are told when a build fails.
const LAST_LINES_MAX: usize = 10;
/// The end of a log that is read for that, in bytes.
const TAIL_MAX_BYTES: u64 = 8 << 10;
/// The script around debootstrap …
const DEBOOTSTRAP: &str = include_str!("debootstrap.sh");
/// … the one around diskimage-builder …
const DIB: &str = include_str!("dib.sh");
/// … and how both make a disk of what they have.
const DISK: &str = include_str!("disk.sh");

/// Hash of all that an image is made of: the same hash, the same image.
pub(in crate::provider) fn recipe(source: &ImageSource) -> String {
    let text = match source {
        ImageSource::File(path) => {
            // Of a file that is not there nothing is known; its build says so.
            let facts = std::fs::metadata(path).map(|m| (m.len(), m.mtime(), m.ino()));
            format!("file {} {:?}", path.display(), facts.ok())
        }
        ImageSource::Debootstrap { .. } => format!("{source:?} {DEBOOTSTRAP} {DISK}"),
        ImageSource::DiskImageBuilder { .. } => format!("{source:?} {DIB} {DISK}"),
    };
    hex(digest(&SHA256, text.as_bytes()).as_ref())[..12].to_owned()
}

/// Builds one image that no provider looks after: `<folder>/<name>.qcow2` appears whole or not at all, and what is said
/// meanwhile goes to `log`.
///
/// # Errors
/// With the last lines of the log.
pub async fn build_file(
    source: ImageSource,
    folder: &Path,
    name: &str,
    log: &Path,
) -> Result<PathBuf, ProviderError> {
    let config = ImageConfig { source, rebuild: None, keep: 1, build_limit: IMAGE_BUILD_LIMIT };
    Build { config: &config, image: name, folder, log }.run().await
}

/// A build.
#[derive(Debug)]
pub(in crate::provider) struct Build<'a> {
    pub(in crate::provider) config: &'a ImageConfig,
    /// The image's id.
    pub(in crate::provider) image: &'a str,
    /// Where built images lie.
    pub(in crate::provider) folder: &'a Path,
    /// Where its log goes.
    pub(in crate::provider) log: &'a Path,
}

impl Build<'_> {
    /// Makes the image; it appears in the folder whole or not at all.
    pub(in crate::provider) async fn run(&self) -> Result<PathBuf, ProviderError> {
        let out = self.folder.join(format!("{}.qcow2", self.image));
        let here = |e: std::io::Error| ProviderError::new("write an image", &e);
        for parent in [Some(self.folder), self.log.parent()].into_iter().flatten() {
            std::fs::create_dir_all(parent).map_err(here)?;
        }
        let work = Work::new(self.folder.join(format!(".{}.work", self.image))).map_err(here)?;
        let part = work.0.join("image.qcow2");
        let call = self.call(&part, &work.0)?;
        let Some(call) = call else { return self.given() };
        let code = tokio::time::timeout(self.config.build_limit, logged(&call, self.log)).await;
        let what = || format!("build the image {} (log: {})", self.image, self.log.display());
        match code {
            Err(_) => {
                let s = self.config.build_limit.as_secs();
                let why = format!("it took more than {s} s; its last lines:\n{}", tail(self.log));
                Err(ProviderError::said(what(), why))
            }
            Ok(Err(error)) => Err(ProviderError::new(what(), &error)),
            Ok(Ok(Some(0))) if part.exists() => {
                std::fs::rename(&part, &out).map_err(here)?;
                Ok(out)
            }
            Ok(Ok(code)) => {
                let ended = match code {
                    Some(0) => "it made no image".to_owned(),
                    Some(code) => format!("exit code {code}"),
                    None => "a signal ended it".to_owned(),
                };
                let why = format!("{ended}; its last lines:\n{}", tail(self.log));
                Err(ProviderError::said(what(), why))
            }
        }
    }

    /// A file that is there already.
    fn given(&self) -> Result<PathBuf, ProviderError> {
        let ImageSource::File(path) = &self.config.source else {
            return Err(ProviderError::said("build an image", "nothing says how"));
        };
        let mut magic = [0; 4];
        let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
        let what = || format!("use the image file {}", path.display());
        read.map_err(|e| ProviderError::new(what(), &e))?;
        if &magic != b"QFI\xfb" {
            let how = "it is no qcow2 file; `qemu-img convert -O qcow2` makes one";
            return Err(ProviderError::said(what(), how));
        }
        Ok(path.clone())
    }

    /// What has to be called; none when nothing has.
    fn call(&self, out: &Path, work: &Path) -> Result<Option<Call>, ProviderError> {
        // Mounts, and processes that programs leave behind, end with these namespaces.
        let contained = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let limit = self.config.build_limit;
        let call = Call::new("unshare", limit).args(contained);
        match &self.config.source {
            ImageSource::File(_) => Ok(None),
            ImageSource::Debootstrap { suite, mirror, packages, size_mib, customise } => {
                let call = call.args(["bash"]).args([script(work, "debootstrap.sh", DEBOOTSTRAP)?]);
                Ok(Some(
                    call.env("OUT", out)
                        .env("WORK", work)
                        .env("SUITE", suite)
                        .env("MIRROR", mirror.as_deref().unwrap_or_default())
                        .env("PACKAGES", packages.join(" "))
                        .env("SIZE_MIB", size_mib.to_string())
                        .env("CUSTOMISE", customise),
                ))
            }
            ImageSource::DiskImageBuilder { elements, environment } => {
                let call = call
                    .args(["bash"])
                    .args([script(work, "dib.sh", DIB)?])
                    .env("OUT", out)
                    .env("WORK", work)
                    .env("ELEMENTS", elements.join(" "))
                    .env("DIB_IMAGE_CACHE", self.folder.join("diskimage-builder"));
                Ok(Some(environment.iter().fold(call, |call, (name, value)| call.env(name, value))))
            }
        }
    }
}

/// Writes a script, and what it reads.
fn script(work: &Path, name: &str, text: &str) -> Result<PathBuf, ProviderError> {
    let path = work.join(name);
    std::fs::write(&path, text)
        .and_then(|()| std::fs::write(work.join("disk.sh"), DISK))
        .map_err(|e| ProviderError::new("write the script of a build", &e))?;
    Ok(path)
}

/// A folder that goes with the value.
#[derive(Debug)]
struct Work(PathBuf);

impl Work {
    fn new(path: PathBuf) -> std::io::Result<Work> {
        // What a build before this one left when the machine went down.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path)?;
        Ok(Work(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // The next build of the same image tries again.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs it to its end; what it says goes into the log.
async fn logged(call: &Call, log: &Path) -> Result<Option<i32>, LoggedError> {
    let mut group = call.start()?;
    drop(group.child.stdin.take());
    let file = tokio::fs::File::create(log).await?;
    let file = tokio::sync::Mutex::new((file, BUILD_LOG_MAX_BYTES));
    let (said, complained) = (group.child.stdout.take(), group.child.stderr.take());
    let output = async {
        match said {
            Some(stream) => keep(stream, &file).await,
            None => Ok(()),
        }
    };
    let complaints = async {
        match complained {
            Some(stream) => keep(stream, &file).await,
            None => Ok(()),
        }
    };
    tokio::try_join!(output, complaints)?;
    Ok(group.child.wait().await?.code())
}

#[derive(Debug, thiserror::Error)]
enum LoggedError {
    #[error(transparent)]
    Call(#[from] crate::program::CallError),
    #[error("write its log")]
    Log(#[from] std::io::Error),
}

type Log = tokio::sync::Mutex<(tokio::fs::File, u64)>;

async fn keep(mut stream: impl tokio::io::AsyncRead + Unpin, log: &Log) -> std::io::Result<()> {
    let mut buffer = vec![0; 8 << 10];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        let mut log = log.lock().await;
        let (file, left) = &mut *log;
        let n = n.min(usize::try_from(*left).unwrap_or(n));
        file.write_all(&buffer[..n]).await?;
        file.flush().await?;
        *left -= u64::try_from(n).unwrap_or(*left);
    }
}

/// The last lines of a log.
pub(in crate::provider) fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_MAX_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES_MAX)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path) -> ImageConfig {
        ImageConfig {
            source: ImageSource::File(path.to_owned()),
            rebuild: None,
            keep: 1,
            build_limit: Duration::from_secs(20),
        }
    }

    fn debootstrap(suite: &str) -> ImageSource {
        ImageSource::Debootstrap {
            suite: suite.into(),
            mirror: None,
            packages: Vec::new(),
            size_mib: 64,
            customise: String::new(),
        }
    }

    #[test]
    fn a_recipe_changes_with_what_it_is_made_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("i.qcow2");
        let missing = recipe(&ImageSource::File(path.clone()));
        std::fs::write(&path, "x").unwrap();
        let there = recipe(&ImageSource::File(path));
        assert!(missing != there && there.len() == 12);
        assert_eq!(recipe(&debootstrap("bookworm")), recipe(&debootstrap("bookworm")));
        assert_ne!(recipe(&debootstrap("bookworm")), recipe(&debootstrap("trixie")));
    }

    #[tokio::test]
    async fn a_file_must_be_there_and_be_an_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("i.qcow2");
        let log = folder.path().join("log");
        let config = file(&path);
        let build = Build { config: &config, image: "i", folder: folder.path(), log: &log };
        let error = build.run().await.unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
        std::fs::write(&path, "hello").unwrap();
        let error = build.run().await.unwrap_err().to_string();
        assert!(error.contains("no qcow2 file"), "{error}");
        std::fs::write(&path, b"QFI\xfb....").unwrap();
        assert_eq!(build.run().await.unwrap(), path);
    }

    #[tokio::test]
    async fn a_failing_build_tells_its_last_lines_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("logs/l");
        let config = ImageConfig {
            // debootstrap knows no such suite.
            source: debootstrap("no-such-suite"),
            ..file(folder.path())
        };
        let built = folder.path().join("built");
        let build = Build { config: &config, image: "i", folder: &built, log: &log };
        let error = build.run().await.unwrap_err().to_string();
        assert!(error.contains("last lines") && error.contains("no-such-suite"), "{error}");
        assert!(std::fs::read_to_string(&log).unwrap().contains("no-such-suite"));
        assert_eq!(std::fs::read_dir(&built).unwrap().count(), 0);
    }
}
