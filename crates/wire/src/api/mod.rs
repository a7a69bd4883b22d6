//! The HTTP API `/api/v1`: what the server, the CLI, hosts and other CI systems say to each other.
//!
//! Durations are whole seconds (`*_s`) unless the name says otherwise; moments are microseconds
//! since the Unix epoch (`*_us`). Unknown fields are refused, so a typo is an error, not a default.

mod error;
mod host_link;
mod lease;
mod node;
mod pipeline;
mod run;
mod stream;
mod testenv;
mod token;

pub use error::{ApiError, ErrorBody, ErrorKind};
pub use host_link::{
    DesiredTe, EnrolRequest, EnrolTokenRequest, EnrolTokenResponse, Enrolled, HostDesired,
    HostReport, Operation, OperationKind, OperationResult, ServingReport, TeReport, TeReportState,
    TeTask,
};
pub use lease::{
    Extend, Hold, Lease, LeaseRequest, LeaseState, LeaseTestenv, LeasedTe, Release, Revoke, Waiting,
};
pub use node::{
    Autohold, AutoholdRequest, ImageState, Node, NodeHold, NodeImage, NodeState, Provider,
    ProviderPause,
};
pub use pipeline::{
    ChangeSource, EndedItem, EndedQuery, Pipeline, PipelineItem, PipelineJob, PipelineOrder,
    PipelineQueue, Promote, ReferenceOrder, Report, WaitingChange,
};
pub use run::{
    Alerts, ConsoleText, EVENT_ALERT, EVENT_CONSOLE, EVENT_JOB_PAUSED, EVENT_RUN, JobPause,
    NodeAlert, PauseOrder, ProviderAlert, Run, RunState, RunTrouble, TestnetAlert,
};
pub use stream::{
    EVENT_DESIRED, EVENT_GONE, EVENT_HOST, EVENT_ITEM, EVENT_ITEM_ENDED, EVENT_LAGGED, EVENT_LEASE,
    EVENT_NODE, EVENT_OPERATION, EVENT_PROVIDER, EVENT_REPORT, EVENT_TESTENV, Gone, Lagged,
    STREAM_EVENT_MAX_BYTES, STREAM_KEEPALIVE_S, STREAM_SILENCE_S,
};
pub use testenv::{
    Connection, Host, HostStatus, ImagePushed, MachineState, NetworkLeg, PowerAction, PowerRequest,
    Quarantine, TeState, TestEnv,
};
pub use token::{BadRole, NewToken, Role, TokenInfo, TokenRequest};

/// Path prefix of every route.
pub const PREFIX: &str = "/api/v1";

/// Largest JSON body either side accepts, in bytes. Images and consoles are streams, not JSON.
pub const BODY_MAX_BYTES: usize = 1 << 20;
