//! The HTTP API `/api/v1`: what the server, the CLI, hosts and other CI systems say to each other.
//!
//! Durations are whole seconds (`*_s`) unless the name says otherwise; moments are microseconds
//! since the Unix epoch (`*_us`). Unknown fields are refused, so a typo is an error, not a default.

mod error;
mod host_link;
mod lease;
mod testenv;

pub use error::{ApiError, ErrorBody, ErrorKind};
pub use host_link::{
    DesiredTe, EnrolRequest, EnrolTokenRequest, EnrolTokenResponse, Enrolled, HostDesired,
    HostReport, Operation, OperationKind, OperationResult, ServingReport, TeReport, TeReportState,
    TeTask,
};
pub use lease::{
    Extend, Hold, Lease, LeaseRequest, LeaseState, LeaseTestenv, LeasedTe, Release, Revoke, Waiting,
};
pub use testenv::{
    Connection, Host, HostStatus, MachineState, PowerAction, PowerRequest, Quarantine, TeState,
    TestEnv,
};

/// Path prefix of every route.
pub const PREFIX: &str = "/api/v1";

/// Largest JSON body either side accepts, in bytes. Images and consoles are streams, not JSON.
pub const BODY_MAX_BYTES: usize = 1 << 20;
