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

/// Why a job of the list is not part of the item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// The layout does not know it.
    Unknown,
    /// Not for this branch.
    Branch,
    /// No file of the change is one of its files.
    Files,
    /// This one of its `skip-if` holds.
    Skipped(usize),
    /// What it comes after is left out.
    Behind(JobName),
}

/// The jobs of `project` in `pipeline` for what the item is about.
pub(super) fn freeze(
    layout: &Layout,
    pipeline: &PipelineName,
    project: &ProjectKey,
    subject: &Subject,
    change: Option<&Change>,
) -> Arc<Frozen> {
    Arc::new(select(layout, pipeline, project, subject, change).0)
}

/// The jobs, and those of the list that are left out.
pub(super) fn select(
    layout: &Layout,
    pipeline: &PipelineName,
    project: &ProjectKey,
    subject: &Subject,
    change: Option<&Change>,
) -> (Frozen, Vec<(JobName, LeftOut)>) {
    let mut chosen = Chosen { frozen: Frozen::default(), left_out: Vec::new() };
    let tree = layout.projects.get(project).and_then(|p| p.pipelines.get(pipeline));
    if let Some(tree) = tree {
        let about = About { project, subject, change };
        add_tree(layout, tree, None, &about, &mut chosen);
    }
    let Chosen { mut frozen, mut left_out } = chosen;
    add_dependencies(&mut frozen);
    // It may stand elsewhere in the list, too.
    left_out.retain(|(name, _)| frozen.jobs.iter().all(|known| known.job.name != *name));
    (frozen, left_out)
}

struct Chosen {
    frozen: Frozen,
    left_out: Vec<(JobName, LeftOut)>,
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
    chosen: &mut Chosen,
) {
    for (name, children) in &tree.jobs {
        let known = layout.jobs.iter().find(|job| job.name == *name);
        let fits = known.ok_or(LeftOut::Unknown).and_then(|job| belongs(job, about).map(|()| job));
        let job = match fits {
            Ok(job) => job,
            Err(why) => {
                chosen.left_out.push((name.clone(), why));
                leave_out(children, name, &mut chosen.left_out);
                continue;
            }
        };
        let frozen = &mut chosen.frozen;
        let at = match frozen.jobs.iter().position(|known| known.job.name == *name) {
            Some(at) => at,
            None => {
                frozen.jobs.push(FrozenJob { job: Arc::new(job.clone()), needs: Vec::new() });
                frozen.jobs.len() - 1
            }
        };
        frozen.jobs[at].needs.extend(parent);
        add_tree(layout, children, Some(at), about, chosen);
    }
}

fn leave_out(tree: &JobTree, parent: &JobName, left_out: &mut Vec<(JobName, LeftOut)>) {
    for (name, children) in &tree.jobs {
        left_out.push((name.clone(), LeftOut::Behind(parent.clone())));
        leave_out(children, name, left_out);
    }
}

/// What jobs' `branch` is matched with.
pub(super) fn branch_of<'a>(subject: &'a Subject, change: Option<&'a Change>) -> Option<&'a str> {
    match subject {
        Subject::Change(_) => change.map(|change| change.branch.as_str()),
        Subject::Ref(update) => Some(update.zuul_name()),
        Subject::Branch { branch, .. } => Some(branch.as_str()),
    }
}

fn belongs(job: &Job, about: &About<'_>) -> Result<(), LeftOut> {
    let Some(branch) = branch_of(about.subject, about.change) else { return Ok(()) };
    let files = about.change.and_then(|c| c.files.as_deref());
    let file_matches =
        |files: &[String]| files.iter().any(|f| job.files.iter().any(|p| p.matches(f)));
    let known = files.unwrap_or_default();
    let project = about.project.name.as_str();
    if let Some(at) = job.skip_if.iter().position(|s| s.holds(project, branch, known)) {
        return Err(LeftOut::Skipped(at));
    }
    if !job.branches.is_empty() && !job.branches.iter().any(|p| p.matches(branch)) {
        return Err(LeftOut::Branch);
    }
    if !job.files.is_empty() && !files.is_none_or(file_matches) {
        return Err(LeftOut::Files);
    }
    Ok(())
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
