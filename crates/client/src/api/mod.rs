//! HTTP client of `/api/v1`: one method a route, streams with back-pressure, clear errors.
//!
//! [`ApiClient`] is cheap to clone and may be used from many tasks at once. It speaks over TCP, TLS and unix
//! sockets. It never tries again by itself, except when a kept connection turned out to be dead before the
//! request was sent; [`Backoff`] helps callers that want to go on.

mod backoff;
mod body;
mod client;
mod connect;
mod endpoint;
mod error;
mod routes;
mod routes_host;
mod routes_node;
mod routes_pipeline;
mod routes_run;
mod secret;
mod sse;

pub use backoff::{BACKOFF_MAX, BACKOFF_MIN, Backoff};
pub use body::{Download, Upload};
pub use client::{
    ANSWER_LIMIT, ANSWER_MAX_BYTES, ApiClient, IDLE_CONNECTIONS_MAX, OPERATION_LIMIT, STALL_LIMIT,
};
pub use connect::CONNECT_LIMIT;
pub use endpoint::{BadEndpoint, Endpoint};
pub use error::ClientError;
pub use secret::{BadToken, Token};
pub use sse::{
    Change, ChangeStream, ConsoleNews, ConsoleStream, HostMessage, HostStream, LeaseStream,
};
