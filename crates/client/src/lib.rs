//! CALLS. Client side of the API (`api`) and of the Gearman broker (`gearman`), shared by the CLI and by hosts;
//! `command` runs what is to be run while a TE is held.

pub mod api;
pub mod command;
pub mod gearman;
pub mod testenv;
