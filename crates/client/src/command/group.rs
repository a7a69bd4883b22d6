//! A command in its own process group.
//!
//! ```text
//! start ─▶ running ─▶ leader ended (not yet collected: its group number cannot be given to anybody else)
//!                          └─ rest of the group ended, TERM then KILL ─▶ collected
//! ```

use super::datafile::DataFile;
use super::guard::Guard;
use super::members::others_live;
use super::terminal::{Terminal, set_foreground};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpid, getppid};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// How often the rest of a group is looked at while it is being ended.
const REST_PERIOD: Duration = Duration::from_millis(50);

/// What to run.
#[derive(Clone, Debug)]
pub struct CommandSpec {
    /// Program, looked up in PATH, and its arguments. Never empty.
    pub command: Vec<OsString>,
    /// Added to our own environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// The command did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartCommand {
    /// No such program.
    #[error("{program}: command not found")]
    NotFound {
        /// As given.
        program: String,
    },
    /// The program is there but cannot be run.
    #[error("cannot run {program}: {source}")]
    CannotRun {
        /// As given.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// As a shell tells it: the code, or 128 + the signal.
    #[must_use]
    pub fn shell_code(self) -> u8 {
        match self {
            Ended::Code(code) => u8::try_from(code & 0xff).unwrap_or(1),
            Ended::Signal(signal) => u8::try_from(128 + signal).unwrap_or(255),
        }
    }
}

/// A running command. When this value goes, the whole group is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    group: Pid,
    guard: Option<Guard>,
    terminal: Option<Terminal>,
    child_changed: SignalStream,
    continued: SignalStream,
    ended: Option<Ended>,
}

impl Running {
    /// Starts the command. `files` are removed should we be killed. Must be called on a thread that lives as long
    /// as the command (the main thread): the kernel ends the command when that thread ends. Needs a tokio runtime.
    ///
    /// # Errors
    /// The command was not found or could not be run.
    pub fn start(spec: &CommandSpec, files: &[DataFile]) -> Result<Running, StartCommand> {
        let program = spec.command.first().cloned().unwrap_or_default();
        let failed = |source: io::Error| {
            let program = program.to_string_lossy().into_owned();
            if source.kind() == io::ErrorKind::NotFound {
                StartCommand::NotFound { program }
            } else {
                StartCommand::CannotRun { program, source }
            }
        };
        // Before the start, so that no change is missed.
        let child_changed = signal(SignalKind::child()).map_err(failed)?;
        let continued = signal(SignalKind::from_raw(Signal::SIGCONT as i32)).map_err(failed)?;
        let terminal = Terminal::in_foreground();
        let terminal_fd = terminal.as_ref().map(Terminal::raw);
        let parent = getpid();
        let mut command = Command::new(&program);
        command.args(&spec.command[1..]).envs(spec.environment.iter().map(|(k, v)| (k, v)));
        command.process_group(0);
        // SAFETY: only system calls between fork and exec, no allocation.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                if getppid() != parent {
                    return Err(io::Error::from(Errno::ESRCH));
                }
                if let Some(fd) = terminal_fd {
                    let _ = set_foreground(fd, getpid());
                }
                Ok(())
            });
        }
        let child = command.spawn().map_err(|e| {
            if let Some(t) = &terminal {
                // The child may have had the terminal before exec failed; its group is empty now.
                t.give_to(nix::unistd::getpgrp());
            }
            failed(e)
        })?;
        let group = Pid::from_raw(child.id().cast_signed());
        let paths: Vec<_> = files.iter().filter_map(DataFile::c_path).collect();
        let guard = Guard::start(group, &paths)
            .inspect_err(|e| tracing::warn!(error = %e, "no guard: the command outlives kill -9"))
            .ok();
        Ok(Running { child, group, guard, terminal, child_changed, continued, ended: None })
    }

    /// The process group, which is also the process id of the command.
    #[must_use]
    pub fn group(&self) -> i32 {
        self.group.as_raw()
    }

    /// Sends a signal to every process of the group, and to nothing else.
    pub fn signal(&self, signal: i32) {
        if let Ok(signal) = Signal::try_from(signal) {
            // The leader is not collected before this value goes, so the group is still ours.
            let _ = killpg(self.group, signal);
        }
    }

    /// Ends a stopped or running group politely: TERM, and CONT so that a stopped process hears it.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM as i32);
        self.signal(Signal::SIGCONT as i32);
    }

    /// Ends the group at once.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL as i32);
    }

    /// Waits until the command itself has ended. May be called again; safe to cancel.
    pub async fn ended(&mut self) -> Ended {
        loop {
            if let Some(ended) = self.poll_ended() {
                return ended;
            }
            self.look_after_stops();
            tokio::select! {
                _ = self.child_changed.recv() => {}
                _ = self.continued.recv() => self.resume(),
            }
        }
    }

    fn poll_ended(&mut self) -> Option<Ended> {
        if self.ended.is_none() {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            self.ended = match waitid(Id::Pid(self.group), flags) {
                Ok(WaitStatus::Exited(_, code)) => Some(Ended::Code(code)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(Ended::Signal(signal as i32)),
                Ok(_) | Err(Errno::EINTR) => None,
                Err(_) => Some(Ended::Code(1)),
            };
            if self.ended.is_some()
                && let Some(t) = &self.terminal
            {
                t.take_back_from(self.group);
            }
        }
        self.ended
    }

    /// A lease cannot be suspended (its heartbeats would stop), so a command stopped by Ctrl-Z goes on at once.
    fn look_after_stops(&self) {
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
        if let Ok(WaitStatus::Stopped(_, Signal::SIGTSTP)) = waitid(Id::Pid(self.group), flags) {
            tracing::warn!("a lease cannot be suspended: the command goes on");
            let _ = killpg(self.group, Signal::SIGCONT);
        }
    }

    /// We were put into the foreground (`fg`): so is the command, which may have stopped for want of the terminal.
    fn resume(&mut self) {
        if self.terminal.is_none() {
            self.terminal = Terminal::in_foreground();
        }
        if let Some(t) = self.terminal.as_ref().filter(|t| t.is_ours()) {
            t.give_to(self.group);
        }
        let _ = killpg(self.group, Signal::SIGCONT);
    }

    /// After the command itself has ended: ends what it left behind in its group, TERM and after `grace` KILL,
    /// collects it and returns how the command ended.
    pub async fn finish(mut self, grace: Duration) -> Ended {
        let ended = self.ended().await;
        if others_live(self.group, self.group) {
            tracing::info!(group = self.group.as_raw(), "ending what the command left behind");
            self.terminate();
            let kill_at = Instant::now() + grace;
            while others_live(self.group, self.group) && Instant::now() < kill_at {
                tokio::time::sleep(REST_PERIOD).await;
            }
        }
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(self.group, Signal::SIGKILL);
        if let Some(t) = &self.terminal {
            t.take_back_from(self.group);
        }
        // Before the group's number is free again.
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> CommandSpec {
        CommandSpec {
            command: ["bash", "-c", script].map(OsString::from).to_vec(),
            environment: vec![("TE_DATAFILE".into(), "/x".into())],
        }
    }

    async fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let limit = Instant::now() + LIMIT;
        while !condition() {
            assert!(Instant::now() < limit, "gave up waiting for: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn alive(pid: i32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|s| !s.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
    }

    async fn pid_in(path: &Path) -> i32 {
        let mut pid = None;
        until("a pid in a file", || {
            pid = std::fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok());
            pid.is_some()
        })
        .await;
        pid.unwrap()
    }

    #[tokio::test]
    async fn code_signal_and_environment_come_through() {
        let run = |script: &str| Running::start(&shell(script), &[]).unwrap().finish(LIMIT);
        assert_eq!(run("exit 7").await, Ended::Code(7));
        assert_eq!(run("[ $TE_DATAFILE = /x ]").await, Ended::Code(0));
        assert_eq!(run("kill -TERM $$").await, Ended::Signal(15));
        assert_eq!(Ended::Signal(15).shell_code(), 143);
        assert_eq!(Ended::Code(300).shell_code(), 44);
    }

    #[tokio::test]
    async fn the_group_is_its_own_and_signals_reach_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let script = format!("sleep 600 & echo $! >{}; wait", inner.display());
        let mut running = Running::start(&shell(&script), &[]).unwrap();
        assert_ne!(running.group(), nix::unistd::getpgrp().as_raw());
        let pid = pid_in(&inner).await;
        running.terminate();
        assert_eq!(running.ended().await, Ended::Signal(15));
        until("the inner process to end", || !alive(pid)).await;
        running.finish(LIMIT).await;
    }

    #[tokio::test]
    async fn what_is_left_in_the_group_ends_even_when_it_ignores_term() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let script = format!(
            "(trap '' TERM; echo $BASHPID >{0}.new; mv {0}.new {0}; exec sleep 600) & \
             until [ -e {0} ]; do sleep 0.01; done; exit 3",
            inner.display()
        );
        let running = Running::start(&shell(&script), &[]).unwrap();
        let pid = pid_in(&inner).await;
        assert_eq!(running.finish(Duration::from_millis(200)).await, Ended::Code(3));
        until("the stubborn process to end", || !alive(pid)).await;
    }

    #[tokio::test]
    async fn what_cannot_start_says_so() {
        let spec =
            |program: &str| CommandSpec { command: vec![program.into()], environment: vec![] };
        let error = Running::start(&spec("/no/such/program"), &[]).unwrap_err();
        assert!(matches!(error, StartCommand::NotFound { .. }), "{error}");
        let error = Running::start(&spec("/etc/passwd"), &[]).unwrap_err();
        assert!(matches!(error, StartCommand::CannotRun { .. }), "{error}");
    }
}
