//! Ways into a sandbox: a new one, and one that runs.

use super::init::{failed, own_program};
use super::outside::SandboxError;
use crate::state::{self, StateDir};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};

/// Where a running sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxHandle {
    /// Its pid 1, as seen from outside.
    pub pid: i32,
    /// When that process started (field 22 of `/proc/PID/stat`): pids are given again.
    pub started: u64,
}

impl SandboxHandle {
    pub(super) fn of(pid: i32) -> Option<SandboxHandle> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let after_name = stat.rsplit_once(')')?.1;
        let started = after_name.split_whitespace().nth(19)?.parse().ok()?;
        Some(SandboxHandle { pid, started })
    }

    fn path(state: &StateDir) -> PathBuf {
        state.root().join("sandbox.json")
    }

    pub(super) fn write(self, state: &StateDir) -> Result<(), SandboxError> {
        let text = serde_json::to_vec(&self).unwrap_or_default();
        Ok(state::write_private(&SandboxHandle::path(state), &text)?)
    }

    pub(super) fn forget(state: &StateDir) {
        let _ = std::fs::remove_file(SandboxHandle::path(state));
    }

    /// The sandbox of this state folder, if it runs.
    pub fn find(state: &StateDir) -> Result<Option<SandboxHandle>, SandboxError> {
        let kept: Option<SandboxHandle> = state::read_json(&SandboxHandle::path(state))?;
        Ok(kept.filter(|h| SandboxHandle::of(h.pid) == Some(*h)))
    }
}

/// Makes the namespaces and starts pid 1 in them; says its pid on standard output. Arguments are
/// those of `sandbox-init`. Must run before this process has a second thread.
pub fn sandbox_enter(arguments: &[String]) -> Result<ExitCode, SandboxError> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("set death signal"))?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC,
    )
    .map_err(failed("make namespaces (root is needed)"))?;
    let mut child = own_program()
        .and_then(|p| Command::new(p).args(arguments).spawn())
        .map_err(|source| SandboxError::Start { program: "toci-host".into(), source })?;
    println!("{}", child.id());
    // The sandbox's own output follows on the same pipe.
    let status = child
        .wait()
        .map_err(|source| SandboxError::Step { doing: "wait for the sandbox", source })?;
    Ok(exit_code(status))
}

/// Runs a command in a running sandbox. Must run before this process has a second thread.
pub fn enter_and_run(
    sandbox: SandboxHandle,
    command: &mut Command,
) -> Result<ExitCode, SandboxError> {
    // All are opened first: after the mount namespace is changed, /proc is another.
    let mut files = Vec::new();
    for (name, kind) in [
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("net", CloneFlags::CLONE_NEWNET),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ] {
        let file = std::fs::File::open(format!("/proc/{}/ns/{name}", sandbox.pid))
            .map_err(|source| SandboxError::Step { doing: "open a namespace", source })?;
        files.push((file, kind));
    }
    for (file, kind) in &files {
        setns(file, *kind).map_err(failed("enter a namespace (root is needed)"))?;
    }
    let status = command.status().map_err(|source| SandboxError::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    Ok(exit_code(status))
}

pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    let signal = status.signal().map(|s| 128 + s);
    ExitCode::from(status.code().or(signal).and_then(|c| u8::try_from(c).ok()).unwrap_or(255))
}
