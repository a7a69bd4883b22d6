//! A zone: what should be in a cloud, what was found there, and the steps from one to the other.
//!
//! ```text
//! zone file ──▶ Zone (things, as they should be) ─┐
//!                                                 ├──▶ plan() ──▶ Plan: Display shows it, whoever applies makes no choices
//! the cloud ──▶ Found (things, as they are) ──────┘
//! ```
//!
//! A thing is a name of a kind within a project, and fields with values. Its fields are called as OpenStack calls them.
//! Only fields that the zone names are compared: what it does not name is left to the cloud.
//!
//! What toci makes carries the mark of the zone's owner. A thing that has the name of a wished one and not the mark is
//! somebody else's: it is refused, or, where the zone says `adopt`, put right in its wished fields and left unmarked. Only
//! what carries the mark is ever deleted, and only when that is asked for.

mod found;
mod plan;
mod prune;
mod rule;
mod schema;
#[cfg(test)]
mod tests;
mod thing;

pub use found::{Found, FoundThing, Owner};
pub use plan::{Difference, Plan, Refusal, Stale, Step, plan};
pub use rule::rule_name;
pub use schema::{Change, change};
pub use thing::{ANYWHERE, Kind, Local, Mark, Password, Thing, ThingId, Value, Zone};
