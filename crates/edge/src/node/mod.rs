//! Nodes: machines that jobs run on, and how commands get there.
//!
//! A [`Session`] is all that a run knows of its node. Where nodes come from is the providers' business: [`local`] makes
//! sandboxes on this machine.

pub mod bounds;
pub mod console;
pub mod local;
mod session;
mod sweep;
pub mod unpack;

pub use session::{SMALL_LIMIT, Session, SessionError, Step};
