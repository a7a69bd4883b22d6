//! Fuzz target; see `properties::te_json`.
#![no_main]

#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::te_json(bytes));
