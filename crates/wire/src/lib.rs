//! SPEAKS. Bytes to values and back; no sockets, no clock.
//!
//! Everything that comes from outside is parsed here into types before anything else sees it.
#![forbid(unsafe_code)]

pub mod api;
pub mod clouds;
pub mod gearman;
pub mod layout;
pub mod openssh;
pub mod ovsdb;
pub mod secret;
pub mod settings;
pub mod ssh_command;
pub mod te_host;
pub mod te_json;
pub mod zone;
