//! Other people's programs: each call has its own environment, a time limit, a limit on output, and a process group that
//! is killed with it.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{AccessFlags, Pid, access};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Longest output of a call that is read as a whole, in bytes.
pub const OUTPUT_MAX_BYTES: usize = 64 << 20;
/// Longest complaint that is kept, in bytes.
const COMPLAINT_MAX_BYTES: usize = 4 << 10;

/// A call that did not work. A program that ended with a code is no error here: see [`Ended`].
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It did not start.
    #[error("start {program}")]
    Start {
        /// Which.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Talking to it failed.
    #[error("talk to {program}")]
    Talk {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("{program} did not end within {limit:?}")]
    TooSlow {
        /// Which.
        program: String,
        /// The limit.
        limit: Duration,
    },
    /// It said too much and was killed.
    #[error("{program} wrote more than {OUTPUT_MAX_BYTES} bytes")]
    TooMuch {
        /// Which.
        program: String,
    },
}

/// How a program ended.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote.
    pub output: Vec<u8>,
    /// The end of what it complained of, as text.
    pub complaint: String,
}

impl Ended {
    /// Whether it ended with 0.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.code == Some(0)
    }

    /// Its output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

/// What to call.
#[derive(Clone, Debug)]
pub struct Call {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    limit: Duration,
}

impl Call {
    /// A call with a time limit; its environment holds only PATH, HOME and what [`Call::env`] adds.
    pub fn new(program: impl Into<OsString>, limit: Duration) -> Call {
        Call {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: None,
            limit,
        }
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Call {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// A variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Call {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Where it runs.
    #[must_use]
    pub fn folder(mut self, folder: impl AsRef<Path>) -> Call {
        self.folder = Some(folder.as_ref().to_owned());
        self
    }

    fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// Starts it with all three streams piped.
    pub fn start(&self) -> Result<Group, CallError> {
        let mut command = Command::new(found(&self.program));
        command.arg0(&self.program).args(&self.arguments).env_clear();
        for name in ["PATH", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("LC_ALL", "C").envs(self.environment.iter().map(|(k, v)| (k, v)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let child = spawned.map_err(|source| CallError::Start { program: self.name(), source })?;
        Ok(Group { child })
    }

    /// Runs it to its end with this input.
    pub async fn run(&self, input: &[u8]) -> Result<Ended, CallError> {
        match tokio::time::timeout(self.limit, self.run_to_end(input)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::TooSlow { program: self.name(), limit: self.limit }),
        }
    }

    async fn run_to_end(&self, input: &[u8]) -> Result<Ended, CallError> {
        let mut group = self.start()?;
        let talk = |source| CallError::Talk { program: self.name(), source };
        let (stdin, stdout, stderr) =
            (group.child.stdin.take(), group.child.stdout.take(), group.child.stderr.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // One that does not want all of its input says so by its exit code.
                let _ = stdin.write_all(input).await;
            }
        };
        let read = async {
            match stdout {
                Some(stream) => read_bounded(stream, OUTPUT_MAX_BYTES).await,
                None => Ok((Vec::new(), false)),
            }
        };
        let complain = async {
            match stderr {
                Some(stream) => read_tail(stream).await,
                None => String::new(),
            }
        };
        let ((), output, complaint) = tokio::join!(feed, read, complain);
        let (output, too_much) = output.map_err(talk)?;
        if too_much {
            return Err(CallError::TooMuch { program: self.name() });
        }
        let status = group.child.wait().await.map_err(talk)?;
        Ok(Ended { code: status.code(), output, complaint })
    }
}

/// Where a program lies, as the first folder of PATH has it; its name when none has it. A name together with a PATH for the
/// child would make Rust fork, which copies all that maps this process's memory, where a path lets it use `posix_spawn`.
fn found(program: &OsStr) -> OsString {
    let named = Path::new(program).components().count() > 1;
    let folders = std::env::var_os("PATH").filter(|_| !named).unwrap_or_default();
    let mut paths = std::env::split_paths(&folders).map(|folder| folder.join(program));
    let found = paths.find(|path| path.is_file() && access(path, AccessFlags::X_OK).is_ok());
    found.map_or_else(|| program.to_owned(), PathBuf::into_os_string)
}

/// A started program; its whole process group is killed when this value goes.
#[derive(Debug)]
pub struct Group {
    /// The program.
    pub child: Child,
}

impl Group {
    /// Sends a signal to the whole group, if its leader has not been collected yet.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id() {
            // It may have ended this moment.
            let _ = killpg(Pid::from_raw(pid.cast_signed()), signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Reads to the end or to the limit; says whether there was more.
async fn read_bounded(stream: impl AsyncRead + Unpin, max: usize) -> io::Result<(Vec<u8>, bool)> {
    let mut out = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    stream.take(limit).read_to_end(&mut out).await?;
    let too_much = out.len() > max;
    Ok((out, too_much))
}

/// Reads to the end and keeps the last bytes as text.
async fn read_tail(mut stream: impl AsyncRead + Unpin) -> String {
    let mut tail = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        tail.extend_from_slice(&buffer[..n]);
        if tail.len() > 2 * COMPLAINT_MAX_BYTES {
            tail.drain(..tail.len() - COMPLAINT_MAX_BYTES);
        }
    }
    let from = tail.len().saturating_sub(COMPLAINT_MAX_BYTES);
    String::from_utf8_lossy(&tail[from..]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Call {
        Call::new("sh", limit).args(["-c", script])
    }

    #[tokio::test]
    async fn input_output_complaint_and_code_come_back() {
        let call = sh("cat; echo oops >&2; exit 3", Duration::from_secs(20));
        let ended = call.run(b"hello").await.unwrap();
        assert_eq!((ended.code, ended.text().as_str()), (Some(3), "hello"));
        assert_eq!(ended.complaint, "oops");
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let sh = PathBuf::from(found(OsStr::new("sh")));
        assert!(sh.is_absolute() && sh.ends_with("sh"), "{}", sh.display());
        for as_it_is in ["./sh", "/nowhere/sh", "no-such-program-anywhere"] {
            assert_eq!(found(OsStr::new(as_it_is)), as_it_is);
        }
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! >{}; wait", file.display());
        let call = sh(&script, Duration::from_millis(500));
        assert!(matches!(call.run(b"").await, Err(CallError::TooSlow { .. })));
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(10);
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        while lives() {
            assert!(std::time::Instant::now() < end, "process {pid} lives on");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn nothing_of_our_environment_gets_through() {
        let call = sh("env", Duration::from_secs(20)).env("MINE", "1");
        let text = call.run(b"").await.unwrap().text();
        assert!(text.contains("MINE=1") && !text.contains("CARGO"), "{text}");
    }

    #[tokio::test]
    async fn endless_output_is_cut() {
        let call = sh("exec cat /dev/zero", Duration::from_secs(60));
        assert!(matches!(call.run(b"").await, Err(CallError::TooMuch { .. })));
    }
}
