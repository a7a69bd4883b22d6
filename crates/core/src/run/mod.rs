//! Runs: one attempt of a job on a node, from the wish to the result.
//!
//! * [`variables`] is the environment that the origin's jobs expect (origin.md 7.6, 6.2).
//! * [`workspace`] says which revision each repository is put at (devstack-gate's rules, origin.md 6.3).
//! * [`steps`] is the order of a run and its time limits.
//! * [`trust`] says who may have secrets.
//! * [`record`] is what is remembered of a run.
//! * [`trouble`] and [`streak`] count failures over many runs: what is told to people, and what pauses a job.

pub mod record;
pub mod steps;
pub mod streak;
pub mod trouble;
pub mod trust;
pub mod variables;
pub mod workspace;
