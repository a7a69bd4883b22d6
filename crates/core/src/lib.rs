//! DECIDES. Pure values and functions: no tokio, IO, clock, randomness, environment or logging.
//!
//! Every decision of toci is made here, as `plan(&World, &Policy, Time) -> Plan` or
//! `on(State, Event, Time) -> Result<(State, Vec<Effect>), Refused>`. Ids, time and random
//! numbers come in as arguments, so the same input always gives the same output and the
//! simulator (`toci-sim`) can replay a run from its seed.
#![forbid(unsafe_code)]

pub mod broker;
pub mod chain;
pub mod cloud;
pub mod deploy;
pub mod event;
pub mod hex;
pub mod id;
pub mod layout;
pub mod lease;
pub mod log;
pub mod node;
pub mod pause;
pub mod pipeline;
pub mod refused;
pub mod run;
pub mod shell;
pub mod testnet;
pub mod time;
