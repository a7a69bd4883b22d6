//! Runs on real sandboxes with real git; the gate, the archive and the TE host are played. Needs root.

mod collecting;
#[path = "../../../../tests/common/git.rs"]
mod git;
mod held;
mod infrastructure;
#[path = "../../../../tests/common/job.rs"]
mod job;
mod limits;
mod machines;
mod scripts;
mod testenvs;
mod world;
