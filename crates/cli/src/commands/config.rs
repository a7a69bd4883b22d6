//! `toci config`.

use super::explain::{self, Told};
use crate::args::ConfigCommand;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::output;
use serde::Serialize;
use std::process::ExitCode;
use toci_core::event::SourceName;
use toci_core::layout::{Job, JobTree, Layout};
use toci_wire::layout::{LayoutError, Note, Read, read};

pub(super) fn dispatch(json: bool, command: ConfigCommand) -> Result<ExitCode> {
    match command {
        ConfigCommand::Check { layout, source, change } => {
            let source = SourceName::new(source)
                .map_err(|e| CliError::new(Exit::Usage, e.to_string(), "see --source"))?;
            let text = std::fs::read_to_string(&layout).map_err(|e| {
                let what = format!("cannot read {}: {e}", layout.display());
                CliError::new(Exit::Usage, what, "name a file that is there")
            })?;
            let found = read(&layout.display().to_string(), &text, &source);
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

#[derive(Debug, Serialize)]
struct Finding {
    line: usize,
    column: usize,
    path: String,
    message: String,
    hint: String,
}

fn as_json(found: &Read, explained: Option<Vec<Told>>) -> Checked {
    let error = |e: &LayoutError| Finding {
        line: e.mark.line,
        column: e.mark.column,
        path: e.path.clone(),
        message: e.what.clone(),
        hint: e.expected.clone(),
    };
    let note = |n: &Note| Finding {
        line: n.mark.line,
        column: n.mark.column,
        path: n.path.clone(),
        message: "this key has no effect".to_owned(),
        hint: n.instead.clone(),
    };
    let count = |of: fn(&Layout) -> usize| found.layout.as_ref().map_or(0, of);
    Checked {
        errors: found.errors.iter().map(error).collect(),
        notes: found.notes.iter().map(note).collect(),
        pipelines: count(|l| l.pipelines.len()),
        jobs: count(|l| l.jobs.len()),
        projects: count(|l| l.projects.len()),
        explained,
    }
}

/// Errors with the line they are about and a caret under it, then notes, then what was read.
fn told(found: &Read, text: &str) -> String {
    let mut out = Vec::new();
    for error in &found.errors {
        out.push(error.to_string());
        if let Some(line) = text.lines().nth(error.mark.line.saturating_sub(1)) {
            let under = " ".repeat(error.mark.column.saturating_sub(1));
            out.push(format!("    {line}\n    {under}^"));
        }
    }
    out.extend(found.notes.iter().map(ToString::to_string));
    match &found.layout {
        Some(layout) => out.push(summary(layout)),
        None => out.push(format!("{} errors", found.errors.len())),
    }
    out.join("\n")
}

/// A line for each project and pipeline, with its jobs.
fn summary(layout: &Layout) -> String {
    let mut rows = Vec::new();
    for project in layout.projects.values() {
        for (pipeline, tree) in &project.pipelines {
            let mut names = Vec::new();
            flat(tree, &layout.jobs, &mut names);
            rows.push(vec![project.key.name.to_string(), pipeline.to_string(), names.join(" ")]);
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
}
