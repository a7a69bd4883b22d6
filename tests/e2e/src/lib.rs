//! Helpers of the end-to-end tests: a lab is a set of namespaces in which the real `toci` and
//! `toci-host` run as processes. When a lab is dropped, or the test process ends by any means,
//! everything in it ends. Nothing in it can be reached from the machine's network, nor reach it.

mod binaries;
mod ci;
mod documentation;
mod lab;
mod leftovers;
mod machine;
mod te_host;
mod wait;

pub use binaries::binary;
pub use ci::Ci;
pub use documentation::{Example, examples};
pub use lab::{Lab, Process};
pub use leftovers::Leftovers;
pub use machine::Machine;
pub use te_host::TeHost;
pub use wait::wait_for;
