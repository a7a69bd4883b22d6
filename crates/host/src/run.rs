//! Runs a program of the machine under a time limit and keeps what it said.

use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// No program that we run takes longer.
pub const COMMAND_MAX: Duration = Duration::from_secs(30);

/// Why a program did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be run.
    #[error("run {program} (is its package installed?)")]
    Start {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took too long and was killed.
    #[error("{line} did not end within {} s", COMMAND_MAX.as_secs())]
    TooSlow {
        /// The command line.
        line: String,
    },
    /// It said no.
    #[error("{line} failed ({status}): {said}")]
    Failed {
        /// The command line.
        line: String,
        /// How it ended.
        status: String,
        /// Its standard error.
        said: String,
    },
}

/// Runs a program; its standard output.
pub async fn run(program: &str, args: &[&str]) -> Result<String, CommandError> {
    run_with_input(program, args, b"", &[0]).await
}

/// Runs a program with `input`; its standard output. Exit codes in `good` are no failure.
pub async fn run_with_input(
    program: &str,
    args: &[&str],
    input: &[u8],
    good: &[i32],
) -> Result<String, CommandError> {
    let line =
        || std::iter::once(program).chain(args.iter().copied()).collect::<Vec<_>>().join(" ");
    let start = |source| CommandError::Start { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that fails early closes its input; its own message is the better error.
        let _ = stdin.write_all(input).await;
    }
    let Ok(out) = tokio::time::timeout(COMMAND_MAX, child.wait_with_output()).await else {
        return Err(CommandError::TooSlow { line: line() });
    };
    let out = out.map_err(start)?;
    if out.status.code().is_some_and(|c| good.contains(&c)) {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(CommandError::Failed {
        line: line(),
        status: out.status.to_string(),
        said: String::from_utf8_lossy(&out.stderr).trim().to_owned(),
    })
}
