//! The line of a console that says why a run failed: what a person would look for first.
//!
//! Every line gets a rank. What the machine itself died of is the most telling, then what a program says of its error,
//! then words that may mean one, then what only follows from an error (`make: *** … Error 2`). A failing job mostly
//! fails near its end, and earlier errors were survived; so the last lines are looked at first. What the runner says
//! (`toci: run script 2 of 3`, `toci: … ended with 1`) tells which lines are the failed script's.

use crate::pipeline::RunResult;
use std::collections::VecDeque;

/// Longest line that is told, in characters.
pub const TOLD_MAX_CHARS: usize = 300;
/// Longest part of a line that is looked at, in bytes.
const LOOKED_AT_MAX_BYTES: usize = 4096;
/// How many lines before the end are looked at first.
const RECENT_LINES_MAX: usize = 1000;

/// Where and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstError {
    /// Which line, from 1.
    pub line: usize,
    /// The line without its time, in one line, shortened.
    pub text: String,
}

/// How telling a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The machine could not go on: memory, disk, a crash.
    Cause,
    /// A program says what is wrong.
    Error,
    /// Words that may mean an error.
    Hint,
    /// What follows from an error.
    Consequence,
}

/// Signs of [`Rank::Cause`].
const CAUSES: &[&str] = &[
    "Out of memory: Kill",
    "out of memory: Kill",
    "invoked oom-killer",
    "oom-kill:",
    "No space left on device",
    "Disk quota exceeded",
    "Cannot allocate memory",
    "Too many open files",
    "Read-only file system",
    "Segmentation fault",
    "(core dumped)",
    "Kernel panic",
    "soft lockup",
];
/// Signs of [`Rank::Error`] anywhere in a line.
const ERRORS: &[&str] = &[
    "panicked at",
    "Exception in thread",
    "npm ERR!",
    "undefined reference to",
    ": command not found",
    ": not found",
    "Permission denied",
    "Connection refused",
    "Connection timed out",
    "Connection reset by peer",
    "No route to host",
    "Could not resolve",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Host key verification failed",
    "Failed to start",
    "Failed with result",
    "CREATE_FAILED",
    "UPDATE_FAILED",
    "No valid host was found",
    "Build timed out",
    "time limit",
    "timed out after",
    "timeout: sending signal",
    "Unmet dependencies",
    "unmet dependencies",
    "CONFLICT (",
    "ModuleNotFound",
];
/// Signs of [`Rank::Error`] at the beginning of a line.
const ERROR_STARTS: &[&str] = &[
    "E: ",
    "E   ",
    "FAIL: ",
    "FAIL ",
    "FAILED ",
    "FAILED: ",
    "curl: (",
    "ssh: ",
    "scp: ",
    "panic: ",
    "abort: ",
    "Caused by:",
    "not ok ",
    "--- FAIL",
    "Job for ",
    "qemu-img: ",
    "virsh: ",
];
/// Signs of [`Rank::Hint`], in small letters.
const HINTS: &[&str] = &[
    "failed",
    "failure",
    "no such file or directory",
    "unable to",
    "cannot ",
    "can't ",
    "could not",
    "exception",
    "timed out",
    "aborting",
    "unrecognized",
    "invalid ",
    "killed",
];
/// Lines with one of these, in small letters, are taken for noise.
const NOISE: &[&str] = &[
    "0 error",
    "0 failed",
    "0 failures",
    "no error",
    "errors: 0",
    "error: 0",
    "errors=0",
    "failures=0",
    "failures: 0",
    "ignored",
    "ignoring",
    "warning",
    "[warn",
    " warn ",
    "deprecat",
    "non-fatal",
    "not fatal",
    "retrying",
    "will retry",
    "trying again",
    " info ",
    " debug ",
    "-werror",
    "failed=0",
    "unreachable=0",
];

#[derive(Clone)]
struct Candidate {
    rank: Rank,
    line: usize,
    text: String,
}

/// Looks at a console line by line.
#[derive(Default)]
pub struct Finder {
    line: usize,
    /// The first of the best rank of all.
    best: Option<Candidate>,
    /// Those of the last [`RECENT_LINES_MAX`] lines.
    recent: VecDeque<Candidate>,
    /// Within a Python traceback: what stands before the text of its lines.
    traceback: Option<String>,
    last: Option<FirstError>,
    /// What the runner said last.
    said: Option<FirstError>,
    /// The script that failed has ended; what follows is about something else.
    over: bool,
}

/// What a line of the runner means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// A script begins.
    Begins,
    /// A script has failed, or was stopped.
    Fails,
    /// Something worth telling.
    Something,
    /// Nothing of interest.
    Nothing,
}

fn meaning(said: &str) -> Said {
    let is_script = said.contains(" script ") && said.contains(" of ");
    let is_aside = ["result: ", "artifacts: ", "logs are not whole", "more than "];
    if is_aside.iter().any(|words| said.starts_with(words))
        || said.ends_with("are not kept")
        || said.starts_with("run ") && said.contains(" of job ")
    {
        Said::Nothing
    } else if said.starts_with("the time limit") || is_script && said.contains(" ended with ") {
        Said::Fails
    } else if is_script && !said.contains("could not") && !said.contains(" lost ") {
        Said::Begins
    } else {
        Said::Something
    }
}

impl core::fmt::Debug for Finder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Finder({} lines)", self.line)
    }
}

impl Finder {
    /// The next line.
    pub fn feed(&mut self, line: &str) {
        self.line += 1;
        while self.recent.front().is_some_and(|c| c.line + RECENT_LINES_MAX <= self.line) {
            self.recent.pop_front();
        }
        let cleaned = cleaned(line);
        let text = cleaned.trim_end();
        if text.is_empty() {
            return;
        }
        if let Some(said) = text.strip_prefix("toci: ") {
            return self.hear(said);
        }
        if self.over {
            return;
        }
        if let Some(rank) = self.rank_here(text) {
            let found = Candidate { rank, line: self.line, text: shortened(text) };
            if self.best.as_ref().is_none_or(|best| rank < best.rank) {
                self.best = Some(found.clone());
            }
            self.recent.push_back(found);
        }
        self.last = Some(FirstError { line: self.line, text: shortened(text) });
    }

    fn hear(&mut self, said: &str) {
        if self.over {
            return;
        }
        let meaning = meaning(said);
        match meaning {
            Said::Begins => {
                self.best = None;
                self.recent.clear();
                self.traceback = None;
                self.last = None;
            }
            Said::Fails => self.over = true,
            Said::Something => {}
            Said::Nothing => return,
        }
        if meaning != Said::Begins {
            self.said = Some(FirstError { line: self.line, text: shortened(said) });
        }
    }

    /// The most telling line of a run that came to this; none when it did not fail by itself.
    #[must_use]
    pub fn finish(self, result: RunResult) -> Option<FirstError> {
        let recent = self.recent;
        match result {
            RunResult::Success | RunResult::Canceled | RunResult::Aborted | RunResult::Skipped => {
                None
            }
            RunResult::TimedOut => {
                let cause = recent.into_iter().find(|c| c.rank == Rank::Cause);
                let timed_out = |l: FirstError| FirstError {
                    text: format!("timed out; last line: {}", l.text),
                    ..l
                };
                cause.map(FirstError::from).or(self.last.map(timed_out)).or(self.said)
            }
            RunResult::NodeFailure
            | RunResult::TeFailure
            | RunResult::Lost
            | RunResult::ConfigError => self.said.or(chosen(recent, self.best)).or(self.last),
            RunResult::Failure | RunResult::PostFailure | RunResult::RetryLimit => {
                chosen(recent, self.best).or(self.last).or(self.said)
            }
        }
    }

    /// The rank of a line that may be in the middle of a traceback.
    fn rank_here(&mut self, text: &str) -> Option<Rank> {
        if let Some((before, _)) = text.split_once("Traceback (most recent call last)") {
            self.traceback = Some(before.to_owned());
            return None;
        }
        if let Some(before) = &self.traceback {
            let own = text.strip_prefix(before.as_str()).unwrap_or(text);
            if own.is_empty() || own.starts_with([' ', '\t']) {
                return None;
            }
            self.traceback = None;
            return Some(rank(own).unwrap_or(Rank::Error).min(Rank::Error));
        }
        rank(text)
    }
}

/// The first of the most telling ones, the recent ones before all others unless they only follow from an error.
fn chosen(recent: VecDeque<Candidate>, best: Option<Candidate>) -> Option<FirstError> {
    // min_by_key takes the first of equals.
    let recent = recent.into_iter().min_by_key(|c| c.rank);
    let chosen = match (recent, best) {
        (Some(recent), Some(best)) if recent.rank > Rank::Error && best.rank < recent.rank => best,
        (Some(recent), _) => recent,
        (None, best) => best?,
    };
    Some(chosen.into())
}

impl From<Candidate> for FirstError {
    fn from(found: Candidate) -> FirstError {
        FirstError { line: found.line, text: found.text }
    }
}

/// The most telling line of a whole text.
#[must_use]
pub fn first_error(text: &str, result: RunResult) -> Option<FirstError> {
    let mut finder = Finder::default();
    text.lines().for_each(|line| finder.feed(line));
    finder.finish(result)
}

/// How telling a line is by itself; none: not at all.
#[must_use]
pub fn rank(text: &str) -> Option<Rank> {
    let text = text.trim();
    if let Some(traced) = text.strip_prefix('+') {
        // `set -x` shows commands, not errors, except that one.
        let command = traced.trim_start_matches('+').trim_start();
        let code = command.strip_prefix("exit ")?.trim();
        return (code != "0").then_some(Rank::Consequence);
    }
    let has = |signs: &[&str]| signs.iter().any(|sign| text.contains(sign));
    if has(CAUSES) || is_killed_by_shell(text) {
        return Some(Rank::Cause);
    }
    let small = text.to_ascii_lowercase();
    if NOISE.iter().any(|sign| small.contains(sign)) {
        return None;
    }
    if is_consequence(text, &small) {
        return Some(Rank::Consequence);
    }
    if has(ERRORS) || ERROR_STARTS.iter().any(|s| text.starts_with(s)) || names_error(text, &small)
    {
        return Some(Rank::Error);
    }
    HINTS.iter().any(|sign| small.contains(sign)).then_some(Rank::Hint)
}

/// `script.sh: line 3: 123 Killed  command`: bash tells of a SIGKILL, which is mostly the kernel's.
fn is_killed_by_shell(text: &str) -> bool {
    text.split_once(": line ").is_some_and(|(_, rest)| {
        rest.split_whitespace().nth(2).is_some_and(|word| word == "Killed" || word == "Aborted")
    })
}

fn is_consequence(text: &str, small: &str) -> bool {
    (text.starts_with("make") && text.contains("***"))
        || small.contains("returned non-zero exit status")
        || ["exit status ", "exited with ", "exit code "].iter().any(|words| {
            let after = small.split_once(words).and_then(|(_, rest)| rest.chars().next());
            after.is_some_and(|c| c.is_ascii_digit())
        })
        || small.contains("returned a non-zero code")
        || small.contains("elifecycle")
        || small.starts_with("error: aborting due to ")
        || small.starts_with("error: could not compile ")
        || small.contains("build step ")
        || text.starts_with("Makefile:")
}

/// `error:`, `ValueError:`, `error[E0308]:`, `fatal:`, `ERROR`, `CRITICAL`, `<Error>`: a word that announces one.
fn names_error(text: &str, small: &str) -> bool {
    for word in ["error", "fatal", "exception", "critical"] {
        for (at, _) in small.match_indices(word) {
            let rest = &text[at + word.len()..];
            let before = text[..at].chars().next_back();
            let announces = rest.starts_with(": ") || rest == ":" || rest.starts_with('[');
            // Words in capitals are levels: `2014-11-18 21:03:25 ERROR nova …`, `[ERROR]`.
            let is_level = text[at..at + word.len()].bytes().all(|b| b.is_ascii_uppercase())
                && before
                    .is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '$' | '/'))
                && rest
                    .chars()
                    .next()
                    .is_none_or(|c| matches!(c, ' ' | ']' | ':' | '>' | '!' | '|'));
            let is_name = before.is_some_and(|c| matches!(c, '_' | '-' | '/' | '.' | '$'));
            if is_level || (announces && !is_name) {
                return true;
            }
        }
    }
    false
}

/// Without its time, colours, and what a progress bar wrote over.
#[must_use]
pub fn cleaned(line: &str) -> String {
    let line = line.trim_end_matches(['\r', '\n']);
    let text = match line.split_once(" | ") {
        Some((stamp, text)) if is_stamp(stamp) => text,
        Some(_) => line,
        // An empty line of the job.
        None => line.strip_suffix(" |").filter(|stamp| is_stamp(stamp)).map_or(line, |_| ""),
    };
    let text = text.rsplit('\r').next().unwrap_or(text);
    let text = &text[..text.floor_char_boundary(LOOKED_AT_MAX_BYTES)];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\u{1b}') {
        out.push_str(before);
        let end = escape.find(|c: char| c.is_ascii_alphabetic()).map_or(escape.len(), |at| at + 1);
        rest = &escape[end..];
    }
    out.push_str(rest);
    out.retain(|c| c == '\t' || !c.is_control());
    out
}

/// `2014-11-18T21:03:25.456789Z`, and Jenkins' `2014-11-18 21:03:25.456`.
fn is_stamp(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_digit() || b"-:.TZ+ ".contains(&b);
    (19..=40).contains(&text.len()) && text.as_bytes()[4] == b'-' && text.bytes().all(known)
}

fn shortened(text: &str) -> String {
    let text = text.trim();
    if text.chars().count() <= TOLD_MAX_CHARS {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(TOLD_MAX_CHARS - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
#[path = "first_error_tests.rs"]
mod tests;
