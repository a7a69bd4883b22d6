//! The Gerrit source with a real Gerrit, started once for all that is tried here.

#![expect(clippy::unwrap_used, reason = "tests")]

mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use toci_core::event::{ChangeKey, ChangeState, EventKind, ProjectName, TriggerEvent};
use toci_edge::git::Mirrors;
use toci_edge::source::gerrit::GerritSource;
use toci_edge::source::{Cursors, Heard, Source as _, SourceError};
use world::{Ear, Gerrit, report};

const FIRST: &str = "I1111111111111111111111111111111111111111";
const SECOND: &str = "I2222222222222222222222222222222222222222";
const OTHER: &str = "I3333333333333333333333333333333333333333";
const NASTY: &str =
    "Build \"failed\" for 'x'; $(reboot) `id` \\ --submit\n\n- job http://x/ : SUCCESS ü\n";

struct World {
    gerrit: Gerrit,
    source: Arc<GerritSource>,
    clone: PathBuf,
    first: u64,
    second: u64,
    other: u64,
}

impl World {
    fn project() -> ProjectName {
        ProjectName::new("openstack/tripleo-ci").unwrap()
    }

    async fn change(&self, number: u64) -> toci_core::event::Change {
        self.source.change(number, None).await.unwrap().unwrap()
    }

    fn approve(&self, change: &ChangeKey) {
        let vote = format!("review --code-review +2 --label Workflow=+1 {}", change.short());
        self.gerrit.gerrit("dev", &vote);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_gerrit() {
    let gerrit = Gerrit::start();
    gerrit.project("openstack/tripleo-ci");
    gerrit.project("openstack/nova");
    let source = Arc::new(GerritSource::new(gerrit.ssh_config()));
    source.watch(["openstack/tripleo-ci", "openstack/nova"].map(|p| p.parse().unwrap()).into());
    let mut ear = Ear::listen(source.clone(), Cursors::new());
    ear.until("the link", |h| matches!(h, Heard::Link(Ok(())))).await;
    let (nova, clone) = (gerrit.clone("openstack/nova"), gerrit.clone("openstack/tripleo-ci"));
    let other = gerrit.push(&nova, &format!("Other\n\nChange-Id: {OTHER}"), "");
    let first = gerrit.push(
        &clone,
        &format!("First\n\nChange-Id: {FIRST}"),
        "%topic=devtest,hashtag=urgent",
    );
    let second = format!("Second\n\nDepends-On: {OTHER}\nChange-Id: {SECOND}");
    let second = gerrit.push(&clone, &second, "");
    let mut world = World { gerrit, source, clone, first, second, other };
    events_come(&world, &mut ear).await;
    changes_are_shown(&world, &world.source).await;
    changes_are_shown(&world, &world.gerrit.by_rest()).await;
    repositories_are_fetched(&world).await;
    refusals_are_told_from_outages(&world, &world.source).await;
    refusals_are_told_from_outages(&world, &world.gerrit.by_rest()).await;
    an_unknown_host_key_is_not_trusted(&world).await;
    messages_arrive_as_they_are(&world, &mut ear).await;
    changes_merge(&world, &mut ear).await;
    all_goes_over_rest(&world).await;
    nothing_is_missed_while_nobody_listens(&world, ear).await;
    it_comes_back_after_an_outage(&mut world).await;
}

async fn events_come(world: &World, ear: &mut Ear) {
    let event = ear.event(EventKind::PatchsetCreated, world.second).await;
    assert_eq!(event.project.name, World::project());
    assert_eq!(event.by.username, "dev");
    assert_eq!(event.change.unwrap().patchset, "1");
    world
        .gerrit
        .git(&world.clone, &["commit", "-q", "--amend", "--no-edit", "--date=2020-01-01T00:00:00"]);
    world.gerrit.push_head(&world.clone, "");
    let event = ear.event(EventKind::PatchsetCreated, world.second).await;
    assert_eq!(event.change.unwrap().patchset, "2");
    world.gerrit.gerrit("dev", &format!("review --abandon {},1", world.other));
    ear.event(EventKind::ChangeAbandoned, world.other).await;
    world.gerrit.gerrit("dev", &format!("review --restore {},1", world.other));
    ear.event(EventKind::ChangeRestored, world.other).await;
    world.gerrit.gerrit("dev", &format!("review --code-review +1 -m recheck {},1", world.other));
    let event = ear.event(EventKind::CommentAdded, world.other).await;
    assert_eq!(event.approvals, [("code-review".to_owned(), 1)]);
    assert_eq!(event.comment, "Patch Set 1: Code-Review+1\n\nrecheck");
}

async fn changes_are_shown(world: &World, source: &GerritSource) {
    let first = source.change(world.first, None).await.unwrap().unwrap();
    assert_eq!((first.state, first.current), (ChangeState::Open, true));
    assert_eq!(
        (first.topic.as_str(), first.hashtags.as_slice()),
        ("devtest", ["urgent".to_owned()].as_slice())
    );
    assert_eq!((first.change_id.as_str(), first.title.as_str()), (FIRST, "First"));
    assert_eq!(first.files.as_ref().unwrap().len(), 1);
    assert!(first.needs.is_empty());
    let second = source.change(world.second, None).await.unwrap().unwrap();
    assert_eq!(first.needed_by, std::slice::from_ref(&second.key));
    let other = source.change(world.other, None).await.unwrap().unwrap();
    assert_eq!(second.needs, [first.key.clone(), other.key.clone()], "parents, then footers");
    assert_eq!(other.needed_by, std::slice::from_ref(&second.key));
    assert_eq!(other.approvals.len(), 1);
    let old = source.change(world.second, Some("1")).await.unwrap().unwrap();
    assert!(!old.current && old.revision != second.revision);
    assert_eq!(source.change(world.second, Some("7")).await.unwrap(), None);
    assert_eq!(source.change(999, None).await.unwrap(), None);
    let open = source.open_changes(&World::project()).await.unwrap();
    let mut numbers: Vec<u64> = open.iter().map(|c| c.key.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [world.first, world.second]);
    for footer in [OTHER, other.url.as_str()] {
        assert_eq!(source.find(footer).await.unwrap().len(), 1, "{footer}");
    }
    for footer in ["https://github.com/a/b/pull/1", "I9999", "nonsense \" OR status:open"] {
        assert!(source.find(footer).await.unwrap().is_empty(), "{footer}");
    }
}

async fn repositories_are_fetched(world: &World) {
    let change = world.change(world.second).await;
    let known_hosts = world.gerrit.site().join("known_hosts");
    let over_http = world.gerrit.by_ssh(&known_hosts, Some(world.gerrit.http()));
    for (way, remote) in [("ssh", world.source.remote()), ("http", over_http.remote())] {
        assert!(remote.prefix.starts_with(way), "{remote:?}");
        let remotes = BTreeMap::from([(world.source.name().clone(), remote)]);
        let mirrors = Mirrors::new(world.gerrit.folder.path().join(way), remotes);
        let mirror = mirrors.open(&change.project).await.unwrap();
        mirror.fetch(&change.reference, &change.revision).await.unwrap();
        assert!(mirror.resolve("refs/heads/master").await.unwrap().is_some());
    }
}

async fn refusals_are_told_from_outages(world: &World, source: &GerritSource) {
    let change = world.change(world.first).await;
    for (votes, merge, expected) in [
        (vec![("nonsense", 1)], false, ""),
        (vec![("--submit", 1)], false, "no label"),
        (vec![("verified", 2)], true, "Workflow"),
    ] {
        match source.report(&report(&change, "", &votes, merge)).await {
            Err(SourceError::Refused { why, .. }) if !expected.is_empty() => {
                assert!(why.contains(expected), "{votes:?}: {why}");
            }
            // Gerrit passes over a label that it does not know.
            Ok(false) if expected.is_empty() => {}
            other => panic!("{votes:?}: {other:?}"),
        }
    }
}

async fn an_unknown_host_key_is_not_trusted(world: &World) {
    let known_hosts = world.gerrit.folder.path().join("others");
    std::fs::write(&known_hosts, "").unwrap();
    match world.gerrit.by_ssh(&known_hosts, None).change(world.first, None).await {
        Err(SourceError::Unreachable { why, .. }) => {
            assert!(why.contains("Host key verification failed"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

async fn messages_arrive_as_they_are(world: &World, ear: &mut Ear) {
    let change = world.change(world.other).await;
    let told = world.source.report(&report(&change, NASTY, &[("verified", -1)], false)).await;
    assert_eq!(told, Ok(false));
    let event = ear.event(EventKind::CommentAdded, world.other).await;
    assert_eq!(event.comment, format!("Patch Set 1: Verified-1\n\n{}", NASTY.trim()));
    assert_eq!(event.approvals, [("verified".to_owned(), -1)]);
    assert_eq!(event.by.username, "jenkins");
}

async fn changes_merge(world: &World, ear: &mut Ear) {
    let change = world.change(world.first).await;
    world.approve(&change.key);
    let merge = report(&change, "Build succeeded.", &[("verified", 2)], true);
    assert_eq!(world.source.report(&merge).await, Ok(true));
    ear.event(EventKind::ChangeMerged, world.first).await;
    // Gerrit tells the two in any order.
    let master = moved(ear, "refs/heads/master").await;
    assert_eq!(master.new.as_ref(), Some(&change.revision));
    // As after an answer that got lost.
    assert_eq!(world.source.report(&merge).await, Ok(true));
    let merged = world.change(world.first).await;
    assert_eq!(merged.state, ChangeState::Merged);
    let second = world.change(world.second).await;
    assert!(second.needs.contains(&change.key));
}

/// The second transport: votes, comments, a merge, and events without a stream.
async fn all_goes_over_rest(world: &World) {
    let source = Arc::new(world.gerrit.by_rest());
    source.watch(["openstack/nova".parse().unwrap()].into());
    let mut ear = Ear::listen(source.clone(), Cursors::new());
    ear.until("the link", |h| matches!(h, Heard::Link(Ok(())))).await;
    world.gerrit.branch("openstack/nova", "stable/by-rest");
    source.poke();
    moved(&mut ear, "refs/heads/stable/by-rest").await;
    let nova = world.gerrit.folder.path().join("openstack-nova");
    let message = "By REST\n\nChange-Id: I5555555555555555555555555555555555555555";
    let number = world.gerrit.push(&nova, message, "");
    ear.event(EventKind::PatchsetCreated, number).await;
    let parent = source.change(world.other, None).await.unwrap().unwrap();
    let change = source.change(number, None).await.unwrap().unwrap();
    assert_eq!(change.needs, std::slice::from_ref(&parent.key));
    assert!(parent.needed_by.contains(&change.key));
    world.approve(&parent.key);
    world.approve(&change.key);
    let event = ear.event(EventKind::CommentAdded, number).await;
    let given = [("code-review".to_owned(), 2), ("workflow".to_owned(), 1)];
    assert_eq!(event.approvals, given);
    let told = source.report(&report(&parent, NASTY, &[("verified", 2)], true)).await;
    assert_eq!(told, Ok(true));
    ear.event(EventKind::ChangeMerged, world.other).await;
    let comment = ear.seen.iter().find(|e| e.comment.contains("reboot")).unwrap();
    assert_eq!(comment.comment, format!("Patch Set 1: Verified+2\n\n{}", NASTY.trim()));
    ear.close().await;
}

async fn nothing_is_missed_while_nobody_listens(world: &World, ear: Ear) {
    let (cursors, before) = ear.close().await;
    world.gerrit.gerrit("dev", &format!("review -m recheck {},2", world.second));
    let late = world.gerrit.push(
        &world.clone,
        "Late\n\nChange-Id: I4444444444444444444444444444444444444444",
        "%wip",
    );
    world.gerrit.gerrit("dev", &format!("review --abandon {late},1"));
    world.gerrit.branch("openstack/tripleo-ci", "stable/juno");
    let mut ear = Ear::listen(world.source.clone(), cursors);
    ear.event(EventKind::ChangeAbandoned, late).await;
    ear.until("the link", |h| matches!(h, Heard::Link(Ok(())))).await;
    let event = moved(&mut ear, "refs/heads/stable/juno").await;
    assert_eq!(event.branch.unwrap().as_str(), "stable/juno");
    assert!(event.old.unwrap().is_none() && !event.new.unwrap().is_none());
    world.gerrit.gerrit("dev", &format!("review -m thanks {late},1"));
    ear.event(EventKind::CommentAdded, late).await;
    assert_eq!(ear.count(EventKind::PatchsetCreated, late), 1);
    assert_eq!(ear.count(EventKind::CommentAdded, world.second), 1);
    world.gerrit.branch("openstack/tripleo-ci", "stable/kilo");
    moved(&mut ear, "refs/heads/stable/kilo").await;
    let again: Vec<_> = ear.seen.iter().filter(|e| before.contains(e)).collect();
    assert!(again.is_empty(), "told again: {again:#?}");
    assert!(world.change(late).await.wip);
    ear.close().await;
}

/// A branch or tag moved, and that was told once so far.
async fn moved(ear: &mut Ear, name: &str) -> TriggerEvent {
    let is_it = |event: &TriggerEvent| {
        event.kind == EventKind::RefUpdated
            && event.reference.as_ref().is_some_and(|r| r.as_str() == name)
    };
    if !ear.seen.iter().any(is_it) {
        ear.until(name, |h| matches!(h, Heard::Event { event, .. } if is_it(event))).await;
    }
    let mut all = ear.seen.iter().filter(|e| is_it(e));
    let first = all.next().unwrap().clone();
    assert_eq!(all.count(), 0, "{name} was told twice");
    first
}

async fn it_comes_back_after_an_outage(world: &mut World) {
    let change = world.change(world.second).await;
    let mut ear = Ear::listen(world.source.clone(), Cursors::new());
    ear.until("the link", |h| matches!(h, Heard::Link(Ok(())))).await;
    world.gerrit.stop();
    ear.until("the outage", |h| matches!(h, Heard::Link(Err(_)))).await;
    let told = world.source.report(&report(&change, "lost?", &[("verified", 1)], false)).await;
    assert!(matches!(told, Err(SourceError::Unreachable { .. })), "{told:?}");
    let shown = world.source.change(world.second, None).await;
    assert!(matches!(shown, Err(SourceError::Unreachable { .. })), "{shown:?}");
    // Nobody is told of that.
    let bare = world.gerrit.site().join("git/openstack/tripleo-ci.git");
    for name in ["refs/heads/stable/liberty", "refs/tags/1.0"] {
        world.gerrit.git(&bare, &["update-ref", name, "refs/heads/master"]);
    }
    world.gerrit.git(&bare, &["update-ref", "-d", "refs/heads/stable/juno"]);
    world.gerrit.start_again();
    // It may listen again by now, or not: it is heard once.
    world.gerrit.gerrit("dev", &format!("review -m again {},2", world.second));
    world.source.poke();
    let event = ear.event(EventKind::CommentAdded, world.second).await;
    assert!(event.comment.ends_with("again"), "{event:?}");
    assert_eq!(ear.count(EventKind::CommentAdded, world.second), 1);
    moved(&mut ear, "refs/heads/stable/liberty").await;
    moved(&mut ear, "refs/tags/1.0").await;
    let gone = moved(&mut ear, "refs/heads/stable/juno").await;
    assert!(gone.new.unwrap().is_none());
    ear.close().await;
}
