//! The jobs of an item, frozen for one build set.

use crate::event::{Change, ProjectKey};
use crate::layout::{Job, JobName, JobTree, Layout, PipelineName};
use std::sync::Arc;

use super::input::Subject;

/// The job that needs no machine: it succeeds at once.
pub(super) const NOOP: &str = "noop";

/// Jobs in the order of the layout.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Frozen {
    pub(super) jobs: Vec<FrozenJob>,
}

/// A job as it is for this build set.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FrozenJob {
    pub(super) job: Arc<Job>,
    /// Places of the jobs whose success comes first.
    pub(super) needs: Vec<usize>,
}

/// The jobs of `project` in `pipeline` for what the item is about.
pub(super) fn freeze(
    layout: &Layout,
    pipeline: &PipelineName,
    project: &ProjectKey,
    subject: &Subject,
    change: Option<&Change>,
) -> Arc<Frozen> {
    let mut frozen = Frozen::default();
    let tree = layout.projects.get(project).and_then(|p| p.pipelines.get(pipeline));
    if let Some(tree) = tree {
        let about = About { project, subject, change };
        add_tree(layout, tree, None, &about, &mut frozen);
    }
    add_dependencies(&mut frozen);
    Arc::new(frozen)
}

/// What the jobs are for.
struct About<'a> {
    project: &'a ProjectKey,
    subject: &'a Subject,
    change: Option<&'a Change>,
}

fn add_tree(
    layout: &Layout,
    tree: &JobTree,
    parent: Option<usize>,
    about: &About<'_>,
    frozen: &mut Frozen,
) {
    for (name, children) in &tree.jobs {
        let Some(job) = layout.jobs.iter().find(|job| job.name == *name) else { continue };
        if !belongs(job, about) {
            continue;
        }
        let at = match frozen.jobs.iter().position(|known| known.job.name == *name) {
            Some(at) => at,
            None => {
                frozen.jobs.push(FrozenJob { job: Arc::new(job.clone()), needs: Vec::new() });
                frozen.jobs.len() - 1
            }
        };
        frozen.jobs[at].needs.extend(parent);
        add_tree(layout, children, Some(at), about, frozen);
    }
}

fn belongs(job: &Job, about: &About<'_>) -> bool {
    let change = about.change;
    let branch = match (about.subject, change) {
        (Subject::Change(_), Some(change)) => change.branch.as_str(),
        (Subject::Change(_), None) => return true,
        (Subject::Ref(update), _) => update.zuul_name(),
        (Subject::Branch { branch, .. }, _) => branch.as_str(),
    };
    let files = change.and_then(|c| c.files.as_deref());
    let file_matches =
        |files: &[String]| files.iter().any(|f| job.files.iter().any(|p| p.matches(f)));
    let known = files.unwrap_or_default();
    let skipped = job.skip_if.iter().any(|s| s.holds(about.project.name.as_str(), branch, known));
    !skipped
        && (job.branches.is_empty() || job.branches.iter().any(|p| p.matches(branch)))
        && (job.files.is_empty() || files.is_none_or(file_matches))
}

/// A dependency on a job that is not part of the item does not bind.
fn add_dependencies(frozen: &mut Frozen) {
    let place =
        |frozen: &Frozen, name: &JobName| frozen.jobs.iter().position(|j| j.job.name == *name);
    for at in 0..frozen.jobs.len() {
        let job = Arc::clone(&frozen.jobs[at].job);
        let more: Vec<usize> = job.dependencies.iter().filter_map(|n| place(frozen, n)).collect();
        frozen.jobs[at].needs.extend(more);
    }
}
