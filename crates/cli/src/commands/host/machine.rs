//! A machine, over OpenSSH: one script of ours, one verb of it at a time.

use super::inventory::Way;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use toci_core::shell::quoted;
use toci_wire::openssh;
use toci_wire::te_host::{Destination, FACTS_MAX_BYTES};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};

/// What runs there.
const SCRIPT: &str = include_str!("remote.sh");
/// OpenSSH's own exit code when it did not come through.
const SSH_FAILED: i32 = 255;
/// So many of the last lines that were said are told when a verb fails.
const LAST_LINES_MAX: usize = 20;

/// What a verb gets on its standard input.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input<'a> {
    Nothing,
    Text(&'a str),
    File(&'a Path),
}

/// What a verb said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) code: i32,
    pub(super) output: String,
    pub(super) complaint: String,
}

impl Said {
    /// The last lines of its complaints.
    pub(super) fn tail(&self) -> String {
        let text = if self.complaint.trim().is_empty() { &self.output } else { &self.complaint };
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LAST_LINES_MAX)..].join("\n  ")
    }
}

/// A machine that can be reached.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) destination: Destination,
    options: Vec<OsString>,
}

impl Machine {
    /// Does not go there yet.
    pub(super) fn new(way: &Way) -> Result<Machine> {
        let nobody = PathBuf::from("/dev/null");
        let mut options = match &way.host_key {
            None => openssh::options(way.key.as_deref(), way.known_hosts.as_deref()),
            Some(key) => {
                let mut options = openssh::options(way.key.as_deref(), Some(&nobody));
                options.push(known_by(&way.destination, key)?.into());
                options
            }
        };
        options.push(format!("-p{}", way.destination.port).into());
        options.push(format!("-l{}", way.destination.user).into());
        Ok(Machine { destination: way.destination.clone(), options })
    }

    /// Runs a verb to its end, whatever that is.
    pub(super) async fn call(
        &self,
        verb: &str,
        arguments: &[&str],
        input: Input<'_>,
        limit: Duration,
    ) -> Result<Said> {
        let words = ["bash", "-c", SCRIPT, "toci-host-deploy", verb];
        let line: Vec<String> = words.iter().chain(arguments).map(|word| quoted(word)).collect();
        let failed = |e: std::io::Error| CliError::failed("run ssh (package openssh-client)", &e);
        let mut child = Command::new("ssh")
            .args(&self.options)
            .arg("--")
            .arg(&self.destination.host)
            .arg(line.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let all = async {
            let (fed, output, complaint) =
                tokio::join!(feed(stdin, input), read(stdout), read(stderr));
            let status = child.wait().await.map_err(failed)?;
            Ok::<_, CliError>((fed, output, complaint, status))
        };
        let Ok(ended) = tokio::time::timeout(limit, all).await else {
            let (place, limit) = (&self.destination, limit.as_secs());
            let what = format!("`{verb}` on {place} did not end within {limit} s");
            return Err(CliError::new(Exit::Failed, what, "look there; it may go on"));
        };
        let (fed, output, complaint, status) = ended?;
        let said = Said { code: status.code().unwrap_or(SSH_FAILED), output, complaint };
        if said.code == SSH_FAILED {
            return Err(self.unreachable(&said));
        }
        // A verb that fails early does not read on; its own words are the better ones.
        if said.code == 0 {
            fed.map_err(|e| CliError::failed(format!("send to {}", self.destination), &e))?;
        }
        Ok(said)
    }

    /// Runs a verb that must end well; its output.
    pub(super) async fn run(
        &self,
        verb: &str,
        arguments: &[&str],
        input: Input<'_>,
        limit: Duration,
    ) -> Result<String> {
        let said = self.call(verb, arguments, input, limit).await?;
        if said.code == 0 {
            return Ok(said.output);
        }
        let place = &self.destination;
        let message = format!("`{verb}` failed on {place}:\n  {}", said.tail());
        Err(CliError::new(
            Exit::Failed,
            message,
            "mend it and try again: what is done is not done twice",
        ))
    }

    fn unreachable(&self, said: &Said) -> CliError {
        let why = match said.complaint.trim() {
            "" => "no answer in time",
            why => why,
        };
        let hint = if why.contains("Host key verification failed") {
            "its host key is not known: --known-hosts FILE, or --host-key with what /etc/ssh/ssh_host_ed25519_key.pub there says"
        } else if why.contains("Permission denied") {
            "the machine does not let this key in: --ssh-key, and its authorized_keys"
        } else {
            "is sshd running there, and is the address right?"
        };
        let place = &self.destination;
        CliError::new(Exit::Unreachable, format!("cannot reach {place} over SSH: {why}"), hint)
    }
}

/// Has OpenSSH believe this key for this machine, and no other.
fn known_by(destination: &Destination, key: &str) -> Result<String> {
    let words: Vec<&str> = key.split_whitespace().collect();
    let is_word = |w: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "+/=-@.".contains(c);
        !w.is_empty() && w.chars().all(fits)
    };
    match words[..] {
        [kind, data, ..] if is_word(kind) && is_word(data) => {
            let name = destination.known_as().replace('%', "%%");
            Ok(format!("-oKnownHostsCommand=/bin/echo {name} {kind} {data}"))
        }
        _ => Err(CliError::usage(
            "--host-key is no host key",
            "it looks like \"ssh-ed25519 AAAA…\", as in /etc/ssh/ssh_host_ed25519_key.pub there",
        )),
    }
}

async fn feed(stdin: Option<ChildStdin>, input: Input<'_>) -> std::io::Result<()> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    match input {
        Input::Nothing => {}
        Input::Text(text) => stdin.write_all(text.as_bytes()).await?,
        Input::File(path) => {
            let mut file = tokio::fs::File::open(path).await?;
            tokio::io::copy(&mut file, &mut stdin).await?;
        }
    }
    stdin.shutdown().await
}

/// Up to the limit; the rest is read and forgotten, so that nothing blocks.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut bytes = Vec::new();
    let limit = u64::try_from(FACTS_MAX_BYTES).unwrap_or(u64::MAX);
    // What was read before the link broke is all there is.
    let _ = (&mut stream).take(limit).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_host_key_is_the_only_one_believed() {
        let way = Way {
            destination: "root@192.0.2.7:2222".parse().unwrap(),
            key: None,
            known_hosts: None,
            host_key: Some("ssh-ed25519 AAAAC3 root@te".into()),
        };
        let machine = Machine::new(&way).unwrap();
        let options: Vec<_> = machine.options.iter().map(|o| o.to_string_lossy()).collect();
        for wanted in [
            "-oKnownHostsCommand=/bin/echo [192.0.2.7]:2222 ssh-ed25519 AAAAC3",
            "-oUserKnownHostsFile=/dev/null",
            "-oGlobalKnownHostsFile=/dev/null",
            "-oStrictHostKeyChecking=yes",
        ] {
            assert!(options.iter().any(|o| o == wanted), "{wanted}: {options:?}");
        }
        for bad in ["", "ssh-ed25519", "ssh-ed25519 $(x)", "a b;c"] {
            let way = Way { host_key: Some(bad.into()), ..way.clone() };
            assert!(Machine::new(&way).is_err(), "{bad}");
        }
    }
}
