//! A tiny process that ends the command's group, and removes the data files, should we be killed with -9.
//!
//! The kernel's parent-death signal reaches only the command itself, not what it started. The guard waits on a pipe
//! that only we hold: a byte means that all went well, the end of the pipe means that we are gone.

use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2, write};
use nix::{fcntl::OFlag, libc};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

/// After TERM the group has this many steps of [`STEP_NANOSECONDS`] before KILL: 5 s.
const STEPS_BEFORE_KILL: u32 = 50;

/// 100 ms.
const STEP_NANOSECONDS: libc::c_long = 100_000_000;

/// The guard of one command.
#[derive(Debug)]
pub(super) struct Guard {
    pid: Pid,
    pipe: OwnedFd,
}

impl Guard {
    /// Starts the guard of process group `group`.
    pub(super) fn start(group: Pid, files: &[CString]) -> io::Result<Guard> {
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: the child makes only async-signal-safe system calls and leaves by `_exit`; it neither allocates
        // nor takes a lock, so it does not matter what other threads were doing.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Guard { pid: child, pipe: write_end }),
            ForkResult::Child => watch(read_end.as_raw_fd(), group, files),
        }
    }

    /// All went well: the guard leaves without touching anything.
    pub(super) fn dismiss(self) {
        let _ = write(&self.pipe, b"k");
        drop(self.pipe);
        let _ = waitpid(self.pid, None);
    }
}

/// The guard's whole life. Only async-signal-safe calls.
fn watch(pipe: RawFd, group: Pid, files: &[CString]) -> ! {
    // SAFETY: plain system calls on plain numbers and on strings made before the fork.
    unsafe {
        // Out of reach of Ctrl-C and of what is sent to our own group; nothing kept open but the pipe.
        libc::setpgid(0, 0);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_IGN);
        }
        libc::dup2(pipe, 0);
        libc::syscall(libc::SYS_close_range, 1u32, u32::MAX, 0u32);
        let mut byte = 0u8;
        loop {
            match libc::read(0, (&raw mut byte).cast(), 1) {
                1 => libc::_exit(0),
                0 => break,
                _ if *libc::__errno_location() == libc::EINTR => {}
                _ => break,
            }
        }
        let group = group.as_raw();
        for file in files {
            libc::unlink(file.as_ptr());
        }
        libc::kill(-group, Signal::SIGTERM as i32);
        libc::kill(-group, Signal::SIGCONT as i32);
        for _ in 0..STEPS_BEFORE_KILL {
            if libc::kill(-group, 0) != 0 {
                libc::_exit(0);
            }
            let step = libc::timespec { tv_sec: 0, tv_nsec: STEP_NANOSECONDS };
            libc::nanosleep(&raw const step, core::ptr::null_mut());
        }
        libc::kill(-group, Signal::SIGKILL as i32);
        libc::_exit(0)
    }
}
