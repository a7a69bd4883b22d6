//! Setting up a TE host on a machine: what is there, what should be, and the steps between.
//!
//! ```text
//! packages -> program -> configure -> enrol -> service -> start | hand over | restart
//! ```
//!
//! A step is only in a plan when it is needed; an empty plan means that all is as it should be.

mod found;
mod plan;
mod step;
mod wish;

pub use found::{AtServer, ConfigState, Difference, Found, Services, Standing};
pub use plan::{Disturb, plan};
pub use step::{Describe, Step};
pub use wish::{PACKAGES, Version, Wish};
