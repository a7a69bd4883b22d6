//! One task a stage.

pub mod lease;
