//! GitHub by a server that answers as its documentation says.

mod auth;
mod changes;
mod events;
mod hub;
mod reports;
