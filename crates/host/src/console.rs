//! Captured serial consoles. virtlogd writes them and keeps them bounded: `NAME.log` and, when
//! that is full, `NAME.log.0` (the newest) and so on (`sandbox/daemons.rs` has the sizes).

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::time::sleep;

/// How often a followed console is looked at.
const FOLLOW_POLL: Duration = Duration::from_millis(200);
/// Bytes on their way between the file and the server.
const PIPE_BYTES: usize = 64 << 10;
/// Old files that are read before the current one.
const OLD_FILES_MAX: u32 = 3;

/// Reads a console from its oldest kept byte on.
pub struct ConsoleTail {
    path: PathBuf,
    follow: bool,
    go_on: Box<dyn Fn() -> bool + Send>,
}

impl std::fmt::Debug for ConsoleTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleTail").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ConsoleTail {
    /// Of this file; when following, for as long as `go_on` says so.
    pub fn open(
        path: &Path,
        follow: bool,
        go_on: impl Fn() -> bool + Send + 'static,
    ) -> ConsoleTail {
        ConsoleTail { path: path.to_owned(), follow, go_on: Box::new(go_on) }
    }

    /// As a stream of bytes; it ends when the reader goes away, too.
    pub fn into_reader(self) -> Pin<Box<dyn AsyncRead + Send>> {
        let (reader, writer) = tokio::io::duplex(PIPE_BYTES);
        tokio::spawn(async move {
            // The only error is that nobody reads any more.
            let _ = self.copy(writer).await;
        });
        Box::pin(reader)
    }

    async fn copy(self, mut to: tokio::io::DuplexStream) -> std::io::Result<()> {
        for n in (0..OLD_FILES_MAX).rev() {
            if let Ok(mut old) = tokio::fs::File::open(numbered(&self.path, n)).await {
                tokio::io::copy(&mut old, &mut to).await?;
            }
        }
        let mut current: Option<(tokio::fs::File, u64)> = None;
        loop {
            if current.is_none() {
                let opened = tokio::fs::File::open(&self.path).await.ok();
                current = opened.map(|f| (f, 0));
            }
            if let Some((file, done)) = &mut current {
                file.seek(std::io::SeekFrom::Start(*done)).await?;
                let mut more = Vec::new();
                file.take(PIPE_BYTES as u64).read_to_end(&mut more).await?;
                if !more.is_empty() {
                    *done += more.len() as u64;
                    to.write_all(&more).await?;
                    continue;
                }
            }
            if !self.follow || !(self.go_on)() {
                return Ok(());
            }
            if let Some((file, done)) = &current
                && replaced(file, *done, &self.path).await
            {
                current = None;
                continue;
            }
            tokio::select! {
                () = sleep(FOLLOW_POLL) => {}
                // The reader never writes: this ends when it has gone.
                _ = to.read_u8() => return Ok(()),
            }
        }
    }
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Whether the file at `path` is another one now (rotated), or was cut short.
async fn replaced(file: &tokio::fs::File, done: u64, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata().await, tokio::fs::metadata(path).await) {
        (Ok(ours), Ok(there)) => ours.ino() != there.ino() || there.len() < done,
        (Err(_), _) | (_, Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    async fn read_until(reader: &mut Pin<Box<dyn AsyncRead + Send>>, text: &mut String, end: &str) {
        let limit = tokio::time::timeout(Duration::from_secs(10), async {
            while !text.ends_with(end) {
                let mut buffer = [0; 100];
                let n = reader.read(&mut buffer).await.unwrap();
                assert!(n > 0, "ended at {text:?}");
                text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
            }
        });
        limit.await.unwrap_or_else(|_| panic!("only {text:?}"));
    }

    #[tokio::test]
    async fn a_console_is_followed_over_its_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed_1.log");
        std::fs::write(numbered(&path, 1), "one ").unwrap();
        std::fs::write(numbered(&path, 0), "two ").unwrap();
        std::fs::write(&path, "three ").unwrap();
        let on = Arc::new(AtomicBool::new(true));
        let on2 = Arc::clone(&on);
        let tail = ConsoleTail::open(&path, true, move || on2.load(Ordering::Relaxed));
        let mut reader = tail.into_reader();
        let mut text = String::new();
        read_until(&mut reader, &mut text, "one two three ").await;
        std::fs::rename(&path, numbered(&path, 0)).unwrap();
        std::fs::write(&path, "four ").unwrap();
        read_until(&mut reader, &mut text, "three four ").await;
        on.store(false, Ordering::Relaxed);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "");
    }

    #[tokio::test]
    async fn without_follow_it_ends_and_a_missing_one_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::new();
        let tail = ConsoleTail::open(&folder.path().join("x"), false, || true);
        tail.into_reader().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "");
    }
}
