//! Machines that are set up as TE hosts: where one is, what it says of itself, how its settings differ.

mod destination;
mod difference;
mod facts;

pub use destination::Destination;
pub use difference::differences;
pub use facts::{BadFacts, FACTS_MAX_BYTES, found};
