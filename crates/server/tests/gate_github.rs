//! The gate with GitHub, from a signed webhook over check runs to a merge, on a real server. GitHub is a server in this
//! process that answers as its documentation says (docs/github.md names what was compared). Jobs are `noop`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
mod github_hub;

use common::gate::with_gate;
use common::{World, eventually};
use github_hub::{Call, Hub, pull};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use toci_edge::http::{Http, Request, Secret, Trust, Url};
use toci_edge::source::github::{Auth, GithubConfig, MergeMethod};
use toci_edge::tell::webhook::signature;
use toci_server::{ServerConfig, SourceConfig};
use toci_wire::api::EndedItem;

const LAYOUT: &str = "
pipelines:
  - name: check
    manager: independent
    trigger:
      github: [{event: patchset-created}]
    start: {github: {}}
    success: {github: {verified: 1}}
    failure: {github: {verified: -1}}
  - name: gate
    manager: dependent
    trigger:
      github: [{event: comment-added, approval: [{workflow: 1}]}]
    require: {approval: [{verified: [1, 2]}]}
    success: {github: {verified: 2, submit: true}}
    failure: {github: {verified: -2}}
  - name: post
    manager: independent
    trigger:
      github: [{event: ref-updated, ref: '^main$'}]
projects:
  - {name: octo/hello, merge-mode: squash, check: [noop], gate: [noop], post: [noop]}
  - {name: octo/world, check: [noop], gate: [noop]}
";
const SECRET: &str = "a secret of at least twenty characters";

fn key() -> Secret {
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .expect("openssl is missing: apt-get install openssl");
    Secret::new(String::from_utf8(made.stdout).unwrap())
}

fn settings(folder: &Path, hub: &Hub) -> ServerConfig {
    let source = GithubConfig {
        name: "github".parse().unwrap(),
        api: hub.url.parse().unwrap(),
        web: format!("{}/web", hub.url).parse().unwrap(),
        trust: Trust::System,
        projects: ["octo/hello", "octo/world"].map(|p| p.parse().unwrap()).into(),
        auth: Auth::App { id: "123".into(), key: key(), installation: 42 },
        webhook_secret: Some(Secret::new(SECRET)),
        every: Duration::from_secs(3600),
        merge: MergeMethod::Merge,
    };
    with_gate(folder, LAYOUT, SourceConfig::Github(source))
}

async fn world() -> (World, Hub) {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(folder.path(), &[("octo/hello", 77), ("octo/world", 78)]).await;
    let running = toci_server::start(settings(folder.path(), &hub)).await.unwrap();
    let world = World::around(running, folder);
    // Before GitHub was looked at, nothing is news.
    eventually("the first look", async || {
        let state = world.admin.sources().await.unwrap().remove(0);
        if state.state == "up" { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    (world, hub)
}

/// A delivery as GitHub makes it.
struct Delivery<'a> {
    event: &'a str,
    id: &'a str,
    secret: &'a str,
    source: &'a str,
}

impl Delivery<'_> {
    fn of<'a>(event: &'a str, id: &'a str) -> Delivery<'a> {
        Delivery { event, id, secret: SECRET, source: "github" }
    }

    /// Status and, of an error, its code and message.
    async fn send(&self, world: &World, body: Vec<u8>) -> (u16, String) {
        let path = format!("http://{}/api/v1/hooks/github/{}", world.running.api[0], self.source);
        let url = Url::parse(&path).unwrap();
        let signature = match self.secret {
            "" => String::new(),
            secret => signature(&Secret::new(secret), &body),
        };
        let request = Request::post(&url)
            .header("x-github-event", self.event)
            .header("x-github-delivery", self.id)
            .header("x-hub-signature-256", &signature)
            .body("application/json", body);
        let answer = Http::new(&Trust::System).unwrap().send(request).await.unwrap();
        let error: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let word = |name: &str| error["error"][name].as_str().unwrap_or_default().to_owned();
        (answer.status(), format!("{}: {}", word("code"), word("message")))
    }
}

/// A payload about a repository, with what every payload has.
fn about(project: &str, id: u64, more: Value) -> Vec<u8> {
    let mut whole = json!({
        "repository": {"id": id, "name": project.split_once('/').unwrap().1, "full_name": project, "private": false},
        "sender": {"login": "mona", "id": 1, "type": "User"},
        "installation": {"id": 42, "node_id": "x"},
    });
    for (name, value) in more.as_object().unwrap() {
        whole[name] = value.clone();
    }
    whole.to_string().into_bytes()
}

async fn ended(world: &World, enough: impl Fn(&[EndedItem]) -> bool) -> Vec<EndedItem> {
    eventually("the end of an item", async || {
        let ended = world.admin.ended_items().await.unwrap();
        if enough(&ended) { Ok(ended) } else { Err(format!("{ended:#?}")) }
    })
    .await
}

fn has(ended: &[EndedItem], pipeline: &str, subject: &str, end: &str) -> bool {
    ended.iter().any(|e| e.pipeline == pipeline && e.subject == subject && e.end == end)
}

fn of<'a>(calls: &'a [Call], project: &str) -> Vec<&'a Call> {
    let begin = format!("/repos/{project}/");
    calls.iter().filter(|call| call.method != "GET" && call.path.starts_with(&begin)).collect()
}

/// Two repositories each have a pull request 5. One is checked, labelled and merged; the other one is left alone.
#[tokio::test]
async fn a_signed_webhook_leads_over_check_runs_to_a_merge() {
    let (world, hub) = world().await;
    let head = hub.propose("octo/hello", 5, "hello");
    let other = hub.propose("octo/world", 5, "world");
    let opened = about(
        "octo/hello",
        77,
        json!({"action": "opened", "number": 5, "pull_request": pull("octo/hello", 5, &head)}),
    );
    let (status, _) = Delivery::of("pull_request", "d-1").send(&world, opened.clone()).await;
    assert_eq!(status, 202);
    let subject = format!("github:77000005,{head}");
    ended(&world, |e| has(e, "check", &subject, "succeeded")).await;
    // The check run of the start is the one that is finished.
    let run = eventually("the check run", async || {
        let run = hub.runs("octo/hello").into_iter().next().unwrap_or_default();
        if run["conclusion"] == "success" { Ok(run) } else { Err(format!("{run}")) }
    });
    let run = run.await;
    assert_eq!((&run["name"], &run["head_sha"]), (&json!("toci/check"), &json!(head)));
    assert_eq!(hub.runs("octo/hello").len(), 1);
    // GitHub delivers again, by hand or because the answer got lost.
    let again = Delivery::of("pull_request", "d-1").send(&world, opened).await;
    assert_eq!(again.0, 202);

    let labelled = |project: &str, id: u64, head: &str| {
        let label = json!({"id": 1, "name": "Workflow", "color": "ededed"});
        let found = pull(project, 5, head);
        about(
            project,
            id,
            json!({"action": "labeled", "number": 5, "pull_request": found, "label": label}),
        )
    };
    // Of the other one nothing was verified: what is required is read back from GitHub, by project and number.
    let label = labelled("octo/world", 78, &other);
    assert_eq!(Delivery::of("pull_request", "d-2").send(&world, label).await.0, 202);
    let label = labelled("octo/hello", 77, &head);
    assert_eq!(Delivery::of("pull_request", "d-3").send(&world, label).await.0, 202);
    let left = ended(&world, |e| has(e, "gate", &subject, "succeeded")).await;
    assert_eq!(left.iter().filter(|e| e.pipeline == "check").count(), 1, "a replay enters nothing");
    assert_eq!(left.iter().filter(|e| e.pipeline == "gate").count(), 1, "{left:#?}");
    let calls = hub.calls();
    let merges: Vec<&Call> = calls.iter().filter(|c| c.path.ends_with("/merge")).collect();
    assert_eq!(merges.len(), 1);
    assert_eq!(merges[0].path, "/repos/octo/hello/pulls/5/merge");
    assert_eq!(merges[0].body, json!({"sha": head, "merge_method": "squash"}), "the layout's mode");
    assert!(of(&calls, "octo/world").is_empty(), "{:?}", of(&calls, "octo/world"));
    let comments = of(&calls, "octo/hello");
    let comment = comments.iter().rfind(|c| c.path.ends_with("/comments")).unwrap();
    assert!(comment.body["body"].as_str().unwrap().starts_with("Build succeeded."));
    let push = json!({"ref": "refs/heads/main", "before": "0".repeat(40), "after": head});
    assert_eq!(
        Delivery::of("push", "d-4").send(&world, about("octo/hello", 77, push)).await.0,
        202
    );
    ended(&world, |e| e.iter().any(|e| e.pipeline == "post" && e.end == "succeeded")).await;
    world.running.stop().await.unwrap();
}

/// What is no webhook of ours is refused with what to do, what is about nothing here is passed over, and the next good
/// one is taken as if nothing had been.
#[tokio::test]
async fn what_is_no_webhook_is_refused_and_disturbs_nothing() {
    let (world, hub) = world().await;
    let head = hub.propose("octo/hello", 6, "six");
    let good = about(
        "octo/hello",
        77,
        json!({"action": "opened", "number": 6, "pull_request": pull("octo/hello", 6, &head)}),
    );
    let of = Delivery::of;
    let ping = about("octo/hello", 77, json!({"zen": "Design for failure.", "hook_id": 1}));
    let elsewhere = about("evil/corp", 9, json!({"action": "opened", "pull_request": {}}));
    let lacks = about("octo/hello", 77, json!({"action": "opened", "pull_request": {"number": 6}}));
    let unsigned = Delivery { secret: "", ..of("pull_request", "b-1") };
    let forged = Delivery { secret: "some other secret", ..of("pull_request", "b-2") };
    let nowhere = Delivery { source: "nowhere", ..of("pull_request", "b-3") };
    let long = vec![b' '; (8 << 20) + 1];
    for (delivery, body, status, says) in [
        (
            unsigned,
            good.clone(),
            401,
            "unsigned: the signature is not that of the configured secret",
        ),
        (forged, good.clone(), 401, "unsigned: "),
        (nowhere, good.clone(), 404, "no_such_source: there is no such source of webhooks"),
        (of("pull_request", "b-4"), long, 413, "too_long: a webhook may have 8388608 bytes"),
        (
            of("pull_request", "b-5"),
            b"{\"action\"".to_vec(),
            400,
            "malformed: this is no webhook of GitHub's: EOF",
        ),
        (of("pull_request", "b-6"), b"[]".to_vec(), 400, "malformed: "),
        (
            of("pull_request", "b-7"),
            lacks,
            400,
            "malformed: this is no webhook of GitHub's: missing field",
        ),
        (of("ping", "b-8"), ping.clone(), 202, ": "),
        (of("sponsorship_of_the_future", "b-9"), ping, 202, ": "),
        (of("pull_request", "b-10"), elsewhere, 202, ": "),
    ] {
        let id = delivery.id;
        let (found, text) = delivery.send(&world, body).await;
        assert_eq!(found, status, "{id}: {text}");
        assert!(text.starts_with(says), "{id}: {text}");
    }
    assert!(world.admin.ended_items().await.unwrap().is_empty());
    assert_eq!(
        of("pull_request", "b-1").send(&world, good).await.0,
        202,
        "a refused id is not used up"
    );
    ended(&world, |e| has(e, "check", &format!("github:77000006,{head}"), "succeeded")).await;
    world.running.stop().await.unwrap();
}
