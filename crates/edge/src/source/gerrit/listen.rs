//! Listening: the stream, mended when it breaks, and what it missed meanwhile.
//!
//! Gerrit says nothing when a stream begins, so one can only be sure of it some time later. What was missed is therefore
//! asked for twice: at once, and when the stream has stood for [`SETTLE`]. What was told is remembered, so that it is
//! not told again; the part of that memory that a restart needs is in the cursors.

use super::branches::{BRANCHES_EVERY, Branches};
use super::config::{GerritSsh, Transport};
use super::event::{EVENT_MAX_BYTES, Told, read};
use super::missed::missed;
use super::source::GerritSource;
use crate::clock::wall;
use crate::program::Group;
use crate::source::{Cursors, Heard};
use std::collections::VecDeque;
use std::time::Duration;
use toci_core::event::{EventKind, TriggerEvent};
use toci_core::pause::Pause;
use toci_core::time::Time;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How far before the last event one looks for missed ones: an event may be told later than another that happened after it.
pub const OVERLAP: Duration = Duration::from_secs(30);
/// How long a stream stands before it is believed to miss nothing any more.
pub const SETTLE: Duration = Duration::from_secs(10);
/// Longest time between two attempts to reach Gerrit; the first comes after a second, and each waits twice as long.
pub const RETRY_MAX: Duration = Duration::from_secs(30);
/// Shortest one.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Events that are remembered as told.
const TOLD_MAX: usize = 10_000;
/// Of those, the latest that a cursor holds.
const TOLD_IN_CURSOR_MAX: usize = 100;
/// Comments and changes of state that are alike are one if they lie no further apart: the stream says when an event was
/// sent, the change's own record when it happened. Rather one event twice than two taken for one.
const ALIKE: Duration = Duration::from_secs(5);
/// The cursor of what is asked for by queries; branches and tags have their own. The time of the last event in seconds, then what was told shortly before.
pub(super) const CURSOR: &str = "heard";

/// The receiver has gone.
pub(super) struct Gone;

/// What was told lately.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Seconds by Gerrit's clock.
    last: u64,
    /// What was before is nobody's business: the source is new here.
    from: u64,
    told: VecDeque<(u64, u64)>,
}

impl Memory {
    /// What a cursor says; without one, everything begins now.
    pub(super) fn read(cursor: Option<&String>, now: u64) -> Memory {
        let mut memory = Memory { last: now, from: now, told: VecDeque::new() };
        let Some(cursor) = cursor else { return memory };
        memory.from = 0;
        let mut words = cursor.split_whitespace();
        if let Some(last) = words.next().and_then(|w| w.parse().ok()) {
            memory.last = last;
        }
        for word in words {
            if let Some((at, key)) = word.split_once(':')
                && let (Ok(at), Ok(key)) = (at.parse(), u64::from_str_radix(key, 16))
            {
                memory.told.push_back((at, key));
            }
        }
        memory
    }

    pub(super) fn cursor(&self) -> (String, String) {
        let mut text = self.last.to_string();
        let since = self.since();
        let recent = self.told.iter().rev().filter(|(at, _)| *at >= since);
        for (at, key) in recent.take(TOLD_IN_CURSOR_MAX) {
            text.push_str(&format!(" {at}:{key:x}"));
        }
        (CURSOR.to_owned(), text)
    }

    /// From when on one must ask.
    pub(super) fn since(&self) -> u64 {
        self.last.saturating_sub(OVERLAP.as_secs()).max(self.from)
    }

    /// Whether it is new; it is remembered then.
    pub(super) fn is_new(&mut self, event: &TriggerEvent) -> bool {
        let at = u64::try_from(event.at.0 / 1_000_000).unwrap_or(0);
        let key = key_of(event);
        let once = event.kind == EventKind::PatchsetCreated;
        let had = self
            .told
            .iter()
            .any(|(when, k)| *k == key && (once || when.abs_diff(at) <= ALIKE.as_secs()));
        if had {
            return false;
        }
        self.told.push_back((at, key));
        if self.told.len() > TOLD_MAX {
            self.told.pop_front();
        }
        self.last = self.last.max(at);
        true
    }
}

/// What makes two accounts of an event the same one, as a number (FNV-1a).
fn key_of(event: &TriggerEvent) -> u64 {
    let number = event.change.as_ref().map_or(0, |c| c.number);
    let patchset = event.change.as_ref().map_or("", |c| c.patchset.as_str());
    let reference = event.reference.as_ref().map_or("", |r| r.as_str());
    let new = event.new.as_ref().map_or("", |r| r.as_str());
    let word = match event.kind {
        EventKind::PatchsetCreated => format!("patchset {number},{patchset}"),
        EventKind::CommentAdded => {
            format!("comment {number},{patchset} {} {}", event.by.username, event.comment.trim())
        }
        EventKind::RefUpdated => format!("ref {} {reference} {new}", event.project),
        EventKind::DraftPublished
        | EventKind::ChangeAbandoned
        | EventKind::ChangeRestored
        | EventKind::ChangeMerged
        | EventKind::Timer
        | EventKind::ParentChangeEnqueued
        | EventKind::ProjectChangeMerged => format!("{} {number}", event.kind.word()),
    };
    word.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    wall().as_secs()
}

/// Who listens.
pub(super) struct Ear<'a> {
    pub(super) gerrit: &'a GerritSource,
    out: mpsc::Sender<Heard>,
    memory: Memory,
    /// What was last said of the link, so that an hour of the same is one line.
    link: Option<Result<(), String>>,
    /// What was last said to be left out, likewise.
    left_out: Vec<String>,
    pub(super) branches: Branches,
}

/// Returns when nobody listens any more.
pub(super) async fn listen(gerrit: &GerritSource, since: Cursors, out: mpsc::Sender<Heard>) {
    let memory = Memory::read(since.get(CURSOR), now());
    let branches = Branches::new(&since, gerrit.watched());
    let (link, left_out) = (None, Vec::new());
    let mut ear = Ear { gerrit, out: out.clone(), memory, link, left_out, branches };
    tokio::select! {
        Gone = ear.forever() => {}
        () = out.closed() => {}
    }
}

impl Ear<'_> {
    async fn forever(&mut self) -> Gone {
        if self.say(Heard::Cursor(self.memory.cursor())).await.is_err() {
            return Gone;
        }
        let mut pause = Pause::new(RETRY_FIRST, RETRY_MAX);
        loop {
            let began = Instant::now();
            let heard = match &self.gerrit.config().transport {
                Transport::Ssh(ssh, _) => self.once(ssh).await,
                Transport::Rest(_, every) => self.look(*every).await,
            };
            let why = match heard {
                Ok(why) => why,
                Err(gone) => return gone,
            };
            if self.say_link(Err(why)).await.is_err() {
                return Gone;
            }
            if began.elapsed() > SETTLE {
                pause.reset();
            }
            tokio::select! {
                () = tokio::time::sleep(pause.longer()) => {}
                () = self.gerrit.poked() => {}
            }
        }
    }

    /// One stream from its beginning to its end; says why it ended.
    async fn once(&mut self, ssh: &GerritSsh) -> Result<String, Gone> {
        let mut stream = match ssh.call(&["stream-events"]).start() {
            Ok(stream) => stream,
            Err(e) => return Ok(e.to_string()),
        };
        let Some(stdout) = stream.child.stdout.take() else { return Ok("no output".to_owned()) };
        let mut lines = Lines::new(stdout);
        // One moment for both times: the second one must not begin where the first one's news ends.
        let since = self.memory.since();
        if let Some(why) = self.catch_up(since).await? {
            return Ok(why);
        }
        self.branches.hurry();
        self.look_at_branches(None).await?;
        if let Ok(Some(_)) = stream.child.try_wait() {
            return Ok(complaint(stream).await);
        }
        self.say_link(Ok(())).await?;
        let settled = tokio::time::sleep(SETTLE);
        tokio::pin!(settled);
        let mut is_settled = false;
        loop {
            let due = Branches::is_due(self.branches.due());
            tokio::select! {
                line = lines.next() => match line {
                    Ok(Some(Line::Text(text))) => self.hear(&text).await?,
                    Ok(Some(Line::TooLong)) => {
                        let what = format!("a line of more than {EVENT_MAX_BYTES} bytes");
                        self.say(Heard::Malformed(what)).await?;
                    }
                    Ok(None) | Err(_) => return Ok(complaint(stream).await),
                },
                () = &mut settled, if !is_settled => {
                    is_settled = true;
                    if let Some(why) = self.catch_up(since).await? {
                        return Ok(why);
                    }
                    self.branches.hurry();
                }
                () = due => self.look_at_branches(None).await?,
                Ok(()) = self.branches.watched.changed() => self.branches.hurry(),
            }
        }
    }

    /// Without a stream: looks now and then; says why it could not.
    async fn look(&mut self, every: Duration) -> Result<String, Gone> {
        self.branches.hurry();
        loop {
            if let Some(why) = self.catch_up(self.memory.since()).await? {
                return Ok(why);
            }
            self.look_at_branches(Some(BRANCHES_EVERY)).await?;
            self.say_link(Ok(())).await?;
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.gerrit.poked() => self.branches.hurry(),
                Ok(()) = self.branches.watched.changed() => self.branches.hurry(),
            }
        }
    }

    async fn hear(&mut self, line: &str) -> Result<(), Gone> {
        let now = Time(0).after(wall());
        match read(&self.gerrit.config().name, line, now) {
            Ok(Told::Event(event)) => self.hear_event(*event).await,
            Ok(Told::Other) => Ok(()),
            Err(e) => self.say(Heard::Malformed(format!("{e}: {line:.200}"))).await,
        }
    }

    /// Tells what was missed; says what went wrong, if something did.
    async fn catch_up(&mut self, since: u64) -> Result<Option<String>, Gone> {
        let missed = match missed(self.gerrit, since).await {
            Ok(missed) => missed,
            Err(e) => return Ok(Some(e.to_string())),
        };
        for what in &missed.left_out {
            if !self.left_out.contains(what) {
                self.say(Heard::Malformed(what.clone())).await?;
            }
        }
        self.left_out = missed.left_out;
        for event in missed.events {
            self.tell(event).await?;
        }
        Ok(None)
    }

    pub(super) async fn tell(&mut self, event: TriggerEvent) -> Result<(), Gone> {
        if !self.memory.is_new(&event) {
            return Ok(());
        }
        let cursor = self.memory.cursor();
        self.say(Heard::Event { event: Box::new(event), cursor }).await
    }

    async fn say_link(&mut self, link: Result<(), String>) -> Result<(), Gone> {
        if self.link.as_ref() == Some(&link) {
            return Ok(());
        }
        self.link = Some(link.clone());
        self.say(Heard::Link(link)).await
    }

    pub(super) async fn say(&self, heard: Heard) -> Result<(), Gone> {
        self.out.send(heard).await.map_err(|_| Gone)
    }
}

/// What ssh complained of, when the stream has ended.
async fn complaint(mut stream: Group) -> String {
    /// Longest complaint that is shown, in bytes.
    const SHOWN_MAX_BYTES: u64 = 500;
    /// A stream that closed its output has this long to end.
    const END_LIMIT: Duration = Duration::from_secs(5);
    let mut text = String::new();
    if let Some(stderr) = stream.child.stderr.take() {
        let read = stderr.take(SHOWN_MAX_BYTES);
        let mut bytes = Vec::new();
        let mut read = BufReader::new(read);
        // What was read until then is shown.
        let _ = tokio::time::timeout(END_LIMIT, read.read_to_end(&mut bytes)).await;
        text = String::from_utf8_lossy(&bytes).trim().to_owned();
    }
    if text.is_empty() { "the stream of events ended".to_owned() } else { text }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(String),
    TooLong,
}

/// Lines of limited length. What was read stays when a wait is given up.
pub(super) struct Lines<R> {
    from: BufReader<R>,
    line: Vec<u8>,
    too_long: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(from: R) -> Lines<R> {
        Lines { from: BufReader::new(from), line: Vec::new(), too_long: false }
    }

    pub(super) async fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let piece = self.from.fill_buf().await?;
            if piece.is_empty() {
                return Ok(None);
            }
            let end = piece.iter().position(|b| *b == b'\n');
            let length = end.unwrap_or(piece.len());
            if self.line.len() + length > EVENT_MAX_BYTES {
                self.too_long = true;
                self.line.clear();
            }
            if !self.too_long {
                self.line.extend_from_slice(&piece[..length]);
            }
            let used = end.map_or(length, |e| e + 1);
            self.from.consume(used);
            if end.is_none() {
                continue;
            }
            let line = std::mem::take(&mut self.line);
            if std::mem::take(&mut self.too_long) {
                return Ok(Some(Line::TooLong));
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(Line::Text(String::from_utf8_lossy(&line).into_owned())));
            }
        }
    }
}
