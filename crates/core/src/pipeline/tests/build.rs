//! Layouts of a few words, for scenarios.
//!
//! ```text
//! pipeline gate dependent window=2 floor=1 abandon cycles
//! project a check=unit gate=build>unit,lint
//! job lint nonvoting semaphore=door after=unit
//! semaphore door 2
//! ```

use crate::event::{EventKind, ProjectKey, ProjectName, SourceName};
use crate::layout::{
    Actions, ApprovalRule, GerritVote, Growth, Job, JobName, JobRun, JobTree, Layout, Manager,
    MergeMode, Messages, Pattern, Pipeline, PipelineName, Precedence, Project, Reporter,
    Requirements, SemaphoreUse, SkipIf, Trigger, TriggerFilter, Window,
};
use core::time::Duration;
use std::sync::Arc;

pub(super) fn source() -> SourceName {
    SourceName::new("gerrit").unwrap()
}

pub(super) fn project(name: &str) -> ProjectKey {
    ProjectKey { source: source(), name: ProjectName::new(name).unwrap() }
}

/// Jobs that are named in trees are defined, unless a line says more of them.
pub(super) fn layout(text: &str) -> Arc<Layout> {
    let mut layout = Layout { default_source: Some(source()), ..Layout::default() };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "pipeline" => layout.pipelines.push(pipeline(words[1], &words[2..])),
            "project" => {
                let key = project(words[1]);
                layout.projects.insert(key.clone(), a_project(key, &words[2..]));
            }
            "job" => layout.jobs.push(job(words[1], &words[2..])),
            "semaphore" => {
                layout.semaphores.insert(words[1].to_owned(), words[2].parse().unwrap());
            }
            other => panic!("layout: {other}?"),
        }
    }
    let trees: Vec<JobTree> =
        layout.projects.values().flat_map(|p| p.pipelines.values().cloned()).collect();
    trees.iter().for_each(|tree| define(tree, &mut layout.jobs));
    Arc::new(layout)
}

fn define(tree: &JobTree, jobs: &mut Vec<Job>) {
    for (name, children) in &tree.jobs {
        if jobs.iter().all(|job| job.name != *name) {
            jobs.push(job(&name.0, &[]));
        }
        define(children, jobs);
    }
}

fn value<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn number(words: &[&str], key: &str) -> Option<u32> {
    value(words, key).map(|text| text.parse().unwrap())
}

fn filter(trigger: Trigger, events: &[EventKind]) -> TriggerFilter {
    TriggerFilter {
        trigger,
        events: events.to_vec(),
        branches: Vec::new(),
        refs: Vec::new(),
        comments: Vec::new(),
        emails: Vec::new(),
        usernames: Vec::new(),
        approvals: Vec::new(),
        require_approvals: Vec::new(),
        reject_approvals: Vec::new(),
        timespecs: Vec::new(),
        pipelines: Vec::new(),
    }
}

/// What a pipeline listens to follows from its name.
fn triggers(name: &str, words: &[&str]) -> Vec<TriggerFilter> {
    if let Some(of) = value(words, "parent") {
        let mut heard = filter(Trigger::Zuul, &[EventKind::ParentChangeEnqueued]);
        heard.pipelines = vec![Pattern::new(of).unwrap()];
        return vec![heard];
    }
    if let Some(of) = value(words, "merged") {
        let mut heard = filter(Trigger::Zuul, &[EventKind::ProjectChangeMerged]);
        heard.pipelines = vec![Pattern::new(of).unwrap()];
        return vec![heard];
    }
    let refs = |pattern: &str| {
        let mut filter = filter(Trigger::Source, &[EventKind::RefUpdated]);
        filter.refs = vec![Pattern::new(pattern).unwrap()];
        vec![filter]
    };
    match name {
        "post" => refs("^(?!refs/).*$"),
        "tag" => refs("^refs/tags/.*$"),
        "periodic" => {
            let mut timer = filter(Trigger::Timer, &[EventKind::Timer]);
            timer.timespecs = vec!["0 6 * * *".to_owned()];
            vec![timer]
        }
        name if name.starts_with("gate") => {
            let mut approved = filter(Trigger::Source, &[EventKind::CommentAdded]);
            approved.approvals = vec![("approved".to_owned(), vec![1])];
            vec![approved]
        }
        _ => {
            let mut recheck = filter(Trigger::Source, &[EventKind::CommentAdded]);
            recheck.comments = vec![Pattern::new("(?i)^\\s*recheck").unwrap()];
            let kinds = [EventKind::PatchsetCreated, EventKind::ChangeRestored];
            vec![filter(Trigger::Source, &kinds), recheck]
        }
    }
}

fn to_gerrit(verified: i32, merge: bool) -> Vec<Reporter> {
    let votes = vec![GerritVote::Label("verified".to_owned(), verified)];
    vec![Reporter::Source { source: source(), votes, merge }]
}

fn workflow_vote() -> ApprovalRule {
    ApprovalRule { labels: vec![("workflow".to_owned(), vec![1])], ..ApprovalRule::default() }
}

fn pipeline(name: &str, words: &[&str]) -> Pipeline {
    let has = |word: &str| words.contains(&word);
    let dependent = has("dependent");
    let mut actions = Actions {
        success: to_gerrit(if dependent { 2 } else { 1 }, dependent),
        failure: to_gerrit(if dependent { -2 } else { -1 }, false),
        disabled: vec![Reporter::Webhook { url: "http://pager".to_owned() }],
        ..Actions::default()
    };
    if has("start") {
        actions.start = to_gerrit(0, false);
    }
    let growth = |word: Option<&str>, other| match word.and_then(|w| w.split_at_checked(1)) {
        Some(("x", by)) => Growth::Exponential(by.parse().unwrap()),
        Some((_, by)) => Growth::Linear(by.parse().unwrap()),
        None => other,
    };
    let zuul = Window::default();
    Pipeline {
        name: PipelineName(name.to_owned()),
        description: String::new(),
        manager: if dependent { Manager::Dependent } else { Manager::Independent },
        source: source(),
        precedence: if has("high") { Precedence::High } else { Precedence::Normal },
        triggers: triggers(name, words),
        require: Requirements {
            open: has("open").then_some(true),
            current_patchset: has("current").then_some(true),
            approvals: if has("voted") { vec![workflow_vote()] } else { Vec::new() },
            ..Requirements::default()
        },
        reject: Requirements::default(),
        actions,
        messages: Messages {
            start: None,
            success: "Build succeeded.".to_owned(),
            failure: "Build failed.".to_owned(),
            merge_failure: "Merge Failed.".to_owned(),
            footer: value(words, "footer").unwrap_or_default().to_owned(),
        },
        window: Window {
            start: number(words, "window").unwrap_or(zuul.start),
            floor: number(words, "floor").unwrap_or(zuul.floor),
            increase: growth(value(words, "grow"), zuul.increase),
            decrease: growth(value(words, "shrink"), zuul.decrease),
        },
        dequeue_on_new_patchset: !has("keep-old"),
        ignore_dependencies: has("alone"),
        disable_after: number(words, "disable"),
        abandon_on_failure: has("abandon"),
        allow_cycles: has("cycles"),
        post_review: has("reviewed"),
    }
}

/// `check=unit gate=build>unit,lint`: a job starts after the one left of `>`.
fn a_project(key: ProjectKey, words: &[&str]) -> Project {
    let mut project = Project {
        key,
        merge_mode: MergeMode::default(),
        pipelines: std::collections::BTreeMap::new(),
        in_repository: words.contains(&"own"),
        own_secrets: std::collections::BTreeMap::new(),
    };
    for (name, jobs) in words.iter().filter_map(|word| word.split_once('=')) {
        let mut tree = JobTree::default();
        for chain in jobs.split(',') {
            let mut at = &mut tree;
            for job in chain.split('>') {
                let name = JobName(job.to_owned());
                let known = at.jobs.iter().position(|(n, _)| *n == name);
                let place = known.unwrap_or_else(|| {
                    at.jobs.push((name, JobTree::default()));
                    at.jobs.len() - 1
                });
                at = &mut at.jobs[place].1;
            }
        }
        project.pipelines.insert(PipelineName(name.to_owned()), tree);
    }
    project
}

fn job(name: &str, words: &[&str]) -> Job {
    let text = |key: &str| value(words, key).map(str::to_owned);
    let pattern = |key: &str| value(words, key).map(|p| Pattern::new(p).unwrap());
    Job {
        name: JobName(name.to_owned()),
        voting: !words.contains(&"nonvoting"),
        hold_following: words.contains(&"hold"),
        queue_name: text("queue"),
        success_message: text("good"),
        failure_message: text("bad"),
        success_pattern: text("url"),
        failure_pattern: None,
        branches: pattern("branch").into_iter().collect(),
        files: pattern("files").into_iter().collect(),
        skip_if: pattern("skip")
            .map(|p| SkipIf { all_files_match_any: vec![p], ..SkipIf::default() })
            .into_iter()
            .collect(),
        semaphore: text("semaphore").map(|name| SemaphoreUse { name }),
        pause_after_failures: None,
        tags: Vec::new(),
        dependencies: text("after").map(JobName).into_iter().collect(),
        parameters: Vec::new(),
        run: JobRun {
            pre: Vec::new(),
            run: Vec::new(),
            post: Vec::new(),
            node: None,
            nodes: 1,
            testenv: None,
            timeout: Duration::from_secs(3600),
            post_timeout: Duration::from_secs(600),
            wait_timeout: None,
            attempts: number(words, "attempts").unwrap_or(3),
            artifacts: Vec::new(),
            env: Vec::new(),
            secrets: Vec::new(),
            projects: Vec::new(),
            override_branch: None,
            project_branches: Vec::new(),
        },
    }
}
