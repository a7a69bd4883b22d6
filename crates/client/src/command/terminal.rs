//! The controlling terminal: lent to the command's group while it runs, so that Ctrl-C and reading from the terminal
//! work as if the command had been started alone.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, stdin, stdout};
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

/// Our controlling terminal, when we may lend it.
#[derive(Debug)]
pub(super) struct Terminal {
    file: File,
}

impl Terminal {
    /// The terminal, when both input and output are terminals and our group is the foreground one. In a pipe
    /// (`toci lease run … | less`) the terminal belongs to the whole pipe and is left alone.
    pub(super) fn in_foreground() -> Option<Terminal> {
        if !(stdin().is_terminal() && stdout().is_terminal()) {
            return None;
        }
        let file = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
        let terminal = Terminal { file };
        terminal.is_ours().then_some(terminal)
    }

    /// Whether our own group is the foreground one.
    pub(super) fn is_ours(&self) -> bool {
        tcgetpgrp(&self.file).is_ok_and(|group| group == getpgrp())
    }

    /// For the child before it becomes the command.
    pub(super) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Gives the terminal to `group`.
    pub(super) fn give_to(&self, group: Pid) {
        let _ = set_foreground(self.raw(), group);
    }

    /// Takes it back, unless somebody else has it by now.
    pub(super) fn take_back_from(&self, group: Pid) {
        if tcgetpgrp(&self.file).is_ok_and(|current| current == group) {
            let _ = set_foreground(self.raw(), getpgrp());
        }
    }
}

/// A background process that sets the foreground group is stopped by SIGTTOU unless it blocks it.
/// Async-signal-safe: used between fork and exec.
pub(super) fn set_foreground(terminal: RawFd, group: Pid) -> nix::Result<()> {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTTOU);
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before))?;
    // SAFETY: the caller keeps the terminal open during the call.
    let result = tcsetpgrp(unsafe { BorrowedFd::borrow_raw(terminal) }, group);
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    result
}
