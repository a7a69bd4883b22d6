//! Fuzz target; see `properties::own_layout`.
#![no_main]

#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::own_layout(bytes));
