//! Pipelines.

use super::actions;
use super::fields::{Findings, Map, nearest, text};
use super::tree::{Mark, Node};
use super::values::{event_votes, folder_name, patterns, requirements, rules};
use toci_core::event::{Cron, EventKind, SourceName};
use toci_core::layout::{
    Growth, Manager, Messages, Pipeline, PipelineName, Precedence, Trigger, TriggerFilter, Window,
};

pub(super) const KEYS: &[&str] = &[
    "name",
    "manager",
    "source",
    "precedence",
    "description",
    "require",
    "reject",
    "start-message",
    "success-message",
    "failure-message",
    "merge-failure-message",
    "footer-message",
    "dequeue-on-new-patchset",
    "ignore-dependencies",
    "disable-after-consecutive-failures",
    "trigger",
    "success",
    "failure",
    "merge-failure",
    "start",
    "disabled",
    "window",
    "window-floor",
    "window-increase-type",
    "window-increase-factor",
    "window-decrease-type",
    "window-decrease-factor",
    "abandon-on-failure",
    "allow-cycles",
    "post-review",
];

/// Keys of one trigger.
pub(super) const TRIGGER_KEYS: &[&str] = &[
    "event",
    "branch",
    "ref",
    "comment",
    "comment_filter",
    "comment-filter",
    "email",
    "email_filter",
    "email-filter",
    "username",
    "username_filter",
    "username-filter",
    "approval",
    "require-approval",
    "reject-approval",
    "ignore-deletes",
    "time",
    "pipeline",
];

const MERGE_FAILURE: &str = "Merge Failed.\n\nThis change was unable to be automatically merged with the current state of the repository. Please rebase your change and upload a new patchset.";

/// One pipeline and where it stands.
pub(super) fn read(
    node: &Node,
    default: &SourceName,
    found: &mut Findings,
) -> Option<(Pipeline, Mark)> {
    let map = Map::of(node, "pipelines", found)?;
    let name = map.needed("name", found)?;
    let mark = map.get("name").map_or(node.mark, |n| n.mark);
    folder_name("a pipeline", &name, mark, "pipelines", found);
    let map = Map { path: format!("pipeline {name}"), ..map };
    map.known(KEYS, found);
    let source = match map.text("source", found) {
        Some(named) if !found.is_any_source(&named) => match SourceName::new(named) {
            Ok(source) => {
                found.must_be_source(&source, map.mark, &map.path);
                source
            }
            Err(bad) => {
                found.error(map.mark, &map.path, bad.to_string(), "a source of toci.toml");
                default.clone()
            }
        },
        Some(_) | None => default.clone(),
    };
    let text = |key: &str, default: &str, found: &mut Findings| {
        map.text(key, found).unwrap_or_else(|| default.to_owned())
    };
    let pipeline = Pipeline {
        name: PipelineName(name),
        description: text("description", "", found),
        manager: manager(&map, found),
        precedence: precedence(&map, found),
        triggers: triggers(&map, &source, found),
        require: requirements(&map, "require", found),
        reject: requirements(&map, "reject", found),
        actions: actions::read(&map, &source, found),
        messages: Messages {
            start: map.text("start-message", found),
            success: text("success-message", "Build succeeded.", found),
            failure: text("failure-message", "Build failed.", found),
            merge_failure: text("merge-failure-message", MERGE_FAILURE, found),
            footer: text("footer-message", "", found),
        },
        window: window(&map, found),
        dequeue_on_new_patchset: map.truth("dequeue-on-new-patchset", found).unwrap_or(true),
        ignore_dependencies: map.truth("ignore-dependencies", found).unwrap_or(false),
        disable_after: map.number("disable-after-consecutive-failures", 1, found),
        abandon_on_failure: map.truth("abandon-on-failure", found).unwrap_or(false),
        allow_cycles: map.truth("allow-cycles", found).unwrap_or(false),
        post_review: map.truth("post-review", found).unwrap_or(false),
        source,
    };
    Some((pipeline, node.mark))
}

fn manager(map: &Map<'_>, found: &mut Findings) -> Manager {
    match map.needed("manager", found).as_deref() {
        Some("DependentPipelineManager" | "dependent") => Manager::Dependent,
        Some("IndependentPipelineManager" | "independent") | None => Manager::Independent,
        Some(other) => {
            let expected = "DependentPipelineManager or IndependentPipelineManager";
            found.error(map.mark, &map.path, format!("there is no manager `{other}`"), expected);
            Manager::Independent
        }
    }
}

fn precedence(map: &Map<'_>, found: &mut Findings) -> Precedence {
    match map.text("precedence", found).as_deref() {
        Some("low") => Precedence::Low,
        Some("normal") | None => Precedence::Normal,
        Some("high") => Precedence::High,
        Some(other) => {
            let what = format!("there is no precedence `{other}`");
            found.error(map.mark, &map.path, what, "low, normal or high");
            Precedence::Normal
        }
    }
}

fn growth(map: &Map<'_>, what: &str, default: Growth, found: &mut Findings) -> Growth {
    let number = match default {
        Growth::Linear(n) | Growth::Exponential(n) => n,
    };
    let factor = map.number(&format!("window-{what}-factor"), 1, found).unwrap_or(number);
    match map.text(&format!("window-{what}-type"), found).as_deref() {
        Some("linear") => Growth::Linear(factor),
        Some("exponential") => Growth::Exponential(factor),
        None => match default {
            Growth::Linear(_) => Growth::Linear(factor),
            Growth::Exponential(_) => Growth::Exponential(factor),
        },
        Some(other) => {
            let wrong = format!("a window does not grow by `{other}`");
            found.error(map.mark, &map.path, wrong, "linear or exponential");
            default
        }
    }
}

fn window(map: &Map<'_>, found: &mut Findings) -> Window {
    let default = Window::default();
    Window {
        start: map.number("window", 0, found).unwrap_or(default.start),
        floor: map.number("window-floor", 1, found).unwrap_or(default.floor),
        increase: growth(map, "increase", default.increase, found),
        decrease: growth(map, "decrease", default.decrease, found),
    }
}

fn triggers(map: &Map<'_>, source: &SourceName, found: &mut Findings) -> Vec<TriggerFilter> {
    let Some(one) = map.get("trigger").and_then(|node| Map::of(node, "trigger", found)) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for (name, mark, _) in one.entries {
        let trigger = match name.as_str() {
            "timer" => Trigger::Timer,
            "zuul" => Trigger::Zuul,
            named if named == source.as_str() || found.is_any_source(named) => Trigger::Source,
            other => {
                let what = format!("`{other}` is not this pipeline's source");
                found.error(*mark, &map.path, what, format!("{source}, timer or zuul"));
                continue;
            }
        };
        for node in one.several(&[name.as_str()]) {
            out.extend(filter(node, trigger, &map.path, found));
        }
    }
    out
}

fn filter(
    node: &Node,
    trigger: Trigger,
    path: &str,
    found: &mut Findings,
) -> Option<TriggerFilter> {
    let map = Map::of(node, path, found)?;
    map.known(TRIGGER_KEYS, found);
    if let Some(node) = map.get("ignore-deletes") {
        let instead = "a ref that was deleted never enters a pipeline";
        found.note(node.mark, &format!("{path}.ignore-deletes"), instead);
    }
    let timespecs = map.texts(&["time"], found);
    if trigger == Trigger::Timer {
        if timespecs.is_empty() {
            found.error(map.mark, path, "a timer without `time`", "a cron text of 5 or 6 fields");
        }
        for spec in &timespecs {
            if let Err(e) = Cron::parse(spec) {
                let expected =
                    "5 fields (minute hour day month weekday), or 6 with seconds at the end";
                found.error(map.mark, path, format!("`{spec}` is no time: {}", e.what), expected);
            }
        }
    } else if map.get("event").is_none() {
        found.error(map.mark, path, "a trigger without `event`", "an event, e.g. patchset-created");
    }
    Some(TriggerFilter {
        trigger,
        events: events(&map, trigger, found),
        branches: patterns(&map, &["branch"], found),
        refs: patterns(&map, &["ref"], found),
        comments: patterns(&map, &["comment", "comment_filter", "comment-filter"], found),
        emails: patterns(&map, &["email", "email_filter", "email-filter"], found),
        usernames: patterns(&map, &["username", "username_filter", "username-filter"], found),
        approvals: event_votes(&map, found),
        require_approvals: rules(&map, &["require-approval"], found),
        reject_approvals: rules(&map, &["reject-approval"], found),
        timespecs,
        pipelines: patterns(&map, &["pipeline"], found),
    })
}

fn events(map: &Map<'_>, trigger: Trigger, found: &mut Findings) -> Vec<EventKind> {
    if trigger == Trigger::Timer {
        return vec![EventKind::Timer];
    }
    let words = EventKind::ALL.map(EventKind::word);
    let mut out = Vec::new();
    for node in map.several(&["event"]) {
        let Some(word) = text(node, "event", found) else { continue };
        match EventKind::ALL.into_iter().find(|kind| kind.word() == word) {
            Some(kind) => out.push(kind),
            None => {
                let expected = match nearest(&word, &words) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("one of {}", words.join(", ")),
                };
                found.error(node.mark, "event", format!("there is no event `{word}`"), expected);
            }
        }
    }
    out
}
