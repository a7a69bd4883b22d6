//! What is told, and what GitHub says to it.

use super::super::GithubSource;
use super::hub::*;
use crate::source::{Source as _, SourceError, SourceReport};
use serde_json::json;
use toci_core::event::Change;
use toci_core::id::ReportId;
use toci_core::layout::{GerritVote, MergeMode};
use toci_core::pipeline::ReportAction;

pub(super) async fn told(
    hub: &Hub,
    source: &GithubSource,
    action: ReportAction,
    votes: Vec<GerritVote>,
    merge: bool,
) -> Result<bool, SourceError> {
    hub.pull("octo/hello", &pull(5, A, ""));
    let change: Change = source.change(5, None).await.unwrap().unwrap();
    let message = "Build succeeded.\n\n- http://logs/1 : SUCCESS\n".to_owned();
    let pipeline = "gate".to_owned();
    source
        .report(&SourceReport {
            report: ReportId(1),
            action,
            pipeline,
            change,
            message,
            votes,
            merge,
            mode: MergeMode::default(),
            commit: None,
        })
        .await
}

#[tokio::test]
async fn results_become_statuses_comments_and_merges() {
    let hub = Hub::start().await;
    let source = hub.source();
    assert_eq!(told(&hub, &source, ReportAction::Start, vec![], false).await, Ok(false));
    let start = hub.changes().remove(0);
    assert_eq!(start.target, format!("/repos/octo/hello/statuses/{A}"));
    assert_eq!(start.header("authorization"), "Bearer ghp_hush");
    assert_eq!(start.header("x-github-api-version"), "2022-11-28");
    assert_eq!(
        start.json(),
        json!({"state": "pending", "context": "toci/gate",
        "description": "Build succeeded.", "target_url": "http://logs/1"})
    );
    assert_eq!(hub.changes().len(), 1, "a start is no comment");
    hub.set("PUT /repos/octo/hello/pulls/5/merge", 200, json!({"sha": C, "merged": true}));
    let squash = vec![GerritVote::Flag("squash".into())];
    assert_eq!(told(&hub, &source, ReportAction::Success, squash, true).await, Ok(true));
    let calls: Vec<_> = hub.changes()[1..].iter().map(|s| (s.target.clone(), s.json())).collect();
    assert_eq!(calls[0].1["state"], "success");
    assert_eq!(
        calls[1],
        ("/repos/octo/hello/pulls/5/merge".into(), json!({"sha": A, "merge_method": "squash"}))
    );
    assert_eq!(calls[2].0, "/repos/octo/hello/issues/5/comments");
    let bad = vec![GerritVote::Label("code-review".into(), -1)];
    assert_eq!(told(&hub, &source, ReportAction::Failure, bad, false).await, Ok(false));
    let calls = hub.changes();
    assert_eq!(calls[4].json()["state"], "failure");
    assert_eq!(calls[5].json()["event"], "REQUEST_CHANGES");
}

#[tokio::test]
async fn a_layouts_merge_mode_is_githubs_method() {
    let hub = Hub::start().await;
    let source = hub.source();
    hub.pull("octo/hello", &pull(5, A, ""));
    hub.set("PUT /repos/octo/hello/pulls/5/merge", 200, json!({"sha": C, "merged": true}));
    let change = source.change(5, None).await.unwrap().unwrap();
    let flag = || vec![GerritVote::Flag("merge".into())];
    for (mode, votes, expected) in [
        (MergeMode::MergeResolve, vec![], "merge"),
        (MergeMode::Merge, vec![], "merge"),
        (MergeMode::Squash, vec![], "squash"),
        (MergeMode::CherryPick, vec![], "rebase"),
        (MergeMode::Squash, flag(), "merge"),
    ] {
        let report = SourceReport {
            report: ReportId(1),
            action: ReportAction::Success,
            pipeline: "gate".into(),
            change: change.clone(),
            message: String::new(),
            votes,
            merge: true,
            mode,
            commit: None,
        };
        assert_eq!(source.report(&report).await, Ok(true));
        let merge = hub.changes().into_iter().rfind(|seen| seen.target.ends_with("/merge"));
        assert_eq!(merge.unwrap().json()["merge_method"], expected, "{mode:?}");
    }
}

#[tokio::test]
async fn what_github_refuses_is_told_apart_from_what_may_pass() {
    let hub = Hub::start().await;
    let source = hub.source();
    let merge = "PUT /repos/octo/hello/pulls/5/merge";
    for (status, refused) in [
        (405, true),
        (409, true),
        (422, true),
        (403, true),
        (500, false),
        (502, false),
        (401, false),
    ] {
        hub.set(merge, status, json!({"message": "Base branch was modified"}));
        let error = told(&hub, &source, ReportAction::Success, vec![], true).await.unwrap_err();
        assert_eq!(matches!(error, SourceError::Refused { .. }), refused, "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }
    // Its answer got lost the first time.
    hub.set(merge, 405, json!({}));
    let change = source.change(5, None).await.unwrap().unwrap();
    hub.pull(
        "octo/hello",
        &with(pull(5, A, ""), json!({"state": "closed", "merged_at": "2026-01-03T00:00:00Z"})),
    );
    let report = SourceReport {
        report: ReportId(1),
        action: ReportAction::Success,
        pipeline: "gate".into(),
        change,
        message: String::new(),
        votes: vec![],
        merge: true,
        mode: MergeMode::default(),
        commit: None,
    };
    assert_eq!(source.report(&report).await, Ok(true));
}
