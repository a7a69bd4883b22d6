//! The process that was started by hand: makes the lab, passes signals on, waits. It holds the lab's life: when it is
//! killed with -9, the kernel kills process 1 of the lab and with it everything inside.

use super::folder::{Folder, Lab, started};
use crate::args::DemoRun;
use crate::beside::find;
use crate::commands::block_on;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::interrupt::Interrupts;
use crate::output;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use toci_client::command::{CommandSpec, Ended, Running, StartCommand};
use tokio::signal::unix::{SignalKind, signal};

/// How long `stop` waits for an orderly end before KILL.
const STOP_LIMIT: Duration = Duration::from_secs(40);
/// How often `stop` looks.
const STOP_PERIOD: Duration = Duration::from_millis(100);

/// What an interrupted preparation has between TERM and KILL.
const GRACE: Duration = Duration::from_secs(5);

/// The first byte of what process 1 says when the lab stays up: the demo's exit code follows.
pub(super) const STAYS: u8 = b'K';

/// `toci demo`.
pub(super) fn run(args: &DemoRun) -> Result<ExitCode> {
    check_root()?;
    let folder = Folder::open(&args.state)?;
    let script = script(args)?;
    for program in ["toci-host", "ip"] {
        find(program)?;
    }
    // Held by this process, and by the lab through inheritance: it is free when both are gone. Dropping it would free
    // it for the lab too, so it goes with the process.
    let lock = ManuallyDrop::new(folder.lock()?);
    keep_across_exec(&lock)?;
    folder.clear()?;
    if args.gerrit {
        let examples = script.parent().and_then(Path::parent).unwrap_or(Path::new("examples"));
        super::gerrit_host::fetch(examples)?;
    }
    let prepared_ms = match block_on(prepare(&folder, &script))? {
        Prepared::In(time) => u64::try_from(time.as_millis()).unwrap_or(0),
        Prepared::Not(code) => return Ok(ExitCode::from(code)),
    };
    let args = &DemoRun { prepared_ms, ..args.clone() };
    let (ours, theirs) = UnixStream::pair().map_err(|e| CliError::failed("make a pipe", &e))?;
    let child = start_lab(&folder, args, &script, theirs)?;
    let init = child.id().cast_signed();
    if let Some(started) = started(init) {
        folder.write_lab(&Lab { init, started })?;
    }
    let code = block_on(wait(child, ours));
    if folder.lab().is_none() {
        folder.forget_lab();
    }
    code
}

fn check_root() -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    Err(CliError::new(
        Exit::NotAllowed,
        "the demo starts virtual machines and a switch, which needs root",
        "run it with sudo, or as root in a container",
    ))
}

/// The deployment: as told, or of the source tree around the current folder or around this program.
fn script(args: &DemoRun) -> Result<PathBuf> {
    const NAME: &str = "examples/devtest/devtest.sh";
    let around_program = std::env::current_exe().ok().and_then(|exe| {
        exe.ancestors().map(|folder| folder.join(NAME)).find(|script| script.is_file())
    });
    let candidate = args.script.clone().unwrap_or_else(|| {
        let here = PathBuf::from(NAME);
        if here.is_file() { here } else { around_program.unwrap_or(here) }
    });
    candidate.canonicalize().map_err(|e| {
        CliError::usage(
            format!("{}: {e}", candidate.display()),
            "run it in the source tree, or name a deployment with --script",
        )
    })
}

/// How the step before the lab went.
enum Prepared {
    In(Duration),
    Not(u8),
}

/// What the deployment wants to be done where there is a network: `devtest_images.sh` beside `devtest.sh`. Its group
/// ends with us.
async fn prepare(folder: &Folder, script: &Path) -> Result<Prepared> {
    let stem = script.file_stem().unwrap_or_default().to_string_lossy();
    let images = script.with_file_name(format!("{stem}_images.sh"));
    if !images.is_file() {
        return Ok(Prepared::In(Duration::ZERO));
    }
    let began = Instant::now();
    output::say(
        "[    0.0 s] images of the deployment, from Debian packages (cached for the next run)",
    );
    let mut interrupts =
        Interrupts::listen().map_err(|e| CliError::failed("listen for signals", &e))?;
    let spec = CommandSpec {
        command: vec![images.into()],
        environment: vec![("TOCI_DEVTEST_CACHE".into(), folder.cache().into())],
    };
    let failed = |e: StartCommand| CliError::new(Exit::Failed, e.to_string(), "");
    let mut running = Running::start(&spec, &[]).map_err(failed)?;
    let ended = loop {
        tokio::select! {
            ended = running.ended() => break ended,
            signal = interrupts.next() => running.signal(signal),
        }
    };
    running.finish(GRACE).await;
    match ended {
        Ended::Code(0) => Ok(Prepared::In(began.elapsed())),
        Ended::Code(_) => Err(CliError::new(
            Exit::Failed,
            "the images of the deployment could not be made",
            "see above; the packages come from the machine's apt sources (apt-get update?)",
        )),
        Ended::Signal(_) => Ok(Prepared::Not(ended.shell_code())),
    }
}

fn keep_across_exec(lock: &File) -> Result<()> {
    fcntl(lock, FcntlArg::F_SETFD(FdFlag::empty()))
        .map(drop)
        .map_err(|e| CliError::failed("keep the lock", &e))
}

fn start_lab(folder: &Folder, args: &DemoRun, script: &Path, pipe: UnixStream) -> Result<Child> {
    let failed = |e: io::Error| {
        CliError::new(
            Exit::Failed,
            format!("make namespaces: {e}"),
            "in a container, it must be allowed to (CAP_SYS_ADMIN)",
        )
    };
    // From now on our children are in a new process namespace; the first of them is its process 1.
    unshare(CloneFlags::CLONE_NEWPID).map_err(|e| failed(e.into()))?;
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["demo", "--stage", "init", "--state"])
        .arg(folder.root())
        .arg("--script")
        .arg(script)
        .args(args.keep.then_some("--keep"))
        .args(args.gerrit.then_some("--gerrit"))
        .arg(format!("--prepared-ms={}", args.prepared_ms))
        .stdin(Stdio::from(OwnedFd::from(pipe)));
    let nothing: Option<&str> = None;
    // SAFETY: system calls only, on values made before; nothing is allocated after the fork.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)?;
            mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
            Ok(())
        });
    }
    command.spawn().map_err(failed)
}

/// Passes signals on until the lab is gone, or is told to stay.
async fn wait(mut child: Child, pipe: UnixStream) -> Result<ExitCode> {
    let failed = |e: io::Error| CliError::failed("wait for the lab", &e);
    let mut interrupts = Interrupts::listen().map_err(failed)?;
    let mut children = signal(SignalKind::child()).map_err(failed)?;
    pipe.set_nonblocking(true).map_err(failed)?;
    let pipe = tokio::net::UnixStream::from_std(pipe).map_err(failed)?;
    let mut pipe_open = true;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            let code = status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(1);
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
        tokio::select! {
            n = interrupts.next() => {
                if let Ok(signal) = Signal::try_from(n) {
                    let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
                }
            }
            _ = children.recv() => {}
            readable = pipe.readable(), if pipe_open => {
                let mut said = [0u8; 2];
                match readable.and_then(|()| pipe.try_read(&mut said)) {
                    Ok(2) if said[0] == STAYS => return Ok(ExitCode::from(said[1])),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(_) | Err(_) => pipe_open = false,
                }
            }
        }
    }
}

fn lab_of(state: &Path) -> Result<(Folder, Lab)> {
    let folder = Folder::open(state)?;
    let lab = folder.lab().ok_or_else(|| {
        CliError::new(
            Exit::Refused,
            format!("no demo is up in {}", folder.root().display()),
            "start one with: toci demo --keep",
        )
    })?;
    Ok((folder, lab))
}

/// `toci demo stop`.
pub(super) fn stop(state: &Path) -> Result<ExitCode> {
    let (folder, lab) = lab_of(state)?;
    let init = Pid::from_raw(lab.init);
    let _ = kill(init, Signal::SIGTERM);
    let limit = Instant::now() + STOP_LIMIT;
    while folder.lab().is_some() {
        if Instant::now() > limit {
            let _ = kill(init, Signal::SIGKILL);
        }
        std::thread::sleep(STOP_PERIOD);
    }
    folder.forget_lab();
    let root = folder.root().display();
    output::say(&format!("The demo in {root} is over; nothing of it runs any more."));
    Ok(Exit::Ok.into())
}

/// `toci demo enter`: becomes the command, inside.
pub(super) fn enter(state: &Path, command: &[OsString]) -> Result<ExitCode> {
    let (folder, lab) = lab_of(state)?;
    let shell = [OsString::from("bash")];
    let command = if command.is_empty() { &shell[..] } else { command };
    let mut path = OsString::new();
    if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        path.push(folder);
        path.push(":");
    }
    let system = OsStr::new("/usr/sbin:/usr/bin:/sbin:/bin");
    path.push(std::env::var_os("PATH").as_deref().unwrap_or(system));
    let mut here = OsString::from("--wdns=");
    here.push(std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")));
    let error = Command::new("nsenter")
        .arg(format!("--target={}", lab.init))
        .args(["--net", "--pid", "--mount", "--ipc"])
        .arg(here)
        .arg("--")
        .args(command)
        .env("PATH", path)
        .env("TOCI_SERVER", format!("unix:{}", folder.socket().display()))
        .env("TOCI_TOKEN_FILE", folder.client_token())
        .exec();
    let hint = "apt-get install util-linux";
    Err(CliError::new(Exit::Failed, format!("run nsenter: {error}"), hint))
}
