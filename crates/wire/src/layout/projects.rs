//! Projects and the templates they are made from.

use super::fields::{Findings, Map, text};
use super::tree::{Kind, Mark, Node};
use super::values::folder_name;
use std::collections::BTreeMap;
use toci_core::event::{ProjectKey, ProjectName, SourceName};
use toci_core::layout::{JobName, JobTree, MergeMode, Pipeline, PipelineName, Project};

/// What is known of a template: its trees with `{placeholders}` in the names.
pub(super) struct Template<'n> {
    pipelines: Vec<(PipelineName, &'n Node)>,
}

pub(super) fn templates<'n>(
    nodes: &[&'n Node],
    pipelines: &[Pipeline],
    found: &mut Findings,
) -> BTreeMap<String, Template<'n>> {
    let mut out = BTreeMap::new();
    for node in nodes {
        let Some(map) = Map::of(node, "project-templates", found) else { continue };
        let Some(name) = map.needed("name", found) else { continue };
        let map = Map { path: format!("template {name}"), ..map };
        let trees = trees(&map, &["name"], pipelines, found);
        if out.insert(name.clone(), Template { pipelines: trees }).is_some() {
            found.error(node.mark, &map.path, "this template is defined twice", "one definition");
        }
    }
    out
}

/// Keys that are names of pipelines.
pub(super) fn trees<'n>(
    map: &Map<'n>,
    others: &[&str],
    pipelines: &[Pipeline],
    found: &mut Findings,
) -> Vec<(PipelineName, &'n Node)> {
    let mut out = Vec::new();
    let names: Vec<&str> = pipelines.iter().map(|p| p.name.0.as_str()).collect();
    map.known(&[others, names.as_slice()].concat(), found);
    for (key, _, node) in map.entries {
        if names.contains(&key.as_str()) && !others.contains(&key.as_str()) {
            out.push((PipelineName(key.clone()), node));
        }
    }
    out
}

pub(super) fn read(
    nodes: &[&Node],
    templates: &BTreeMap<String, Template<'_>>,
    pipelines: &[Pipeline],
    default: &SourceName,
    found: &mut Findings,
) -> BTreeMap<ProjectKey, Project> {
    let mut out = BTreeMap::new();
    for node in nodes {
        let Some(project) = one(node, templates, pipelines, default, found) else { continue };
        let key = project.key.clone();
        if out.insert(key.clone(), project).is_some() {
            let path = format!("project {}", key.name);
            found.error(node.mark, &path, "this project is defined twice", "one definition");
        }
    }
    out
}

pub(super) const KEYS: &[&str] =
    &["name", "source", "merge-mode", "template", "in-repository", "own-secrets"];

fn one(
    node: &Node,
    templates: &BTreeMap<String, Template<'_>>,
    pipelines: &[Pipeline],
    default: &SourceName,
    found: &mut Findings,
) -> Option<Project> {
    let map = Map::of(node, "projects", found)?;
    let given = map.needed("name", found)?;
    let map = Map { path: format!("project {given}"), ..map };
    let name = match ProjectName::new(given) {
        Ok(name) => name,
        Err(bad) => {
            found.error(node.mark, &map.path, bad.to_string(), "a project of the source");
            return None;
        }
    };
    let source = match map.text("source", found).map(SourceName::new) {
        None => default.clone(),
        Some(Ok(source)) if found.is_any_source(source.as_str()) => default.clone(),
        Some(Ok(source)) => {
            found.must_be_source(&source, node.mark, &map.path);
            source
        }
        Some(Err(bad)) => {
            found.error(node.mark, &map.path, bad.to_string(), "a source of toci.toml");
            return None;
        }
    };
    let mut project = Project {
        key: ProjectKey { source, name },
        merge_mode: merge_mode(&map, found),
        pipelines: BTreeMap::new(),
        in_repository: map.truth("in-repository", found).unwrap_or(false),
        own_secrets: own_secrets(&map, pipelines, found),
    };
    for node in map.several(&["template"]) {
        from_template(node, templates, &mut project, found);
    }
    for (pipeline, node) in trees(&map, KEYS, pipelines, found) {
        let tree = job_tree(node, &map.path, &[], found);
        project.pipelines.entry(pipeline).or_default().jobs.extend(tree.jobs);
    }
    Some(project)
}

/// `own-secrets: {NAME: PIPELINE or [PIPELINE…]}`.
fn own_secrets(
    map: &Map<'_>,
    pipelines: &[Pipeline],
    found: &mut Findings,
) -> BTreeMap<String, Vec<PipelineName>> {
    let path = format!("{}.own-secrets", map.path);
    let Some(one) = map.get("own-secrets").and_then(|node| Map::of(node, &path, found)) else {
        return BTreeMap::new();
    };
    let mut out = BTreeMap::new();
    for (secret, ..) in one.entries {
        let mut named = Vec::new();
        for node in one.several(&[secret.as_str()]) {
            let Some(name) = text(node, &path, found).map(PipelineName) else { continue };
            match pipelines.iter().find(|p| p.name == name) {
                Some(pipeline) if pipeline.post_review => named.push(name),
                Some(_) => {
                    let what = format!("pipeline `{name}` takes what nobody has reviewed");
                    let expected = "a pipeline with `post-review: true`: its changes say what runs";
                    found.error(node.mark, &path, what, expected);
                }
                None => {
                    let what = format!("there is no pipeline `{name}`");
                    found.error(node.mark, &path, what, "a name of `pipelines`");
                }
            }
        }
        out.insert(secret.clone(), named);
    }
    out
}

fn merge_mode(map: &Map<'_>, found: &mut Findings) -> MergeMode {
    match map.text("merge-mode", found).as_deref() {
        Some("merge") => MergeMode::Merge,
        // With the comma that Zuul 2's own validator asked for by mistake.
        Some("merge-resolve" | "merge-resolve,") | None => MergeMode::MergeResolve,
        Some("cherry-pick") => MergeMode::CherryPick,
        Some("squash" | "squash-merge") => MergeMode::Squash,
        Some(other) => {
            let what = format!("there is no merge mode `{other}`");
            found.error(map.mark, &map.path, what, "merge, merge-resolve, cherry-pick or squash");
            MergeMode::default()
        }
    }
}

/// `template: [{name: T, placeholder: value…}]`; `{name}` is the project's short name.
fn from_template(
    node: &Node,
    templates: &BTreeMap<String, Template<'_>>,
    project: &mut Project,
    found: &mut Findings,
) {
    let path = format!("project {}", project.key.name);
    let mut values = vec![("name".to_owned(), project.key.name.short().to_owned())];
    let wanted = match &node.kind {
        Kind::Scalar { text, .. } => Some(text.clone()),
        Kind::Null | Kind::List(_) | Kind::Map(_) => {
            let Some(map) = Map::of(node, &path, found) else { return };
            for (key, _, value) in map.entries.iter().filter(|(key, ..)| key != "name") {
                if let Some(value) = text(value, key, found) {
                    values.push((key.clone(), value));
                }
            }
            map.needed("name", found)
        }
    };
    let Some(wanted) = wanted else { return };
    let Some(template) = templates.get(&wanted) else {
        let known: Vec<&str> = templates.keys().map(String::as_str).collect();
        let expected = match super::fields::nearest(&wanted, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "a name of `project-templates`".to_owned(),
        };
        found.error(node.mark, &path, format!("there is no template `{wanted}`"), expected);
        return;
    };
    for (pipeline, node) in &template.pipelines {
        let tree = job_tree(node, &format!("{path}, template {wanted}"), &values, found);
        project.pipelines.entry(pipeline.clone()).or_default().jobs.extend(tree.jobs);
    }
}

/// Names, or maps of a name to what comes after it.
pub(super) fn job_tree(
    node: &Node,
    path: &str,
    values: &[(String, String)],
    found: &mut Findings,
) -> JobTree {
    let mut tree = JobTree::default();
    match &node.kind {
        Kind::Null => {}
        Kind::Scalar { text, .. } => {
            let name = filled(text, node.mark, path, values, found);
            folder_name("a job", &name, node.mark, path, found);
            tree.jobs.push((JobName(name), JobTree::default()));
        }
        Kind::List(items) => {
            for item in items {
                tree.jobs.extend(job_tree(item, path, values, found).jobs);
            }
        }
        Kind::Map(entries) => {
            for (key, mark, children) in entries {
                let name = filled(key, *mark, path, values, found);
                folder_name("a job", &name, *mark, path, found);
                tree.jobs.push((JobName(name), job_tree(children, path, values, found)));
            }
        }
    }
    tree
}

/// Fills `{placeholders}`; one without a value is an error. Outside templates braces mean nothing.
fn filled(
    name: &str,
    mark: Mark,
    path: &str,
    values: &[(String, String)],
    found: &mut Findings,
) -> String {
    if values.is_empty() {
        return name.to_owned();
    }
    let mut out = String::new();
    let mut rest = name;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        let Some(length) = rest[open..].find('}') else { break };
        let key = &rest[open + 1..open + length];
        match values.iter().find(|(known, _)| known == key) {
            Some((_, value)) => out.push_str(value),
            None => {
                let what = format!("`{{{key}}}` of {name} has no value");
                found.error(mark, path, what, format!("`{key}: …` where the template is used"));
            }
        }
        rest = &rest[open + length + 1..];
    }
    out.push_str(rest);
    out
}
