//! Leases: who may use which TE, until when, and who is next.
//!
//! [`Book`] is the whole of it as one pure value. The server's lease task owns one, feeds it
//! [`Event`]s with the time, writes what changed in one transaction, and only then lets the
//! effects ([`Changes`]) out. [`fence`] is the other half, on the host.
//!
//! A TE, as the server knows it:
//!
//! ```text
//!   Unknown ──Clean g──▶ Ready ──grant g+1──▶ Granted ──serving──▶ Confirmed ──all serve──▶ Leased ─hold─▶ Held
//!                          ▲                     │ not in time         │                      │             │
//!                          │ Clean g             ▼                     ▼                      ▼             ▼
//!                          └────────────────  Resetting  ◀───────── Vacate: release, expiry, lost, revoked ─┘
//!                          ▲                     │ broken too often, reset too slow, or by hand
//!                          │ Clean g+1           ▼
//!                        BurnIn ◀─undrain── Quarantined          Gone: its host no longer has it
//! ```
//!
//! A lease:
//!
//! ```text
//!   Waiting ──grant──▶ Granted ──every host serves──▶ Active ──hold──▶ Held
//!      ▲ │               │                              │               │
//!      │ └ withdrawn,    │ not confirmed in time        └──────┬────────┘
//!      │   wait limit    │                                     ▼
//!      └─────────────────┘               Over: released, expired, lost, revoked, refused
//! ```
//!
//! What holds after every event:
//! * A generation is granted once. Every grant increments it.
//! * A TE leaves `Resetting` only by its host's word that it is `Clean` at that generation (or
//!   newer). The passing of the host's own limit alone never frees it: the host must be back.
//! * TEs of a host that is cut off or draining are not granted.
//! * A request gets all its TEs in one step or none, so nobody holds some and waits for more.
//! * Order is by rank: the moment of the request, less [`Policy::ageing_per_point`] for each point
//!   of priority, plus [`Policy::fair_step`] for each request the project already had waiting.
//!   Rank is fixed, so waiting always brings a request nearer, and nobody starves. A request that
//!   needs more TEs than are free keeps the free ones of its kind from younger requests, unless
//!   so many of its TEs are out of reach that it cannot be served now anyway.
//!
//! Time is the server's own clock, which never goes back while it runs (see `server/tasks/lease`).
//! Heartbeats and connections are not kept: after a restart every holder has a fresh grace.

mod book;
mod change;
mod ends;
pub mod fence;
mod grant;
mod hosts;
mod model;
pub mod policy;
mod pool;
mod request;
mod view;

#[cfg(test)]
mod tests;

pub use book::{Answer, Book, Event, Rows};
pub use change::Changes;
pub use hosts::{ReportedState, ReportedTe};
pub use model::{Demand, End, HoldBudget, Host, Lease, LeaseState, Te, TeState, UnknownWord};
pub use policy::Policy;
pub use request::Request;
pub use view::{DesiredTe, Waiting};
