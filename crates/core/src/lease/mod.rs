//! Leases: who may use which TE, until when, and who is next.

pub mod fence;
