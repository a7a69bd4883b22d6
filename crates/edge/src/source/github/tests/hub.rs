//! A server that answers as GitHub's documentation says.

use super::super::{Auth, GithubConfig, GithubSource, HookError, MergeMethod};
use crate::http::fake::{Fake, Reply, Seen};
use crate::http::{Secret, Trust};
use crate::source::{Cursors, Heard, Source as _};
use crate::tell::webhook::signature;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use toci_core::event::{EventKind, SourceName, TriggerEvent};
use tokio::sync::mpsc;

/// Longest wait for something that must come.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
pub(super) const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(super) const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
pub(super) const C: &str = "cccccccccccccccccccccccccccccccccccccccc";

pub(super) type Answers = Arc<Mutex<BTreeMap<String, (u16, Value)>>>;

/// Answers by `METHOD path`; lists that are not given are empty, anything else is not found.
pub(super) struct Hub {
    pub(super) fake: Fake,
    pub(super) answers: Answers,
}

impl Hub {
    pub(super) async fn start() -> Hub {
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

    pub(super) fn set(&self, call: &str, status: u16, body: Value) {
        self.answers.lock().unwrap().insert(call.to_owned(), (status, body));
    }

    pub(super) fn pull(&self, project: &str, body: &Value) {
        let path = format!("GET /repos/{project}/pulls/{}", body["number"]);
        self.set(&path, 200, body.clone());
    }

    pub(super) fn config(&self, projects: &[&str]) -> GithubConfig {
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

    pub(super) fn source(&self) -> GithubSource {
        GithubSource::new(self.config(&["octo/hello"])).unwrap()
    }

    pub(super) fn changes(&self) -> Vec<Seen> {
        self.fake.seen().into_iter().filter(|seen| seen.method != "GET").collect()
    }
}

/// A pull request as REST and webhooks show it.
pub(super) fn pull(number: u64, head: &str, body: &str) -> Value {
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

pub(super) fn with(mut value: Value, changes: Value) -> Value {
    for (key, new) in changes.as_object().unwrap() {
        value[key] = new.clone();
    }
    value
}

pub(super) fn hook(more: Value) -> Vec<u8> {
    let common = json!({
        "repository": {"id": 77, "name": "hello", "full_name": "octo/hello", "private": false},
        "sender": {"login": "hubot", "id": 2, "type": "User"},
    });
    with(common, more).to_string().into_bytes()
}

pub(super) fn deliver(
    source: &GithubSource,
    event: &str,
    id: &str,
    body: &[u8],
) -> Result<(), HookError> {
    source.deliver(event, id, &signature(&Secret::new("hook-secret"), body), body)
}

/// Listens in this task until so many events came; what was heard besides is noted.
pub(super) async fn hear(
    source: &GithubSource,
    since: &mut Cursors,
    events: usize,
) -> Vec<TriggerEvent> {
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

pub(super) fn kinds(events: &[TriggerEvent]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).collect()
}
