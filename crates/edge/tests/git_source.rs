//! A plain git source on real repositories: what people push is heard, shown, voted on and merged.
#![expect(clippy::unwrap_used, reason = "tests")]

mod git_host;

use git_host::git;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use toci_core::event::{ChangeState, EventKind, ProjectName, Revision, SourceName, TriggerEvent};
use toci_core::id::ReportId;
use toci_core::layout::{GerritVote, MergeMode};
use toci_core::pipeline::ReportAction;
use toci_edge::git::{Mirrors, Remotes};
use toci_edge::source::git::{GitConfig, GitSource, Place};
use toci_edge::source::{Cursors, Heard, Source, SourceError, SourceReport};
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(60);

struct Host {
    folder: TempDir,
    source: Arc<GitSource>,
}

impl Host {
    fn new() -> Host {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("git");
        for name in ["org/a", "org/b"] {
            let bare = root.join(format!("{name}.git"));
            std::fs::create_dir_all(&bare).unwrap();
            git(&bare, &["init", "-q", "--bare", "--initial-branch=main"]);
            let work = folder.path().join(name.replace('/', "-"));
            git(folder.path(), &["init", "-q", "--initial-branch=main", work.to_str().unwrap()]);
            git(&work, &["remote", "add", "origin", bare.to_str().unwrap()]);
            git(&work, &["commit", "-q", "--allow-empty", "-m", "begin"]);
            git(&work, &["push", "-q", "origin", "main"]);
        }
        let config = GitConfig {
            name: SourceName::new("local").unwrap(),
            place: Place::Root(root),
            every: Duration::from_millis(50),
            user: "toci".into(),
            email: "toci@example.org".into(),
            environment: Vec::new(),
        };
        let remotes = Remotes::from([(config.name.clone(), config.remote())]);
        let mirrors = Arc::new(Mirrors::new(folder.path().join("mirrors"), remotes));
        Host { source: Arc::new(GitSource::new(config, mirrors)), folder }
    }

    fn work(&self, project: &str) -> std::path::PathBuf {
        self.folder.path().join(project.replace('/', "-"))
    }

    /// Commits a file on what is checked out, pushes it as a patchset.
    fn propose(&self, project: &str, file: &str, message: &str, reference: &str) -> String {
        let work = self.work(project);
        std::fs::write(work.join(file), message).unwrap();
        git(&work, &["add", "."]);
        git(&work, &["commit", "-q", "-m", message]);
        git(&work, &["push", "-q", "origin", &format!("HEAD:{reference}")]);
        git(&work, &["rev-parse", "HEAD"])
    }

    fn push(&self, project: &str, spec: &str) {
        git(&self.work(project), &["push", "-q", "origin", spec]);
    }
}

/// Listens in the background; events come out with the cursors that were said so far.
fn listen(source: &Arc<GitSource>, since: Cursors) -> mpsc::Receiver<Heard> {
    let (out, heard) = mpsc::channel(100);
    let source = Arc::clone(source);
    tokio::spawn(async move { source.listen(since, out).await });
    heard
}

async fn next_event(heard: &mut mpsc::Receiver<Heard>, cursors: &mut Cursors) -> TriggerEvent {
    loop {
        match tokio::time::timeout(LIMIT, heard.recv()).await.unwrap().unwrap() {
            Heard::Event { event, cursor: (name, text) } => {
                cursors.insert(name, text);
                return *event;
            }
            Heard::Cursor((name, text)) => {
                cursors.insert(name, text);
            }
            Heard::Link(link) => link.unwrap(),
            Heard::Malformed(what) => panic!("{what}"),
        }
    }
}

/// Until both projects are known: what comes later is news.
async fn settled(heard: &mut mpsc::Receiver<Heard>) -> Cursors {
    let mut cursors = Cursors::new();
    while cursors.len() < 2 {
        let said = tokio::time::timeout(LIMIT, heard.recv()).await.unwrap().unwrap();
        if let Heard::Cursor((name, text)) = said {
            cursors.insert(name, text);
        }
    }
    cursors
}

#[tokio::test]
async fn what_is_pushed_is_heard_and_seen() {
    let host = Host::new();
    let mut heard = listen(&host.source, Cursors::new());
    let mut cursors = settled(&mut heard).await;
    let first = host.propose("org/a", "one", "One\n\nBody", "refs/changes/01/1/1");
    let event = next_event(&mut heard, &mut cursors).await;
    assert_eq!(event.kind, EventKind::PatchsetCreated);
    assert_eq!(event.change.as_ref().unwrap().to_string(), "local:1,1");
    assert_eq!(event.branch.unwrap().as_str(), "main");
    host.push("org/a", &format!("{first}:refs/approvals/1/1/Code-Review/bob/2"));
    let event = next_event(&mut heard, &mut cursors).await;
    assert_eq!(event.kind, EventKind::CommentAdded);
    assert_eq!(event.approvals, [("code-review".to_owned(), 2)]);
    assert_eq!(event.by.username, "bob");
    // A series in one project, and one across projects.
    host.propose("org/a", "two", "Two", "refs/changes/02/2/1");
    next_event(&mut heard, &mut cursors).await;
    host.propose("org/b", "three", "Three\n\nDepends-On: local:2", "refs/changes/03/3/1");
    next_event(&mut heard, &mut cursors).await;
    let one = host.source.change(1, None).await.unwrap().unwrap();
    assert_eq!((one.title.as_str(), one.state, one.current), ("One", ChangeState::Open, true));
    assert_eq!(one.files.as_deref(), Some(&["one".to_owned()][..]));
    assert_eq!(one.approvals[0].by.username, "bob");
    assert_eq!(one.owner.email, "author@example.org");
    let names =
        |keys: &[toci_core::event::ChangeKey]| keys.iter().map(|k| k.short()).collect::<Vec<_>>();
    assert_eq!(names(&one.needed_by), ["2,1"]);
    let two = host.source.change(2, Some("1")).await.unwrap().unwrap();
    assert_eq!(
        (names(&two.needs), names(&two.needed_by)),
        (vec!["1,1".into()], vec!["3,1".into()])
    );
    assert_eq!(two.files.as_deref(), Some(&["two".to_owned()][..]), "its own commit alone");
    let three = host.source.change(3, None).await.unwrap().unwrap();
    assert_eq!(names(&three.needs), ["2,1"]);
    assert_eq!(host.source.change(4, None).await.unwrap(), None);
    let open = host.source.open_changes(&ProjectName::new("org/a").unwrap()).await.unwrap();
    assert_eq!(open.len(), 2);
    // Listening anew from the last cursor: only what came meanwhile.
    drop(heard);
    host.push("org/a", &format!("{first}:refs/abandoned/1"));
    let mut heard = listen(&host.source, cursors.clone());
    let event = loop {
        let event = next_event(&mut heard, &mut cursors).await;
        if event.kind != EventKind::PatchsetCreated {
            break event;
        }
    };
    assert_eq!(event.kind, EventKind::ChangeAbandoned);
    let one = host.source.change(1, None).await.unwrap().unwrap();
    assert_eq!(one.state, ChangeState::Abandoned);
}

#[tokio::test]
async fn votes_notes_and_merges_are_pushed() {
    let host = Host::new();
    let revision = host.propose("org/a", "one", "One", "refs/changes/01/1/1");
    let change = host.source.change(1, None).await.unwrap().unwrap();
    let next = std::cell::Cell::new(0);
    let report = |votes: &[(&str, i32)], merge| SourceReport {
        report: ReportId(next.replace(next.get() + 1)),
        action: ReportAction::Success,
        pipeline: "gate".into(),
        change: change.clone(),
        message: "Build succeeded.\n\n- j http://logs/1 : SUCCESS".into(),
        votes: votes.iter().map(|(l, v)| GerritVote::Label((*l).into(), *v)).collect(),
        merge,
        mode: MergeMode::default(),
        commit: Some(Revision::new(revision.clone()).unwrap()),
    };
    assert!(!host.source.report(&report(&[("verified", -1)], false)).await.unwrap());
    assert!(host.source.report(&report(&[("verified", 2)], true)).await.unwrap());
    let bare = host.folder.path().join("git/org/a.git");
    assert_eq!(git(&bare, &["rev-parse", "main"]), revision);
    let votes = git(&bare, &["for-each-ref", "--format=%(refname)", "refs/approvals"]);
    assert_eq!(votes, "refs/approvals/1/1/verified/toci/2", "the older vote is gone");
    let note = git(&bare, &["notes", "--ref=toci", "show", &revision]);
    assert_eq!(note.matches("http://logs/1").count(), 2, "{note}");
    let merged = host.source.change(1, None).await.unwrap().unwrap();
    assert_eq!(merged.state, ChangeState::Merged);
    assert_eq!(merged.approvals[0].value, 2);

    // The branch went elsewhere: what was tested is not what would be there.
    let other = host.propose("org/a", "two", "Two", "refs/changes/02/2/1");
    git(&host.work("org/a"), &["reset", "-q", "--hard", &revision]);
    host.propose("org/a", "three", "Three", "refs/heads/main");
    let change = host.source.change(2, None).await.unwrap().unwrap();
    let late = SourceReport {
        change,
        commit: Some(Revision::new(other).unwrap()),
        ..report(&[("verified", 2)], true)
    };
    let refused = host.source.report(&late).await.unwrap_err();
    assert!(matches!(refused, SourceError::Refused { .. }), "{refused}");
    let votes = git(&bare, &["for-each-ref", "refs/approvals/2"]);
    assert_eq!(votes, "", "all or nothing");
    // A host that is away is not one that refuses.
    std::fs::rename(&bare, bare.with_extension("away")).unwrap();
    let away = host.source.report(&late).await.unwrap_err();
    assert!(matches!(away, SourceError::Unreachable { .. }), "{away}");
}

/// A server that was killed tells again what it cannot know to have arrived.
#[tokio::test]
async fn a_report_that_was_told_is_not_told_again() {
    let host = Host::new();
    let revision = host.propose("org/a", "one", "One", "refs/changes/01/1/1");
    let change = host.source.change(1, None).await.unwrap().unwrap();
    let bare = host.folder.path().join("git/org/a.git");
    let report = |id| SourceReport {
        report: ReportId(id),
        action: ReportAction::Success,
        pipeline: "check".into(),
        change: change.clone(),
        message: "Build succeeded.".into(),
        votes: vec![GerritVote::Label("verified".into(), 1)],
        merge: false,
        mode: MergeMode::default(),
        commit: None,
    };
    // The first one is cut short: the note is in the mirror, and nowhere else.
    let hook = bare.join("hooks/update");
    std::fs::write(&hook, "#!/bin/sh\n[ \"$1\" != refs/notes/toci ]\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = host.source.report(&report(1)).await.unwrap_err();
    assert!(refused.to_string().contains("refs/notes/toci: "), "{refused}");
    std::fs::remove_file(&hook).unwrap();
    for id in [1, 1, 2, 1] {
        host.source.report(&report(id)).await.unwrap();
    }
    let note = git(&bare, &["notes", "--ref=toci", "show", &revision]);
    let told: Vec<&str> = note.lines().filter(|line| line.starts_with("Report: ")).collect();
    assert_eq!(told, [format!("Report: {}", ReportId(1)), format!("Report: {}", ReportId(2))]);
    assert_eq!(note.matches("Build succeeded.").count(), 2, "{note}");
    let votes = git(&bare, &["for-each-ref", "--format=%(refname)", "refs/approvals"]);
    assert_eq!(votes, "refs/approvals/1/1/verified/toci/1");
}

/// A repository that is removed: its changes are given up, and others go on as if nothing had been.
#[tokio::test]
async fn a_repository_that_vanishes_gives_up_its_changes() {
    let host = Host::new();
    let mut heard = listen(&host.source, Cursors::new());
    let mut cursors = settled(&mut heard).await;
    host.propose("org/a", "one", "One", "refs/changes/01/1/1");
    next_event(&mut heard, &mut cursors).await;
    let bare = host.folder.path().join("git/org/a.git");
    std::fs::rename(&bare, host.folder.path().join("away")).unwrap();
    let told = tokio::time::timeout(LIMIT, async {
        let mut gone = String::new();
        loop {
            match heard.recv().await.unwrap() {
                Heard::Event { event, .. } => return (gone, *event),
                Heard::Malformed(what) => gone = what,
                // Between two looks it may be half there.
                Heard::Link(_) | Heard::Cursor(_) => {}
            }
        }
    });
    let (gone, event) = told.await.unwrap();
    assert_eq!(gone, "the repository of org/a is gone");
    assert_eq!(event.kind, EventKind::ChangeAbandoned);
    assert_eq!(event.change.unwrap().to_string(), "local:1,1");
    assert_eq!(host.source.change(1, None).await.unwrap(), None, "it is known to be gone");
    host.propose("org/b", "two", "Two", "refs/changes/02/2/1");
    let event = next_event(&mut heard, &mut cursors).await;
    assert_eq!(event.change.unwrap().to_string(), "local:2,1");
}
