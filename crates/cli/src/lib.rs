//! ASKS. The binary `toci`: server, client, operator's tool and demo in one; `geard` and `testenv-client` by its name.

pub mod args;
mod beside;
pub mod commands;
pub mod connect;
pub mod demo;
pub mod duration;
pub mod error;
pub mod exit;
mod finding;
pub mod interrupt;
pub mod output;
pub mod run;
