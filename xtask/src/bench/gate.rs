//! The gate: a long dependent queue and a large CI's day in the pure core, and merges on a large repository.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Report;
use super::report::{Figure, Goal};
use crate::{cargo, shell};

/// What to reach: an event in the pure core, median.
const GOAL_EVENT_MS: f64 = 5.0;
/// A day of 20,000 jobs on 600 nodes.
const GOAL_DAY_S: f64 = 60.0;
/// A speculative merge of one change, warm.
const GOAL_MERGE_MS: f64 = 50.0;

/// Where a figure stands, its factor, what it is, its unit, what to reach.
type Row<'a> = (&'a Value, &'static str, f64, &'static str, &'static str, Option<Goal>);

/// Measure everything.
pub(super) fn run(smoke: bool) -> Result<Report> {
    let examples = cargo::build_quick()?.join("examples");
    let size: &[&str] = if smoke { &["--changes", "100", "--jobs", "2000"] } else { &[] };
    let load = printed(&examples.join("gate_load"), size)?;
    let merge = printed(&examples.join("merge_load"), &[])?;
    report(&load, &merge)
}

fn printed(program: &Path, arguments: &[&str]) -> Result<Value> {
    let text = shell::read(Command::new(program).args(arguments))?;
    let what = || format!("{} printed: {text}", program.display());
    serde_json::from_str(text.trim()).with_context(what)
}

fn report(load: &Value, merge: &Value) -> Result<Report> {
    let figure = |value: &Value, path: &str| {
        let found = value.pointer(path).and_then(Value::as_f64);
        found.with_context(|| format!("no figure at {path} in {value}"))
    };
    let rows: [Row<'_>; 18] = [
        (
            load,
            "/queue/on_us/p50",
            1e-3,
            "an event, median",
            "ms",
            Some(Goal::AtMost(GOAL_EVENT_MS)),
        ),
        (load, "/queue/on_us/p99", 1e-3, "an event, p99", "ms", None),
        (load, "/queue/wanted_us/p50", 1e-3, "what is wanted, all of it, median", "ms", None),
        (load, "/queue/kib_a_change", 1.0, "memory a queued change", "KiB", None),
        (load, "/day/took_s", 1.0, "the simulated day", "s", Some(Goal::AtMost(GOAL_DAY_S))),
        (load, "/day/jobs_begun", 1.0, "the day: runs begun", "", None),
        (load, "/day/merged", 1.0, "the day: changes merged", "", None),
        (load, "/day/most_nodes_in_use", 1.0, "the day: most nodes in use", "", None),
        (load, "/day/waits/check/p50_s", 1.0, "the day: check waits for a node, median", "s", None),
        (load, "/day/waits/check/p95_s", 1.0, "the day: check waits for a node, p95", "s", None),
        (load, "/day/waits/gate/p50_s", 1.0, "the day: gate waits for a node, median", "s", None),
        (load, "/day/waits/gate/p95_s", 1.0, "the day: gate waits for a node, p95", "s", None),
        (
            merge,
            "/fresh_ms/p50",
            1.0,
            "a speculative merge, warm, median",
            "ms",
            Some(Goal::AtMost(GOAL_MERGE_MS)),
        ),
        (merge, "/fresh_ms/p95", 1.0, "a speculative merge, warm, p95", "ms", None),
        (merge, "/fresh_ms/max", 1.0, "a speculative merge, warm, slowest", "ms", None),
        (merge, "/known_ms/p50", 1.0, "the same, its commit fetched before, median", "ms", None),
        (merge, "/known_ms/p95", 1.0, "the same, its commit fetched before, p95", "ms", None),
        (merge, "/first_ms", 1.0, "the first merge, which makes the mirror", "ms", None),
    ];
    let figures = rows.into_iter().map(|(value, path, factor, what, unit, goal)| {
        let value = figure(value, path)? * factor;
        Ok(Figure { what: what.to_owned(), who: "toci".to_owned(), value, unit, goal })
    });
    let changes = figure(load, "/queue/changes")?;
    let projects = figure(load, "/queue/projects")?;
    let objects = figure(merge, "/objects")?;
    Ok(Report {
        name: "gate",
        setting: vec![
            ("queue".to_owned(), format!("{changes} changes over {projects} projects, no window")),
            (
                "day".to_owned(),
                format!("{} changes, {} nodes", load["day"]["changes"], load["day"]["nodes"]),
            ),
            ("repository".to_owned(), format!("{objects} objects")),
        ],
        figures: figures.collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_merge_misses_its_goal() {
        let waits = serde_json::json!({"p50_s": 0.0, "p95_s": 1.0});
        let load = serde_json::json!({
            "queue": {"changes": 1000, "projects": 50, "on_us": {"p50": 900.0, "p99": 2000.0},
                      "wanted_us": {"p50": 1000.0}, "kib_a_change": 20.0},
            "day": {"took_s": 10.0, "jobs_begun": 1, "merged": 1, "most_nodes_in_use": 1, "changes": 1, "nodes": 600,
                    "waits": {"check": waits, "gate": waits}},
        });
        let spread = |p50: f64| serde_json::json!({"p50": p50, "p95": 60.0, "max": 60.0});
        let merge = serde_json::json!({"objects": 1, "fresh_ms": spread(51.0), "known_ms": spread(30.0), "first_ms": 100.0});
        let missed = report(&load, &merge).unwrap().missed();
        assert_eq!(
            missed,
            ["gate: a speculative merge, warm, median, toci: 51.00 ms, goal <= 50.00"]
        );
    }
}
