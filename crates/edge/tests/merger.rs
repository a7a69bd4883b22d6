//! The merger on real repositories.

#![expect(clippy::unwrap_used, reason = "tests")]

mod git_host;

use git_host::git;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use toci_core::event::{Branch, ChangeKey, ProjectKey, ProjectName, RefName, Revision, SourceName};
use toci_core::id::BuildSetId;
use toci_core::layout::{MergeMode, Precedence};
use toci_core::pipeline::{MergeItem, MergeOutcome, MergeSubject, MergeWish};
use toci_core::time::Time;
use toci_edge::git::{Merger, Mirrors, READ_MAX_BYTES, Remote};

/// A host of bare repositories with a work tree for each, and a merger on mirrors of them.
struct World {
    folder: tempfile::TempDir,
    merger: Merger,
    mirrors: Arc<Mirrors>,
}

impl World {
    fn new(projects: &[&str]) -> World {
        let folder = tempfile::tempdir().unwrap();
        let source = SourceName::new("local").unwrap();
        let prefix = format!("{}/host/", folder.path().display());
        let remote = Remote { prefix, suffix: ".git".into(), environment: vec![] };
        let remotes = BTreeMap::from([(source, remote)]);
        let mirrors = Arc::new(Mirrors::new(folder.path().join("mirrors"), remotes));
        let merger = Merger::new(mirrors.clone(), "toci", "toci@example.org");
        let world = World { folder, merger, mirrors };
        for project in projects {
            let bare = world.host(project);
            std::fs::create_dir_all(&bare).unwrap();
            git(&bare, &["init", "-q", "--bare", "--initial-branch=master"]);
            let work = world.work(project);
            std::fs::create_dir_all(&work).unwrap();
            git(&work, &["init", "-q", "--initial-branch=master"]);
            git(&work, &["remote", "add", "origin", bare.to_str().unwrap()]);
            world.commit(project, &[("README", "a\nb\nc\nd\ne\n")], "start");
            git(&work, &["push", "-q", "origin", "master"]);
        }
        world
    }

    fn host(&self, project: &str) -> PathBuf {
        self.folder.path().join("host").join(format!("{project}.git"))
    }

    fn work(&self, project: &str) -> PathBuf {
        self.folder.path().join("work").join(project)
    }

    fn commit(&self, project: &str, files: &[(&str, &str)], message: &str) -> String {
        let work = self.work(project);
        for (name, text) in files {
            std::fs::write(work.join(name), text).unwrap();
            git(&work, &["add", "--", name]);
        }
        git(&work, &["commit", "-q", "-m", message]);
        git(&work, &["rev-parse", "HEAD"])
    }

    /// A change on top of a branch (or commit) of the host.
    fn change(&self, project: &str, on: &str, number: u64, files: &[(&str, &str)]) -> MergeItem {
        let work = self.work(project);
        git(&work, &["fetch", "-q", "origin"]);
        git(&work, &["checkout", "-q", "--detach", on]);
        let revision = self.commit(project, files, &format!("change {number}"));
        let reference = format!("refs/changes/{:02}/{number}/1", number % 100);
        git(&work, &["push", "-q", "-f", "origin", &format!("HEAD:{reference}")]);
        MergeItem {
            project: key(project),
            branch: Branch::new(on.strip_prefix("origin/").unwrap_or("master")).unwrap(),
            subject: MergeSubject::Change {
                key: change_key(number),
                reference: RefName::new(reference).unwrap(),
                revision: Revision::new(revision).unwrap(),
                mode: MergeMode::MergeResolve,
            },
        }
    }

    async fn merge(&self, reference: &str, series: &[MergeItem]) -> MergeOutcome {
        let wish = MergeWish {
            build_set: BuildSetId(1),
            reference: reference.into(),
            series: series.to_vec(),
            files: vec![".toci.yaml".into()],
            precedence: Precedence::Normal,
            not_before: Time(0),
        };
        self.merger.merge(&wish).await
    }

    /// A file of the speculative state.
    fn show(&self, project: &str, branch: &str, reference: &str, file: &str) -> String {
        let mirror = self.mirrors.path(&key(project));
        git(&mirror, &["show", &format!("refs/zuul/{branch}/{reference}:{file}")])
    }
}

fn key(project: &str) -> ProjectKey {
    ProjectKey {
        source: SourceName::new("local").unwrap(),
        name: ProjectName::new(project).unwrap(),
    }
}

fn change_key(number: u64) -> ChangeKey {
    ChangeKey { source: SourceName::new("local").unwrap(), number, patchset: "1".into() }
}

fn with_mode(item: &MergeItem, new: MergeMode) -> MergeItem {
    let mut item = item.clone();
    if let MergeSubject::Change { mode, .. } = &mut item.subject {
        *mode = new;
    }
    item
}

fn commits(outcome: &MergeOutcome) -> Vec<(String, String, String)> {
    match outcome {
        MergeOutcome::Merged { commits, .. } => commits
            .iter()
            .map(|(p, b, c)| (p.name.to_string(), b.to_string(), c.to_string()))
            .collect(),
        other => panic!("not merged: {other:?}"),
    }
}

#[tokio::test]
async fn a_series_over_two_projects_is_in_both_under_one_ref() {
    let w = World::new(&["org/one", "org/two"]);
    let first =
        w.change("org/one", "origin/master", 1, &[("x", "1\n"), (".toci.yaml", "jobs: []\n")]);
    let second = w.change("org/two", "origin/master", 2, &[("y", "2\n")]);
    let third = w.change("org/one", "origin/master", 3, &[("z", "3\n")]);
    let outcome = w.merge("ZA", &[first, second, third]).await;
    assert_eq!(commits(&outcome).len(), 2);
    assert_eq!(w.show("org/one", "master", "ZA", "x"), "1");
    assert_eq!(w.show("org/one", "master", "ZA", "z"), "3");
    assert_eq!(w.show("org/two", "master", "ZA", "y"), "2");
    let MergeOutcome::Merged { files, .. } = outcome else { panic!() };
    assert_eq!(files, [(".toci.yaml".to_owned(), "jobs: []\n".to_owned())]);
}

/// What a stranger put into the file of the project's own configuration is never taken for "there is none".
#[tokio::test]
async fn a_configuration_that_is_too_long_or_no_text_reaches_its_reader() {
    let w = World::new(&["p"]);
    let long = "#".repeat(READ_MAX_BYTES + 100);
    let first = w.change("p", "origin/master", 1, &[(".toci.yaml", &long)]);
    let MergeOutcome::Merged { files, .. } = w.merge("ZA", &[first]).await else { panic!() };
    assert_eq!(files[0].1.len(), READ_MAX_BYTES + 1);
    std::fs::write(w.work("p").join(".toci.yaml"), b"jobs: \xff\xfe\n").unwrap();
    git(&w.work("p"), &["add", "."]);
    let second = w.change("p", "HEAD", 2, &[("x", "1")]);
    let MergeOutcome::Merged { files, .. } = w.merge("ZB", &[second]).await else { panic!() };
    assert_eq!(files[0].1, "jobs: \u{fffd}\u{fffd}\n");
}

#[tokio::test]
async fn branches_of_one_project_do_not_mix() {
    let w = World::new(&["p"]);
    let work = w.work("p");
    git(&work, &["push", "-q", "origin", "master:stable/havana"]);
    let stable = w.change("p", "origin/stable/havana", 1, &[("s", "old\n")]);
    let master = w.change("p", "origin/master", 2, &[("m", "new\n")]);
    let outcome = w.merge("ZB", &[stable, master]).await;
    assert_eq!(commits(&outcome).len(), 2);
    let mirror = w.mirrors.path(&key("p"));
    let files = |r: &str| git(&mirror, &["ls-tree", "--name-only", r]);
    assert_eq!(files("refs/zuul/stable/havana/ZB"), "README\ns");
    assert_eq!(files("refs/zuul/master/ZB"), "README\nm");
}

#[tokio::test]
async fn a_conflict_names_the_files_and_the_change_ahead() {
    let w = World::new(&["p"]);
    let other = w.change("p", "origin/master", 1, &[("unrelated", "1\n")]);
    let culprit = w.change("p", "origin/master", 2, &[("README", "A\nb\nc\nd\ne\n")]);
    let victim = w.change("p", "origin/master", 3, &[("README", "B\nb\nc\nd\ne\n")]);
    let outcome = w.merge("ZC", &[other.clone(), culprit, victim.clone()]).await;
    let expected =
        MergeOutcome::Conflict { files: vec!["README".into()], with: Some(change_key(2)) };
    assert_eq!(outcome, expected);
    // Without the culprit it merges.
    assert_eq!(commits(&w.merge("ZD", &[other, victim]).await).len(), 1);
}

#[tokio::test]
async fn a_conflict_with_the_branch_itself_has_no_culprit() {
    let w = World::new(&["p"]);
    let change = w.change("p", "origin/master", 1, &[("README", "A\nb\nc\nd\ne\n")]);
    let work = w.work("p");
    git(&work, &["checkout", "-q", "-B", "master", "origin/master"]);
    w.commit("p", &[("README", "B\nb\nc\nd\ne\n")], "moved on");
    git(&work, &["push", "-q", "origin", "master"]);
    let outcome = w.merge("ZE", &[change]).await;
    assert_eq!(outcome, MergeOutcome::Conflict { files: vec!["README".into()], with: None });
}

#[tokio::test]
async fn cherry_pick_takes_the_changes_own_work_only_and_keeps_its_author() {
    let w = World::new(&["p"]);
    let below = w.change("p", "origin/master", 1, &[("below", "1\n")]);
    let MergeSubject::Change { revision, .. } = &below.subject else { panic!() };
    let top = w.change("p", revision.as_str(), 2, &[("top", "2\n")]);
    let aside = w.change("p", "origin/master", 3, &[("aside", "3\n")]);
    let picked = with_mode(&top, MergeMode::CherryPick);
    w.merge("ZF", &[aside.clone(), picked]).await;
    let mirror = w.mirrors.path(&key("p"));
    let files = git(&mirror, &["ls-tree", "--name-only", "refs/zuul/master/ZF"]);
    assert_eq!(files, "README\naside\ntop");
    let log = git(&mirror, &["log", "-1", "--format=%an %cn %s %P", "refs/zuul/master/ZF"]);
    assert!(log.starts_with("A. U. Thor toci change 2 "), "{log}");
    // A squash takes all that the branch does not have, as one commit.
    w.merge("ZG", &[aside, with_mode(&top, MergeMode::Squash)]).await;
    let files = git(&mirror, &["ls-tree", "--name-only", "refs/zuul/master/ZG"]);
    assert_eq!(files, "README\naside\nbelow\ntop");
    let parents = git(&mirror, &["log", "-1", "--format=%P", "refs/zuul/master/ZG"]);
    assert_eq!(parents.split(' ').count(), 1);
}

#[tokio::test]
async fn what_is_merged_already_or_fast_forwards_makes_no_commit() {
    let w = World::new(&["p"]);
    let change = w.change("p", "origin/master", 1, &[("x", "1\n")]);
    let MergeSubject::Change { revision, .. } = &change.subject else { panic!() };
    let outcome = w.merge("ZH", std::slice::from_ref(&change)).await;
    assert_eq!(commits(&outcome)[0].2, revision.as_str());
    git(&w.work("p"), &["push", "-q", "origin", &format!("{revision}:refs/heads/master")]);
    let outcome = w.merge("ZI", std::slice::from_ref(&change)).await;
    assert_eq!(commits(&outcome)[0].2, revision.as_str());
}

#[tokio::test]
async fn a_remote_out_of_reach_is_no_conflict_and_a_lost_ref_is_told_as_such() {
    let w = World::new(&["p"]);
    let change = w.change("p", "origin/master", 1, &[("x", "1\n")]);
    let why = |outcome: MergeOutcome| match outcome {
        MergeOutcome::Failed { why } => format!("failed: {why}"),
        MergeOutcome::Gone { why } => format!("gone: {why}"),
        other => panic!("{other:?}"),
    };
    let host = w.host("p");
    let away = host.with_extension("away");
    std::fs::rename(&host, &away).unwrap();
    let text = why(w.merge("ZJ", std::slice::from_ref(&change)).await);
    assert!(text.starts_with("failed: "), "{text}");
    assert!(text.contains("does not appear to be a git repository"), "{text}");
    std::fs::rename(&away, &host).unwrap();
    // Pushed anew under the same ref.
    let again = w.change("p", "origin/master", 1, &[("x", "2\n")]);
    let text = why(w.merge("ZK", std::slice::from_ref(&change)).await);
    assert!(text.starts_with("gone: ") && text.contains("not at"), "{text}");
    git(&host, &["update-ref", "-d", "refs/changes/01/1/1"]);
    let text = why(w.merge("ZL", std::slice::from_ref(&again)).await);
    assert!(text.starts_with("gone: "), "{text}");
    assert!(text.contains("has no ref refs/changes/01/1/1"), "{text}");
    // Its branch was deleted meanwhile.
    let stable = w.work("p");
    git(&stable, &["push", "-q", "origin", "master:stable/havana"]);
    let change = w.change("p", "origin/stable/havana", 2, &[("x", "3\n")]);
    git(&host, &["update-ref", "-d", "refs/heads/stable/havana"]);
    let text = why(w.merge("ZM", std::slice::from_ref(&change)).await);
    assert!(text.starts_with("gone: "), "{text}");
    assert!(text.contains("has no ref refs/heads/stable/havana"), "{text}");
    // Another branch of the same project goes on.
    let other = w.change("p", "origin/master", 3, &[("y", "1\n")]);
    assert_eq!(commits(&w.merge("ZN", &[other]).await).len(), 1);
}

/// A branch that was forced elsewhere under a queued change: the next series stands on it as it is now.
#[tokio::test]
async fn a_branch_that_was_forced_elsewhere_is_where_the_next_series_stands() {
    let w = World::new(&["p"]);
    let change = w.change("p", "origin/master", 1, &[("x", "1\n")]);
    assert_eq!(commits(&w.merge("ZA", std::slice::from_ref(&change)).await).len(), 1);
    let work = w.work("p");
    git(&work, &["checkout", "-q", "--orphan", "fresh"]);
    w.commit("p", &[("other", "world\n")], "history anew");
    git(&work, &["push", "-q", "-f", "origin", "HEAD:master"]);
    // Nothing in common any more: a conflict of the change, not a failure.
    let outcome = w.merge("ZB", std::slice::from_ref(&change)).await;
    assert_eq!(outcome, MergeOutcome::Conflict { files: vec![], with: None });
    let next = w.change("p", "origin/master", 2, &[("y", "1\n")]);
    w.merge("ZC", &[next]).await;
    assert_eq!(w.show("p", "master", "ZC", "other"), "world");
}

#[tokio::test]
async fn a_half_made_mirror_is_made_anew() {
    let w = World::new(&["p"]);
    let path = w.mirrors.path(&key("p"));
    std::fs::create_dir_all(path.join("objects")).unwrap();
    std::fs::write(path.join("HEAD"), "garbage").unwrap();
    let change = w.change("p", "origin/master", 1, &[("x", "1\n")]);
    assert_eq!(commits(&w.merge("ZM", &[change]).await).len(), 1);
}

#[tokio::test]
async fn odd_paths_are_told_as_they_are() {
    let w = World::new(&["p"]);
    let name = "a file with\ttab and ü";
    let one = w.change("p", "origin/master", 1, &[(name, "1\n")]);
    let two = w.change("p", "origin/master", 2, &[(name, "2\n")]);
    let outcome = w.merge("ZN", &[one, two]).await;
    assert_eq!(
        outcome,
        MergeOutcome::Conflict { files: vec![name.into()], with: Some(change_key(1)) }
    );
}

#[tokio::test]
async fn refs_that_nobody_wants_are_swept() {
    let w = World::new(&["p"]);
    let change = w.change("p", "origin/master", 1, &[("x", "1\n")]);
    w.merge("ZO", std::slice::from_ref(&change)).await;
    w.merge("ZP", std::slice::from_ref(&change)).await;
    let mirror = w.mirrors.open(&key("p")).await.unwrap();
    assert_eq!(mirror.sweep(|name| name == "ZP").await.unwrap(), 1);
    let left =
        git(&w.mirrors.path(&key("p")), &["for-each-ref", "--format=%(refname)", "refs/zuul"]);
    assert_eq!(left, "refs/zuul/master/ZP");
}
