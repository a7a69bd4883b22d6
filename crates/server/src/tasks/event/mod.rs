//! The event stage: listens to every source, fetches the changes that an event is about, and hands both to the gate.

mod follow;
mod gather;
mod standing;
mod timer;
mod waiting;

pub(crate) use follow::{follow, follow_merges, named};
pub use gather::{Sources, gather};
pub use standing::{Link, Standing};
pub(crate) use timer::run_timers;
pub(crate) use waiting::follow_waiting;
