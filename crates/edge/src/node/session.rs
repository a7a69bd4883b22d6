//! Commands and files on a node: entered by namespaces or over OpenSSH, the same from there on.

use super::sweep;
use crate::program::{Call, CallError, Ended, Group};
use crate::ssh;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use toci_core::shell::quoted;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest time to put a file, or to send a signal.
pub const SMALL_LIMIT: Duration = Duration::from_secs(60);
/// What ssh itself ends with when it has no connection (any more).
const SSH_BROKEN: i32 = 255;

/// Something on the node did not work.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The node cannot be reached (any more): the infrastructure's fault.
    #[error("{what}: the node cannot be reached: {why}")]
    Unreachable {
        /// What was tried.
        what: String,
        /// What the way there said.
        why: String,
    },
    /// The node was reached and the command did not work.
    #[error("{what}: {why}")]
    Failed {
        /// What was tried.
        what: String,
        /// What the node said.
        why: String,
    },
    /// The command could not be run to its end.
    #[error("{what}")]
    Call {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: CallError,
    },
    /// More came back than may be kept.
    #[error("{what}: more than {max} bytes came back; the rest was left on the node")]
    TooMuch {
        /// What was fetched.
        what: String,
        /// The limit, bytes.
        max: u64,
    },
    /// Something on this side.
    #[error("{what}")]
    Here {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The way to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// Into the namespaces of a process on this machine.
    Namespaces {
        /// The sandbox's first process.
        pid: u32,
        /// The program, with its arguments, that puts what it calls into the sandbox's bounds; none when empty.
        way_in: Vec<OsString>,
    },
    /// Over OpenSSH.
    Ssh {
        /// User and address.
        target: String,
        /// TCP port.
        port: u16,
        /// Private key.
        key: PathBuf,
        /// The node's host key is in this file; no other one is trusted.
        known_hosts: PathBuf,
    },
}

/// A script to run as a process group of its own.
#[derive(Clone, Debug)]
pub struct Step {
    /// The step's folder on the node; its pid and environment lie there.
    pub control: String,
    /// Where it runs.
    pub folder: String,
    /// A file of exports that is sourced first.
    pub environment: String,
    /// The shell text.
    pub script: String,
}

impl Session {
    /// The call that runs shell text on the node with bash.
    #[must_use]
    pub fn call(&self, text: &str, limit: Duration) -> Call {
        match self {
            Session::Namespaces { pid, way_in } => {
                let pid = pid.to_string();
                let mut words = way_in.clone();
                words.push("nsenter".into());
                Call::new(words.remove(0), limit)
                    .args(words)
                    .args(["--target", &pid, "--all", "--wd=/", "--", "bash", "-c", text])
            }
            Session::Ssh { target, port, key, known_hosts } => {
                Call::new("ssh", limit).args(ssh::options(Some(key), Some(known_hosts))).args([
                    "-p",
                    &port.to_string(),
                    "--",
                    target,
                    &format!("bash -c {}", quoted(text)),
                ])
            }
        }
    }

    /// Whether the node is a machine of its own; a sandbox is not, and shows the server's.
    #[must_use]
    pub fn is_machine(&self) -> bool {
        match self {
            Session::Namespaces { .. } => false,
            Session::Ssh { .. } => true,
        }
    }

    /// Runs shell text that must end with 0.
    pub async fn run(
        &self,
        what: &str,
        text: &str,
        input: &[u8],
        limit: Duration,
    ) -> Result<Ended, SessionError> {
        let ended = self.try_run(what, text, input, limit).await?;
        if ended.is_well() {
            return Ok(ended);
        }
        let why = if ended.complaint.is_empty() {
            format!("exit code {:?}", ended.code)
        } else {
            ended.complaint
        };
        Err(SessionError::Failed { what: what.to_owned(), why })
    }

    /// Runs shell text, whatever it ends with; only a node that cannot be reached is an error.
    pub async fn try_run(
        &self,
        what: &str,
        text: &str,
        input: &[u8],
        limit: Duration,
    ) -> Result<Ended, SessionError> {
        let call = self.call(text, limit);
        let ended = call
            .run(input)
            .await
            .map_err(|source| SessionError::Call { what: what.to_owned(), source })?;
        match self.broken(&ended) {
            Some(why) => Err(SessionError::Unreachable { what: what.to_owned(), why }),
            None => Ok(ended),
        }
    }

    /// Why the way there is broken, if it is.
    fn broken(&self, ended: &Ended) -> Option<String> {
        let broken = match self {
            Session::Namespaces { pid, .. } => !ended.is_well() && !sweep::lives(*pid),
            Session::Ssh { .. } => ended.code == Some(SSH_BROKEN),
        };
        broken.then(|| ended.complaint.clone())
    }

    /// Whether a step's end means that the node was lost.
    #[must_use]
    pub fn is_lost(&self, code: Option<i32>) -> bool {
        self.broken(&Ended { code, ..Ended::default() }).is_some()
    }

    /// Puts a file in place, whole or not at all.
    pub async fn put(&self, path: &str, bytes: &[u8], mode: u32) -> Result<(), SessionError> {
        let text = format!(
            "set -e; f={}; mkdir -p \"${{f%/*}}\"; umask 077; cat >\"$f.new\"; chmod {mode:o} \"$f.new\"; mv \"$f.new\" \"$f\"",
            quoted(path)
        );
        self.run(&format!("write {path}"), &text, bytes, SMALL_LIMIT).await.map(drop)
    }

    /// Starts a step: its output and complaints come out of standard output, its input is empty. Its exit code is also
    /// left in the file `code` of its control folder, so that it can be told from a connection that broke.
    pub fn start(&self, step: &Step) -> Result<Group, SessionError> {
        let inner = format!(
            "echo $$ >{control}/pid; set -a; . {environment}; set +a; cd {folder}; exec bash -e -c {script}",
            control = quoted(&step.control),
            environment = quoted(&step.environment),
            folder = quoted(&step.folder),
            script = quoted(&step.script),
        );
        let text = format!(
            "mkdir -p {control}; rm -f {control}/code; setsid bash -c {inner} </dev/null 2>&1; c=$?; echo $c >{control}/code; exit $c",
            control = quoted(&step.control),
            inner = quoted(&inner),
        );
        self.call(&text, Duration::MAX)
            .start()
            .map_err(|source| SessionError::Call { what: "start a script".to_owned(), source })
    }

    /// Sends a signal to a step's process group. One that has ended is no error.
    pub async fn signal(&self, step: &Step, signal: &str) -> Result<(), SessionError> {
        let text =
            format!("kill -{signal} -- -$(cat {}/pid) 2>/dev/null; true", quoted(&step.control));
        self.run("signal a script", &text, b"", SMALL_LIMIT).await.map(drop)
    }

    /// Ends everything that a run has started on the node, whatever it did to stay. `mark` is a variable with its value
    /// (`ZUUL_UUID=…`) that stands in the environment of all of it.
    pub async fn end_all(&self, mark: &str) -> Result<(), SessionError> {
        let what = "end all that runs on the node";
        match self {
            // Nothing but the run is in there, and it may have left no room for one more process.
            Session::Namespaces { pid, .. } => {
                let pid = *pid;
                let swept = tokio::task::spawn_blocking(move || sweep::sweep(pid)).await;
                match swept {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(why)) => Err(SessionError::Failed { what: what.to_owned(), why }),
                    Err(e) => {
                        Err(SessionError::Failed { what: what.to_owned(), why: e.to_string() })
                    }
                }
            }
            Session::Ssh { .. } => {
                let text = sweep::marked(mark);
                self.run(what, &text, b"", SMALL_LIMIT).await.map(drop)
            }
        }
    }

    /// Streams a folder of the node as a tar archive (GNU's format) into a file; at most `max` bytes.
    pub async fn fetch(
        &self,
        folder: &str,
        into: &std::path::Path,
        max: u64,
        limit: Duration,
    ) -> Result<u64, SessionError> {
        self.fetch_some(folder, &[".".to_owned()], into, max, limit).await
    }

    /// As [`Session::fetch`], but only what these globs (`*`, `?`, `[…]`, `**`) find in the folder.
    pub async fn fetch_some(
        &self,
        folder: &str,
        globs: &[String],
        into: &std::path::Path,
        max: u64,
        limit: Duration,
    ) -> Result<u64, SessionError> {
        let globs: Vec<String> = globs.iter().map(|g| glob(g)).collect();
        let text = format!(
            "cd {} || exit 9; shopt -s globstar nullglob dotglob; f=({}); exec tar -cf - --format=gnu --ignore-failed-read -T /dev/null -- \"${{f[@]}}\"",
            quoted(folder),
            globs.join(" ")
        );
        self.stream(format!("fetch {folder}"), &text, into, max, limit).await
    }

    /// Streams what shell text writes, a tar archive, into a file; at most `max` bytes. The text goes there as bash's
    /// input: it may be long, and how long a command may be is up to the SSH server (dropbear takes 9,000 bytes).
    pub async fn stream(
        &self,
        what: String,
        text: &str,
        into: &std::path::Path,
        max: u64,
        limit: Duration,
    ) -> Result<u64, SessionError> {
        let mut group = self
            .call("exec bash -s", limit)
            .start()
            .map_err(|source| SessionError::Call { what: what.clone(), source })?;
        let here = |source| SessionError::Here { what: what.clone(), source };
        let Some(output) = group.child.stdout.take() else { return Ok(0) };
        let input = group.child.stdin.take();
        let mut complaints = group.child.stderr.take();
        let send = async {
            if let Some(mut input) = input {
                // Who does not read it ends with a code.
                let _ = input.write_all(text.as_bytes()).await;
            }
        };
        let copy = async {
            let mut file = tokio::fs::File::create(into).await.map_err(here)?;
            let mut bounded = output.take(max.saturating_add(1));
            let got = tokio::io::copy(&mut bounded, &mut file).await.map_err(here)?;
            file.flush().await.map_err(here)?;
            if got > max {
                return Err(SessionError::TooMuch { what: what.clone(), max });
            }
            Ok(got)
        };
        let complain = async {
            let mut text = Vec::new();
            if let Some(stream) = &mut complaints {
                // Only the first words are told; the rest is read so that tar never waits.
                let _ = stream.take(64 << 10).read_to_end(&mut text).await;
                let _ = tokio::io::copy(stream, &mut tokio::io::sink()).await;
            }
            String::from_utf8_lossy(&text).trim().to_owned()
        };
        let all = async { tokio::join!(copy, complain, send) };
        let (got, complaint) = match tokio::time::timeout(limit, all).await {
            Ok((got, complaint, ())) => (got?, complaint),
            Err(_) => {
                let source = CallError::TooSlow { program: "tar".to_owned(), limit };
                return Err(SessionError::Call { what, source });
            }
        };
        let status = group.child.wait().await.map_err(here)?;
        match status.code() {
            // 1: some file changed while it was read, which is normal for logs (origin.md 5.3).
            Some(0 | 1) => Ok(got),
            code if self.is_lost(code) => Err(SessionError::Unreachable { what, why: complaint }),
            _ => Err(SessionError::Failed { what, why: complaint }),
        }
    }
}

/// A glob for a shell: nothing in it but the signs of a glob has a meaning.
fn glob(pattern: &str) -> String {
    let mut out = String::new();
    for c in pattern.chars() {
        match c {
            '*' | '?' | '[' | ']' => out.push(c),
            '\'' => out.push_str(r"\'"),
            c if c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-') => out.push(c),
            c => out.push_str(&format!("'{c}'")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_nothing_but_globs() {
        assert_eq!(glob("logs/**/*.txt"), "logs/**/*.txt");
        assert_eq!(glob("a b;$(x)'"), r"a' 'b';''$''('x')'\'");
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
