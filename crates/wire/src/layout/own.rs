//! `.toci.yaml`: a project's own jobs, read from the change under test.
//!
//! Whoever may propose a change writes this file, so everything in it is a stranger's word. It adds jobs and puts them
//! into the project's own pipelines; it never takes anything away. What it may not do is told with its place: the
//! text becomes the change's vote.

use super::cycles;
use super::fields::{Findings, Map};
use super::jobs::{self, Definition};
use super::projects;
use super::tree::{self, Kind, Mark, Node};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use toci_core::event::ProjectKey;
use toci_core::layout::{Job, JobTree, Layout, Pipeline, PipelineName, Project};

/// The file of a project's own configuration.
pub const OWN_FILE: &str = ".toci.yaml";
/// Longest project's own configuration, in bytes.
pub const OWN_TEXT_MAX_BYTES: usize = 256 << 10;
/// Values in a project's own configuration at most, those that aliases repeat included.
pub const OWN_NODES_MAX: usize = 20_000;
/// Jobs that a project may define by itself.
pub const OWN_JOBS_MAX: usize = 100;
/// Places of jobs in the trees of a project's own configuration at most.
pub const OWN_NAMES_MAX: usize = 500;
/// Regular expressions in a project's own configuration at most: each may be tried on every file of a change.
pub const OWN_PATTERNS_MAX: usize = 100;
/// Errors of a project's own configuration that are told to the change's owner; the others are counted.
pub const OWN_ERRORS_MAX: usize = 20;
/// Longest time limit that a project's own job may have.
const OWN_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Nodes of one run of a project's own job at most.
const OWN_MACHINES_MAX: u32 = 10;
/// Attempts of a project's own job at most.
const OWN_ATTEMPTS_MAX: u32 = 10;
/// Longest name of a project's own job, in bytes.
const OWN_JOB_NAME_MAX_BYTES: usize = 128;

const LIMITS: tree::Limits = tree::Limits { bytes: OWN_TEXT_MAX_BYTES, nodes: OWN_NODES_MAX };
const KEYS: &[&str] = &["jobs", "project"];
/// What only the layout itself has.
const OPERATORS_KEYS: &[&str] =
    &["pipelines", "projects", "project-templates", "semaphores", "includes"];

/// The layout with a project's own configuration on top of it, as far as it concerns this project: other projects are
/// left out. This is `toci_core::pipeline::ReadProject`.
///
/// # Errors
/// For the change's owner: each with file, line, column and what would be right, a line each, at most
/// [`OWN_ERRORS_MAX`].
pub fn read_own(
    layout: &Layout,
    project: &ProjectKey,
    files: &[(String, String)],
) -> Result<Layout, String> {
    let Some(base) = layout.projects.get(project) else {
        return Err(format!("the layout does not have the project {project}"));
    };
    if !base.in_repository {
        return Err(format!(
            "the layout does not let {project} have a configuration of its own (`in-repository: true`)"
        ));
    }
    let known: BTreeMap<&str, &Job> = layout.jobs.iter().map(|j| (j.name.0.as_str(), j)).collect();
    let mut own = Own { layout, base, known, project: base.clone(), jobs: Vec::new(), names: 0 };
    let mut errors = Vec::new();
    for (file, text) in files {
        let mut found = Findings::with_budget(file, OWN_PATTERNS_MAX);
        match tree::parse(text, LIMITS) {
            Ok(root) => own.take(&root, &mut found),
            Err((mark, what)) => found.error(mark, "", what, "YAML"),
        }
        errors.extend(found.errors.iter().map(ToString::to_string));
    }
    if errors.is_empty() {
        return Ok(own.whole());
    }
    let more = errors.len().saturating_sub(OWN_ERRORS_MAX);
    errors.truncate(OWN_ERRORS_MAX);
    if more > 0 {
        errors.push(format!("and {more} more"));
    }
    Err(errors.join("\n"))
}

/// What is read so far.
struct Own<'l> {
    layout: &'l Layout,
    /// The project as the layout has it.
    base: &'l Project,
    /// The layout's jobs.
    known: BTreeMap<&'l str, &'l Job>,
    project: Project,
    jobs: Vec<Job>,
    names: usize,
}

/// A job's place in a tree of the file.
struct Place<'n> {
    name: &'n str,
    mark: Mark,
    /// Whether it comes after another job.
    behind: bool,
}

impl Own<'_> {
    fn take(&mut self, root: &Node, found: &mut Findings) {
        let Some(map) = Map::of(root, "", found) else { return };
        for (key, mark, _) in map.entries {
            if OPERATORS_KEYS.contains(&key.as_str()) {
                let what = format!("`{key}` can stand only in the layout itself");
                found.error(*mark, "", what, "jobs or project");
            }
        }
        map.known(&[KEYS, OPERATORS_KEYS].concat(), found);
        let definitions: Vec<Definition> = map
            .list("jobs", found)
            .iter()
            .filter_map(|node| self.definition(node, found))
            .collect();
        let names: Vec<(String, Mark)> =
            definitions.iter().map(|d| (d.name.clone(), d.mark)).collect();
        found.unique("job", &names);
        self.define(&definitions, found);
        if let Some(node) = map.get("project") {
            self.pipelines(node, found);
        }
    }

    fn definition(&self, node: &Node, found: &mut Findings) -> Option<Definition> {
        let definition = jobs::read(node, found)?;
        let path = format!("job {}", definition.name);
        if let Some(map) = Map::of(node, &path, found) {
            for (key, what) in [
                ("queue-name", "a project cannot choose its queue by itself"),
                (
                    "pause-after-failures",
                    "a project cannot pause jobs, whose names others have too",
                ),
            ] {
                if let Some(node) = map.get(key) {
                    found.error(node.mark, &path, what, "it in the layout");
                }
            }
            for key in ["mutex", "semaphore"] {
                let Some(name) = map.text(key, found) else { continue };
                if !self.layout.semaphores.contains_key(&name) {
                    let mark = map.get(key).map_or(node.mark, |n| n.mark);
                    let what = format!("the layout has no semaphore `{name}`");
                    found.error(mark, &path, what, "one that the layout has");
                }
            }
        }
        if definition.name.starts_with('^') {
            return Some(definition);
        }
        let name = definition.name.as_str();
        if self.known.contains_key(name) || name == "noop" {
            let what = format!("`{name}` belongs to the layout and cannot be changed here");
            found.error(definition.mark, &path, what, "another name");
        } else if !is_plain(name) {
            let expected = format!(
                "1 to {OWN_JOB_NAME_MAX_BYTES} of a-z A-Z 0-9 . _ - with a letter or digit first"
            );
            found.error(definition.mark, "jobs", "this name cannot be a job's", expected);
        }
        Some(definition)
    }

    fn define(&mut self, definitions: &[Definition], found: &mut Findings) {
        for definition in definitions.iter().filter(|d| !d.name.starts_with('^')) {
            if self.jobs.iter().any(|job| job.name.0 == definition.name) {
                let what = format!("another file defines `{}` already", definition.name);
                found.error(definition.mark, "jobs", what, "one definition");
                continue;
            }
            let job = jobs::job(&definition.name, definitions);
            bounded(&job, definition.mark, found);
            self.jobs.push(job);
        }
        if self.jobs.len() > OWN_JOBS_MAX
            && let Some(last) = definitions.last()
        {
            let what = format!("these are {} jobs", self.jobs.len());
            found.error(last.mark, "jobs", what, format!("at most {OWN_JOBS_MAX}"));
        }
    }

    fn pipelines(&mut self, node: &Node, found: &mut Findings) {
        let Some(map) = Map::of(node, "project", found) else { return };
        let pipelines: &[Pipeline] = &self.layout.pipelines;
        for (pipeline, node) in projects::trees(&map, &[], pipelines, found) {
            let mut places = Vec::new();
            places_of(node, false, &mut places);
            self.names += places.len();
            if self.names > OWN_NAMES_MAX {
                let what = "there are too many jobs in this project's pipelines";
                found.error(node.mark, "project", what, format!("at most {OWN_NAMES_MAX}"));
                return;
            }
            let path = format!("project.{pipeline}");
            for place in &places {
                self.place(place, &pipeline, &path, found);
            }
            let tree = projects::job_tree(node, &path, &[], found);
            let whole = self.project.pipelines.entry(pipeline).or_default();
            whole.jobs.extend(tree.jobs);
            let job = |name: &str| {
                let own = self.jobs.iter().find(|j| j.name.0 == name);
                own.or_else(|| self.known.get(name).copied())
            };
            if let Some(cycle) = cycles::of(whole, &job) {
                let what = format!("these jobs wait for each other: {cycle}");
                found.error(node.mark, &path, what, "an order in which each can start");
            }
        }
    }

    /// Whether this job may stand at this place.
    fn place(&self, place: &Place<'_>, pipeline: &PipelineName, path: &str, found: &mut Findings) {
        let name = place.name;
        let own = self.jobs.iter().find(|job| job.name.0 == name);
        let Some(job) = own.or_else(|| self.known.get(name).copied()) else {
            if name != "noop" {
                let names: Vec<&str> = self.jobs.iter().map(|j| j.name.0.as_str()).collect();
                let expected = match super::fields::nearest(name, &names) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "a job of this file or of the layout".to_owned(),
                };
                found.error(place.mark, path, format!("there is no job `{name}`"), expected);
            }
            return;
        };
        let granted = self.base.pipelines.get(pipeline).is_some_and(|tree| stands_in(tree, name));
        if granted && place.behind {
            let what =
                format!("`{name}` is in the layout's list for {pipeline}, before all others");
            found.error(place.mark, path, what, "it first, with your jobs after it");
        }
        if granted {
            return;
        }
        for (secret, _) in &job.run.secrets {
            let grants = self.base.own_secrets.get(secret);
            if !grants.is_some_and(|pipelines| pipelines.contains(pipeline)) {
                let what = format!("`{name}` takes the secret `{secret}`");
                let expected = format!(
                    "the layout to grant it: `own-secrets: {{{secret}: {pipeline}}}` of the project"
                );
                found.error(place.mark, path, what, expected);
            }
        }
    }

    /// The layout for this project.
    fn whole(self) -> Layout {
        let mut used = BTreeSet::new();
        self.project.pipelines.values().for_each(|tree| names_of(tree, &mut used));
        let mut jobs: Vec<Job> =
            self.layout.jobs.iter().filter(|j| used.contains(j.name.0.as_str())).cloned().collect();
        if used.contains("noop") && !self.known.contains_key("noop") {
            jobs.push(jobs::blank("noop"));
        }
        drop(used);
        jobs.extend(self.jobs);
        Layout {
            pipelines: self.layout.pipelines.clone(),
            jobs,
            projects: BTreeMap::from([(self.project.key.clone(), self.project)]),
            semaphores: self.layout.semaphores.clone(),
            default_source: self.layout.default_source.clone(),
        }
    }
}

/// It becomes part of paths and refs.
fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    name.len() <= OWN_JOB_NAME_MAX_BYTES
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(plain)
}

/// A stranger's job takes no more than its part.
fn bounded(job: &Job, mark: Mark, found: &mut Findings) {
    let path = format!("job {}", job.name);
    let run = &job.run;
    let hours = OWN_TIMEOUT_MAX.as_secs() / 3600;
    for (what, wrong, expected) in [
        ("timeout", run.timeout > OWN_TIMEOUT_MAX, format!("at most {hours}h")),
        ("post-timeout", run.post_timeout > OWN_TIMEOUT_MAX, format!("at most {hours}h")),
        ("nodes", run.nodes > OWN_MACHINES_MAX, format!("at most {OWN_MACHINES_MAX}")),
        (
            "testenv.count",
            run.testenv.as_ref().is_some_and(|t| t.count > OWN_MACHINES_MAX),
            format!("at most {OWN_MACHINES_MAX}"),
        ),
        ("attempts", run.attempts > OWN_ATTEMPTS_MAX, format!("at most {OWN_ATTEMPTS_MAX}")),
    ] {
        if wrong {
            found.error(mark, &path, format!("`{what}` is too much"), expected);
        }
    }
}

fn places_of<'n>(node: &'n Node, behind: bool, out: &mut Vec<Place<'n>>) {
    match &node.kind {
        Kind::Null => {}
        Kind::Scalar { text, .. } => out.push(Place { name: text, mark: node.mark, behind }),
        Kind::List(items) => items.iter().for_each(|item| places_of(item, behind, out)),
        Kind::Map(entries) => {
            for (key, mark, children) in entries {
                out.push(Place { name: key, mark: *mark, behind });
                places_of(children, true, out);
            }
        }
    }
}

fn stands_in(tree: &JobTree, name: &str) -> bool {
    tree.jobs.iter().any(|(known, children)| known.0 == name || stands_in(children, name))
}

fn names_of<'t>(tree: &'t JobTree, into: &mut BTreeSet<&'t str>) {
    for (name, children) in &tree.jobs {
        into.insert(&name.0);
        names_of(children, into);
    }
}
