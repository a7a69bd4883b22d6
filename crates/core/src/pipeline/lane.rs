//! A pipeline's queues.

use super::input::Subject;
use super::jobs::NOOP;
use crate::event::{ChangeKey, ProjectKey, SourceName};
use crate::id::ItemId;
use crate::layout::{Growth, JobTree, Layout, Manager, Pipeline, Window};
use std::collections::{BTreeMap, BTreeSet};

/// Items of a queue that are worked on at most, also when the pipeline sets no limit: every one of them is a merge and runs
/// on top of all those ahead, so that they cost with the square of their number.
pub(super) const WINDOW_MAX: u32 = 200;

/// A pipeline with what stands in it. Its place is that of the pipeline in the layout.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    /// Dependent: the shared queues by number. Independent: one for each item that is tested, by age.
    pub(super) queues: BTreeMap<u64, Queue>,
    /// Dependent: the queue of each project.
    pub(super) by_project: BTreeMap<ProjectKey, u64>,
    /// Live items.
    pub(super) live: BTreeMap<Subject, ItemId>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Too many failures in a row: told to the `disabled` reporters only, until the next layout.
    pub(super) disabled: bool,
}

/// Items in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pub(super) name: String,
    /// How many items are worked on; 0: all.
    pub(super) window: u32,
    pub(super) items: Vec<ItemId>,
}

impl Lane {
    /// The live items of any patchset of this change.
    pub(super) fn patchsets(
        &self,
        source: &SourceName,
        number: u64,
    ) -> impl Iterator<Item = (&ChangeKey, ItemId)> {
        let first = ChangeKey { source: source.clone(), number, patchset: String::new() };
        let same = first.clone();
        self.live
            .range(Subject::Change(first)..)
            .map_while(|(subject, id)| match subject {
                Subject::Change(key) => Some((key, *id)),
                Subject::Ref(_) | Subject::Branch { .. } => None,
            })
            .take_while(move |(key, _)| key.same_change(&same))
    }
}

/// The empty lane of a pipeline. A dependent one has its shared queues: projects that have a job or a queue name in
/// common share one (origin.md 7.3).
pub(super) fn lane(layout: &Layout, pipeline: &Pipeline) -> Lane {
    let mut lane = Lane::default();
    match pipeline.manager {
        Manager::Independent => {}
        Manager::Dependent => {
            for (number, shared) in (0u64..).zip(shared_queues(layout, pipeline)) {
                for project in shared.projects {
                    lane.by_project.insert(project, number);
                }
                let queue =
                    Queue { name: shared.name, window: pipeline.window.start, items: Vec::new() };
                lane.queues.insert(number, queue);
            }
        }
    }
    lane
}

struct Shared {
    name: String,
    projects: Vec<ProjectKey>,
}

/// Sorted by their first project.
fn shared_queues(layout: &Layout, pipeline: &Pipeline) -> Vec<Shared> {
    struct Growing {
        projects: BTreeSet<ProjectKey>,
        bonds: BTreeSet<String>,
        names: BTreeSet<String>,
    }
    let mut groups: Vec<Growing> = Vec::new();
    for (key, project) in &layout.projects {
        let tree = project.pipelines.get(&pipeline.name);
        if tree.is_none() && !project.in_repository {
            continue;
        }
        let mut own = Growing {
            projects: BTreeSet::from([key.clone()]),
            bonds: BTreeSet::new(),
            names: BTreeSet::new(),
        };
        let mut jobs = BTreeSet::new();
        tree.into_iter().for_each(|tree| names_of(tree, &mut jobs));
        for job in jobs.into_iter().filter(|job| *job != NOOP) {
            own.bonds.insert(format!("job {job}"));
            if let Some(name) = queue_name(layout, job) {
                own.bonds.insert(format!("queue {name}"));
                own.names.insert(name);
            }
        }
        // Whatever it has in common with groups so far makes one of them all.
        let (related, apart): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|g| !g.bonds.is_disjoint(&own.bonds));
        for group in related {
            own.projects.extend(group.projects);
            own.bonds.extend(group.bonds);
            own.names.extend(group.names);
        }
        groups = apart;
        groups.push(own);
    }
    groups.sort_by(|a, b| a.projects.first().cmp(&b.projects.first()));
    let named = |g: Growing| {
        let all = || g.projects.iter().map(|p| p.name.to_string()).collect::<Vec<_>>().join(", ");
        let name = g.names.first().cloned().unwrap_or_else(all);
        Shared { name, projects: g.projects.into_iter().collect() }
    };
    groups.into_iter().map(named).collect()
}

fn names_of<'a>(tree: &'a JobTree, into: &mut BTreeSet<&'a str>) {
    for (name, children) in &tree.jobs {
        into.insert(&name.0);
        names_of(children, into);
    }
}

fn queue_name(layout: &Layout, job: &str) -> Option<String> {
    layout.jobs.iter().find(|j| j.name.0 == job).and_then(|j| j.queue_name.clone())
}

/// The window after a success.
pub(super) fn grown(window: u32, rule: &Window) -> u32 {
    match rule.increase {
        // No limit stays no limit.
        Growth::Linear(_) | Growth::Exponential(_) if window == 0 => 0,
        Growth::Linear(by) => window.saturating_add(by).min(WINDOW_MAX.max(window)),
        Growth::Exponential(by) => window.saturating_mul(by.max(1)).min(WINDOW_MAX.max(window)),
    }
}

/// The window after a failure; never under its floor.
pub(super) fn shrunk(window: u32, rule: &Window) -> u32 {
    let floor = rule.floor.max(1);
    match rule.decrease {
        Growth::Linear(_) | Growth::Exponential(_) if window == 0 => 0,
        Growth::Linear(by) => window.saturating_sub(by).max(floor),
        Growth::Exponential(by) => (window / by.max(1)).max(floor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_grow_and_shrink_as_zuuls() {
        let rule = Window::default();
        assert_eq!((grown(20, &rule), shrunk(20, &rule), shrunk(4, &rule)), (21, 10, 3));
        let rule = Window {
            start: 20,
            floor: 20,
            increase: Growth::Exponential(2),
            decrease: Growth::Linear(5),
        };
        assert_eq!((grown(20, &rule), shrunk(22, &rule), shrunk(40, &rule)), (40, 20, 35));
        assert_eq!((grown(0, &rule), shrunk(0, &rule)), (0, 0), "no limit");
        assert_eq!((grown(150, &rule), grown(500, &rule)), (WINDOW_MAX, 500), "no more than helps");
    }
}
