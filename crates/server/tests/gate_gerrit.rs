//! The gate with a real Gerrit: from a push for review over votes to a merge, on a real server. Jobs are `noop`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "../../edge/tests/gerrit/world.rs"]
#[expect(dead_code, reason = "shared with the tests of the source itself")]
mod gerrit;

use common::{World, config};
use gerrit::{Ear, Gerrit};
use std::path::Path;
use std::sync::Arc;
use toci_core::event::{ChangeState, EventKind, TriggerEvent};
use toci_edge::source::gerrit::GerritConfig;
use toci_edge::source::{Cursors, Heard, Source as _};
use toci_server::{GateConfig, MergerConfig, SourceConfig};

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
projects:
  - {name: openstack/tripleo-ci, check: [noop], gate: [noop]}
";

fn with_gate(folder: &Path, source: GerritConfig) -> toci_server::ServerConfig {
    let layout = folder.join("layout.yaml");
    std::fs::write(&layout, LAYOUT).unwrap();
    let gate = GateConfig {
        layout,
        sources: vec![SourceConfig::Gerrit(source)],
        merger: MergerConfig {
            folder: folder.join("mirrors"),
            url: None,
            identity: ("toci".into(), "toci@example.org".into()),
        },
        status_url: None,
    };
    toci_server::ServerConfig { gate: Some(gate), ..config(folder) }
}

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

async fn merged(ear: &mut Ear, number: u64) {
    let is_it = |e: &TriggerEvent| {
        e.kind == EventKind::ChangeMerged && e.change.as_ref().is_some_and(|c| c.number == number)
    };
    heard(ear, &format!("the merge of {number}"), is_it).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn approved_changes_of_a_real_gerrit_are_merged() {
    let gerrit = Gerrit::start();
    gerrit.project("openstack/tripleo-ci");
    let clone = gerrit.clone("openstack/tripleo-ci");
    let folder = tempfile::tempdir().unwrap();
    let server = toci_server::start(with_gate(folder.path(), gerrit.ssh_config())).await.unwrap();
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
    ear.close().await;
    world.running.stop().await.unwrap();
}
