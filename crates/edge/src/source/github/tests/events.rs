//! What happens, by webhook and by looking.

use super::super::{GithubConfig, GithubSource, HookError};
use super::hub::*;
use crate::http::Secret;
use crate::source::Cursors;
use crate::tell::webhook::signature;
use serde_json::{Value, json};
use toci_core::event::EventKind;

#[tokio::test]
async fn webhooks_become_events() {
    let hub = Hub::start().await;
    let source = hub.source();
    let open = pull(5, A, "");
    hub.pull("octo/hello", &open);
    let merged =
        with(open.clone(), json!({"state": "closed", "merged_at": "2026-01-03T00:00:00Z"}));
    let comment = json!({"id": 1, "body": "recheck", "user": {"login": "mona"}, "created_at": "2026-01-02T01:00:00Z"});
    let review = json!({"id": 2, "body": "fine", "state": "approved", "user": {"login": "lead"},
        "author_association": "MEMBER", "submitted_at": "2026-01-02T02:00:00Z"});
    let on = json!({"number": 5, "pull_request": {"url": "x"}});
    let suite = json!({"name": "toci/check", "pull_requests": [{"number": 5, "head": {"sha": A}}]});
    for (id, (event, body)) in [
        ("ping", json!({"zen": "x"})),
        ("pull_request", json!({"action": "opened", "number": 5, "pull_request": open})),
        ("pull_request", json!({"action": "assigned", "number": 5, "pull_request": open})),
        ("issue_comment", json!({"action": "created", "issue": on, "comment": comment})),
        ("issue_comment", json!({"action": "created", "issue": {"number": 9}, "comment": comment})),
        (
            "pull_request_review",
            json!({"action": "submitted", "pull_request": open, "review": review}),
        ),
        (
            "pull_request",
            json!({"action": "labeled", "pull_request": open, "label": {"name": "Work Flow"}}),
        ),
        ("check_run", json!({"action": "rerequested", "check_run": suite})),
        ("push", json!({"ref": "refs/heads/main", "before": A, "after": B})),
        ("pull_request", json!({"action": "closed", "number": 5, "pull_request": merged})),
    ]
    .into_iter()
    .enumerate()
    {
        deliver(&source, event, &format!("d{id}"), &hook(body)).unwrap();
    }
    let mut since = Cursors::new();
    let events = hear(&source, &mut since, 7).await;
    use EventKind::{ChangeMerged, CommentAdded, PatchsetCreated, RefUpdated};
    let expected = [
        PatchsetCreated,
        CommentAdded,
        CommentAdded,
        CommentAdded,
        CommentAdded,
        RefUpdated,
        ChangeMerged,
    ];
    assert_eq!(kinds(&events), expected);
    let key = events[0].change.clone().unwrap();
    assert_eq!(key.to_string(), format!("github:5,{A}"));
    assert_eq!(events[0].branch.as_ref().unwrap().as_str(), "main");
    assert_eq!(events[0].by.username, "hubot");
    assert_eq!((&events[1].comment[..], &events[1].change), ("recheck", &Some(key)));
    assert_eq!(events[2].approvals, [("code-review".to_owned(), 2)]);
    assert_eq!(events[3].approvals, [("work-flow".to_owned(), 1)]);
    assert_eq!(events[4].comment, "recheck");
    assert_eq!(events[5].reference.as_ref().unwrap().as_str(), "refs/heads/main");
    assert_eq!(since["heads octo/hello"], "{}");
}

#[tokio::test]
async fn only_signed_webhooks_are_taken_and_each_once() {
    let hub = Hub::start().await;
    let source = hub.source();
    let body = hook(json!({"ref": "refs/heads/main", "before": A, "after": B}));
    let refused = |signature: &str| source.deliver("push", "1", signature, &body);
    assert_eq!(refused(""), Err(HookError::Unsigned));
    assert_eq!(refused(&signature(&Secret::new("x"), &body)), Err(HookError::Unsigned));
    let garbage = b"{not json".as_slice();
    assert!(matches!(deliver(&source, "push", "2", garbage), Err(HookError::Malformed(_))));
    let odd = hook(json!({"ref": "refs/heads/../x", "before": A, "after": B}));
    assert!(matches!(deliver(&source, "push", "3", &odd), Err(HookError::Malformed(_))));
    for _ in 0..3 {
        deliver(&source, "push", "4", &body).unwrap();
    }
    deliver(&source, "push", "5", &body).unwrap();
    let strange = json!({"repository": {"id": 1, "full_name": "evil/x"}, "ref": "refs/heads/a", "before": A, "after": B});
    deliver(&source, "push", "6", strange.to_string().as_bytes()).unwrap();
    assert_eq!(hear(&source, &mut Cursors::new(), 2).await.len(), 2);
    assert_eq!(source.waiting.lock().await.len(), 0);
    let open =
        GithubSource::new(GithubConfig { webhook_secret: None, ..hub.config(&["octo/hello"]) });
    let open = open.unwrap();
    assert_eq!(deliver(&open, "push", "7", &body), Err(HookError::NotConfigured));
    for n in 0..super::super::HOOKS_MAX {
        deliver(&source, "push", &format!("n{n}"), &body).unwrap();
    }
    assert_eq!(deliver(&source, "push", "last", &body), Err(HookError::Busy));
}

#[tokio::test]
async fn a_gap_is_caught_up_by_looking_and_nothing_is_told_twice() {
    let hub = Hub::start().await;
    let list = |pulls: Value| hub.set("GET /repos/octo/hello/pulls", 200, pulls);
    list(json!([pull(5, A, ""), pull(6, A, "")]));
    let mut since = Cursors::new();
    assert!(hear(&hub.source(), &mut since, 0).await.is_empty(), "what is there is no news");
    assert_eq!(since["since octo/hello"], "2026-01-02T00:00:00Z");
    let later = |value: Value| with(value, json!({"updated_at": "2026-01-03T00:00:00Z"}));
    let gone = later(with(pull(6, A, ""), json!({"state": "closed"})));
    list(json!([gone, later(pull(5, B, "")), later(pull(7, C, ""))]));
    let at = "2026-01-02T23:00:00Z";
    hub.set("GET /repos/octo/hello/pulls/5/reviews", 200, json!([
        {"id": 1, "state": "APPROVED", "user": {"login": "x"}, "author_association": "NONE", "submitted_at": "2026-01-01T00:00:00Z"},
        {"id": 2, "state": "CHANGES_REQUESTED", "user": null, "author_association": "OWNER", "submitted_at": at, "body": "no"},
    ]));
    let url = "https://api.github.com/repos/octo/hello/issues";
    hub.set("GET /repos/octo/hello/issues/comments", 200, json!([
        {"id": 3, "body": "recheck", "user": {"login": "y"}, "created_at": at, "issue_url": format!("{url}/5")},
        {"id": 4, "body": "an issue's", "user": {"login": "y"}, "created_at": at, "issue_url": format!("{url}/99")},
        {"id": 5, "body": "old", "user": {"login": "y"}, "created_at": "2026-01-01T00:00:00Z", "issue_url": format!("{url}/5")},
    ]));
    let source = hub.source();
    // What a webhook says too is told once.
    let again =
        json!({"action": "synchronize", "number": 5, "pull_request": later(pull(5, B, ""))});
    deliver(&source, "pull_request", "d1", &hook(again)).unwrap();
    let push = hook(json!({"ref": "refs/heads/main", "before": A, "after": B}));
    deliver(&source, "push", "d2", &push).unwrap();
    let events = hear(&source, &mut since, 6).await;
    let told: Vec<_> =
        events.iter().map(|e| (e.kind.word(), e.change.as_ref().map_or(0, |k| k.number))).collect();
    assert_eq!(
        told,
        [
            ("patchset-created", 7),
            ("patchset-created", 5),
            ("comment-added", 5),
            ("change-abandoned", 6),
            ("comment-added", 5),
            ("ref-updated", 0),
        ]
    );
    assert_eq!(events[2].approvals, [("code-review".to_owned(), -2)]);
    assert_eq!(
        (&events[4].comment[..], &events[4].change.as_ref().unwrap().patchset[..]),
        ("recheck", B)
    );
    assert_eq!(since["since octo/hello"], "2026-01-03T00:00:00Z");
    assert_eq!(since["heads octo/hello"], format!("{{\"5\":\"{B}\",\"7\":\"{C}\"}}"));
    assert!(hear(&hub.source(), &mut since, 0).await.is_empty(), "nothing is new");
}
