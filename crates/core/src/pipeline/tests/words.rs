//! The words of scenarios: each does one thing in the [`World`].

use super::build::{layout, project};
use super::world::{World, first_patchset, short};
use crate::event::{
    Branch, ChangeState, EventKind, Person, RefName, RefUpdate, Revision, TriggerEvent,
};
use crate::layout::PipelineName;
use crate::pipeline::{Input, RunResult, RunUpdate, Subject};
use crate::time::Time;
use core::time::Duration;

/// Carries out one line.
pub(super) fn run(world: &mut World, layouts: &[String], line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let rest = &words[1..];
    let arg = |n: usize| rest.get(n).copied().unwrap_or_default();
    match words[0] {
        "change" => change(world, rest),
        "upload" => each(rest, |n| world.event(EventKind::PatchsetCreated, n, |_| ())),
        "approve" => each(rest, |n| {
            world.event(EventKind::CommentAdded, n, |e| {
                e.approvals = vec![("approved".to_owned(), 1)]
            });
        }),
        "comment" => {
            let text = rest[1..].join(" ");
            world.event(EventKind::CommentAdded, number(arg(0)), |e| e.comment = text);
        }
        "patchset" => patchset(world, number(arg(0))),
        "again" | "abandon" | "restore" | "merge" => life(world, words[0], number(arg(0))),
        "needs" => {
            let needs = rest[1..].iter().map(|n| world.changes[&number(n)].key.clone()).collect();
            world.changes.get_mut(&number(arg(0))).unwrap().needs = needs;
            world.relate();
            world.put(Input::Changes(world.views()));
        }
        "push" => reference(world, arg(0), arg(1), arg(2)),
        "timer" => timer(world, arg(0), arg(1)),
        "project-merged" => each(rest, |n| {
            world.event(EventKind::ProjectChangeMerged, n, |e| e.origin = "gate".to_owned());
        }),
        "ok" if arg(0) == "**" => {
            for _ in 0..100 {
                if !world.has_runs() {
                    break;
                }
                world.finish("*", ended(RunResult::Success));
            }
        }
        "ok" => rest.iter().for_each(|w| world.finish(w, ended(RunResult::Success))),
        "fail" => rest.iter().for_each(|w| world.finish(w, ended(RunResult::Failure))),
        "end" => world.finish(arg(0), ended(result(arg(1)))),
        "begin" => {
            world.finish(arg(0), |at| RunUpdate::Started { at, url: "http://console".to_owned() })
        }
        "stopped" => world.stopped(),
        "enqueue" | "dequeue" | "promote" => order(world, words[0], rest),
        "relayout" => world.put(Input::Layout(layout(&layouts[arg(0).parse::<usize>().unwrap()]))),
        "restart" => world.gate = world.read_back(),
        "premerge" => world.merge_of(number(arg(0))),
        "wait" => (0..arg(1).parse().unwrap_or(1)).for_each(|_| {
            world.now = world.now.after(Duration::from_secs(arg(0).parse().unwrap()));
            world.put(Input::Tick);
        }),
        "policy" => policy(world, rest),
        "hold" | "go" | "conflict" | "broken" | "gone" | "refuse" | "later" | "unmerging" => {
            habit(world, words[0], rest);
        }
        "order" => {
            let lines = world.urgency();
            world.log.extend(lines);
        }
        "untold" => world.say_untold(),
        "show" => show(world),
        "why" => why(world, arg(0)),
        "text" => {
            let text =
                world.last_text.iter().find(|(s, _)| short(s) == arg(0)).map(|(_, t)| t.clone());
            let text = text.unwrap_or_default();
            world.log.extend(text.lines().map(|line| format!("| {line}")));
        }
        other => panic!("{other}?"),
    }
}

fn each(words: &[&str], mut what: impl FnMut(u64)) {
    words.iter().for_each(|word| what(number(word)));
}

/// A is 1.
fn number(letter: &str) -> u64 {
    match letter.as_bytes() {
        [c @ b'A'..=b'Z'] => u64::from(c - b'A') + 1,
        _ => letter.parse().unwrap_or_else(|_| panic!("{letter} is no change")),
    }
}

fn ended(result: RunResult) -> impl Fn(Time) -> RunUpdate {
    move |at| RunUpdate::Finished { at, result, url: String::new(), note: String::new() }
}

fn result(word: &str) -> RunResult {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).unwrap()
}

/// `change B b needs=A branch=stable files=doc`
fn change(world: &mut World, words: &[&str]) {
    let value = |key: &str| words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
    let id = number(words[0]);
    let files = value("files").unwrap_or("README").split(',').map(str::to_owned).collect();
    world.change(id, words[1], value("branch").unwrap_or("master"), files);
    let needs = value("needs").into_iter().flat_map(|n| n.split(',')).map(number);
    let needs = needs.map(first_patchset).collect();
    let change = world.changes.get_mut(&id).unwrap();
    change.needs = needs;
    change.message = value("config").unwrap_or_default().to_owned();
    change.wip = words.contains(&"wip");
    world.relate();
}

fn patchset(world: &mut World, id: u64) {
    let change = world.changes.get_mut(&id).unwrap();
    let next = change.key.patchset.parse::<u64>().unwrap() + 1;
    change.key.patchset = next.to_string();
    change.reference = RefName::new(format!("refs/changes/{:02}/{id}/{next}", id % 100)).unwrap();
    world.relate();
    world.event(EventKind::PatchsetCreated, id, |_| ());
}

/// The same patchset at another commit.
fn again(world: &mut World, id: u64) {
    let change = world.changes.get_mut(&id).unwrap();
    change.revision = Revision::new("e".repeat(40)).unwrap();
    world.event(EventKind::PatchsetCreated, id, |_| ());
}

fn life(world: &mut World, word: &str, id: u64) {
    let (state, kind) = match word {
        "again" => return again(world, id),
        "abandon" => (ChangeState::Abandoned, EventKind::ChangeAbandoned),
        "restore" => (ChangeState::Open, EventKind::ChangeRestored),
        _ => (ChangeState::Merged, EventKind::ChangeMerged),
    };
    world.changes.get_mut(&id).unwrap().state = state;
    world.relate();
    world.event(kind, id, |_| ());
}

fn bare_event(world: &World, kind: EventKind, name: &str) -> TriggerEvent {
    TriggerEvent {
        kind,
        project: project(name),
        branch: None,
        change: None,
        reference: None,
        old: None,
        new: None,
        by: Person::default(),
        comment: String::new(),
        approvals: Vec::new(),
        origin: String::new(),
        at: world.now,
    }
}

/// `push a refs/heads/master [deleted]`
fn reference(world: &mut World, name: &str, reference: &str, word: &str) {
    let mut event = bare_event(world, EventKind::RefUpdated, name);
    event.reference = Some(RefName::new(reference).unwrap());
    event.old = Some(Revision::new("a".repeat(40)).unwrap());
    let new =
        if word == "deleted" { Revision::none() } else { Revision::new("b".repeat(40)).unwrap() };
    event.new = Some(new);
    world.put(Input::Event { event: Box::new(event), changes: Vec::new() });
}

fn timer(world: &mut World, name: &str, branch: &str) {
    let mut event = bare_event(world, EventKind::Timer, name);
    event.branch = Some(Branch::new(branch).unwrap());
    event.origin = "0 6 * * *".to_owned();
    world.put(Input::Event { event: Box::new(event), changes: Vec::new() });
}

fn order(world: &mut World, word: &str, words: &[&str]) {
    let pipeline = PipelineName(words[0].to_owned());
    let key = |w: &str| match w.split_once(',') {
        Some((n, patchset)) => {
            let key = first_patchset(number(n));
            crate::event::ChangeKey { patchset: patchset.to_owned(), ..key }
        }
        None => {
            let known = world.changes.get(&number(w)).map(|c| c.key.clone());
            known.unwrap_or(first_patchset(number(w)))
        }
    };
    let subject = |w: &str| match w.split_once('@') {
        Some((name, branch)) => Subject::Ref(RefUpdate {
            project: project(name),
            reference: RefName::new(format!("refs/heads/{branch}")).unwrap(),
            old: Revision::none(),
            new: Revision::new("b".repeat(40)).unwrap(),
        }),
        None => Subject::Change(key(w)),
    };
    let input = match word {
        "enqueue" => {
            Input::Enqueue { pipeline, subject: subject(words[1]), changes: world.views() }
        }
        "dequeue" => Input::Dequeue { pipeline, subject: subject(words[1]) },
        _ => Input::Promote { pipeline, changes: words[1..].iter().map(|w| key(w)).collect() },
    };
    world.put(input);
}

fn policy(world: &mut World, words: &[&str]) {
    let value = |key: &str| words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
    world.policy.job_names |= words.contains(&"names");
    world.policy.url_pattern = value("url").map(str::to_owned);
    world.policy.status_url = value("status").map(str::to_owned);
    world.policy.read = |base, project, files| match files[0].1.as_str() {
        "broken" => Err(".toci.yaml:1:1: expected a list".to_owned()),
        jobs => {
            let mut own = base.clone();
            // A change's words have no blanks: `config=check=x;job~x~semaphore=door`.
            let jobs = jobs.replace(';', "\n").replace('~', " ");
            let line = format!("project {} {jobs}", project.name);
            let read = layout(&line);
            own.projects.insert(project.clone(), read.projects[project].clone());
            own.jobs.extend(read.jobs.iter().cloned());
            Ok(own)
        }
    };
    world.gate = world.read_back();
}

fn habit(world: &mut World, word: &str, words: &[&str]) {
    let numbers = || words.iter().map(|w| number(w));
    match (word, words[0]) {
        ("hold", "merges") => world.habits.hold_merges = true,
        ("hold", "reports") => world.habits.hold_reports = true,
        ("go", "merges") => world.habits.hold_merges = false,
        ("go", "reports") => world.habits.hold_reports = false,
        ("conflict", _) => {
            world.habits.conflicts.insert((number(words[0]), number(words[1])));
        }
        ("broken", times) => world.habits.broken_merges = times.parse().unwrap(),
        ("gone", "no") => world.habits.gone.clear(),
        ("gone", _) => world.habits.gone.extend(numbers()),
        ("refuse", _) => world.habits.refuses.extend(numbers()),
        ("later", "no") => world.habits.later.clear(),
        ("later", _) => world.habits.later.extend(numbers()),
        ("unmerging", _) => world.habits.not_merging.extend(numbers()),
        (other, what) => panic!("{other} {what}?"),
    }
    world.put(Input::Tick);
}

/// The queues: `gate 2: A B(failing) | ...`; heads apart by `|`, items beyond the window in brackets.
fn show(world: &mut World) {
    for pipeline in world.gate.status() {
        for queue in pipeline.queues.iter().filter(|q| !q.heads.is_empty()) {
            let name = |item: &crate::pipeline::ItemView| {
                let mut text = short(&item.subject);
                if !item.live {
                    text = format!("<{text}>");
                } else if !item.active {
                    text = format!("[{text}]");
                }
                if item.failing.is_empty() { text } else { format!("{text}!") }
            };
            let heads: Vec<String> = queue
                .heads
                .iter()
                .map(|head| head.iter().map(name).collect::<Vec<_>>().join(" "))
                .collect();
            let window =
                if pipeline.dependent { format!(" {}", queue.window) } else { String::new() };
            let title =
                if queue.name.is_empty() { String::new() } else { format!(" ({})", queue.name) };
            world.log.push(format!("{}{title}{window}: {}", pipeline.name, heads.join(" | ")));
        }
        for one in pipeline.waiting {
            let key = short(&Subject::Change(one.key));
            world
                .log
                .push(format!("{} without {key}: it waits for {}", pipeline.name, one.waits_for));
        }
    }
}

fn why(world: &mut World, which: &str) {
    let mut lines = Vec::new();
    for item in world
        .gate
        .status()
        .iter()
        .flat_map(|p| &p.queues)
        .flat_map(|q| q.heads.iter().flatten())
        .filter(|item| item.live && short(&item.subject) == which)
    {
        let ahead = item.ahead.and_then(|id| world.gate.item_view(id));
        let ahead = ahead.map_or("nothing".to_owned(), |ahead| short(&ahead.subject));
        lines.push(format!("{} waits for {}; behind {ahead}", item.pipeline, item.waits_for));
        lines.extend(item.failing.iter().map(|why| format!("- {why}")));
        for job in &item.jobs {
            let state = match (&job.result, job.started) {
                (Some(result), _) => result.word().to_owned(),
                (None, Some(_)) => "runs".to_owned(),
                (None, None) => format!("waits for {}", job.waits_for),
            };
            lines.push(format!("  {} {state}", job.name));
        }
    }
    world.log.append(&mut lines);
}
