//! `toci lease run`: wait for a TE, run a command with it, give it back. See `machine` for what happens when.

mod driver;
mod follow;
mod machine;
mod progress;

pub use driver::run;
