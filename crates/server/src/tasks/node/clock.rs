//! The pool's time: the wall clock at the start, then a monotonic one.

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use toci_core::time::Time;

/// A clock that never goes back.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    base: Time,
    started: Instant,
}

impl Clock {
    /// Not before `least`, which is on disk.
    pub(super) fn start(least: Time) -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { base: Time(0).after(wall).max(least), started: Instant::now() }
    }

    pub(super) fn now(&self) -> Time {
        self.base.after(self.started.elapsed())
    }
}
