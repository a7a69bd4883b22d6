//! Process 1 of the lab: mounts what a lab needs, starts the story, passes signals on, collects orphans. Its end is the
//! end of everything in the lab.

use super::folder::Folder;
use super::outside::STAYS;
use crate::args::DemoRun;
use crate::error::{CliError, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

/// From the story: the lab stays up although the one who started it goes; the deployment went well.
pub(super) const STAY_WELL: Signal = Signal::SIGUSR1;
/// As [`STAY_WELL`], but the deployment failed.
pub(super) const STAY_FAILED: Signal = Signal::SIGUSR2;

/// Nodes (the provider `local`) have addresses of the TE host's network: the lab passes packets on and answers for them.
const SYSCTLS: [(&str, &str); 2] =
    [("/proc/sys/net/ipv4/ip_forward", "1"), ("/proc/sys/net/ipv4/conf/all/proxy_arp", "1")];
/// Where jobs find the deployment's images, although they may not look into the demo's own folder.
const IMAGES: &str = "/media/devtest";

/// Makes the images visible to everybody in the lab, read only.
fn show_images(folder: &Folder) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |what: &str| {
        let what = what.to_owned();
        move |e: std::io::Error| CliError::failed(what, &e)
    };
    let nothing: Option<&str> = None;
    let media = "/media";
    mount(Some("tmpfs"), media, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .map_err(|e| failed("mount /media")(e.into()))?;
    std::fs::create_dir(IMAGES).map_err(failed("make the images' folder"))?;
    let cache = folder.cache();
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o755))
        .map_err(failed("open the images' folder"))?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(Some(&cache), IMAGES, nothing, MsFlags::MS_BIND, nothing)
        .and_then(|()| mount(nothing, IMAGES, nothing, read_only, nothing))
        .map_err(|e| failed("show the images to jobs")(e.into()))
}

/// Process 1's whole life.
pub(super) fn run(args: &DemoRun) -> Result<ExitCode> {
    let failed = |e: Errno| CliError::failed("set the lab up", &e);
    let signals = SigSet::from_iter([
        Signal::SIGCHLD,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        STAY_WELL,
        STAY_FAILED,
    ]);
    signals.thread_block().map_err(failed)?;
    let nothing: Option<&str> = None;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), nothing).map_err(failed)?;
    for (setting, value) in SYSCTLS {
        std::fs::write(setting, value)
            .map_err(|e| CliError::failed(format!("write {setting}"), &e))?;
    }
    show_images(&Folder::open(&args.state)?)?;
    let lo = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    lo.map_err(|e| CliError::failed("run ip", &e))?;
    let mut story = Command::new("/proc/self/exe");
    story
        .args(["demo", "--stage", "inside", "--state"])
        .arg(&args.state)
        .arg("--script")
        .args(args.script.as_ref())
        .args(args.keep.then_some("--keep"))
        .args(args.gerrit.then_some("--gerrit"))
        .arg(format!("--prepared-ms={}", args.prepared_ms))
        .stdin(Stdio::null());
    // SAFETY: one system call. What is blocked here would be blocked in everything that is started from there.
    unsafe {
        story.pre_exec(|| Ok(SigSet::all().thread_unblock()?));
    }
    let story = story.spawn().map_err(|e| CliError::failed("start the demo inside the lab", &e))?;
    let story = Pid::from_raw(story.id().cast_signed());
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = collect(story) {
                    return Ok(ExitCode::from(code));
                }
            }
            Ok(STAY_WELL) => stay(args, 0),
            Ok(STAY_FAILED) => stay(args, 1),
            Ok(signal) => {
                let _ = kill(story, signal);
            }
            Err(Errno::EINTR) => {}
            Err(e) => return Err(failed(e)),
        }
    }
}

/// Collects every process that has ended; the code of the story when it has.
fn collect(story: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        let (pid, with) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, with)) => (pid, with),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Err(Errno::EINTR) => continue,
            Ok(_) | Err(_) => return code,
        };
        if pid == story {
            code = Some(u8::try_from(with).unwrap_or(1));
        }
    }
}

/// The one who started us may go now: tells them so, over the socket that is our standard input.
fn stay(args: &DemoRun, code: u8) {
    let _ = set_pdeathsig(None);
    // Without it only the reader of our output would have to wait.
    let _ = Folder::open(&args.state).and_then(|folder| folder.speak_to_log());
    if let Ok(fd) = std::io::stdin().as_fd().try_clone_to_owned() {
        let _ = File::from(fd).write_all(&[STAYS, code]);
    }
}
