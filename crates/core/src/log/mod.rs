//! Logs: what is collected of a run, where it lies in the archive, what it says first, and when it goes.
//!
//! * [`path`] is the place of a run in the archive (origin.md 9.4).
//! * [`collect`] says what is taken from the machines of a run.
//! * [`arrange`] says what of a run's folder goes where, and what is left out.
//! * [`scrub`] takes secrets out of texts.
//! * [`retention`] says when logs go.
//! * [`first_error`] finds the line of a console that says why a run failed.

pub mod arrange;
pub mod collect;
pub mod first_error;
pub mod path;
pub mod retention;
pub mod scrub;

pub use first_error::{Finder, FirstError};
pub use path::{LogPath, NotALogPath};
