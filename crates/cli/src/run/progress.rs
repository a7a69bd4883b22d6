//! What `toci lease run` says on standard error: one live line on a terminal, occasional lines otherwise.

use crate::duration::show;
use crate::error::CliError;
use crate::output::complain;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};
use toci_wire::api::Lease;

/// Without a terminal, an unchanged wait is told this often.
const REPEAT_PERIOD: Duration = Duration::from_secs(60);

/// How often a live line is drawn again, for its clock.
pub(super) const LIVE_PERIOD: Duration = Duration::from_secs(1);

/// How to tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Nothing but errors.
    Quiet,
    /// One line that changes.
    Live,
    /// Lines, when something changes or long has passed.
    Lines,
    /// One JSON object a change.
    Json,
}

/// Tells people (or programs) how the run goes.
#[derive(Debug)]
pub(super) struct Progress {
    manner: Manner,
    started: Instant,
    line_is_open: bool,
    last: Option<(String, Instant)>,
}

impl Progress {
    pub(super) fn new(quiet: bool, json: bool) -> Progress {
        let manner = match (quiet, json, stderr().is_terminal()) {
            (true, _, _) => Manner::Quiet,
            (false, true, _) => Manner::Json,
            (false, false, true) => Manner::Live,
            (false, false, false) => Manner::Lines,
        };
        Progress { manner, started: Instant::now(), line_is_open: false, last: None }
    }

    /// The wait goes on; `away`: the server does not answer, and why.
    pub(super) fn waiting(&mut self, lease: &Lease, away: Option<&str>) {
        let text = waiting_text(lease, away);
        let now = Instant::now();
        let is_news = self
            .last
            .as_ref()
            .is_none_or(|(last, at)| *last != text || now.duration_since(*at) >= REPEAT_PERIOD);
        if is_news {
            self.last = Some((text.clone(), now));
        }
        let waited = show(self.started.elapsed().as_secs());
        match self.manner {
            Manner::Quiet => {}
            Manner::Live => {
                self.line_is_open = true;
                // Back to the beginning, erase to the end.
                let _ = write!(stderr(), "\r\x1b[Ktoci: {text} [{waited}]");
                let _ = stderr().flush();
            }
            Manner::Lines if is_news => {
                let _ = writeln!(stderr(), "toci: {text} [waited {waited}]");
            }
            Manner::Json if is_news => self.json(lease),
            Manner::Lines | Manner::Json => {}
        }
    }

    /// Something that stays to be read.
    pub(super) fn note(&mut self, text: &str) {
        self.end_line();
        match self.manner {
            Manner::Quiet | Manner::Json => {}
            Manner::Live | Manner::Lines => {
                let _ = writeln!(stderr(), "toci: {text}");
            }
        }
    }

    /// Something went wrong: told in every manner.
    pub(super) fn problem(&mut self, text: &str) {
        self.end_line();
        match self.manner {
            Manner::Json => {
                complain(&serde_json::json!({ "error": { "message": text } }).to_string());
            }
            Manner::Quiet | Manner::Live | Manner::Lines => complain(&format!("toci: {text}")),
        }
    }

    /// As [`Progress::problem`], with what to do next.
    pub(super) fn error(&mut self, error: &CliError) {
        self.end_line();
        error.print(self.manner == Manner::Json);
    }

    fn end_line(&mut self) {
        if self.line_is_open {
            self.line_is_open = false;
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }

    /// A state of the lease, for programs.
    pub(super) fn json(&self, lease: &Lease) {
        if self.manner == Manner::Json
            && let Ok(text) = serde_json::to_string(lease)
        {
            let _ = writeln!(stderr(), "{text}");
        }
    }
}

fn waiting_text(lease: &Lease, away: Option<&str>) -> String {
    if let Some(away) = away {
        return format!("{} waits; {away}", lease.id);
    }
    let Some(waiting) = &lease.waiting else {
        return format!("{}: getting {} ready", lease.id, names(lease));
    };
    let estimate = match waiting.estimate_s {
        Some(seconds) => format!(", about {}", show(round(seconds))),
        None => String::new(),
    };
    format!("{} waits as number {}: {}{estimate}", lease.id, waiting.position, waiting.reason)
}

/// An estimate is not exact to the second, and should not change every second.
fn round(seconds: u64) -> u64 {
    if seconds < 60 { seconds.next_multiple_of(10) } else { seconds.next_multiple_of(60) }
}

/// The TEs of a lease, for people.
pub(super) fn names(lease: &Lease) -> String {
    lease.testenvs.iter().map(|te| te.testenv.as_str()).collect::<Vec<_>>().join(", ")
}
