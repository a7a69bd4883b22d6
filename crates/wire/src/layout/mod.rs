//! The layout: Zuul 2's `layout.yaml` (origin.md 7.2) with our additions, from YAML to [`toci_core::layout::Layout`].
//!
//! ```text
//!   text ─▶ tree (every node knows its line and column) ─▶ readers, one for each kind of section ─▶ Layout
//!                                                             └─▶ every error, and what each ignored key means
//! ```
//!
//! Names resolve here, templates are expanded, metajobs are applied: the layout that comes out is whole.

mod actions;
mod cycles;
pub(crate) mod fields;
mod jobs;
mod own;
mod pipelines;
mod projects;
pub(crate) mod tree;
mod values;

pub use fields::{LayoutError, Note};
pub use own::{
    OWN_ERRORS_MAX, OWN_FILE, OWN_JOBS_MAX, OWN_NAMES_MAX, OWN_NODES_MAX, OWN_PATTERNS_MAX,
    OWN_TEXT_MAX_BYTES, read_own,
};
pub use tree::{DEPTH_MAX, NODES_MAX, TEXT_MAX_BYTES};

use fields::{Findings, Map};
use jobs::Definition;
use toci_core::event::SourceName;
use toci_core::layout::Layout;

/// What a text says, if it can be used, and what there is to tell about it.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// The layout; absent when there is an error.
    pub layout: Option<Layout>,
    /// Everything that is wrong.
    pub errors: Vec<LayoutError>,
    /// Keys that are known and have no effect here, with what to do instead.
    pub notes: Vec<Note>,
}

/// Keys of the whole file.
const KEYS: &[&str] =
    &["pipelines", "jobs", "project-templates", "projects", "semaphores", "includes"];

/// Reads a layout. `file` is named in errors; `source` is what `source:` means when it is left out.
#[must_use]
pub fn read(file: &str, text: &str, source: &SourceName) -> Read {
    let found = Findings::with_sources(file, std::slice::from_ref(source), false);
    read_with(text, source, found)
}

/// Reads a layout for a server with these sources, the first of which is meant where none is named; there must be one.
/// A source that is named and is none of them is an error.
#[must_use]
pub fn read_for(file: &str, text: &str, sources: &[SourceName]) -> Read {
    match sources.first() {
        Some(first) => read_with(text, first, Findings::with_sources(file, sources, true)),
        None => Read::default(),
    }
}

fn read_with(text: &str, source: &SourceName, mut found: Findings) -> Read {
    let layout = match tree::parse(text, tree::LAYOUT) {
        Ok(root) => read_root(&root, source, &mut found),
        Err((mark, what)) => {
            found.error(mark, "", what, "YAML");
            None
        }
    };
    let layout = layout.filter(|_| found.errors.is_empty());
    Read { layout, errors: found.errors, notes: found.notes }
}

fn read_root(root: &tree::Node, source: &SourceName, found: &mut Findings) -> Option<Layout> {
    let map = Map::of(root, "", found)?;
    map.known(KEYS, found);
    if let Some(node) = map.get("includes") {
        let instead =
            "parameter functions are declared instead: `parameters`, `node` and `env` of a job";
        found.note(node.mark, "includes", instead);
    }
    for needed in ["pipelines", "projects"] {
        if map.get(needed).is_none() {
            let what = format!("`{needed}` is missing");
            found.error(root.mark, "", what, "a list of them");
        }
    }
    let pipelines: Vec<_> = map
        .list("pipelines", found)
        .iter()
        .filter_map(|node| pipelines::read(node, source, found))
        .collect();
    let names: Vec<(String, tree::Mark)> =
        pipelines.iter().map(|(p, mark)| (p.name.0.clone(), *mark)).collect();
    found.unique("pipeline", &names);
    let semaphores = jobs::semaphores(&map, found);
    let definitions: Vec<Definition> =
        map.list("jobs", found).iter().filter_map(|node| jobs::read(node, found)).collect();
    let names: Vec<(String, tree::Mark)> =
        definitions.iter().map(|d| (d.name.clone(), d.mark)).collect();
    found.unique("job", &names);
    let pipelines: Vec<_> = pipelines.into_iter().map(|(p, _)| p).collect();
    let templates = projects::templates(&map.list("project-templates", found), &pipelines, found);
    let list = map.list("projects", found);
    let projects = projects::read(&list, &templates, &pipelines, source, found);
    let semaphores = jobs::with_mutexes(semaphores, &definitions, found);
    let jobs = jobs::resolve(&definitions, &projects, found);
    cycles::refuse(&projects, &jobs, &definitions, root.mark, found);
    Some(Layout { pipelines, jobs, projects, semaphores, default_source: Some(source.clone()) })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_own;
