//! `toci config`.

use super::explain::{self, Told};
use crate::args::ConfigCommand;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::finding::{Finding, under_their_lines};
use crate::output;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use toci_core::chain::Chain;
use toci_core::event::{ProjectKey, SourceName};
use toci_core::layout::{Job, JobTree, Layout};
use toci_server::LayoutSettings;
use toci_wire::layout::{Note, Read, read, read_for};

/// The source of a layout of which nobody says where its changes come from: Zuul 2's.
const SOURCE_DEFAULT: &str = "gerrit";

pub(super) fn dispatch(json: bool, command: ConfigCommand) -> Result<ExitCode> {
    match command {
        ConfigCommand::Check { layout, config, source, change } => {
            let (found, text) = found(layout, config.as_deref(), source)?;
            let explained = match (&found.layout, &change.project) {
                (Some(layout), Some(project)) => Some(explain::explain(layout, &change, project)?),
                (_, _) => None,
            };
            let own_wrong = explained.iter().flatten().any(|told| !told.own_error.is_empty());
            if json {
                output::json(&as_json(&found, explained))?;
            } else if let Some(explained) = explained {
                let notes = found.notes.iter().map(ToString::to_string);
                let lines: Vec<String> = notes.chain([explain::as_text(&explained)]).collect();
                output::text_line(&lines.join("\n"))?;
            } else {
                output::text_line(&told(&found, &text))?;
            }
            let exit = if found.errors.is_empty() && !own_wrong { Exit::Ok } else { Exit::Usage };
            Ok(exit.into())
        }
    }
}

/// What is found in a layout, and its text.
fn found(
    layout: Option<PathBuf>,
    config: Option<&Path>,
    mut sources: Vec<SourceName>,
) -> Result<(Read, String)> {
    let mut file = layout;
    if let Some(config) = config {
        let settings = LayoutSettings::load(config).map_err(|e| {
            let what = format!("cannot use {}: {}", config.display(), Chain(&e));
            CliError::usage(what, "see docs/server.md")
        })?;
        let Some(settings) = settings else {
            let what = format!("{} has no [layout]", config.display());
            return Err(CliError::usage(what, "name its `file`, and a [[source]]"));
        };
        sources = settings.sources;
        file = file.or(Some(settings.file));
    }
    let Some(file) = file else {
        return Err(CliError::usage("which layout?", "name a file, or give --config"));
    };
    let text = std::fs::read_to_string(&file).map_err(|e| {
        let what = format!("cannot read {}: {e}", file.display());
        CliError::usage(what, "name a file that is there")
    })?;
    let name = file.display().to_string();
    let found = if sources.is_empty() {
        let source = SourceName::new(SOURCE_DEFAULT);
        let source = source.map_err(|e| CliError::failed("name the usual source", &e))?;
        read(&name, &text, &source)
    } else {
        read_for(&name, &text, &sources)
    };
    Ok((found, text))
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Checked {
    errors: Vec<Finding>,
    notes: Vec<Finding>,
    pipelines: usize,
    jobs: usize,
    projects: usize,
    /// What the event of `--project` would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    explained: Option<Vec<Told>>,
}

fn as_json(found: &Read, explained: Option<Vec<Told>>) -> Checked {
    let note = |n: &Note| Finding {
        line: n.mark.line,
        column: n.mark.column,
        path: n.path.clone(),
        message: "this key has no effect".to_owned(),
        hint: n.instead.clone(),
    };
    let count = |of: fn(&Layout) -> usize| found.layout.as_ref().map_or(0, of);
    Checked {
        errors: found.errors.iter().map(Finding::of).collect(),
        notes: found.notes.iter().map(note).collect(),
        pipelines: count(|l| l.pipelines.len()),
        jobs: count(|l| l.jobs.len()),
        projects: count(|l| l.projects.len()),
        explained,
    }
}

/// Errors with the line they are about and a caret under it, then notes, then what was read.
fn told(found: &Read, text: &str) -> String {
    let mut out = under_their_lines(&found.errors, text);
    out.extend(found.notes.iter().map(ToString::to_string));
    match &found.layout {
        Some(layout) => out.push(summary(layout)),
        None => out.push(format!("{} errors", found.errors.len())),
    }
    out.join("\n")
}

/// A line for each project and pipeline, with its jobs. Projects of several sources have their source's name before theirs.
fn summary(layout: &Layout) -> String {
    let mut rows = Vec::new();
    let sources: BTreeSet<&SourceName> = layout.projects.keys().map(|key| &key.source).collect();
    let name = |key: &ProjectKey| match sources.len() {
        0 | 1 => key.name.to_string(),
        _ => key.to_string(),
    };
    for project in layout.projects.values() {
        for (pipeline, tree) in &project.pipelines {
            let mut names = Vec::new();
            flat(tree, &layout.jobs, &mut names);
            rows.push(vec![name(&project.key), pipeline.to_string(), names.join(" ")]);
        }
    }
    output::table(&["PROJECT", "PIPELINE", "JOBS"], &rows)
}

/// Names in the order of the tree; children after `>`; non-voting ones in brackets.
fn flat(tree: &JobTree, jobs: &[Job], names: &mut Vec<String>) {
    for (name, children) in &tree.jobs {
        let voting = jobs.iter().find(|j| j.name == *name).is_none_or(|j| j.voting);
        names.push(if voting { name.to_string() } else { format!("({name})") });
        if !children.jobs.is_empty() {
            names.push(">".to_owned());
            flat(children, jobs, names);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> (Read, String) {
        let found = read("l.yaml", text, &SourceName::new("gerrit").unwrap());
        let told = told(&found, text);
        (found, told)
    }

    #[test]
    fn an_error_is_shown_where_it_is() {
        let (found, told) = checked("pipelines: []\nprojects:\n  - nam: a\n");
        assert_eq!(found.errors.len(), 1);
        let expected =
            "l.yaml:3:5: projects: `name` is missing (expected a text)\n      - nam: a\n        ^";
        assert!(told.contains(expected), "{told}");
        assert_eq!(as_json(&found, None).errors[0].line, 3);
    }

    #[test]
    fn a_good_layout_is_told_as_a_table() {
        let text = "
pipelines: [{name: check, manager: independent}]
jobs: [{name: c, voting: false}]
projects: [{name: p, check: [a: [b, c]]}]
";
        let (found, told) = checked(text);
        assert!(found.errors.is_empty());
        assert!(told.contains("a > b (c)"), "{told}");
        assert_eq!(as_json(&found, None).jobs, 3);
    }

    const TWO: &str = "
pipelines:
  - {name: review, manager: independent, source: gerrit, trigger: {gerrit: [{event: patchset-created}]}}
  - {name: pull, manager: independent, source: github, trigger: {github: [{event: patchset-created}]}}
projects:
  - {name: org/app, source: gerrit, review: [unit]}
  - {name: org/app, source: github, pull: [lint]}
";

    #[test]
    fn a_layout_of_several_sources_is_read_with_the_servers_or_the_named_ones() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("layout.yaml"), TWO).unwrap();
        let file = at("layout.yaml").display().to_string();
        // Keys and passwords are not there, and are not looked for.
        let settings = format!(
            "[layout]\nfile = \"{file}\"\n[[source]]\nname = \"gerrit\"\nkind = \"gerrit\"\nssh = \"ci@review:29418\"\n\
             ssh_key_file = \"/none\"\n[[source]]\nname = \"github\"\nkind = \"github\"\nprojects = [\"org/app\"]\ntoken_file = \"/none\"\n"
        );
        std::fs::write(at("toci.toml"), &settings).unwrap();
        let name = |name: &str| SourceName::new(name).unwrap();
        let both = vec![name("gerrit"), name("github")];
        for (layout, config, sources) in [
            (None, Some(at("toci.toml")), vec![]),
            (Some(at("layout.yaml")), Some(at("toci.toml")), vec![]),
            (Some(at("layout.yaml")), None, both),
        ] {
            let (read, text) = found(layout, config.as_deref(), sources).unwrap();
            assert_eq!(read.errors, []);
            let told = told(&read, &text);
            assert!(told.contains("gerrit:org/app") && told.contains("github:org/app"), "{told}");
        }
        let (one, text) = found(Some(at("layout.yaml")), None, vec![name("gerrit")]).unwrap();
        let expected = "layout.yaml:7:5: project org/app: there is no source `github` (expected a source of toci.toml: gerrit)";
        assert!(told(&one, &text).contains(expected), "{}", told(&one, &text));
        for (bad, why) in [
            ("", "has no [layout]"),
            ("[layout]\nfile = \"x\"\n", "needs a [[source]]"),
            ("[layot]\n", "unknown field `layot`"),
            (
                &settings.replace("name = \"github\"", "name = \"gerrit\""),
                "another source has this name",
            ),
        ] {
            std::fs::write(at("toci.toml"), bad).unwrap();
            let error = found(None, Some(&at("toci.toml")), vec![]).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.message.contains(why), "{}", error.message);
        }
    }
}
