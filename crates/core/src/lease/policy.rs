//! Limits and defaults of leases. The server reads them from its configuration.

use core::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// Longest `purpose` and longest reason given by people, in bytes.
pub const TEXT_MAX_BYTES: usize = 256;
/// Longest idempotency key, in bytes.
pub const KEY_MAX_BYTES: usize = 128;
/// Most TEs of one host.
pub const HOST_TES_MAX: usize = 512;
/// Most labels of one TE.
pub const TE_LABELS_MAX: usize = 32;
/// Most kinds of demand that are kept indexed while nobody waits for them.
pub const IDLE_POOLS_MAX: usize = 64;
/// Most kinds of demand whose mean length is known.
pub const LENGTHS_MAX: usize = 256;
/// Most timers that one tick works off; the rest follow at the next.
pub const TICK_TIMERS_MAX: usize = 1_000;

/// What the lease book decides by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Length of a lease that did not say; counted from the grant's confirmation.
    pub lease_default: Duration,
    /// Longest lease, extensions included, counted from the confirmation.
    pub lease_max: Duration,
    /// How often a holder should send a heartbeat.
    pub heartbeat: Duration,
    /// Silence after which a holder is taken for dead.
    pub lost_after: Duration,
    /// How long the hosts may take to confirm a grant before it is taken back.
    pub grant_ack_limit: Duration,
    /// How long a connected host may take for a reset before the TE is quarantined.
    pub reset_limit: Duration,
    /// Most requests waiting at once.
    pub queue_max: usize,
    /// Most TEs in one request.
    pub count_max: u32,
    /// How much waiting makes up for one point of priority.
    pub ageing_per_point: Duration,
    /// How far each waiting request of a project puts its next one back.
    pub fair_step: Duration,
    /// Longest single hold.
    pub hold_max: Duration,
    /// TE time that a project may have on hold ...
    pub hold_budget: Duration,
    /// ... and the time in which a wholly used budget comes back, evenly.
    pub hold_refill: Duration,
    /// So many failures of a TE in a row put it in quarantine.
    pub strikes_max: u32,
    /// How long TEs may be missing before requests that need them are refused.
    pub impossible_grace: Duration,
    /// Ended leases kept at hand; older ones are in the store only.
    pub ended_keep: usize,
    /// How often a host reports at least; it is cut off after three times this.
    pub report_every: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            lease_default: 3 * HOUR,
            lease_max: 12 * HOUR,
            heartbeat: 4 * SECOND,
            lost_after: 12 * SECOND,
            grant_ack_limit: 20 * SECOND,
            reset_limit: 900 * SECOND,
            queue_max: 10_000,
            count_max: 16,
            ageing_per_point: 60 * SECOND,
            fair_step: 10 * SECOND,
            hold_max: 12 * HOUR,
            hold_budget: 24 * HOUR,
            hold_refill: 7 * 24 * HOUR,
            strikes_max: 2,
            impossible_grace: 60 * SECOND,
            ended_keep: 1_000,
            report_every: 5 * SECOND,
        }
    }
}
