//! One task a stage.

pub mod event;
pub mod lease;
pub mod log;
pub mod node;
pub mod pipeline;
pub(crate) mod report;
pub mod run;

#[cfg(test)]
#[path = "../../tests/common/sshd.rs"]
mod sshd;
