//! The pipeline stage: one task owns the [`Gate`]. Everybody else sends it inputs, which are on disk before they are
//! answered, and follows what is wanted.
//!
//! [`Gate`]: toci_core::pipeline::Gate

mod handle;
pub(crate) mod merge;
mod run;

pub use handle::{Cursor, GateError, GateHandle, News};
