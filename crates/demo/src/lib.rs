//! SHOWS. What demos have in common: a git host with two developers and a reviewer, two changes and the layout that tests
//! them, processes with logs, telling what the gate does, and how long each stage took.

mod error;
mod gate;
mod git_host;
mod narrator;
mod process;
mod times;
mod watch;

pub use error::{DemoError, Result};
pub use gate::{CHANGES, Change, Gate, LAYOUT};
pub use git_host::{GitHost, PROJECTS, Proposed, SCRIPTS, copy};
pub use narrator::Narrator;
pub use process::Process;
pub use times::Times;
pub use watch::{Watch, progress, run_name, seed_address};
