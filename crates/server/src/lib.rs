//! DRIVES.

pub mod broker;
pub mod tasks;
