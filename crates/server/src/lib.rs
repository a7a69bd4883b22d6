//! DRIVES.

pub mod broker;
