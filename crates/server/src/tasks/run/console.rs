//! A run's console: a file of lines with their times, followed by whoever wants to while it is written.
//!
//! The file is the only copy. A follower reads it up to the newest [`Mark`]; so one who comes late, is slow or comes
//! again loses nothing, and nothing is kept for them.

use jiff::Timestamp;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use toci_core::time::Time;
use toci_edge::node::console::Mask;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::watch;

/// Name of the file in a run's folder.
pub const CONSOLE_FILE: &str = "console.txt";
/// Bytes kept from the start of a console.
pub const HEAD_MAX_BYTES: u64 = 64 << 20;
/// Bytes kept from the end of a console that is longer.
pub const TAIL_MAX_BYTES: usize = 1 << 20;
/// What a line of the end counts besides its text: its time, and its place in memory. Lines may be empty.
const LINE_COST_BYTES: usize = 64;
/// Longest piece that a follower gets at once, in bytes.
const PIECE_MAX_BYTES: u64 = 64 << 10;

/// How far a console is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// So many bytes, whole lines.
    pub bytes: u64,
    /// Nothing more will come.
    pub over: bool,
}

/// A console that is being written.
#[derive(Debug)]
pub(super) struct Console {
    path: PathBuf,
    file: Option<File>,
    /// Lines that are not in the file yet.
    fresh: Vec<u8>,
    written: u64,
    mask: Mask,
    marks: watch::Sender<Mark>,
    /// Why nothing more is written.
    broken: Option<String>,
    head_max: u64,
    full: bool,
    tail: VecDeque<(Time, String)>,
    tail_bytes: usize,
    left_out: u64,
}

impl Console {
    /// In this folder; neither is made before there is a line.
    pub(super) fn new(folder: &Path, marks: watch::Sender<Mark>) -> Console {
        Console {
            path: folder.join(CONSOLE_FILE),
            file: None,
            fresh: Vec::new(),
            written: 0,
            mask: Mask::default(),
            marks,
            broken: None,
            head_max: HEAD_MAX_BYTES,
            full: false,
            tail: VecDeque::new(),
            tail_bytes: 0,
            left_out: 0,
        }
    }

    /// So many bytes are kept from its start, instead of the usual ones.
    pub(super) fn bounded(mut self, head_max: u64) -> Console {
        self.head_max = head_max;
        self
    }

    /// Goes on at the end of a console that another server began.
    pub(super) fn resume(folder: &Path, marks: watch::Sender<Mark>) -> Console {
        let mut console = Console::new(folder, marks);
        console.written = std::fs::metadata(&console.path).map_or(0, |m| m.len());
        console
    }

    /// What must not be seen from now on.
    pub(super) fn hide(&mut self, mask: Mask) {
        self.mask = mask;
    }

    /// What must not be seen.
    pub(super) fn mask(&self) -> &Mask {
        &self.mask
    }

    /// One line of the job's, or of ours.
    pub(super) fn line(&mut self, at: Time, line: String) {
        if self.full {
            self.tail_bytes += line.len() + LINE_COST_BYTES;
            self.tail.push_back((at, line));
            while self.tail_bytes > TAIL_MAX_BYTES {
                let Some((_, gone)) = self.tail.pop_front() else { break };
                self.tail_bytes -= gone.len() + LINE_COST_BYTES;
                self.left_out += 1;
            }
            return;
        }
        self.write_line(at, line);
        if self.written + self.fresh.len() as u64 >= self.head_max {
            let much = if self.head_max >= 1 << 20 {
                format!("{} MiB", self.head_max >> 20)
            } else {
                format!("{} bytes", self.head_max)
            };
            self.write_line(
                at,
                format!("toci: more than {much} of output: from here only its end is kept"),
            );
            self.full = true;
        }
    }

    fn write_line(&mut self, at: Time, line: String) {
        stamp(&mut self.fresh, at);
        self.fresh.extend_from_slice(self.mask.apply(line).as_bytes());
        self.fresh.push(b'\n');
    }

    /// What was said so far goes into the file, and followers are told.
    pub(super) fn flush(&mut self) {
        if self.fresh.is_empty() {
            return;
        }
        let fresh = std::mem::take(&mut self.fresh);
        if self.broken.is_none() {
            match self.append(&fresh) {
                Ok(()) => self.written += fresh.len() as u64,
                Err(error) => {
                    tracing::error!(path = %self.path.display(), %error, "a console cannot be kept");
                    self.broken = Some(format!("the console could not be kept: {error}"));
                }
            }
        }
        self.fresh = fresh;
        self.fresh.clear();
        self.marks.send_replace(Mark { bytes: self.written, over: false });
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if let Some(folder) = self.path.parent() {
                    make_folder(folder)?;
                }
                let mut options = OpenOptions::new();
                let file = options.append(true).create(true).mode(0o600).open(&self.path)?;
                self.file.insert(file)
            }
        };
        let outcome = file.write_all(bytes);
        if outcome.is_err() {
            // A line may be there by half: followers only read whole ones.
            let _ = file.set_len(self.written);
        }
        outcome
    }

    /// The last lines; nothing can be said afterwards. Says why it is not whole, if it is not.
    pub(super) fn finish(&mut self, now: Time) -> Option<String> {
        if self.full {
            self.full = false;
            if self.left_out > 0 {
                self.write_line(now, format!("toci: {} lines were left out here", self.left_out));
            }
            for (at, line) in std::mem::take(&mut self.tail) {
                self.write_line(at, line);
            }
        }
        self.flush();
        self.file = None;
        self.marks.send_replace(Mark { bytes: self.written, over: true });
        self.broken.clone()
    }
}

/// Private, with its parents.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// `2014-11-18T21:03:25.456789Z | `
fn stamp(out: &mut Vec<u8>, at: Time) {
    match Timestamp::from_microsecond(at.0) {
        Ok(time) => {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{time:.6} | ");
        }
        Err(_) => out.extend_from_slice(b"- | "),
    }
}

/// Follows a console from its start.
#[derive(Debug)]
pub struct ConsoleReader {
    path: PathBuf,
    file: Option<tokio::fs::File>,
    at: u64,
    marks: watch::Receiver<Mark>,
}

impl ConsoleReader {
    /// Of a run's folder.
    pub(super) fn new(folder: &Path, marks: watch::Receiver<Mark>) -> ConsoleReader {
        ConsoleReader { path: folder.join(CONSOLE_FILE), file: None, at: 0, marks }
    }

    /// The next lines as they are in the file; waits for them. `None`: nothing more will come. Safe to cancel.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            let mark = *self.marks.borrow_and_update();
            if self.at < mark.bytes {
                return self.read(mark.bytes).await.map(Some);
            }
            if mark.over || self.marks.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    async fn read(&mut self, end: u64) -> io::Result<String> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => tokio::fs::File::open(&self.path).await?,
        };
        file.seek(io::SeekFrom::Start(self.at)).await?;
        let mut bytes = Vec::new();
        let mut length = (end - self.at).min(PIECE_MAX_BYTES);
        loop {
            (&mut file).take(length).read_to_end(&mut bytes).await?;
            // Up to the last whole line; a line is longer than a piece only when masks have made it so.
            match bytes.iter().rposition(|b| *b == b'\n') {
                Some(last) => {
                    bytes.truncate(last + 1);
                    break;
                }
                None if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => length = (end - self.at - bytes.len() as u64).min(PIECE_MAX_BYTES),
            }
        }
        self.at += bytes.len() as u64;
        self.file = Some(file);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Time = Time(1_416_344_605_000_042);

    fn console(folder: &Path) -> (Console, ConsoleReader) {
        let (marks, receiver) = watch::channel(Mark::default());
        (Console::new(folder, marks), ConsoleReader::new(folder, receiver))
    }

    #[tokio::test]
    async fn lines_have_their_time_and_reach_followers_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (mut console, mut reader) = console(folder.path());
        console.hide(Mask::new(["hunter2"]));
        console.line(NOON, "one hunter2".into());
        console.flush();
        let first = "2014-11-18T21:03:25.000042Z | one ********\n";
        assert_eq!(reader.next().await.unwrap().as_deref(), Some(first));
        let follower = tokio::spawn(async move { (reader.next().await.unwrap(), reader) });
        console.line(NOON, "two".into());
        console.flush();
        let (second, mut reader) = follower.await.unwrap();
        assert_eq!(second.as_deref(), Some("2014-11-18T21:03:25.000042Z | two\n"));
        assert_eq!(console.finish(NOON), None);
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_long_console_keeps_its_start_and_its_end_and_masks_both() {
        let folder = tempfile::tempdir().unwrap();
        let (mut console, mut reader) = console(folder.path());
        console.hide(Mask::new(["hunter2"]));
        let line = "x".repeat(10_000);
        for n in 0..10_000 {
            console.line(NOON, format!("{n} hunter2 {line}"));
            console.flush();
        }
        console.finish(NOON);
        let mut text = String::new();
        while let Some(piece) = reader.next().await.unwrap() {
            assert!(piece.len() as u64 <= PIECE_MAX_BYTES && piece.ends_with('\n'));
            text.push_str(&piece);
        }
        assert!(text.len() as u64 <= HEAD_MAX_BYTES + 2 * TAIL_MAX_BYTES as u64, "{}", text.len());
        assert!(text.contains(" | 0 ******** x") && text.contains(" | 9999 ******** x"));
        assert!(!text.contains("hunter2") && !text.contains(" | 8000 "));
        let lines = text.lines().filter(|l| l.contains("********")).count();
        let told = format!("toci: {} lines were left out here", 10_000 - lines);
        assert!(text.contains(&told), "{told}");
    }

    #[test]
    fn a_flood_of_empty_lines_takes_no_more_room_than_one_of_long_lines() {
        let folder = tempfile::tempdir().unwrap();
        let (marks, _receiver) = watch::channel(Mark::default());
        let mut console = Console::new(folder.path(), marks).bounded(1000);
        for _ in 0..1_000_000 {
            console.line(NOON, String::new());
        }
        assert!(console.tail.len() <= TAIL_MAX_BYTES / LINE_COST_BYTES, "{}", console.tail.len());
        assert_eq!(console.finish(NOON), None);
        let bytes = std::fs::metadata(folder.path().join(CONSOLE_FILE)).unwrap().len();
        assert!(bytes < 2000 + TAIL_MAX_BYTES as u64, "{bytes}");
    }

    #[tokio::test]
    async fn a_console_that_cannot_be_kept_disturbs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (mut console, mut reader) = console(&folder.path().join("file/x"));
        std::fs::write(folder.path().join("file"), b"").unwrap();
        console.line(NOON, "one".into());
        console.flush();
        assert!(console.finish(NOON).unwrap().contains("could not be kept"));
        assert_eq!(reader.next().await.unwrap(), None);
    }
}
