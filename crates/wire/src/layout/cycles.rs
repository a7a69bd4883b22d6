//! Jobs of one list that wait for each other, so that none of them could ever start.

use super::fields::Findings;
use super::jobs::Definition;
use super::tree::Mark;
use std::collections::BTreeMap;
use toci_core::event::ProjectKey;
use toci_core::layout::{Job, JobTree, Project};

/// Told where the first of the jobs is defined.
pub(super) fn refuse(
    projects: &BTreeMap<ProjectKey, Project>,
    jobs: &[Job],
    definitions: &[Definition],
    root: Mark,
    found: &mut Findings,
) {
    let by_name: BTreeMap<&str, &Job> = jobs.iter().map(|j| (j.name.0.as_str(), j)).collect();
    for project in projects.values() {
        for (pipeline, tree) in &project.pipelines {
            let Some(cycle) = of(tree, &|name| by_name.get(name).copied()) else {
                continue;
            };
            let first = cycle.split(' ').next().unwrap_or_default();
            let mark = definitions.iter().find(|d| d.name == first).map_or(root, |d| d.mark);
            let path = format!("project {}.{pipeline}", project.key.name);
            let what = format!("these jobs wait for each other: {cycle}");
            found.error(mark, &path, what, "an order in which each can start");
        }
    }
}

/// A way round, as `a after b after a`, in one pipeline's jobs of one project.
pub(super) fn of<'j>(tree: &JobTree, job: &impl Fn(&str) -> Option<&'j Job>) -> Option<String> {
    let mut waits: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    edges(tree, None, &mut waits);
    let names: Vec<&str> = waits.keys().copied().collect();
    for name in names {
        let of_job = job(name).map(|j| j.dependencies.as_slice()).unwrap_or_default();
        waits.entry(name).or_default().extend(of_job.iter().map(|d| d.0.as_str()));
    }
    // What waits for nobody that is left can start: what remains in the end goes round.
    loop {
        let free: Vec<&str> = waits
            .iter()
            .filter(|(_, for_these)| !for_these.iter().any(|other| waits.contains_key(other)))
            .map(|(name, _)| *name)
            .collect();
        if free.is_empty() {
            break;
        }
        free.iter().for_each(|name| drop(waits.remove(name)));
    }
    let mut path: Vec<&str> = Vec::new();
    let mut at = *waits.keys().next()?;
    loop {
        if let Some(start) = path.iter().position(|known| *known == at) {
            path.push(at);
            return Some(path.split_off(start).join(" after "));
        }
        path.push(at);
        at = waits.get(at)?.iter().copied().find(|other| waits.contains_key(other))?;
    }
}

fn edges<'t>(
    tree: &'t JobTree,
    parent: Option<&'t str>,
    waits: &mut BTreeMap<&'t str, Vec<&'t str>>,
) {
    for (name, children) in &tree.jobs {
        waits.entry(&name.0).or_default().extend(parent);
        edges(children, Some(&name.0), waits);
    }
}
