//! One task a stage.

pub mod event;
pub mod lease;
pub(crate) mod merge;
pub mod pipeline;
pub(crate) mod report;
