//! `testenv-client` and `testenv-worker`: drop-ins for the programs of 2014 (origin.md 2.1 and 2.2) that speak
//! `lockenv` over any Gearman broker: ours, an original geard, gearmand.
//!
//! ```text
//! client: register callback_<jobnum>, submit lockenv {callback_name, timeout} ──▶ broker ──▶ worker: lockenv
//! client: run COMMAND with TE_DATAFILE ◀── broker ◀── submit callback_<jobnum> (the TE JSON)
//! client: complete the callback ──▶ worker: complete lockenv ──▶ client ends with COMMAND's code
//! ```

mod args;
pub mod client;
mod log;
pub mod worker;

pub use client::client_main;
pub use worker::worker_main;
