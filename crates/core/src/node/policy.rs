//! Limits and times of the node pool.

use core::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Longest reason, in bytes.
pub const TEXT_MAX_BYTES: usize = 256;
/// So many of the latest requests say which labels are in demand.
pub const HISTORY_MAX: usize = 100;
/// Longest line of requests.
pub const REQUESTS_MAX: usize = 10_000;
/// Nodes of one request at most.
pub const COUNT_MAX: u32 = 16;
/// So many of the latest builds of a label at a provider say how long one usually takes there.
pub const BUILD_TIMES_MAX: usize = 9;
/// Highest number of a node that is believed when a provider names a machine that no row knows.
pub const NUMBER_MAX: u64 = 1_000_000_000_000;

/// Wishes to hold nodes of failures to come, at most.
pub const AUTOHOLDS_MAX: usize = 1_000;
/// Failures that one of them is for, at most.
pub const AUTOHOLD_COUNT_MAX: u32 = 100;
/// How long one stands that nothing failed for: 30 days.
pub const AUTOHOLD_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What the node pool decides by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long after a first failed build no other one is begun there; doubles with each further failure ...
    pub pause_min: Duration,
    /// ... up to this.
    pub pause_max: Duration,
    /// So many failed builds of its label while it waited end a request.
    pub failures_max: u32,
    /// How often a node that is ready is looked at again.
    pub recheck: Duration,
    /// How long a node stays ready that is more than `min_ready` asks for.
    pub spare: Duration,
    /// How long after a restart nodes of runs wait for their runs.
    pub reclaim: Duration,
    /// Longest hold.
    pub hold_max: Duration,
    /// How long a request that no provider's quotas have room for any more waits for them to be raised.
    pub quota_wait: Duration,
    /// A build is late after three times what is usual there, and not before this ...
    pub late_min: Duration,
    /// ... or after this where nothing is known to be usual.
    pub late_unknown: Duration,
    /// A node that is being deleted for longer is told to people.
    pub delete_limit: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            pause_min: 10 * SECOND,
            pause_max: 10 * MINUTE,
            failures_max: 4,
            recheck: 15 * MINUTE,
            spare: 10 * MINUTE,
            reclaim: 5 * MINUTE,
            hold_max: 72 * 60 * MINUTE,
            quota_wait: 10 * MINUTE,
            late_min: MINUTE,
            late_unknown: 5 * MINUTE,
            delete_limit: 10 * MINUTE,
        }
    }
}
