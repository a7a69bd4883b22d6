//! Server-sent events: the names of the events and how a stream stays alive.
//!
//! | stream                | event name  | data                                   |
//! |-----------------------|-------------|----------------------------------------|
//! | `/leases/{id}/stream` | `lease`     | `Lease`, first the present state        |
//! | `/events`             | `lease`, `testenv`, `host` | the thing after the change |
//! | `/events`             | `item`      | `PipelineItem` that entered             |
//! | `/events`             | `item_ended` | `EndedItem` that left                  |
//! | `/events`             | `report`    | `Report` that was delivered             |
//! | `/events`             | `run`       | `Run` after each step, its end included |
//! | `/events`             | `alert`     | `RunTrouble` that has just become one   |
//! | `/events`             | `job_paused` | `JobPause`: nothing of the job begins  |
//! | `/events`             | `node`      | `Node` in a new state                   |
//! | `/events`             | `provider`  | `Provider` that was paused or goes on, or whose builds fail or work again |
//! | `/events`             | `gone`      | `Gone`: a host, TE or node that was removed, the pause of a job that goes on |
//! | both                  | `lagged`    | `Lagged`: the reader was too slow; the stream ends, read again |
//! | `/hosts/{h}/stream`   | `desired`, `operation` | `HostDesired`, `Operation`   |
//!
//! A comment line is sent every `STREAM_KEEPALIVE_S`, so that silence means a dead connection.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Seconds between two signs of life on a stream.
pub const STREAM_KEEPALIVE_S: u64 = 4;

/// A reader that heard nothing for this many seconds should take the connection for dead.
pub const STREAM_SILENCE_S: u64 = 13;

/// Longest event on a stream, in bytes, all its lines together.
pub const STREAM_EVENT_MAX_BYTES: usize = 4 << 20;

/// Event name of a `Lease`.
pub const EVENT_LEASE: &str = "lease";
/// Event name of a `TestEnv`.
pub const EVENT_TESTENV: &str = "testenv";
/// Event name of a `Host`.
pub const EVENT_HOST: &str = "host";
/// Event name of a `Gone`.
pub const EVENT_GONE: &str = "gone";
/// Event name of a `Lagged`.
pub const EVENT_LAGGED: &str = "lagged";
/// Event name of a `HostDesired`.
pub const EVENT_DESIRED: &str = "desired";
/// Event name of an `Operation`.
pub const EVENT_OPERATION: &str = "operation";

/// Event name of a `PipelineItem` that entered.
pub const EVENT_ITEM: &str = "item";
/// Event name of an `EndedItem`.
pub const EVENT_ITEM_ENDED: &str = "item_ended";
/// Event name of a `Report`.
pub const EVENT_REPORT: &str = "report";
/// Event name of a `Node`.
pub const EVENT_NODE: &str = "node";
/// Event name of a `Provider`.
pub const EVENT_PROVIDER: &str = "provider";

/// A host or TE that is no longer known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gone {
    /// `host`, `testenv`, `node` or `job_pause`.
    pub what: String,
    /// Its name.
    pub id: String,
}

/// The reader was slower than the changes; some were left out and the stream ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lagged {
    /// How many changes were left out, at least.
    pub missed: u64,
    /// What to do, for people.
    pub hint: String,
}
