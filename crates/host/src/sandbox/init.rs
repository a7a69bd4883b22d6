//! Pid 1 of a sandbox.

use super::daemons::{Daemon, daemons, lay_out};
use super::outside::SandboxError;
use crate::config::{Config, HIDDEN_IN_SANDBOX};
use crate::state::StateDir;
use crate::successor::EXIT_HAND_OVER;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use toci_core::chain::Chain;

/// Pause before a daemon is started again; doubled at each quick death.
const RESTART_FIRST: Duration = Duration::from_millis(200);
const RESTART_LAST: Duration = Duration::from_secs(5);
/// Attempts to start one again before the sandbox is given up, and all machines with it: there may be
/// no memory or no process left for a moment.
const RESTART_ATTEMPTS: u32 = 20;
/// A daemon that lived this long is started again after the first pause.
const LIVED_LONG: Duration = Duration::from_secs(10);

/// What the kernel appends to the name of a program whose file is gone.
const GONE: &[u8] = b" (deleted)";

/// What a sandbox is for.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Arguments for this program inside.
    pub arguments: Vec<String>,
    /// Start it again when it crashes; otherwise its end is the sandbox's.
    pub restart: bool,
    /// What is started, when it is there: a link to the program of the version that is installed. Otherwise, and when it
    /// cannot be started, this program.
    pub program: Option<PathBuf>,
}

/// Exit code of the payload that is not a crash: refused, trying again would not help.
pub const EXIT_REFUSED: u8 = 2;

struct Running {
    daemon: Option<Daemon>,
    pid: Pid,
    started: Instant,
    pause: Duration,
}

/// Lays out the sandbox, starts what runs in it, and keeps it running until the payload ends.
pub fn sandbox_init(config: &Config, payload: &Payload) -> Result<ExitCode, SandboxError> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("set death signal"))?;
    let mut signals = SigSet::empty();
    for s in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR2] {
        signals.add(s);
    }
    let state = StateDir::open(&config.state)?;
    mounts(&state)?;
    lay_out().map_err(|e| SandboxError::Step { doing: "lay out the sandbox", source: e })?;
    // The veth comes from outside; nothing may start before it is there.
    let mut go = [0];
    let read = std::io::stdin().read(&mut go);
    if read.unwrap_or(0) == 0 {
        return Err(SandboxError::Abandoned);
    }
    once("ip", &["link", "set", "dev", "lo", "up"])?;
    let schema = "/usr/share/openvswitch/vswitch.ovsschema";
    once("ovsdb-tool", &["create", "/run/openvswitch/conf.db", schema])?;
    let start = |daemon| start(daemon, payload, &state, RESTART_FIRST, &signals);
    let mut running = Vec::new();
    for daemon in daemons(&state.log()) {
        let is_database = daemon.name == "ovsdb-server";
        running.push(start(Some(daemon))?);
        if is_database {
            once("ovs-vsctl", &["--no-wait", "--retry", "--timeout=20", "init"])?;
        }
    }
    running.push(start(None)?);
    supervise(&signals, running, payload, &state)
}

fn supervise(
    signals: &SigSet,
    mut running: Vec<Running>,
    payload: &Payload,
    state: &StateDir,
) -> Result<ExitCode, SandboxError> {
    // Machines may run, and leases: from now on no end of the payload is the sandbox's.
    let mut settled = false;
    let mut told = None;
    loop {
        while let Some((pid, code)) = reap()? {
            // Orphans of the daemons come here too; they are only reaped.
            let Some(i) = running.iter().position(|r| r.pid == pid) else { continue };
            let mut dead = running.swap_remove(i);
            if dead.daemon.is_none() {
                settled |= code == EXIT_HAND_OVER || dead.started.elapsed() > LIVED_LONG;
                let crash = code != 0 && code != EXIT_REFUSED;
                if !(payload.restart && (crash || settled)) {
                    return Ok(ExitCode::from(code));
                }
                if code == EXIT_HAND_OVER {
                    dead.pause = RESTART_FIRST;
                }
            }
            running.push(start_again(dead, payload, state, signals)?);
        }
        match signals.wait().map_err(failed("wait for signals"))? {
            Signal::SIGTERM | Signal::SIGINT => return Ok(ExitCode::SUCCESS),
            Signal::SIGUSR2 => told = make_way(&running, told),
            _ => {}
        }
    }
}

/// Has the payload make way for the program that is installed now; one that was told so before and is still there is
/// ended. The one that was told.
fn make_way(running: &[Running], told: Option<Pid>) -> Option<Pid> {
    let pid = running.iter().find(|r| r.daemon.is_none())?.pid;
    let (signal, what) = if told == Some(pid) {
        (Signal::SIGKILL, "is ended, as it did not make way")
    } else {
        (Signal::SIGUSR2, "is asked to make way")
    };
    eprintln!("toci-host: agent {pid} {what}");
    // It may have ended in this moment.
    let _ = kill(pid, signal);
    Some(pid)
}

fn start_again(
    dead: Running,
    payload: &Payload,
    state: &StateDir,
    signals: &SigSet,
) -> Result<Running, SandboxError> {
    let lived_long = dead.started.elapsed() > LIVED_LONG;
    let mut pause = if lived_long { RESTART_FIRST } else { dead.pause };
    for _ in 1..RESTART_ATTEMPTS {
        std::thread::sleep(pause);
        pause = (pause * 2).min(RESTART_LAST);
        match start(dead.daemon.clone(), payload, state, pause, signals) {
            Ok(running) => return Ok(running),
            Err(e) => eprintln!("toci-host: {}", Chain(&e)),
        }
    }
    start(dead.daemon, payload, state, pause, signals)
}

/// A dead child: its pid and exit code (a signal counts as 128 + its number).
fn reap() -> Result<Option<(Pid, u8)>, SandboxError> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(pid, code)) => Ok(Some((pid, u8::try_from(code).unwrap_or(255)))),
        Ok(WaitStatus::Signaled(pid, signal, _)) => {
            Ok(Some((pid, 128u8.saturating_add(u8::try_from(signal as i32).unwrap_or(0)))))
        }
        Ok(_) | Err(Errno::ECHILD) => Ok(None),
        Err(e) => Err(failed("wait for children")(e)),
    }
}

fn start(
    daemon: Option<Daemon>,
    payload: &Payload,
    state: &StateDir,
    pause: Duration,
    signals: &SigSet,
) -> Result<Running, SandboxError> {
    let name = daemon.as_ref().map_or("toci-host", |d| d.name);
    // Children inherit the signal mask. Pid 1 ignores what is not handled, so nothing is lost but
    // a SIGCHLD, and dead children are looked for before every wait.
    signals.thread_unblock().map_err(failed("unblock signals"))?;
    let child = match &daemon {
        Some(d) => d.command(&state.log()).and_then(|mut c| c.spawn()),
        None => spawn_payload(payload),
    };
    signals.thread_block().map_err(failed("block signals"))?;
    let child = child.map_err(|source| SandboxError::Start { program: name.to_owned(), source })?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(-1));
    Ok(Running { daemon, pid, started: Instant::now(), pause })
}

/// Starts the program that is installed now. When it cannot be started at all, this one: machines run, and are looked
/// after by one or the other.
fn spawn_payload(payload: &Payload) -> std::io::Result<Child> {
    let spawn = |program: &Path| {
        Command::new(program).args(&payload.arguments).stdin(Stdio::null()).spawn()
    };
    if let Some(program) = &payload.program {
        match spawn(program) {
            Ok(child) => return Ok(child),
            Err(e) => eprintln!("toci-host: {} cannot be started: {e}", program.display()),
        }
    }
    spawn(&own_program()?)
}

/// This program, wherever it was started from. When its file was exchanged meanwhile, as an upgrade
/// does, the new one; when it is gone, the one that runs.
pub(crate) fn own_program() -> std::io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.as_os_str().as_bytes();
    let exchanged = text.strip_suffix(GONE).map(|p| PathBuf::from(OsStr::from_bytes(p)));
    let there = [Some(path.clone()), exchanged].into_iter().flatten().find(|p| p.exists());
    Ok(there.unwrap_or_else(|| PathBuf::from("/proc/self/exe")))
}

fn once(program: &str, arguments: &[&str]) -> Result<(), SandboxError> {
    let out = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SandboxError::Start { program: program.to_owned(), source })?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(SandboxError::Program { program: program.to_owned(), said })
}

fn mounts(state: &StateDir) -> Result<(), SandboxError> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(failed("make mounts private"))?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)
        .map_err(failed("mount /proc"))?;
    // A /sys of this network namespace, without cgroups: libvirt does without them, and leaves
    // none behind in a tree that is not namespaced.
    for below in mounted_below("/sys") {
        let _ = umount2(&below, MntFlags::MNT_DETACH);
    }
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)
        .map_err(failed("mount /sys"))?;
    for folder in HIDDEN_IN_SANDBOX.iter().filter(|f| **f != "/sys") {
        std::fs::create_dir_all(folder)
            .map_err(|source| SandboxError::Step { doing: "make a mount point", source })?;
        mount(Some("tmpfs"), *folder, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .map_err(failed("mount a tmpfs"))?;
    }
    // QEMU's capabilities take libvirt seconds to find out; they are kept for the next sandbox.
    let kept = state.root().join("libvirt-cache");
    mount(Some(&kept), "/var/cache/libvirt", none, MsFlags::MS_BIND, none)
        .map_err(failed("bind /var/cache/libvirt"))
}

/// Mount points at or below a folder, innermost first.
fn mounted_below(folder: &str) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|l| l.split_whitespace().nth(1)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|p| p.starts_with(Path::new(folder))).collect();
    below.reverse();
    below
}

pub(super) fn failed(doing: &'static str) -> impl FnOnce(Errno) -> SandboxError {
    move |e| SandboxError::Step { doing, source: e.into() }
}
