//! The event stage: listens to every source, fetches the changes that an event is about, and hands both to the gate.

mod follow;
mod gather;
mod standing;
mod timer;

pub(crate) use follow::{follow, follow_merges, named};
pub use gather::{Sources, gather};
pub use standing::{Link, Standing};
pub(crate) use timer::run_timers;

use std::time::{SystemTime, UNIX_EPOCH};
use toci_core::time::Time;

/// By the wall.
pub(crate) fn now() -> Time {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    Time(0).after(wall.unwrap_or_default())
}
