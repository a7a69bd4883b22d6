//! Machines that are set up as TE hosts: where one is, what it says of itself, how its settings differ.

mod destination;
mod difference;
mod facts;
mod user_data;

pub use destination::Destination;
pub use difference::differences;
pub use facts::{BadFacts, FACTS_MAX_BYTES, found};
pub use user_data::{HostData, UserData, public_keys};
