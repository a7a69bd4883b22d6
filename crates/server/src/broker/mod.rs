//! The Gearman broker at work: one thread with an epoll loop around the pure state machine of
//! `toci_core::broker`. Bytes come in through sockets ([`start`]) or through pseudo-connections
//! from within this process ([`BrokerHandle::face`]). No lock, no task a connection: a slow or
//! silent peer costs its socket and nothing else.

mod acl_file;
mod daemon;
mod driver;
mod engine;
mod face;
mod geard;
mod geard_log;
mod lingering;
mod options;
mod outlets;
mod sockets;
mod statsd;
mod tls;
mod tls_clients;
mod transport;

pub use acl_file::{ACL_FILE_MAX_BYTES, AclFileError, parse_acl, read_acl_file};
pub use face::{
    BrokerGone, BrokerHandle, COMMANDS_MAX, Face, FaceJob, FaceSubmit, FaceTask, SubmitError,
    TASK_EVENTS_MAX, TaskEvent,
};
pub use geard::geard_main;
pub(crate) use geard::{first_job, host_name};
pub use options::{
    BrokerError, BrokerOptions, CONNECTIONS_MAX, GEARMAN_PORT, HANDSHAKE_LIMIT,
    INPUT_TOTAL_MAX_BYTES, Keepalive, LINGER_LIMIT, OUTPUT_MAX_BYTES, OUTPUT_TOTAL_MAX_BYTES,
    StatsdTarget, TlsFiles,
};
pub use start::{BrokerServer, start};
pub use tls::TlsError;

mod start;
