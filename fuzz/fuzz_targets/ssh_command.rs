//! Fuzz target; see `properties::ssh_command`.
#![no_main]

#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::ssh_command(bytes));
