//! GitHub by a server that answers as its documentation says.

use super::auth::{pair, signed};
use super::{Auth, GithubConfig, GithubSource, HookError, MergeMethod};
use crate::http::fake::{Fake, Reply, Seen};
use crate::http::{Secret, Trust};
use crate::source::{Cursors, Heard, Source, SourceError, SourceReport};
use crate::tell::webhook::signature;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use toci_core::event::{Change, ChangeState, EventKind, SourceName, TriggerEvent};
use toci_core::layout::{GerritVote, MergeMode};
use toci_core::pipeline::ReportAction;
use tokio::sync::mpsc;

/// Longest wait for something that must come.
const LIMIT: Duration = Duration::from_secs(30);
const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const C: &str = "cccccccccccccccccccccccccccccccccccccccc";

type Answers = Arc<Mutex<BTreeMap<String, (u16, Value)>>>;

/// Answers by `METHOD path`; lists that are not given are empty, anything else is not found.
struct Hub {
    fake: Fake,
    answers: Answers,
}

impl Hub {
    async fn start() -> Hub {
        let answers: Answers = Arc::default();
        let known = answers.clone();
        let fake = Fake::start(move |seen| {
            let (path, _) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
            let found = known.lock().unwrap().get(&format!("{} {path}", seen.method)).cloned();
            let is_list = ["/pulls", "/files", "/reviews", "/statuses", "/comments"]
                .iter()
                .any(|list| path.ends_with(list));
            let (status, body) = match (found, seen.method.as_str()) {
                (Some(found), _) => found,
                (None, "GET") if is_list => (200, json!([])),
                (None, "GET") if path.ends_with("/check-runs") => (200, json!({"check_runs": []})),
                (None, "GET") => (404, json!({"message": "Not Found"})),
                (None, _) => (201, json!({"id": 1})),
            };
            Reply::new(status, body.to_string())
        })
        .await;
        Hub { fake, answers }
    }

    fn set(&self, call: &str, status: u16, body: Value) {
        self.answers.lock().unwrap().insert(call.to_owned(), (status, body));
    }

    fn pull(&self, project: &str, body: &Value) {
        let path = format!("GET /repos/{project}/pulls/{}", body["number"]);
        self.set(&path, 200, body.clone());
    }

    fn config(&self, projects: &[&str]) -> GithubConfig {
        GithubConfig {
            name: SourceName::new("github").unwrap(),
            api: self.fake.url.clone(),
            web: "https://github.com".parse().unwrap(),
            trust: Trust::System,
            projects: projects.iter().map(|p| p.parse().unwrap()).collect(),
            auth: Auth::Token(Secret::new("ghp_hush")),
            webhook_secret: Some(Secret::new("hook-secret")),
            every: Duration::from_secs(3600),
            merge: MergeMethod::Merge,
        }
    }

    fn source(&self) -> GithubSource {
        GithubSource::new(self.config(&["octo/hello"])).unwrap()
    }

    fn changes(&self) -> Vec<Seen> {
        self.fake.seen().into_iter().filter(|seen| seen.method != "GET").collect()
    }
}

/// A pull request as REST and webhooks show it.
fn pull(number: u64, head: &str, body: &str) -> Value {
    json!({
        "id": 9_000 + number,
        "number": number,
        "state": "open",
        "locked": false,
        "title": format!("Change {number}"),
        "body": body,
        "html_url": format!("https://github.com/octo/hello/pull/{number}"),
        "user": {"login": "mona", "id": 1, "type": "User"},
        "draft": false,
        "labels": [],
        "head": {"ref": "topic", "sha": head, "repo": null},
        "base": {"ref": "main", "sha": C, "repo": {"id": 77, "full_name": "octo/hello"}},
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-02T00:00:00Z",
        "closed_at": null,
        "merged_at": null,
        "changed_files": 1,
    })
}

fn with(mut value: Value, changes: Value) -> Value {
    for (key, new) in changes.as_object().unwrap() {
        value[key] = new.clone();
    }
    value
}

fn hook(more: Value) -> Vec<u8> {
    let common = json!({
        "repository": {"id": 77, "name": "hello", "full_name": "octo/hello", "private": false},
        "sender": {"login": "hubot", "id": 2, "type": "User"},
    });
    with(common, more).to_string().into_bytes()
}

fn deliver(source: &GithubSource, event: &str, id: &str, body: &[u8]) -> Result<(), HookError> {
    source.deliver(event, id, &signature(&Secret::new("hook-secret"), body), body)
}

/// Listens in this task until so many events came; what was heard besides is noted.
async fn hear(source: &GithubSource, since: &mut Cursors, events: usize) -> Vec<TriggerEvent> {
    let (out, mut heard) = mpsc::channel(100);
    let known = since.clone();
    let mut found = Vec::new();
    let collect = async {
        let mut linked = false;
        while !linked || found.len() < events {
            match heard.recv().await.expect("the source stopped listening") {
                Heard::Event { event, cursor: (name, text) } => {
                    since.insert(name, text);
                    found.push(*event);
                }
                Heard::Cursor((name, text)) => drop(since.insert(name, text)),
                Heard::Link(Ok(())) => linked = true,
                Heard::Link(Err(why)) => panic!("{why}"),
                Heard::Malformed(what) => panic!("{what}"),
            }
        }
    };
    let both = async {
        tokio::select! {
            () = source.listen(known, out) => panic!("it ended by itself"),
            () = collect => {}
        }
    };
    let done = tokio::time::timeout(LIMIT, both).await;
    assert!(done.is_ok(), "{events} events did not come, only {found:?}");
    found
}

fn kinds(events: &[TriggerEvent]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).collect()
}

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
    for n in 0..super::HOOKS_MAX {
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

async fn told(
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

fn rsa_key() -> Secret {
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .expect("openssl is missing: apt-get install openssl");
    Secret::new(String::from_utf8(made.stdout).unwrap())
}

#[tokio::test]
async fn an_app_signs_for_its_token_and_tells_check_runs() {
    let hub = Hub::start().await;
    let key = rsa_key();
    let signed = signed("123", &key, Duration::from_secs(1_000_000)).unwrap();
    let (text, signature) = signed.reveal().rsplit_once('.').unwrap();
    let public = pair(&key).unwrap().public_key().as_ref().to_vec();
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
    public.verify(text.as_bytes(), &decode(signature)).unwrap();
    let claims: Value = serde_json::from_slice(&decode(text.split_once('.').unwrap().1)).unwrap();
    assert_eq!(claims, json!({"iat": 999_940, "exp": 1_000_540, "iss": "123"}));
    assert!(super::auth::signed("1", &Secret::new("no key"), Duration::ZERO).is_err());

    let auth = Auth::App { id: "123".into(), key, installation: 42 };
    let source = GithubSource::new(GithubConfig { auth, ..hub.config(&["octo/hello"]) }).unwrap();
    hub.set(
        "POST /app/installations/42/access_tokens",
        201,
        json!({"token": "ghs_app", "expires_at": "2999-01-01T00:00:00Z"}),
    );
    assert_eq!(told(&hub, &source, ReportAction::Start, vec![], false).await, Ok(false));
    let runs = json!({"total_count": 1, "check_runs": [{"id": 8, "name": "toci/gate", "status": "in_progress",
        "conclusion": null, "app": {"slug": "toci"}}]});
    hub.set(&format!("GET /repos/octo/hello/commits/{A}/check-runs"), 200, runs);
    let quiet = vec![GerritVote::Flag("status-only".into())];
    assert_eq!(told(&hub, &source, ReportAction::Failure, quiet, false).await, Ok(false));
    let calls = hub.changes();
    let targets: Vec<_> = calls.iter().map(|c| (c.method.as_str(), c.target.as_str())).collect();
    assert_eq!(
        targets,
        [
            ("POST", "/app/installations/42/access_tokens"),
            ("POST", "/repos/octo/hello/check-runs"),
            ("PATCH", "/repos/octo/hello/check-runs/8"),
        ],
        "the token is asked for once"
    );
    assert_eq!(calls[1].header("authorization"), "Bearer ghs_app");
    assert_eq!(
        (&calls[1].json()["status"], &calls[1].json()["head_sha"]),
        (&"in_progress".into(), &A.into())
    );
    assert_eq!(
        (&calls[2].json()["status"], &calls[2].json()["conclusion"]),
        (&"completed".into(), &"failure".into())
    );
    hub.set("POST /app/installations/42/access_tokens", 500, json!({}));
}

#[test]
fn a_token_goes_to_git_by_its_environment_alone() {
    let config = GithubConfig {
        name: SourceName::new("github").unwrap(),
        api: "https://api.github.com".parse().unwrap(),
        web: "https://github.com".parse().unwrap(),
        trust: Trust::System,
        projects: Vec::new(),
        auth: Auth::Token(Secret::new("ghp_hush")),
        webhook_secret: None,
        every: Duration::from_secs(60),
        merge: MergeMethod::Rebase,
    };
    let remote = config.remote();
    assert_eq!((&remote.prefix[..], &remote.suffix[..]), ("https://github.com/", ".git"));
    assert_eq!(remote.environment[1].1, "http.https://github.com/.extraHeader");
    assert!(!format!("{config:?}").contains("ghp_hush"));
}
