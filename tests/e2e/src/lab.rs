//! A lab: network, mount, process and IPC namespaces of their own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::wait_for;

/// Process 1 of a lab: says its process id as the machine sees it, then waits for the end of its input,
/// which comes when the test drops the lab or dies. The kernel then ends everything in the lab.
const INIT: &str = r#"
read -r pid rest </proc/self/stat
mount --make-rprivate / && mount -t proc proc /proc && ip link set lo up || exit 1
echo "$pid"
exec cat >/dev/null
"#;

/// How long a lab may take to be there, and to be gone.
const LAB_LIMIT: Duration = Duration::from_secs(20);

/// See the crate's description.
#[derive(Debug)]
pub struct Lab {
    folder: TempDir,
    unshare: Child,
    /// Open as long as the lab lives.
    input: Option<ChildStdin>,
    /// Process 1 of the lab, as the machine sees it.
    init: u32,
}

impl Lab {
    /// A new lab with only a loopback interface and an empty folder.
    ///
    /// # Errors
    /// Not root, or `unshare` (package util-linux) or `ip` (package iproute2) is missing.
    pub fn start() -> Result<Lab> {
        let folder = tempfile::Builder::new().prefix("toci-e2e-").tempdir()?;
        let mut unshare = Command::new("unshare")
            .args(["--net", "--pid", "--mount", "--ipc", "--fork", "--kill-child", "--"])
            .args(["sh", "-c", INIT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting unshare (package util-linux)")?;
        let input = unshare.stdin.take();
        let mut line = String::new();
        let output = unshare.stdout.take().context("unshare's output is piped")?;
        BufReader::new(output).read_line(&mut line)?;
        let Ok(init) = line.trim().parse() else {
            let status = unshare.wait()?;
            bail!("no lab: unshare ended with {status}. The end-to-end tests need root");
        };
        Ok(Lab { folder, unshare, input, init })
    }

    /// The lab's folder; it goes with the lab.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args(["--net", "--pid", "--mount", "--ipc", "--"])
            .arg(program)
            .stdin(Stdio::null())
            .env("TOCI_LAB", self.folder());
        command
    }

    /// Runs a command inside to its end and returns its standard output.
    ///
    /// # Errors
    /// It did not end well; its standard error is in the message.
    pub fn read<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: &[S],
    ) -> Result<String> {
        let output = self.command(&program).args(arguments).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}: {said}", program.as_ref().display(), output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a process inside that goes on; what it writes goes to `<name>.out` and `<name>.err` in the lab's folder.
    ///
    /// # Errors
    /// It could not be started.
    pub fn spawn(
        &self,
        name: &str,
        command: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Process> {
        let file = |suffix: &str| self.folder().join(format!("{name}.{suffix}"));
        let (out, err, pid_file) = (file("out"), file("err"), file("pid"));
        // A file left by an earlier process of the same name would be taken for the new one's.
        let _ = fs::remove_file(&pid_file);
        // nsenter stays outside as the parent, so the process itself says its id in the lab.
        let child = self
            .command("sh")
            .args(["-c", r#"echo $$ >"$0.new" && mv "$0.new" "$0" && exec "$@""#])
            .arg(&pid_file)
            .args(command)
            .envs(environment.iter().copied())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()
            .with_context(|| format!("starting {name} in the lab"))?;
        let pid = wait_for(&format!("{name} to start"), LAB_LIMIT, || {
            Ok(fs::read_to_string(&pid_file)?.trim().parse::<u32>()?)
        })?;
        Ok(Process { name: name.to_owned(), child, pid, lab_init: self.init, out, err })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Process 1 reads the end of its input and exits; `wait` returns when all of the lab is gone.
        drop(self.input.take());
        let _ = self.unshare.wait();
    }
}

/// A process in a lab.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// As the lab sees it.
    pid: u32,
    lab_init: u32,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Its process id, as the lab sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal such as `KILL` to the process alone.
    ///
    /// # Errors
    /// It is gone already.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("nsenter")
            .args(["--target", &self.lab_init.to_string(), "--pid", "--mount", "--"])
            .args(["kill", &format!("-{signal}"), &self.pid.to_string()])
            .status()?;
        if !status.success() {
            bail!("kill -{signal} {} ({}): {status}", self.pid, self.name);
        }
        Ok(())
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.signal("KILL")?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs after `limit`; the end of its log is in the message.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let (name, err) = (self.name.clone(), self.err.clone());
        let child = &mut self.child;
        wait_for(&format!("{name} to end"), limit, || match child.try_wait()? {
            Some(status) => Ok(status),
            None => bail!("it runs; its log ends with:\n{}", tail(&err)),
        })
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Waits until it has printed this line.
    ///
    /// # Errors
    /// It did not within [`LINE_LIMIT`]; what it said is in the message.
    pub fn wait_for_line(&self, line: &str) -> Result<()> {
        wait_for(&format!("line `{line}`"), LINE_LIMIT, || {
            let output = self.output();
            ensure!(output.lines().any(|l| l == line), "{output}\n{}", self.log_tail());
            Ok(())
        })
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.err)
    }
}

/// How long a line may take to come: a lease, a machine, or a busy computer may be in between.
const LINE_LIMIT: Duration = Duration::from_secs(60);
/// Lines of a log that go into an error message.
const TAIL_LINES: usize = 25;

fn tail(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
