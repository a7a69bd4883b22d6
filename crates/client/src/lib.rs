//! CALLS. Client side of the API (`api`) and of the Gearman broker (`gearman`), shared by the CLI and by hosts.

pub mod api;
pub mod gearman;
