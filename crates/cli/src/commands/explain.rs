//! `toci config check --project …`: what an event would do, by the gate's own decisions.

use crate::args::{ChangeArgs, StateArg, VoteArg};
use crate::error::{CliError, Result};
use crate::output::now_us;
use serde::Serialize;
use std::sync::Arc;
use toci_core::event::{
    Approval, Change, ChangeKey, ChangeState, EventKind, Person, ProjectKey, RefName, Revision,
    TriggerEvent, normal_label,
};
use toci_core::layout::Layout;
use toci_core::pipeline::{Entry, Gate, JobExplained, PipelineExplained, Policy};
use toci_core::time::Time;
use toci_wire::layout::{OWN_FILE, read_own};

/// What a pipeline does with the event, for programs.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    pipeline: String,
    enters: bool,
    /// The trigger that listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<String>,
    /// A stable word for why it does not enter though a trigger listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    /// Triggers that do not listen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deaf: Vec<ToldTrigger>,
    jobs: Vec<ToldJob>,
    /// What is wrong with the project's own configuration.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) own_error: String,
}

#[derive(Debug, Serialize)]
struct ToldTrigger {
    trigger: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct ToldJob {
    job: String,
    runs: bool,
    voting: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// What happens when the event comes, pipeline by pipeline.
pub(super) fn explain(layout: &Layout, args: &ChangeArgs, project: &str) -> Result<Vec<Told>> {
    let project = project_of(layout, project)?;
    let files = match &args.own {
        None => Vec::new(),
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| {
                CliError::usage(
                    format!("cannot read {}: {e}", file.display()),
                    "name a file that is there",
                )
            })?;
            if !layout.projects.get(&project).is_some_and(|p| p.in_repository) {
                let what =
                    format!("the layout does not let {project} have a configuration of its own");
                return Err(CliError::usage(what, "give it `in-repository: true`"));
            }
            vec![(file.display().to_string(), text)]
        }
    };
    let now = Time(now_us());
    let event = event(args, &project, now)?;
    let changes =
        event.change.iter().map(|key| change(args, key, &project, now)).collect::<Result<_>>()?;
    let policy = Policy { files: vec![OWN_FILE.to_owned()], read: read_own, ..Policy::default() };
    let gate = Gate::new(Arc::new(layout.clone()), policy);
    let explained = gate.explain(&event, changes, &files, now);
    let explained = explained.map_err(|why| CliError::usage(why, "see --event"))?;
    Ok(explained.into_iter().map(told).collect())
}

/// By its name, with its source where two sources have it.
fn project_of(layout: &Layout, given: &str) -> Result<ProjectKey> {
    let named = |key: &&ProjectKey| key.name.as_str() == given || key.to_string() == given;
    let mut found = layout.projects.keys().filter(named);
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key.clone()),
        (Some(one), Some(other)) => {
            let what = format!("`{given}` is both {one} and {other}");
            Err(CliError::usage(what, "write SOURCE:NAME"))
        }
        (None, _) => Err(CliError::usage(
            format!("the layout does not have the project {given}"),
            "see --project",
        )),
    }
}

fn revision(digit: &str) -> Result<Revision> {
    Revision::new(digit.repeat(40)).map_err(|e| CliError::failed("make a commit id", &e))
}

fn event(args: &ChangeArgs, project: &ProjectKey, now: Time) -> Result<TriggerEvent> {
    let kind = EventKind::ALL.into_iter().find(|kind| kind.word() == args.event);
    let kind = kind.unwrap_or(EventKind::PatchsetCreated);
    let key = ChangeKey { source: project.source.clone(), number: 1, patchset: "1".to_owned() };
    let moved = kind == EventKind::RefUpdated;
    if moved && args.reference.is_none() {
        return Err(CliError::usage(
            "which ref was updated?",
            "add for example --ref refs/heads/master",
        ));
    }
    let about_change = !moved && kind != EventKind::Timer;
    let given = |vote: &VoteArg| (normal_label(&vote.label), vote.value);
    Ok(TriggerEvent {
        kind,
        project: project.clone(),
        branch: (!moved).then(|| args.branch.clone()),
        change: about_change.then_some(key),
        reference: args.reference.clone().filter(|_| moved),
        old: moved.then(|| revision("1")).transpose()?,
        new: moved.then(|| revision("2")).transpose()?,
        by: person(&args.by, &args.email),
        comment: args.comment.clone(),
        approvals: args.vote.iter().map(given).collect(),
        origin: if kind == EventKind::Timer { args.time.clone() } else { args.of.clone() },
        at: now,
    })
}

fn person(username: &str, email: &str) -> Person {
    Person { username: username.to_owned(), email: email.to_owned(), name: String::new() }
}

fn change(args: &ChangeArgs, key: &ChangeKey, project: &ProjectKey, now: Time) -> Result<Change> {
    let reference = RefName::new("refs/changes/01/1/1");
    let reference = reference.map_err(|e| CliError::failed("name the change's ref", &e))?;
    let stands = |vote: &VoteArg| {
        let age = i64::try_from(vote.age.as_micros()).unwrap_or(i64::MAX);
        let by = if vote.user.is_empty() {
            person(&args.by, &args.email)
        } else {
            person(&vote.user, "")
        };
        Approval {
            label: normal_label(&vote.label),
            value: vote.value,
            by,
            at: Time(now.0.saturating_sub(age)),
        }
    };
    Ok(Change {
        key: key.clone(),
        project: project.clone(),
        branch: args.branch.clone(),
        reference,
        revision: revision("2")?,
        change_id: String::new(),
        state: match args.state {
            StateArg::Open => ChangeState::Open,
            StateArg::Merged => ChangeState::Merged,
            StateArg::Abandoned => ChangeState::Abandoned,
        },
        current: !args.outdated,
        wip: args.wip,
        title: String::new(),
        message: String::new(),
        owner: person(&args.by, &args.email),
        url: String::new(),
        topic: args.topic.clone(),
        hashtags: args.hashtag.clone(),
        files: (!args.files.is_empty()).then(|| args.files.clone()),
        approvals: args.approval.iter().chain(&args.vote).map(stands).collect(),
        submit: Vec::new(),
        needs: Vec::new(),
        needed_by: Vec::new(),
    })
}

fn told(explained: PipelineExplained) -> Told {
    let mut told = Told {
        pipeline: explained.pipeline.to_string(),
        enters: false,
        trigger: None,
        code: None,
        why: String::new(),
        deaf: Vec::new(),
        jobs: Vec::new(),
        own_error: String::new(),
    };
    match explained.entry {
        Entry::Enters { trigger, with: _ } => {
            told.enters = true;
            told.trigger = Some(trigger);
        }
        Entry::Unheard(deaf) => {
            let one = |(trigger, why)| ToldTrigger { trigger, why };
            told.deaf = deaf.into_iter().map(one).collect();
            told.why = "no trigger listens to this event".to_owned();
        }
        Entry::Refused { trigger, code, why } => {
            told.trigger = Some(trigger);
            told.code = Some(code);
            told.why = why;
        }
    }
    match explained.jobs {
        Ok(jobs) => told.jobs = jobs.into_iter().map(job).collect(),
        Err(errors) => told.own_error = errors,
    }
    told
}

fn job(job: JobExplained) -> ToldJob {
    let JobExplained { job, runs, voting, after, why } = job;
    let after = after.into_iter().map(|name| name.0).collect();
    ToldJob { job: job.0, runs, voting, after, why }
}

/// For people: a paragraph for each pipeline; jobs where it enters.
pub(super) fn as_text(all: &[Told]) -> String {
    let mut out = Vec::new();
    for told in all {
        let (name, trigger) = (&told.pipeline, told.trigger.as_deref().unwrap_or_default());
        match (told.enters, told.deaf.as_slice()) {
            (true, _) => out.push(format!("{name}: enters, as {trigger}")),
            (false, []) => out.push(format!("{name}: does not enter: {}", told.why)),
            (false, deaf) => {
                out.push(format!("{name}: does not enter: {}", told.why));
                out.extend(deaf.iter().map(|d| format!("  {}: {}", d.trigger, d.why)));
            }
        }
        if told.enters {
            out.extend(told.own_error.lines().map(|line| format!("  {line}")));
            out.extend(jobs_as_text(told));
        }
    }
    out.join("\n")
}

fn jobs_as_text(told: &Told) -> Vec<String> {
    if told.jobs.is_empty() && told.own_error.is_empty() {
        return vec!["  it has no jobs here".to_owned()];
    }
    let width = told.jobs.iter().map(|job| job.job.chars().count()).max().unwrap_or(0);
    let line = |job: &ToldJob| {
        let mut notes = Vec::new();
        if !job.voting {
            notes.push("non-voting".to_owned());
        }
        if !job.after.is_empty() {
            notes.push(format!("after {}", job.after.join(", ")));
        }
        if !job.why.is_empty() {
            notes.push(job.why.clone());
        }
        let word = if job.runs { "runs    " } else { "left out" };
        format!("  {word}  {:width$}  {}", job.job, notes.join(", ")).trim_end().to_owned()
    };
    told.jobs.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, ConfigCommand};
    use clap::Parser as _;
    use toci_core::event::SourceName;

    const LAYOUT: &str = "
pipelines:
  - name: check
    manager: independent
    trigger: {gerrit: [{event: patchset-created}, {event: comment-added, comment: recheck}]}
  - name: gate
    manager: dependent
    trigger: {gerrit: [{event: comment-added, approval: [{workflow: 1}]}]}
    require: {approval: [{verified: [1, 2], username: jenkins, newer-than: 2d}]}
  - name: post
    manager: independent
    trigger: {gerrit: [{event: ref-updated, ref: ^master$}]}
jobs:
  - {name: docs, files: ^doc/}
  - {name: style, voting: false}
projects:
  - {name: org/app, in-repository: true, check: [unit: [deploy], docs, style], gate: [unit], post: [publish]}
";

    fn run(arguments: &[&str]) -> Result<Vec<Told>> {
        run_in(LAYOUT, "org/app", arguments)
    }

    fn run_in(text: &str, project: &str, arguments: &[&str]) -> Result<Vec<Told>> {
        let head = ["toci", "config", "check", "l.yaml", "--project", project];
        let cli = Cli::try_parse_from(head.iter().chain(arguments)).unwrap();
        let Command::Config(ConfigCommand::Check { change, .. }) = cli.command else { panic!() };
        let sources = ["gerrit", "github"].map(|name| SourceName::new(name).unwrap());
        let layout = toci_wire::layout::read_for("l.yaml", text, &sources).layout.unwrap();
        explain(&layout, &change, change.project.as_deref().unwrap())
    }

    fn text(arguments: &[&str]) -> String {
        as_text(&run(arguments).unwrap())
    }

    #[test]
    fn a_new_patchset() {
        let expected = "\
check: enters, as patchset-created
  runs      unit
  runs      deploy  after unit
  runs      style   non-voting
  left out  docs    no file of the change is `^doc/`
gate: does not enter: no trigger listens to this event
  comment-added: the event is patchset-created
post: does not enter: no trigger listens to this event
  ref-updated: the event is patchset-created";
        assert_eq!(text(&["--files", "src/a.c"]), expected);
        assert!(text(&[]).contains("runs      docs"), "files are not known");
    }

    #[test]
    fn votes_make_the_difference() {
        let event = ["--event", "comment-added", "--vote", "workflow=+1"];
        let with = |more: &[&str]| text(&[&event[..], more].concat());
        let told = with(&[]);
        assert!(told.contains("check: does not enter: no trigger listens"), "{told}");
        assert!(told.contains("comment-added: the comment has not `recheck`"), "{told}");
        assert!(told.contains("gate: does not enter: gerrit:1,1 does not meet the pipeline's requirements: no vote is verified 1 or 2, by `jenkins`"), "{told}");
        assert!(with(&["--approval", "verified=1:jenkins"]).contains("gate: enters"));
        assert!(!with(&["--approval", "verified=1:jenkins:3d"]).contains("gate: enters"));
        assert!(with(&["--approval", "verified=1:jenkins", "--wip"]).contains("work in progress"));
        assert!(with(&["--comment", "recheck"]).contains("check: enters, as comment-added"));
    }

    #[test]
    fn refs_and_what_is_no_question() {
        assert!(
            text(&["--event", "ref-updated", "--ref", "refs/heads/master"])
                .contains("post: enters")
        );
        assert!(
            text(&["--event", "ref-updated", "--ref", "refs/heads/other"])
                .contains("post: does not")
        );
        assert!(run(&["--event", "ref-updated"]).unwrap_err().message.contains("which ref"));
        let layout = Layout::default();
        assert!(project_of(&layout, "x").unwrap_err().message.contains("does not have"));
    }

    #[test]
    fn the_projects_own_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".toci.yaml");
        let name = file.to_str().unwrap();
        std::fs::write(&file, "jobs: [{name: mine, branch: ^stable/}]\nproject: {check: [mine]}\n")
            .unwrap();
        assert!(
            text(&["--own", name])
                .contains("left out  mine    the branch master is not `^stable/`")
        );
        std::fs::write(&file, "project: {check: [nobodys]}\n").unwrap();
        let told = run(&["--own", name]).unwrap();
        assert!(
            told[0].own_error.contains(".toci.yaml:1:19: project.check: there is no job `nobodys`"),
            "{told:?}"
        );
        assert!(as_text(&told).contains("there is no job `nobodys`"));
    }

    #[test]
    fn topics_and_hashtags_are_asked_for() {
        let with = |more: &[&str]| {
            let text = LAYOUT.replace(
                "manager: dependent\n",
                "manager: dependent\n    reject: {topic: devtest-old}\n",
            );
            let text = text.replace(
                "require: {approval: [",
                "require: {topic: devtest, hashtag: urgent, approval: [",
            );
            assert!(text.contains("reject: {topic") && text.contains("require: {topic"));
            let usual = [
                "--event",
                "comment-added",
                "--vote",
                "workflow=1",
                "--approval",
                "verified=1:jenkins",
            ];
            as_text(&run_in(&text, "org/app", &[&usual[..], more].concat()).unwrap())
        };
        let gate = |more: &[&str], words: &str| {
            let told = with(more);
            let line = told.lines().find(|line| line.starts_with("gate: ")).unwrap_or_default();
            assert!(line.contains(words), "{words}: {told}");
        };
        gate(&[], "it has no topic");
        gate(&["--topic", "bug/7"], "its topic is `bug/7`");
        gate(&["--topic", "devtest-2"], "does not meet the pipeline's requirements: ");
        gate(&["--topic", "devtest-2", "--hashtag", "urgent"], "gate: enters");
        let old = ["--topic", "devtest-old", "--hashtag", "urgent"];
        gate(&old, "rejects the topic `devtest-old`");
    }

    #[test]
    fn a_change_of_either_of_two_sources_is_explained() {
        let text = "
pipelines:
  - {name: review, manager: independent, source: gerrit, trigger: {gerrit: [{event: patchset-created}]}}
  - {name: pull, manager: independent, source: github, trigger: {github: [{event: patchset-created}]}}
projects:
  - {name: org/app, source: gerrit, review: [unit]}
  - {name: org/app, source: github, pull: [lint]}
  - {name: org/lib, source: github, pull: [unit]}
";
        let told = |project: &str| run_in(text, project, &[]).map(|told| as_text(&told));
        let review = told("gerrit:org/app").unwrap();
        assert!(
            review.contains("review: enters, as patchset-created\n  runs      unit"),
            "{review}"
        );
        assert!(review.contains("pull: does not enter: "), "{review}");
        let pull = told("github:org/app").unwrap();
        assert!(pull.contains("pull: enters, as patchset-created\n  runs      lint"), "{pull}");
        assert!(pull.contains("review: does not enter: "), "{pull}");
        assert!(told("org/lib").unwrap().contains("pull: enters"));
        let both = told("org/app").unwrap_err();
        assert_eq!(both.message, "`org/app` is both gerrit:org/app and github:org/app");
    }
}
