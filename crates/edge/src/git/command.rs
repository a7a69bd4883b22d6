//! One git command: clean environment, time limit, errors that say what was tried.

use crate::program::{Call, CallError, Ended};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time for a command that works on local objects only.
pub(crate) const LOCAL_LIMIT: Duration = Duration::from_secs(60);
/// Longest time for one that talks to a remote; devstack-gate gave its fetches 5 minutes (origin.md 6.3).
pub(crate) const REMOTE_LIMIT: Duration = Duration::from_secs(300);

/// A git command that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// git itself could not be run to its end.
    #[error("git {what} in {repository}")]
    Call {
        /// The command.
        what: String,
        /// Where.
        repository: PathBuf,
        /// Why not.
        #[source]
        source: CallError,
    },
    /// git refused or failed.
    #[error("git {what} in {repository}: {complaint}")]
    Failed {
        /// The command.
        what: String,
        /// Where.
        repository: PathBuf,
        /// What it said.
        complaint: String,
    },
    /// The remote was asked and has no such ref.
    #[error("{remote} has no ref {reference}")]
    NoSuchRef {
        /// Which remote.
        remote: String,
        /// Which ref.
        reference: String,
    },
    /// The ref is there, but not at the commit that was named: it was pushed anew meanwhile.
    #[error("{reference} of {remote} is at {found}, not at {wanted}")]
    Moved {
        /// Which remote.
        remote: String,
        /// Which ref.
        reference: String,
        /// What was expected.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// git's answer could not be understood.
    #[error("git {what} in {repository} answered {answer:?}")]
    Answer {
        /// The command.
        what: String,
        /// Where.
        repository: PathBuf,
        /// What it said, shortened.
        answer: String,
    },
    /// A file or folder of a mirror.
    #[error("{what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The configuration names no such source.
    #[error("there is no source {0}")]
    NoSuchSource(String),
}

/// How git is called for one repository.
#[derive(Clone, Debug)]
pub struct Git {
    repository: PathBuf,
    environment: Vec<(String, String)>,
}

impl Git {
    /// For a bare repository; `environment` is added (credentials of a remote, mostly).
    pub fn new(repository: impl Into<PathBuf>, environment: Vec<(String, String)>) -> Git {
        Git { repository: repository.into(), environment }
    }

    /// Where it works.
    #[must_use]
    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// The call, for those who want to stream.
    #[must_use]
    pub fn call<A: AsRef<OsStr>>(&self, arguments: &[A], limit: Duration) -> Call {
        let mut call = Call::new("git", limit)
            // Nothing of the machine's or the user's configuration, no questions, no hooks, no odd transports.
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
            .env("GIT_DIR", &self.repository)
            .args(["-c", "core.hooksPath=/dev/null", "-c", "safe.directory=*"])
            .args(arguments);
        for (name, value) in &self.environment {
            call = call.env(name, value);
        }
        call
    }

    /// Runs a command, whatever its exit code.
    pub async fn ask<A: AsRef<OsStr>>(
        &self,
        arguments: &[A],
        input: &[u8],
        limit: Duration,
    ) -> Result<Ended, GitError> {
        self.call(arguments, limit).run(input).await.map_err(|source| GitError::Call {
            what: describe(arguments),
            repository: self.repository.clone(),
            source,
        })
    }

    /// Runs a command that must end with 0; its output without the last line feed.
    pub async fn run<A: AsRef<OsStr>>(
        &self,
        arguments: &[A],
        input: &[u8],
        limit: Duration,
    ) -> Result<String, GitError> {
        let ended = self.ask(arguments, input, limit).await?;
        if !ended.is_well() {
            return Err(self.failed(arguments, &ended));
        }
        Ok(ended.text().trim_end_matches('\n').to_owned())
    }

    /// Like [`Git::run`] for local work without input.
    pub async fn local(&self, arguments: &[&str]) -> Result<String, GitError> {
        self.run(arguments, b"", LOCAL_LIMIT).await
    }

    pub(crate) fn failed<A: AsRef<OsStr>>(&self, arguments: &[A], ended: &Ended) -> GitError {
        let complaint = match (&ended.complaint, ended.code) {
            (text, _) if !text.is_empty() => text.replace('\n', "; "),
            (_, Some(code)) => format!("exit code {code}"),
            (_, None) => "ended by a signal".to_owned(),
        };
        GitError::Failed {
            what: describe(arguments),
            repository: self.repository.clone(),
            complaint,
        }
    }

    pub(crate) fn answer<A: AsRef<OsStr>>(&self, arguments: &[A], answer: &str) -> GitError {
        GitError::Answer {
            what: describe(arguments),
            repository: self.repository.clone(),
            answer: answer.chars().take(200).collect(),
        }
    }
}

/// The command for people: its first words.
fn describe<A: AsRef<OsStr>>(arguments: &[A]) -> String {
    let words = arguments.iter().take(6).map(|a| a.as_ref().to_string_lossy().into_owned());
    words.collect::<Vec<_>>().join(" ")
}
