//! What a test environment's host sees of it: power, definitions and the switch, the machines' serial consoles, and what
//! stands on their screens. It is fetched before the lease is given back: afterwards the machines are reset.

use crate::relay::{Answer, Relay, RelayError};
use crate::tasks::lease::LeaseBook;
use axum::body::Body;
use futures_util::{StreamExt, stream};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toci_core::id::{HostId, LeaseId, TeId};
use toci_core::log::collect::TESTENV_LIMIT;
use toci_core::log::path::plain_name;
use toci_wire::api::{LeaseTestenv, OperationKind, OperationResult};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// Bytes kept from the start of one machine's console.
pub const CONSOLE_HEAD_MAX_BYTES: usize = 16 << 20;
/// Bytes kept from the end of one that is longer.
pub const CONSOLE_TAIL_MAX_BYTES: usize = 4 << 20;
/// Bytes of one screenshot, and of a host's view, at most.
const PICTURE_MAX_BYTES: usize = 8 << 20;
/// Operations of one lease that are under way at the same time.
const AT_ONCE: usize = 4;

/// Fetches what hosts see of the test environments of a lease.
#[derive(Clone)]
pub struct TestenvLogs {
    book: LeaseBook,
    relay: Arc<Relay>,
}

impl core::fmt::Debug for TestenvLogs {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("TestenvLogs")
    }
}

/// One thing to fetch.
#[derive(Debug)]
struct Wanted {
    testenv: TeId,
    generation: u64,
    host: HostId,
    kind: OperationKind,
    into: PathBuf,
    keep: Keep,
}

/// How much of it is kept.
#[derive(Clone, Copy, Debug)]
struct Keep {
    head: usize,
    tail: usize,
}

impl TestenvLogs {
    pub(crate) fn new(book: LeaseBook, relay: Arc<Relay>) -> TestenvLogs {
        TestenvLogs { book, relay }
    }

    /// Fetches into `<folder>/te/<test environment>/`; with `screens` also what the machines show. What is missing is
    /// told.
    pub async fn collect(&self, lease: LeaseId, folder: &Path, screens: bool) -> Vec<String> {
        let mut told = Vec::new();
        let all = async {
            match self.book.lease_testenvs(lease).await {
                Ok(testenvs) => {
                    for testenv in testenvs {
                        self.one(&testenv, folder, screens, &mut told).await;
                    }
                }
                Err(error) => told.push(format!("the test environment is not looked at: {error}")),
            }
        };
        if tokio::time::timeout(TESTENV_LIMIT, all).await.is_err() {
            let seconds = TESTENV_LIMIT.as_secs();
            told.push(format!("the test environment was not looked at within {seconds} s"));
        }
        told.sort();
        told
    }

    async fn one(&self, of: &LeaseTestenv, folder: &Path, screens: bool, told: &mut Vec<String>) {
        let place = folder.join("te").join(plain_name(&of.testenv));
        let made = tokio::fs::create_dir_all(&place).await.map_err(|e| e.to_string());
        let wanted = match made {
            Ok(()) => self.wanted(of, &place, screens).await,
            Err(why) => Err(why),
        };
        match wanted {
            Ok(wanted) => {
                let notes = stream::iter(wanted).map(|want| self.fetch(want));
                let notes = notes.buffer_unordered(AT_ONCE).filter_map(async |note| note);
                told.extend(notes.collect::<Vec<_>>().await);
            }
            Err(why) => told.push(format!("{} is not looked at: {why}", of.testenv)),
        }
    }

    /// The host's view first: it is small and says most.
    async fn wanted(
        &self,
        of: &LeaseTestenv,
        place: &Path,
        screens: bool,
    ) -> Result<Vec<Wanted>, String> {
        let testenv = TeId::new(of.testenv.as_str()).map_err(|e| e.to_string())?;
        let found = self.book.testenv(&testenv).await.map_err(|e| e.to_string())?;
        let host = HostId::new(found.host.as_str()).map_err(|e| e.to_string())?;
        let want = |kind, name: String, head, tail| Wanted {
            testenv: testenv.clone(),
            generation: of.generation,
            host: host.clone(),
            kind,
            into: place.join(name),
            keep: Keep { head, tail },
        };
        let view = OperationKind::View;
        let mut wanted = vec![want(view, "host.txt".to_owned(), PICTURE_MAX_BYTES, 0)];
        for machine in &found.machines {
            let name = plain_name(&machine.name);
            let kind = OperationKind::Console { machine: machine.name.clone(), follow: false };
            let file = format!("{name}.console.txt");
            wanted.push(want(kind, file, CONSOLE_HEAD_MAX_BYTES, CONSOLE_TAIL_MAX_BYTES));
            if screens && machine.on {
                let kind = OperationKind::Screenshot { machine: machine.name.clone() };
                wanted.push(want(kind, format!("{name}.png"), PICTURE_MAX_BYTES, 0));
            }
        }
        Ok(wanted)
    }

    /// Fetches one thing; what is to be told of it.
    async fn fetch(&self, want: Wanted) -> Option<String> {
        let file = want.into.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{}: {file}", want.testenv);
        let started = self.relay.start(&want.host, &want.testenv, want.generation, want.kind, None);
        let mut ticket = match started {
            Ok(ticket) => ticket,
            Err(error) => return Some(format!("{name}: {error}")),
        };
        match (&mut ticket.answer).await {
            Ok(Answer::Output(body)) => match save(body, &want.into, want.keep).await {
                Ok(0) => None,
                Ok(left_out) => {
                    Some(format!("{name}: {left_out} bytes in its middle are left out"))
                }
                Err(why) => Some(format!("{name}: {why}")),
            },
            Ok(Answer::Result(
                OperationResult::Refused { message, .. } | OperationResult::Failed { message },
            )) => Some(format!("{name}: {message}")),
            Ok(Answer::Result(_)) => Some(format!("{name}: the host answered another question")),
            Ok(Answer::HostGone) | Err(_) => {
                Some(format!("{name}: {}", RelayError::HostGone(want.host)))
            }
        }
    }
}

/// Writes a body to a file, its beginning and its end; how many bytes between them were left out.
async fn save(body: Body, into: &Path, keep: Keep) -> Result<usize, String> {
    let here = |error: io::Error| format!("it cannot be kept: {error}");
    let mut file = File::create(into).await.map_err(here)?;
    let mut pieces = body.into_data_stream();
    let (mut room, mut tail, mut left_out) = (keep.head, VecDeque::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| format!("it is not whole: {error}"))?;
        let (head, rest) = piece.split_at(piece.len().min(room));
        room -= head.len();
        file.write_all(head).await.map_err(here)?;
        tail.extend(rest);
        let more = tail.len().saturating_sub(keep.tail);
        tail.drain(..more);
        left_out += more;
    }
    if left_out > 0 && keep.tail > 0 {
        let line = format!("\n... {left_out} bytes were left out here ...\n");
        file.write_all(line.as_bytes()).await.map_err(here)?;
    }
    let (first, second) = tail.as_slices();
    file.write_all(first).await.map_err(here)?;
    file.write_all(second).await.map_err(here)?;
    file.flush().await.map_err(here)?;
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[tokio::test]
    async fn of_a_flood_the_beginning_and_the_end_are_kept_also_when_it_is_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("console.txt");
        let keep = Keep { head: 1000, tail: 100 };
        let pieces = (0..=255_u8).map(|n| Ok::<_, io::Error>(Bytes::from(vec![n; 4096])));
        let body = Body::from_stream(stream::iter(pieces));
        let left_out = save(body, &into, keep).await.unwrap();
        assert_eq!(left_out, 256 * 4096 - 1100);
        let bytes = std::fs::read(&into).unwrap();
        assert!(bytes.starts_with(&[0; 1000]) && bytes.ends_with(&[255; 100]));
        let line = format!("... {left_out} bytes were left out here ...");
        assert!(String::from_utf8_lossy(&bytes).contains(&line));
        let left_out = save(Body::from("short"), &into, keep).await.unwrap();
        assert_eq!((left_out, std::fs::read(&into).unwrap()), (0, b"short".to_vec()));
    }
}
