//! What a set-up says while it goes on: on standard error, with its time.

use crate::output::complain;
use std::time::Instant;

/// Tells it.
#[derive(Debug)]
pub(super) struct Story {
    host: String,
    started: Instant,
    last: String,
}

impl Story {
    pub(super) fn new(host: &str) -> Story {
        Story { host: host.to_owned(), started: Instant::now(), last: String::new() }
    }

    /// One line; the same again is not told.
    pub(super) fn tell(&mut self, text: &str) {
        if self.last != text {
            let seconds = self.started.elapsed().as_secs_f64();
            complain(&format!("[{seconds:7.1} s] {}: {text}", self.host));
            text.clone_into(&mut self.last);
        }
    }

    /// Since the begin.
    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
