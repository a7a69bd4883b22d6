//! The agent: everything in place, TEs served, the server told.

mod credential;
mod keeper;
mod link;
mod operations;
mod reporter;
mod run;
mod standalone;
mod well;

pub use credential::{CredentialError, client, enrol, enrol_with};
pub use run::{AgentError, Ended, run_agent};
