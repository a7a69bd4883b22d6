//! Events: what happened outside, and the proposed changes it is about.
//!
//! A source (Gerrit, a plain git host, GitHub) is seen only through these values. [`Change`] is one patchset as its
//! source showed it at a moment; [`TriggerEvent`] says what happened. Which pipelines care is decided in
//! [`crate::layout`], what follows from it in [`crate::pipeline`].

mod change;
mod cron;
mod name;
mod trigger;

pub use crate::id::SourceName;
pub use change::{
    Approval, Change, ChangeKey, ChangeState, LabelStatus, Person, RecordStatus, RefUpdate,
    SubmitRecord, normal_label,
};
pub use cron::{Cron, NotCron};
pub use name::{Branch, GIT_NAME_MAX_BYTES, NotAName, ProjectKey, ProjectName, RefName, Revision};
pub use trigger::{EventKind, TriggerEvent};
