//! The layout: which pipelines there are, and which jobs run in them for which project.
//!
//! `toci-wire` reads it from YAML (Zuul 2's `layout.yaml`, origin.md 7.2, with our additions) and reports every error with
//! its place; what arrives here is whole: names resolve, templates are expanded, patterns compile.

mod job;
mod pattern;
mod pipeline;
mod project;

pub use job::{Job, JobName, JobRun, Script, SemaphoreUse, SkipIf, TestenvWish};
pub use pattern::{BadPattern, MODEST_PATTERN_MAX_BYTES, Pattern};
pub use pipeline::{
    Actions, ApprovalRule, GerritVote, Growth, Manager, Messages, Pipeline, PipelineName,
    Precedence, Reporter, Requirements, Trigger, TriggerFilter, Window,
};
pub use project::{JobTree, MergeMode, Project};

use crate::event::{ProjectKey, SourceName};
use std::collections::BTreeMap;

/// A whole configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    /// In the order of the file.
    pub pipelines: Vec<Pipeline>,
    /// Every job that is defined or named by a project; metajobs are applied.
    pub jobs: Vec<Job>,
    /// By key.
    pub projects: BTreeMap<ProjectKey, Project>,
    /// Semaphores (Zuul's mutexes are those with one place) and their places.
    pub semaphores: BTreeMap<String, u32>,
    /// What `source:` means when it is left out.
    pub default_source: Option<SourceName>,
}
