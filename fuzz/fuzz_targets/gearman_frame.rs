//! Fuzz target; see `properties::gearman_frame`.
#![no_main]

#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::gearman_frame(bytes));
