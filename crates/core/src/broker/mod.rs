//! The Gearman broker as a pure state machine: connections, functions, three queues a function,
//! jobs, options, rights and admin commands. [`Broker`] takes a [`Request`] with the time and tells
//! an [`Outbox`] what to say to whom. `toci-wire` makes requests of bytes and bytes of messages;
//! `toci-server` owns the sockets.
//!
//! A connection may also be a part of this process ([`PeerKind::InProcess`]): it registers
//! functions, hears `NOOP` whenever a job is queued for one of them, takes a job only when it asks
//! for one, and hears [`Message::JobAbandoned`] when nobody waits for its job any more.

mod acl;
mod admin;
mod choices;
mod conn;
mod flow;
mod function;
mod job;
mod machine;
mod rest;
mod schedule;
mod settings;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use acl::{ACL_MAX_ENTRIES, ACL_PATTERN_MAX_BYTES, Acl, AclEntry, AclError, Pattern};
pub use choices::CHOICES;
pub use machine::{Broker, Figures, FunctionView};
pub use settings::{
    CLIENT_ID_MAX_BYTES, Cancel, ClientLoss, Coalescing, Exceptions, Expiry,
    FUNCTION_NAME_MAX_BYTES, ForeignWork, GEARMAND_UNIQUE_MAX_BYTES, GRAB_PATIENCE_US, GrabOrder,
    HANDLE_MAX_BYTES, HandleHost, JOB_TIMEOUT_MIN_MS, Limits, LineEnd, PROGRESS_MAX_BYTES,
    Settings, ShutdownBy, UNIQUE_MAX_BYTES, WAKE_PATIENCE_US, WorkerLoss,
};
pub use vocabulary::{
    AclVerb, AdminCommand, AdminEffect, Assignment, ConnId, GrabStyle, Message, Now, Outbox, Peer,
    PeerKind, Precedence, Request, StatusAnswer, Submit, When, WorkKind,
};
