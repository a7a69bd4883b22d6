//! Nodes: the pool of machines that jobs run on.
//!
//! [`Pool`] is the whole of it as one pure value. The server's node task owns one, feeds it [`Event`]s with the time,
//! writes the rows that changed ([`Changes`]) in one transaction, and then does what is [`Wanted`]. All of it is
//! level-triggered: after a crash the rows are read and the same is wanted again.
//!
//! ```text
//!   Building ──built──▶ Testing ──well──▶ Ready ──chosen──▶ Handing ──guard written──▶ InUse ──run over──▶ Deleting ──▶ (gone)
//!      │ failed            │ ▲               │                 │                         │ hold asked for     ▲
//!      │                   │ └──to be looked at again          │ used already            ▼                    │
//!      └───────────────────┴────────────────┴──lost────────────┴─────────────────────▶ Held ──its end─────────┘
//! ```
//!
//! What holds after every event:
//! * A node serves one run in its life. Its number and its name are never used again.
//! * A provider never has more nodes, in any state, than its `max_servers` (or memory, or CPUs) allow, nor than its cloud
//!   says that it has room for ([`Room`]). A node counts until its provider has said that it is deleted.
//! * That a cloud has no room after all is no failed build: nobody bears it, and it is asked again after a pause.
//! * Requests are served by precedence, then relative priority, then age. A request that cannot be served now keeps
//!   what it needs from those behind it; nodes that are ready and that nobody asked for make room for it.
//! * Every request is served, refused because it can never be served, or given up after [`Policy::failures_max`] builds for
//!   its label failed, while it waited, at each provider that could serve it.
//!   One that has some of its nodes goes before all that have none.
//! * That something can never be served is said only when the quotas of all that offer it are known. When they were large
//!   enough before, it waits for [`Policy::quota_wait`] for them to be raised again.
//! * What is being built at a provider that does not answer, or for much longer than is usual there, is not counted on where
//!   another provider can build: a region that is broken never delays another.
//! * All nodes of one request are of one provider, so that they can reach each other.
//! * Where builds fail, no further one is begun for a growing time; then one is tried. Where somebody has paused the
//!   provider, none is begun until it is resumed.
//! * Nodes of runs that failed are held instead of deleted when somebody asked for that before ([`Autohold`]).
//! * After a crash: what was being built or handed over is deleted, what was ready is tested again, what was in use is
//!   kept for [`Policy::reclaim`], so that a run that goes on finds it, and then deleted. Machines that a provider
//!   has and no row knows are deleted.

mod ask;
mod autohold;
mod fit;
mod image;
mod late;
mod life;
mod model;
mod pause;
mod plan;
mod policy;
mod pool;
mod settings;
mod view;

#[cfg(test)]
mod tests;

pub use ask::Request;
pub use autohold::{Autohold, Failure, Meant};
pub use image::{
    IMAGE_PAUSE_MAX, IMAGE_PAUSE_MIN, IMAGE_REASON_MAX_BYTES, Image, ImageState, ImageStep,
    ImageWish, Images, Outlook as ImageOutlook,
};
pub use model::{Hold, Node, NodeState, Rows};
pub use pause::{ProviderPause, ProviderRow, Trouble};
pub use policy::{
    AUTOHOLD_COUNT_MAX, AUTOHOLD_LIFE, AUTOHOLDS_MAX, BUILD_TIMES_MAX, COUNT_MAX, HISTORY_MAX,
    NUMBER_MAX, Policy, REQUESTS_MAX, TEXT_MAX_BYTES,
};
pub use pool::{Changes, Event, Outcome, Pool};
pub use settings::{Amount, LabelSpec, PoolSpec, ProviderSpec, Room, Settings};
pub use view::{ProviderView, Wanted};
