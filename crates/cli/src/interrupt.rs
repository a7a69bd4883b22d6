//! SIGINT, SIGTERM and SIGHUP as values.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask us to end.
#[derive(Debug)]
pub struct Interrupts {
    int: Signal,
    term: Signal,
    hup: Signal,
}

impl Interrupts {
    /// From now on these signals no longer end the process.
    ///
    /// # Errors
    /// The process has no free file descriptors.
    pub fn listen() -> io::Result<Interrupts> {
        Ok(Interrupts {
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// The number of the next one. Safe to cancel.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.int.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.term.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.hup.recv() => SignalKind::hangup().as_raw_value(),
        }
    }
}
