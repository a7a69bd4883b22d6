//! Jobs: what is defined, then metajobs applied.

use super::fields::{Findings, Map, text};
use super::tree::{Kind, Mark, Node};
use super::values::{compile, duration, folder_name, pairs, pattern, patterns};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use toci_core::event::ProjectKey;
use toci_core::id::{Label, ShapeName};
use toci_core::layout::{
    Job, JobName, JobRun, JobTree, Pattern, Project, Script, SemaphoreUse, SkipIf, TestenvWish,
};

/// When a job does not say: pre and run together, as devstack-gate's DEVSTACK_GATE_TIMEOUT.
const TIMEOUT: Duration = Duration::from_secs(3600);
const POST_TIMEOUT: Duration = Duration::from_secs(600);
/// Zuul's default since it has one.
const ATTEMPTS: u32 = 3;

pub(super) const KEYS: &[&str] = &[
    "name",
    "queue-name",
    "failure-message",
    "success-message",
    "failure-pattern",
    "success-pattern",
    "hold-following-changes",
    "voting",
    "mutex",
    "semaphore",
    "tags",
    "parameter-function",
    "branch",
    "files",
    "swift",
    "skip-if",
    "attempts",
    "pause-after-failures",
    "parameters",
    "dependencies",
    "run",
    "pre-run",
    "post-run",
    "node",
    "nodes",
    "testenv",
    "timeout",
    "post-timeout",
    "wait-timeout",
    "artifacts",
    "env",
    "secrets",
    "projects",
    "override-branch",
    "project-branches",
];

/// Sets what one definition says, and nothing else.
type Set = Box<dyn Fn(&mut Job)>;

/// A job or metajob as it is defined: only what it says itself.
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) mark: Mark,
    pub(super) pattern: Option<Pattern>,
    mutexes: Vec<String>,
    semaphores: Vec<(String, Mark)>,
    sets: Vec<Set>,
}

pub(super) fn read(node: &Node, found: &mut Findings) -> Option<Definition> {
    let map = Map::of(node, "jobs", found)?;
    let name = map.needed("name", found)?;
    if !name.starts_with('^') {
        let mark = map.get("name").map_or(node.mark, |n| n.mark);
        folder_name("a job", &name, mark, "jobs", found);
    }
    let map = Map { path: format!("job {name}"), ..map };
    map.known(KEYS, found);
    for (key, instead) in [
        ("parameter-function", "declare what it computed: `parameters`, `node`, `env`"),
        ("swift", "logs and artifacts go to the server's log store; see `artifacts`"),
    ] {
        if let Some(node) = map.get(key) {
            found.note(node.mark, &format!("{}.{key}", map.path), instead);
        }
    }
    let pattern =
        name.starts_with('^').then(|| compile(name.clone(), node.mark, &map.path, found)).flatten();
    let mut definition = Definition {
        name,
        mark: node.mark,
        pattern,
        mutexes: map.text("mutex", found).into_iter().collect(),
        semaphores: map
            .get("semaphore")
            .map(|n| n.mark)
            .into_iter()
            .filter_map(|mark| Some((map.text("semaphore", found)?, mark)))
            .collect(),
        sets: Vec::new(),
    };
    about_results(&map, &mut definition, found);
    about_choice(&map, &mut definition, found);
    about_run(&map, &mut definition, found);
    about_place(&map, &mut definition, found);
    Some(definition)
}

/// Adds a setter when there is a value.
fn set<T: Clone + 'static>(to: &mut Definition, value: Option<T>, how: fn(&mut Job, T)) {
    if let Some(value) = value {
        to.sets.push(Box::new(move |job| how(job, value.clone())));
    }
}

fn given<T>(map: &Map<'_>, key: &str, value: T) -> Option<T> {
    map.get(key).map(|_| value)
}

fn about_results(map: &Map<'_>, to: &mut Definition, found: &mut Findings) {
    set(to, map.truth("voting", found), |j, v| j.voting = v);
    set(to, map.truth("hold-following-changes", found), |j, v| j.hold_following = v);
    set(to, map.text("queue-name", found), |j, v| j.queue_name = Some(v));
    set(to, map.text("success-message", found), |j, v| j.success_message = Some(v));
    set(to, map.text("failure-message", found), |j, v| j.failure_message = Some(v));
    set(to, map.text("success-pattern", found), |j, v| j.success_pattern = Some(v));
    set(to, map.text("failure-pattern", found), |j, v| j.failure_pattern = Some(v));
    let most = map.number("pause-after-failures", 2, found);
    set(to, most, |j, v| j.pause_after_failures = Some(v));
    let tags = map.texts(&["tags"], found);
    set(to, given(map, "tags", tags), |j, v| j.tags = v);
    let parameters = pairs(map, "parameters", found);
    set(to, given(map, "parameters", parameters), |j, v| j.parameters = v);
}

fn about_choice(map: &Map<'_>, to: &mut Definition, found: &mut Findings) {
    let branches = patterns(map, &["branch"], found);
    set(to, given(map, "branch", branches), |j, v| j.branches = v);
    let files = patterns(map, &["files"], found);
    set(to, given(map, "files", files), |j, v| j.files = v);
    let mut skips = Vec::new();
    for node in map.several(&["skip-if"]) {
        let Some(one) = Map::of(node, "skip-if", found) else { continue };
        one.known(&["project", "branch", "all-files-match-any"], found);
        let mut of = |key| one.get(key).and_then(|node| pattern(node, key, found));
        let (project, branch) = (of("project"), of("branch"));
        let all_files_match_any = patterns(&one, &["all-files-match-any"], found);
        skips.push(SkipIf { project, branch, all_files_match_any });
    }
    set(to, given(map, "skip-if", skips), |j, v| j.skip_if = v);
    let held = to.mutexes.first().or(to.semaphores.first().map(|(name, _)| name)).cloned();
    set(to, held, |j, name| j.semaphore = Some(SemaphoreUse { name }));
    let dependencies = map.texts(&["dependencies"], found).into_iter().map(JobName).collect();
    set(to, given(map, "dependencies", dependencies), |j, v| j.dependencies = v);
}

fn about_run(map: &Map<'_>, to: &mut Definition, found: &mut Findings) {
    let run = scripts(map, "run", found);
    set(to, given(map, "run", run), |j, v| j.run.run = v);
    let pre = scripts(map, "pre-run", found);
    set(to, given(map, "pre-run", pre), |j, v| j.run.pre = v);
    let post = scripts(map, "post-run", found);
    set(to, given(map, "post-run", post), |j, v| j.run.post = v);
    set(to, duration(map, "timeout", found), |j, v| j.run.timeout = v);
    set(to, duration(map, "post-timeout", found), |j, v| j.run.post_timeout = v);
    set(to, duration(map, "wait-timeout", found), |j, v| j.run.wait_timeout = Some(v));
    set(to, map.number("attempts", 1, found), |j, v| j.run.attempts = v);
    let artifacts = map.texts(&["artifacts"], found);
    set(to, given(map, "artifacts", artifacts), |j, v| j.run.artifacts = v);
    let env = pairs(map, "env", found);
    set(to, given(map, "env", env), |j, v| j.run.env = v);
    let secrets = secrets(map, found);
    set(to, given(map, "secrets", secrets), |j, v| j.run.secrets = v);
}

fn about_place(map: &Map<'_>, to: &mut Definition, found: &mut Findings) {
    let node = map.get("node").and_then(|node| label(node, "node", found));
    set(to, node, |j, v| j.run.node = Some(v));
    set(to, map.number("nodes", 1, found), |j, v| j.run.nodes = v);
    let testenv = map.get("testenv").and_then(|node| testenv(node, found));
    set(to, testenv, |j, v| j.run.testenv = Some(v));
    let projects = map.texts(&["projects"], found);
    set(to, given(map, "projects", projects), |j, v| j.run.projects = v);
    set(to, map.text("override-branch", found), |j, v| j.run.override_branch = Some(v));
    let branches = pairs(map, "project-branches", found);
    set(to, given(map, "project-branches", branches), |j, v| j.run.project_branches = v);
}

/// A path on one line is a file, anything else is shell text.
fn scripts(map: &Map<'_>, key: &str, found: &mut Findings) -> Vec<Script> {
    let is_file = |text: &str| {
        let first = text.split_whitespace().next().unwrap_or_default();
        !text.trim().contains('\n') && first.contains('/') && !first.starts_with('/')
    };
    let texts = map.texts(&[key], found).into_iter();
    texts.map(|t| if is_file(&t) { Script::File(t) } else { Script::Inline(t) }).collect()
}

fn label(node: &Node, path: &str, found: &mut Findings) -> Option<Label> {
    match Label::new(text(node, path, found)?) {
        Ok(label) => Some(label),
        Err(bad) => {
            found.error(node.mark, path, bad.to_string(), "a label");
            None
        }
    }
}

/// `testenv: LABEL` or `testenv: {label, shape, count}`.
fn testenv(node: &Node, found: &mut Findings) -> Option<TestenvWish> {
    if let Kind::Scalar { .. } = node.kind {
        return Some(TestenvWish {
            label: Some(label(node, "testenv", found)?),
            shape: None,
            count: 1,
        });
    }
    let map = Map::of(node, "testenv", found)?;
    map.known(&["label", "shape", "count"], found);
    let shape =
        map.get("shape").and_then(|node| match ShapeName::new(text(node, "shape", found)?) {
            Ok(shape) => Some(shape),
            Err(bad) => {
                found.error(node.mark, "shape", bad.to_string(), "a shape");
                None
            }
        });
    Some(TestenvWish {
        label: map.get("label").and_then(|node| label(node, "label", found)),
        shape,
        count: map.number("count", 1, found).unwrap_or(1),
    })
}

/// `secrets: [NAME]` (in a variable of that name) or `secrets: {VARIABLE: NAME}`.
fn secrets(map: &Map<'_>, found: &mut Findings) -> Vec<(String, String)> {
    match map.get("secrets").map(|node| &node.kind) {
        Some(Kind::Map(_)) => pairs(map, "secrets", found)
            .into_iter()
            .map(|(variable, name)| (name, variable))
            .collect(),
        Some(Kind::List(_) | Kind::Scalar { .. } | Kind::Null) | None => {
            let variable = |name: &str| name.to_ascii_uppercase().replace(['-', '.'], "_");
            let names = map.texts(&["secrets"], found).into_iter();
            names.map(|name| (name.clone(), variable(&name))).collect()
        }
    }
}

pub(super) fn blank(name: &str) -> Job {
    Job {
        name: JobName(name.to_owned()),
        voting: true,
        hold_following: false,
        queue_name: None,
        success_message: None,
        failure_message: None,
        success_pattern: None,
        failure_pattern: None,
        branches: Vec::new(),
        files: Vec::new(),
        skip_if: Vec::new(),
        semaphore: None,
        pause_after_failures: None,
        tags: Vec::new(),
        dependencies: Vec::new(),
        parameters: Vec::new(),
        run: JobRun {
            pre: Vec::new(),
            run: Vec::new(),
            post: Vec::new(),
            node: None,
            nodes: 1,
            testenv: None,
            timeout: TIMEOUT,
            post_timeout: POST_TIMEOUT,
            wait_timeout: None,
            attempts: ATTEMPTS,
            artifacts: Vec::new(),
            env: Vec::new(),
            secrets: Vec::new(),
            projects: Vec::new(),
            override_branch: None,
            project_branches: Vec::new(),
        },
    }
}

/// `semaphores: [{name, max}]`.
pub(super) fn semaphores(map: &Map<'_>, found: &mut Findings) -> BTreeMap<String, u32> {
    let mut out = BTreeMap::new();
    for node in map.list("semaphores", found) {
        let Some(one) = Map::of(node, "semaphores", found) else { continue };
        one.known(&["name", "max"], found);
        let max = one.number("max", 1, found).unwrap_or(1);
        if let Some(name) = one.needed("name", found) {
            out.insert(name, max);
        }
    }
    out
}

/// A mutex is a semaphore with one place; semaphores that nobody defined have one too, which is told.
pub(super) fn with_mutexes(
    mut known: BTreeMap<String, u32>,
    definitions: &[Definition],
    found: &mut Findings,
) -> BTreeMap<String, u32> {
    for definition in definitions {
        for (name, mark) in &definition.semaphores {
            if !known.contains_key(name) {
                let what = format!("there is no semaphore `{name}`");
                found.error(*mark, &definition.name, what, "one of `semaphores`, or use `mutex`");
            }
        }
    }
    for name in definitions.iter().flat_map(|d| &d.mutexes) {
        known.entry(name.clone()).or_insert(1);
    }
    known
}

/// Every job that is defined or named by a project: metajobs in the order of the file, then its own definition, so
/// that what a job says itself always counts (the origin's metajobs could override it with a default).
pub(super) fn resolve(
    definitions: &[Definition],
    projects: &BTreeMap<ProjectKey, Project>,
    found: &mut Findings,
) -> Vec<Job> {
    let mut names: Vec<&str> =
        definitions.iter().filter(|d| d.pattern.is_none()).map(|d| d.name.as_str()).collect();
    let mut seen: BTreeSet<&str> = names.iter().copied().collect();
    for tree in projects.values().flat_map(|p| p.pipelines.values()) {
        named(tree, &mut |name| {
            if seen.insert(name) {
                names.push(name);
            }
        });
    }
    for definition in definitions.iter().filter(|d| d.name.starts_with('^')) {
        let matched = definition.pattern.as_ref();
        if !names.iter().any(|name| matched.is_some_and(|p| p.matches(name))) {
            let what = "no job has a name that this metajob matches";
            found.note(definition.mark, &format!("job {}", definition.name), what);
        }
    }
    names.into_iter().map(|name| job(name, definitions)).collect()
}

pub(super) fn job(name: &str, definitions: &[Definition]) -> Job {
    let mut job = blank(name);
    let metas = definitions.iter().filter(|d| d.pattern.as_ref().is_some_and(|p| p.matches(name)));
    let own = definitions.iter().filter(|d| d.pattern.is_none() && d.name == name);
    for set in metas.chain(own).flat_map(|d| &d.sets) {
        set(&mut job);
    }
    job
}

fn named<'t>(tree: &'t JobTree, tell: &mut impl FnMut(&'t str)) {
    for (name, children) in &tree.jobs {
        tell(&name.0);
        named(children, tell);
    }
}
