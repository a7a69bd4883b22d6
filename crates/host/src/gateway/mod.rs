//! The gateway: an SSH server on the TE host's address that takes the current generation's key of each
//! TE and the restricted commands of the origin (origin.md 2.3), each limited to that TE's machines.

mod machines;

pub use machines::{DomainState, MachineError, Machines, PowerVerb, Row, SeedImage};
