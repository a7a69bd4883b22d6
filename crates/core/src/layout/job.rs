//! Jobs.

use super::pattern::Pattern;
use crate::id::{Label, ShapeName};
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// A job's name, e.g. `check-tripleo-ironic-overcloud-precise-nonha`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobName(pub String);

impl core::fmt::Display for JobName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(&self.0)
    }
}

/// What a step runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Script {
    /// A file of a checked-out repository, `<project>/<path>` or a path in the project under test; with arguments.
    File(String),
    /// Shell text, run by `bash -e`.
    Inline(String),
}

/// A test environment taken before the run starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestenvWish {
    /// By label.
    pub label: Option<Label>,
    /// By shape.
    pub shape: Option<ShapeName>,
    /// How many.
    pub count: u32,
}

/// A semaphore (or mutex) that a run holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SemaphoreUse {
    /// Which.
    pub name: String,
}

/// What of a job concerns its run on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRun {
    /// Steps before; a failure is the job's failure.
    pub pre: Vec<Script>,
    /// The job itself. Empty for `noop` and for jobs that only a Gearman worker can run.
    pub run: Vec<Script>,
    /// Steps after, whatever happened, within `post_timeout`.
    pub post: Vec<Script>,
    /// The node's label; none: the default label.
    pub node: Option<Label>,
    /// How many nodes; the first one runs the scripts.
    pub nodes: u32,
    /// A test environment taken before the run starts.
    pub testenv: Option<TestenvWish>,
    /// Limit of pre and run together; waiting does not count.
    pub timeout: Duration,
    /// Limit of post.
    pub post_timeout: Duration,
    /// Limit of waiting for node and test environment; none: as long as it takes.
    pub wait_timeout: Option<Duration>,
    /// Attempts at most, when the infrastructure fails.
    pub attempts: u32,
    /// Globs, relative to the workspace, of files to archive beside `logs/`.
    pub artifacts: Vec<String>,
    /// Environment variables of the scripts.
    pub env: Vec<(String, String)>,
    /// Secrets by name and the variable they come in.
    pub secrets: Vec<(String, String)>,
    /// Projects to check out besides the one under test and those of the changes ahead.
    pub projects: Vec<String>,
    /// Branch to use instead of the change's (`OVERRIDE_ZUUL_BRANCH`).
    pub override_branch: Option<String>,
    /// Branch by project (`OVERRIDE_<PROJ>_PROJECT_BRANCH`).
    pub project_branches: Vec<(String, String)>,
}

/// A job, with what metajobs say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub name: JobName,
    /// Whether its result counts.
    pub voting: bool,
    /// Items behind wait until it is done.
    pub hold_following: bool,
    /// Joins change queues under this name.
    pub queue_name: Option<String>,
    /// Instead of SUCCESS in reports.
    pub success_message: Option<String>,
    /// Instead of FAILURE in reports.
    pub failure_message: Option<String>,
    /// URL pattern of successful runs.
    pub success_pattern: Option<String>,
    /// URL pattern of failed runs.
    pub failure_pattern: Option<String>,
    /// Only for these branches (or refs).
    pub branches: Vec<Pattern>,
    /// Only when a file matches.
    pub files: Vec<Pattern>,
    /// Not when all parts of one of these match.
    pub skip_if: Vec<SkipIf>,
    /// What it holds while it runs.
    pub semaphore: Option<SemaphoreUse>,
    /// So many failures in a row, of changes that have nothing in common, pause it; none: only people do.
    pub pause_after_failures: Option<u32>,
    /// For people and figures.
    pub tags: Vec<String>,
    /// Jobs of the same item that must have succeeded first, besides its parents in the tree.
    pub dependencies: Vec<JobName>,
    /// Parameters: what Zuul 2's parameter functions were used for, declared.
    pub parameters: Vec<(String, String)>,
    /// How it runs.
    pub run: JobRun,
}

/// A condition under which a job does not run; all given parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkipIf {
    /// Project name, matched from its start.
    pub project: Option<Pattern>,
    /// Branch, matched from its start.
    pub branch: Option<Pattern>,
    /// Every file of the change matches one of these; a change without files does not.
    pub all_files_match_any: Vec<Pattern>,
}

impl SkipIf {
    /// Whether all of it holds. `files`: those of the change, if it has any and its source says which.
    #[must_use]
    pub fn holds(&self, project: &str, branch: &str, files: &[String]) -> bool {
        let fits =
            |pattern: &Option<Pattern>, text| pattern.as_ref().is_none_or(|p| p.matches(text));
        let any = &self.all_files_match_any;
        let covered = |file: &String| any.iter().any(|p| p.matches(file));
        let files = any.is_empty() || (!files.is_empty() && files.iter().all(covered));
        fits(&self.project, project) && fits(&self.branch, branch) && files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_skipped_when_every_part_of_a_condition_holds() {
        let pattern = |text: &str| Some(Pattern::new(text).unwrap());
        let docs = SkipIf {
            project: pattern("^org/docs$"),
            branch: pattern("^stable/.*$"),
            all_files_match_any: pattern("^doc/.*$")
                .into_iter()
                .chain(pattern("^README$"))
                .collect(),
        };
        let files = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let well = files(&["doc/a", "README"]);
        assert!(docs.holds("org/docs", "stable/havana", &well));
        assert!(!docs.holds("org/code", "stable/havana", &well));
        assert!(!docs.holds("org/docs", "master", &well));
        assert!(!docs.holds("org/docs", "stable/havana", &files(&["doc/a", "src/b"])));
        assert!(!docs.holds("org/docs", "stable/havana", &[]));
        let branch = SkipIf { branch: pattern("^stable/"), ..SkipIf::default() };
        assert!(branch.holds("any", "stable/x", &[]) && !branch.holds("any", "master", &[]));
    }
}
