//! The gateway: an SSH server on the TE host's address that takes the current generation's key of each
//! TE and the restricted commands of the origin (origin.md 2.3), each limited to that TE's machines.
//!
//! Architecture invariant: nothing here starts a shell, and no text of a client reaches a program's
//! argument list. `wire::ssh_command` turns a command line into a value; `command` executes values.
//!
//! `server` accepts; a connection has a supervisor (`server`), a handler (`session`) and one task a
//! command (`command`, `copyseed`). `doors` knows which key opens which TE and who is inside.

mod command;
mod copyseed;
mod cut_stream;
mod doors;
mod key;
pub mod limits;
mod machines;
mod server;
mod session;

pub use doors::{OpenRefused, TeGrant};
pub use key::{KeyError, PublicKey};
pub use machines::{DomainState, MachineError, Machines, PowerVerb, Row, SeedImage};
pub use server::{Gateway, GatewayConfig, GatewayError};
