//! The part of a sandbox that stays outside: starts it, links it to this namespace, waits.

use super::enter::{SandboxHandle, exit_code};
use super::init::{Payload, failed, own_program};
use crate::config::Config;
use crate::names;
use crate::netdev::deafen;
use crate::plan::SANDBOX_UPLINK;
use crate::state::{StateDir, StateError};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// Why a sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The system said no.
    #[error("{doing}")]
    Step {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program could not be run.
    #[error("run {program} (is its package installed?)")]
    Start {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program said no.
    #[error("{program}: {said}")]
    Program {
        /// Which.
        program: String,
        /// Its standard error.
        said: String,
    },
    /// The state folder.
    #[error("state")]
    State(#[from] StateError),
    /// There is one for this state folder.
    #[error("a toci-host runs already on {0}; stop it first, or use another `state`")]
    Running(String),
    /// Whoever started it went away before it was ready.
    #[error("the starting process went away")]
    Abandoned,
}

/// Longest wait for the Open vSwitch of the namespace that started the sandbox.
const OVS_LIMIT: Duration = Duration::from_secs(20);

/// Keeps a second toci-host away from the same state; released when dropped or at any death.
#[derive(Debug)]
pub struct StateLock(#[expect(dead_code, reason = "held for its lock")] std::fs::File);

impl StateLock {
    /// Takes the lock or refuses.
    pub fn take(state: &StateDir) -> Result<StateLock, SandboxError> {
        let file = std::fs::File::create(state.root().join("lock"))
            .map_err(|source| SandboxError::Step { doing: "open the lock", source })?;
        match file.try_lock() {
            Ok(()) => Ok(StateLock(file)),
            Err(_) => Err(SandboxError::Running(state.root().display().to_string())),
        }
    }
}

/// Name of the veth end outside: differs for hosts that are started from the same namespace.
#[must_use]
pub fn outside_device(config: &Config) -> String {
    format!("toci{}", &names::fingerprint(&config.state.display().to_string())[..8])
}

/// Starts a sandbox for `payload` and waits until it ends. SIGINT and SIGTERM end it; SIGUSR2 has the agent in it make
/// way for the program that is installed now.
/// Must run before this process has a second thread.
pub fn run_sandbox(
    config: &Config,
    config_path: &Path,
    payload: &Payload,
) -> Result<ExitCode, SandboxError> {
    let state = StateDir::open(&config.state)?;
    let _lock = StateLock::take(&state)?;
    let mut child = spawn(config_path, payload)?;
    // Not before the start: the signal mask is inherited.
    let mut signals = SigSet::empty();
    for s in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2] {
        signals.add(s);
    }
    signals.thread_block().map_err(failed("block signals"))?;
    let mut out = BufReader::new(child.stdout.take().ok_or(SandboxError::Abandoned)?);
    let mut line = String::new();
    let (Ok(_), Ok(pid)) = (out.read_line(&mut line), line.trim().parse()) else {
        // It has said why on standard error.
        return wait(&mut child);
    };
    // What the payload prints goes on; ends with the last process inside.
    let output = std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::stdout()));
    let ended = start_and_wait(config, &state, &mut child, pid, &signals);
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    let _ = child.wait();
    let _ = output.join();
    forget(config, &state);
    ended
}

/// Links the sandbox, lets it go, and waits for its end or for a signal to end it: the end of its
/// pid 1 is the end of everything in it.
fn start_and_wait(
    config: &Config,
    state: &StateDir,
    child: &mut Child,
    pid: i32,
    signals: &SigSet,
) -> Result<ExitCode, SandboxError> {
    link(config, pid)?;
    if let Some(handle) = SandboxHandle::of(pid) {
        handle.write(state)?;
    }
    if let Some(mut go) = child.stdin.take() {
        let _ = go.write_all(b"g");
    }
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Ok(exit_code(status));
        }
        match signals.wait().map_err(failed("wait for signals"))? {
            Signal::SIGCHLD => {}
            Signal::SIGUSR2 => {
                // It may have ended in this moment.
                let _ = kill(Pid::from_raw(pid), Signal::SIGUSR2);
            }
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// The kernel takes the veth away with the namespace, but in its own time.
fn forget(config: &Config, state: &StateDir) {
    SandboxHandle::forget(state);
    unlink(config);
}

/// Takes away what is left of the veth.
fn unlink(config: &Config) {
    let device = outside_device(config);
    if config.sandbox.outside_bridge.is_some() {
        let _ = ovs_vsctl(&["--if-exists", "del-port", &device]);
    }
    if config.sandbox.is_linked() {
        let _ = tool("ip", &["link", "delete", "dev", &device]);
    }
}

fn spawn(config_path: &Path, payload: &Payload) -> Result<Child, SandboxError> {
    let restart = if payload.restart { "restart" } else { "once" };
    own_program()
        .and_then(|program| {
            Command::new(program)
                .arg("sandbox-enter")
                .arg("--config")
                .arg(config_path)
                .args(payload.program.iter().flat_map(|p| ["--program".as_ref(), p.as_os_str()]))
                .arg(restart)
                .arg("--")
                .args(&payload.arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        })
        .map_err(|source| SandboxError::Start { program: "toci-host".into(), source })
}

fn wait(child: &mut Child) -> Result<ExitCode, SandboxError> {
    let status = child
        .wait()
        .map_err(|source| SandboxError::Step { doing: "wait for the sandbox", source })?;
    Ok(exit_code(status))
}

/// Makes the veth between this namespace and the sandbox.
fn link(config: &Config, pid: i32) -> Result<(), SandboxError> {
    if !config.sandbox.is_linked() {
        return Ok(());
    }
    let (device, pid) = (outside_device(config), pid.to_string());
    let ip = |arguments: &[&str]| tool("ip", arguments);
    // One that is left from a sandbox whose namespace is still going away, or that was killed.
    unlink(config);
    ip(&[
        "link",
        "add",
        "name",
        &device,
        "type",
        "veth",
        "peer",
        "name",
        SANDBOX_UPLINK,
        "netns",
        &pid,
    ])?;
    // Open vSwitch's userspace datapath takes frames as they are, without checksums still to do.
    tool("ethtool", &["-K", &device, "tx", "off"])?;
    if let Some(address) = config.sandbox.outside_address {
        ip(&["address", "add", &address.to_string(), "dev", &device])?;
    }
    if let Some(bridge) = &config.sandbox.outside_bridge {
        deafen(&device);
        ovs_vsctl(&["add-port", bridge, &device])?;
    }
    ip(&["link", "set", "dev", &device, "up"])
}

fn ovs_vsctl(arguments: &[&str]) -> Result<(), SandboxError> {
    let limit = format!("--timeout={}", OVS_LIMIT.as_secs());
    let all: Vec<&str> = std::iter::once(limit.as_str()).chain(arguments.iter().copied()).collect();
    tool("ovs-vsctl", &all)
}

fn tool(program: &str, arguments: &[&str]) -> Result<(), SandboxError> {
    let out = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SandboxError::Start { program: program.to_owned(), source })?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(SandboxError::Program { program: format!("{program} {}", arguments.join(" ")), said })
}
