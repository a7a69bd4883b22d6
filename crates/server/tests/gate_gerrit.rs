//! The gate with a real Gerrit: from a push for review over votes to a merge, on a real server. Jobs are `noop`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "../../edge/tests/gerrit/world.rs"]
#[expect(dead_code, reason = "shared with the tests of the source itself")]
mod gerrit;

use common::gate::with_gate;
use common::{World, eventually};
use gerrit::{Ear, Gerrit};
use std::path::Path;
use std::sync::Arc;
use toci_client::api::ClientError;
use toci_core::event::{ChangeState, EventKind, TriggerEvent};
use toci_edge::source::{Cursors, Heard, Source as _};
use toci_server::SourceConfig;
use toci_wire::api::{EndedItem, PipelineOrder};

const LAYOUT: &str = "
pipelines:
  - name: check
    manager: independent
    trigger:
      gerrit:
        - event: patchset-created
        - {event: comment-added, comment_filter: '(?i)^(Patch Set [0-9]+:)?( [\\w\\\\+-]*)*(\\n\\n)?\\s*recheck'}
    success: {gerrit: {verified: 1}}
    failure: {gerrit: {verified: -1}}
  - name: gate
    manager: dependent
    trigger:
      gerrit: [{event: comment-added, approval: [{workflow: 1}]}]
    require: {approval: [{code-review: 2}]}
    success: {gerrit: {verified: 2, submit: true}}
    failure: {gerrit: {verified: -2}}
  - name: post
    manager: independent
    trigger:
      gerrit: [{event: ref-updated, ref: '^(?!refs/).*$'}]
projects:
  - {name: openstack/tripleo-ci, check: [noop], gate: [noop], post: [noop]}
";

fn message(title: &str, digit: u8) -> String {
    format!("{title}\n\nChange-Id: I{}", digit.to_string().repeat(40))
}

/// Waits until it was heard, now or before.
async fn heard(ear: &mut Ear, what: &str, is_it: impl Fn(&TriggerEvent) -> bool) -> TriggerEvent {
    loop {
        if let Some(event) = ear.seen.iter().find(|e| is_it(e)) {
            return event.clone();
        }
        ear.until(what, |h| matches!(h, Heard::Event { .. })).await;
    }
}

/// The gate's own user gives this vote; with which words.
async fn voted(ear: &mut Ear, number: u64, value: i32) -> String {
    let vote = [("verified".to_owned(), value)];
    let is_it = |e: &TriggerEvent| {
        e.by.username == "jenkins"
            && e.approvals == vote
            && e.change.as_ref().is_some_and(|c| c.number == number)
    };
    heard(ear, &format!("a vote of {value} on {number}"), is_it).await.comment
}

/// While Gerrit is away it is told so; what could not be voted, and what nobody told, comes afterwards.
async fn it_goes_on_after_an_outage(
    gerrit: &mut Gerrit,
    world: &World,
    clone: &Path,
    ear: &mut Ear,
) {
    let state = async || world.admin.sources().await.unwrap().remove(0);
    assert_eq!((state().await.state, state().await.why), ("up".to_owned(), String::new()));
    gerrit.git(clone, &["fetch", "-q", "origin"]);
    gerrit.git(clone, &["checkout", "-q", "origin/master"]);
    let late = gerrit.push(clone, &message("Late", 4), "");
    gerrit.stop();
    let down = eventually("the outage", async || match state().await {
        down if down.state == "down" => Ok(down),
        other => Err(format!("{other:?}")),
    });
    let down = down.await;
    assert!(!down.why.is_empty() && down.since_us > 0, "{down:?}");
    let order = PipelineOrder { change: Some(format!("{late},1")), reference: None };
    match world.admin.enqueue("check", &order).await {
        Err(ClientError::Api { status: 502, error }) => {
            assert!(error.message.contains("gerrit cannot be reached"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    let bare = gerrit.site().join("git/openstack/tripleo-ci.git");
    gerrit.git(&bare, &["update-ref", "refs/heads/stable/icehouse", "refs/heads/master"]);
    gerrit.start_again();
    world.admin.poke("gerrit").await.unwrap();
    voted(ear, late, 1).await;
    eventually("the post pipeline", async || {
        let ended = world.admin.ended_items().await.unwrap();
        let is_it = |e: &EndedItem| e.pipeline == "post" && e.subject.contains("stable/icehouse");
        if ended.iter().any(is_it) { Ok(()) } else { Err(format!("{ended:?}")) }
    })
    .await;
    assert_eq!(state().await.state, "up");
}

async fn merged(ear: &mut Ear, number: u64) {
    let is_it = |e: &TriggerEvent| {
        e.kind == EventKind::ChangeMerged && e.change.as_ref().is_some_and(|c| c.number == number)
    };
    heard(ear, &format!("the merge of {number}"), is_it).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn approved_changes_of_a_real_gerrit_are_merged() {
    let mut gerrit = Gerrit::start();
    gerrit.project("openstack/tripleo-ci");
    let clone = gerrit.clone("openstack/tripleo-ci");
    let folder = tempfile::tempdir().unwrap();
    let source = SourceConfig::Gerrit(gerrit.ssh_config());
    let config = with_gate(folder.path(), LAYOUT, source);
    let server = toci_server::start(config).await.unwrap();
    let world = World::around(server, folder);
    let source = Arc::new(gerrit.by_rest());
    let mut ear = Ear::listen(source.clone(), Cursors::new());
    ear.until("the link", |h| matches!(h, Heard::Link(Ok(())))).await;

    let first = gerrit.push(&clone, &message("First", 1), "");
    let second = gerrit.push(&clone, &message("Second, on top of it", 2), "");
    gerrit.git(&clone, &["checkout", "-q", "HEAD~2"]);
    let rival = gerrit.push(&clone, &message("It changes the same file", 3), "");
    for number in [first, second, rival] {
        let text = voted(&mut ear, number, 1).await;
        assert!(text.contains("Build succeeded."), "{text}");
    }
    for number in [first, second] {
        gerrit.gerrit("dev", &format!("review --code-review +2 --label Workflow=+1 {number},1"));
    }
    voted(&mut ear, first, 2).await;
    merged(&mut ear, first).await;
    merged(&mut ear, second).await;
    let merged = source.change(second, None).await.unwrap().unwrap();
    assert_eq!(merged.state, ChangeState::Merged);
    gerrit.gerrit("dev", &format!("review --code-review +2 --label Workflow=+1 {rival},1"));
    let text = voted(&mut ear, rival, -2).await;
    assert!(text.contains("merge"), "{text}");
    let refused = source.change(rival, None).await.unwrap().unwrap();
    assert_eq!(refused.state, ChangeState::Open);
    it_goes_on_after_an_outage(&mut gerrit, &world, &clone, &mut ear).await;
    ear.close().await;
    world.running.stop().await.unwrap();
}
