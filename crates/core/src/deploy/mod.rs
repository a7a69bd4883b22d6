//! Setting up a TE host on a machine: what is there, what should be, and the steps between.
//!
//! ```text
//! packages -> program -> configure -> enrol -> service -> start | hand over | restart
//! ```
//!
//! A step is only in a plan when it is needed; an empty plan means that all is as it should be. A host on a server of a cloud
//! has that server made before ([`plan_server`]).

mod found;
mod plan;
mod server;
mod step;
mod wish;

pub use found::{AtServer, ConfigState, Difference, Found, Services, Standing};
pub use plan::{Disturb, plan};
pub use server::{
    FoundServer, HostPort, OnCloud, ServerStep, ServerWish, is_marked, mark, metadata, plan_server,
};
pub use step::{Describe, Step};
pub use wish::{PACKAGES, Version, Wish};
