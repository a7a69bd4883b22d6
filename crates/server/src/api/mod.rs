//! `/api/v1`: the only way in for the CLI, hosts and other CI systems. See `toci_wire::api` for its types.

mod alerts;
mod error;
mod extract;
mod git;
mod hooks;
mod hosts;
mod leases;
mod link;
mod logs;
mod machines;
mod nodes;
mod openapi;
mod pipelines;
mod router;
mod runs;
mod sse;
mod state;
mod system;
mod testenvs;
mod tokens;
mod zuul;

pub use openapi::document;

pub(crate) use router::router;
pub(crate) use state::{Api, Shared};
