//! The parts of a demo, as processes with logs.

use crate::error::{DemoError, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Lines of a log that are shown when its process has ended by itself.
const TAIL_LINES: usize = 15;
/// How often an ending process is looked at.
const STOP_PERIOD: Duration = Duration::from_millis(50);

/// One process with its log, in a group of its own so that Ctrl-C does not end it before the lease is given back.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; both outputs go to `log`.
    ///
    /// # Errors
    /// It cannot be started at all; what it says later is in its log.
    pub fn start(name: &'static str, mut command: Command, log: PathBuf) -> Result<Process> {
        let failed = |e: std::io::Error| DemoError::failed(format!("start {name}"), &e);
        let file = File::create(&log).map_err(failed)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(failed)?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Process { name, child, log })
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// It is gone: the end of its log.
    pub fn check(&mut self) -> Result<()> {
        let Ok(Some(status)) = self.child.try_wait() else { return Ok(()) };
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
        Err(DemoError::new(
            format!("{} ended by itself ({status}); its log ends with:\n  {tail}", self.name),
            format!("the whole log: {}", self.log.display()),
        ))
    }

    /// Ends it: TERM, after `limit` KILL.
    pub async fn stop(mut self, limit: Duration) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = killpg(group, Signal::SIGTERM);
        }
        let kill_at = Instant::now() + limit;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > kill_at {
                let _ = killpg(group, Signal::SIGKILL);
                let _ = self.child.wait();
                return;
            }
            tokio::time::sleep(STOP_PERIOD).await;
        }
    }
}
