//! A pull request is a change.

use super::super::GithubSource;
use super::hub::*;
use crate::source::{Cursors, Source as _};
use serde_json::json;
use toci_core::event::ChangeState;

/// Pull request 5, with reviews and statuses, and those that it names.
fn a_reviewed_pull(hub: &Hub) {
    let body = "Why.\r\n\r\nDepends-On: https://github.com/octo/hello/pull/6\r\nDepends-On: #7\r\nDepends-On: I01\r\n";
    let labels = json!({"labels": [{"name": "Workflow"}], "draft": true});
    hub.pull("octo/hello", &with(pull(5, A, body), labels));
    hub.pull("octo/hello", &pull(6, B, ""));
    hub.pull("octo/hello", &pull(7, C, "Depends-On: octo/hello#7\n"));
    hub.set("GET /repos/octo/hello/pulls", 200, json!([pull(5, A, body), pull(6, B, "")]));
    let files = json!([{"filename": "a.py"}, {"filename": "new", "previous_filename": "old"}]);
    hub.set("GET /repos/octo/hello/pulls/5/files", 200, files);
    let review = |id: u64, state: &str, who: &str, association: &str| {
        json!({"id": id, "state": state,
        "user": {"login": who}, "author_association": association, "submitted_at": "2026-01-02T00:00:00Z"})
    };
    hub.set(
        "GET /repos/octo/hello/pulls/5/reviews",
        200,
        json!([
            review(1, "CHANGES_REQUESTED", "lead", "OWNER"),
            review(2, "APPROVED", "lead", "OWNER"),
            review(3, "COMMENTED", "lead", "OWNER"),
            review(4, "APPROVED", "guest", "NONE"),
            review(5, "APPROVED", "gone", "MEMBER"),
            review(6, "DISMISSED", "gone", "MEMBER"),
        ]),
    );
    let status = |state: &str, context: &str| {
        json!({"state": state, "context": context,
        "creator": {"login": "ci"}, "updated_at": "2026-01-02T00:00:00Z"})
    };
    hub.set(
        &format!("GET /repos/octo/hello/commits/{A}/statuses"),
        200,
        json!([
            status("success", "toci/check"),
            status("failure", "toci/check"),
            status("failure", "other/ci"),
        ]),
    );
}

#[tokio::test]
async fn a_pull_request_is_a_change() {
    let hub = Hub::start().await;
    a_reviewed_pull(&hub);
    let source = hub.source();
    hear(&source, &mut Cursors::new(), 0).await;
    let change = source.change(5, None).await.unwrap().unwrap();
    assert_eq!((change.branch.as_str(), change.reference.as_str()), ("main", "refs/pull/5/head"));
    assert_eq!((change.revision.as_str(), change.state), (A, ChangeState::Open));
    assert!(change.current && change.wip && change.message.starts_with("Change 5\n\nWhy.\n"));
    assert_eq!(change.files.unwrap(), ["a.py", "new", "old"]);
    let votes: Vec<_> =
        change.approvals.iter().map(|a| (&a.label[..], a.value, &a.by.username[..])).collect();
    assert_eq!(
        votes,
        [
            ("code-review", 1, "guest"),
            ("code-review", 2, "lead"),
            ("workflow", 1, ""),
            ("verified", 1, "ci"),
        ]
    );
    let needs: Vec<String> = change.needs.iter().map(|k| k.short()).collect();
    assert_eq!(needs, [format!("6,{B}"), format!("7,{C}")]);
    let needed = source.change(6, Some(&B[..8])).await.unwrap().unwrap();
    assert_eq!(needed.needed_by[0].short(), format!("5,{A}"));
    assert!(needed.current);
    let old = source.change(6, Some(A)).await.unwrap().unwrap();
    assert!(!old.current && old.key.patchset == A);
    assert!(
        source.change(7, None).await.unwrap().unwrap().needs.is_empty(),
        "nothing needs itself"
    );
    assert_eq!(source.change(99, None).await.unwrap(), None);
    assert_eq!(source.change(6, Some("1")).await.unwrap(), None);
    let found = source.find("octo/hello#6").await.unwrap();
    assert_eq!(found[0].key.number, 6);
    for other in
        ["I01", "6", "https://github.com/octo/other/pull/6", "https://review.example.org/6"]
    {
        assert_eq!(source.find(other).await.unwrap(), [], "{other}");
    }
    assert_eq!(source.open_changes(&"octo/hello".parse().unwrap()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn numbers_of_several_repositories_do_not_meet() {
    let hub = Hub::start().await;
    for (id, name) in [(77, "octo/hello"), (78, "octo/world")] {
        hub.set(&format!("GET /repos/{name}"), 200, json!({"id": id, "full_name": name}));
        hub.pull(name, &pull(5, A, ""));
    }
    let source = GithubSource::new(hub.config(&["octo/hello", "octo/world"])).unwrap();
    let found = source.find("octo/world#5").await.unwrap();
    assert_eq!(found[0].key.number, 78_000_005);
    let change = source.change(78_000_005, None).await.unwrap().unwrap();
    assert_eq!(change.project.name.as_str(), "octo/world");
    assert_eq!(source.change(5, None).await.unwrap(), None);
    assert_eq!(source.change(79_000_005, None).await.unwrap(), None);
}
