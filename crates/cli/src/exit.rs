//! Every exit code of `toci`, in one place. `docs/exit-codes.md` and the man page are made from it.

use std::fmt::Write as _;
use std::process::ExitCode;

/// How `toci` ends. `toci lease run` otherwise ends with the command's own code, or 128 + the signal that ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Ok,
    /// Something failed that was not the caller's fault and fits no code below.
    Failed,
    /// The command line, or a file that it names, is wrong.
    Usage,
    /// The server refused: the same request will be refused again.
    Refused,
    /// No test environment within `--wait-timeout`.
    WaitTimeout,
    /// The lease's time was over before the command ended.
    Expired,
    /// The server heard no heartbeats, so the lease was lost before the command ended.
    Lost,
    /// The lease was revoked, or released by somebody else, before the command ended.
    Revoked,
    /// The server could not be reached.
    Unreachable,
    /// No token, a wrong or expired one, or one without the right.
    NotAllowed,
    /// What is there is not as it should be (`toci cloud plan`).
    Differs,
    /// `toci` itself failed while a command was to be run (data file, a broken answer).
    RunFailed,
    /// The command was found but could not be run.
    CannotRun,
    /// The command was not found.
    CommandNotFound,
    /// Ended by this signal before a command was running.
    Signal(u8),
}

impl Exit {
    /// All codes, in the order of their numbers; `Signal` stands for its whole range.
    pub const ALL: [Exit; 15] = [
        Exit::Ok,
        Exit::Failed,
        Exit::Usage,
        Exit::Refused,
        Exit::WaitTimeout,
        Exit::Expired,
        Exit::Lost,
        Exit::Revoked,
        Exit::Unreachable,
        Exit::NotAllowed,
        Exit::Differs,
        Exit::RunFailed,
        Exit::CannotRun,
        Exit::CommandNotFound,
        Exit::Signal(0),
    ];

    /// The number. 110 to 117 are hardly used by other programs, 125 to 127 mean what they mean for `env` and `timeout`.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 110,
            Exit::WaitTimeout => 111,
            Exit::Expired => 112,
            Exit::Lost => 113,
            Exit::Revoked => 114,
            Exit::Unreachable => 115,
            Exit::NotAllowed => 116,
            Exit::Differs => 117,
            Exit::RunFailed => 125,
            Exit::CannotRun => 126,
            Exit::CommandNotFound => 127,
            Exit::Signal(signal) => 128u8.saturating_add(signal),
        }
    }

    /// One line for people.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Ok => "everything was done",
            Exit::Failed => {
                "something failed that is not the caller's fault; trying again may help"
            }
            Exit::Usage => "the command line, or a file that it names, is wrong",
            Exit::Refused => {
                "the server refused (unknown label, impossible request, wrong state): the same request will be refused again"
            }
            Exit::WaitTimeout => {
                "no test environment within --wait-timeout; the command did not run"
            }
            Exit::Expired => {
                "the lease's time was over before the command ended; the command was ended"
            }
            Exit::Lost => {
                "the server heard no heartbeats, the lease was lost before the command ended; the command was ended"
            }
            Exit::Revoked => {
                "the lease was revoked or released by somebody else before the command ended; the command was ended"
            }
            Exit::Unreachable => "the server cannot be reached",
            Exit::NotAllowed => "no token, a wrong or expired one, or one without the right",
            Exit::Differs => "what is there is not as it should be (`toci cloud plan`)",
            Exit::RunFailed => "toci itself failed while a command was to be run",
            Exit::CannotRun => "the command was found but cannot be run",
            Exit::CommandNotFound => "the command was not found",
            Exit::Signal(_) => "128 + N: ended by signal N before a command was running",
        }
    }

    fn shown(self) -> String {
        match self {
            Exit::Signal(_) => "129-192".to_owned(),
            other => other.code().to_string(),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// For `--help` and the man page.
#[must_use]
pub fn help_section() -> String {
    let mut text = String::from("Exit codes:\n");
    for exit in Exit::ALL {
        let _ = writeln!(text, "  {:<8} {}", exit.shown(), exit.meaning());
    }
    text.push_str(
        "  `toci lease run` otherwise ends with COMMAND's own code, or 128 + the signal that ended COMMAND.",
    );
    text
}

/// The text of `docs/exit-codes.md`.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(
        "# Exit codes of `toci`\n\n\
         Made from `crates/cli/src/exit.rs`; `cargo test -p toci-cli` compares.\n\n\
         | code | meaning |\n|---|---|\n",
    );
    for exit in Exit::ALL {
        let _ = writeln!(text, "| {} | {} |", exit.shown(), exit.meaning());
    }
    text.push_str(
        "\n`toci lease run -- COMMAND` otherwise ends with COMMAND's own code, or 128 + the signal that ended COMMAND.\n\
         COMMAND may use any of these codes itself; `toci` then also says on standard error what happened.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_differ_and_ascend() {
        assert!(Exit::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
        assert_eq!(Exit::Signal(15).code(), 143);
    }

    #[test]
    fn the_document_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/exit-codes.md");
        if std::env::var_os("TOCI_WRITE_DOCS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(written, document(), "run TOCI_WRITE_DOCS=1 cargo test -p toci-cli --lib exit");
    }
}
