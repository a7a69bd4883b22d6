//! Projects: which jobs run for them in which pipeline.

use super::job::JobName;
use super::pipeline::PipelineName;
use crate::event::ProjectKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a change is put on top of what is ahead (origin.md 7.2, 7.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MergeMode {
    /// git's default merge.
    Merge,
    /// `git merge -s resolve`, Zuul 2's default.
    #[default]
    MergeResolve,
    /// Its commit alone.
    CherryPick,
    /// All of its commits as one.
    Squash,
}

/// Jobs and what may start only after their success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobTree {
    /// In the order of the file: a job and its children.
    pub jobs: Vec<(JobName, JobTree)>,
}

/// A project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Which.
    pub key: ProjectKey,
    /// How its changes are merged.
    pub merge_mode: MergeMode,
    /// Jobs by pipeline, templates expanded.
    pub pipelines: BTreeMap<PipelineName, JobTree>,
    /// Whether its `.toci.yaml` is read, from the change under test.
    pub in_repository: bool,
    /// Secrets that jobs may have through its `.toci.yaml`, by name, and in which pipelines: whoever can get a change
    /// into one of these can read the secret.
    pub own_secrets: BTreeMap<String, Vec<PipelineName>>,
}
