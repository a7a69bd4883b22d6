//! The gateway against OpenSSH's own client, on loopback.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod commands;
mod copyseed;
mod fake;
mod fencing;
mod full_disk;
mod virsh;
mod world;
