//! One task a stage.

pub mod lease;
pub mod log;
