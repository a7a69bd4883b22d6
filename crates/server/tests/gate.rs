//! The gate from a push to a merge, on a real server and real repositories. Jobs are `noop`: what runs them has tests of
//! its own.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::gate::{self, ended, has};
use common::git::git;
use common::{LIMIT, World, eventually};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_client::api::{Change, ClientError};
use toci_server::SourceConfig;
use toci_wire::api::{EndedQuery, Pipeline, PipelineOrder, Promote};

const LAYOUT: &str = "
pipelines:
  - name: check
    manager: independent
    trigger:
      local: [{event: patchset-created}]
    success: {local: {verified: 1}}
    failure: {local: {verified: -1}}
  - name: gate
    manager: dependent
    trigger:
      local: [{event: comment-added, approval: [{approved: 1}]}]
    require: {approval: [{code-review: 2}]}
    success: {local: {verified: 2, submit: true}}
    failure: {local: {verified: -2}}
  - name: post
    manager: independent
    trigger:
      local: [{event: ref-updated, ref: '^(?!refs/).*$'}]
    success: {local: {}}
projects:
  - {name: org/a, check: [noop], gate: [noop], post: [noop]}
  - {name: org/b, check: [noop], gate: [noop]}
  - {name: org/c, in-repository: true}
";

struct Git {
    root: PathBuf,
    work: PathBuf,
}

impl Git {
    fn new(folder: &Path) -> Git {
        let made = Git { root: folder.join("git"), work: folder.join("work") };
        for name in ["org/a", "org/b", "org/c"] {
            std::fs::create_dir_all(made.bare(name)).unwrap();
            git(&made.bare(name), &["init", "-q", "--bare", "--initial-branch=master"]).unwrap();
            let work = made.work(name);
            std::fs::create_dir_all(&work).unwrap();
            git(&work, &["init", "-q", "--initial-branch=master"]).unwrap();
            git(&work, &["remote", "add", "origin", made.bare(name).to_str().unwrap()]).unwrap();
            git(&work, &["commit", "-q", "--allow-empty", "-m", "begin"]).unwrap();
            git(&work, &["push", "-q", "origin", "master"]).unwrap();
        }
        made
    }

    fn bare(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.git"))
    }

    fn work(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// A commit on what is checked out, pushed as a patchset.
    fn propose(&self, project: &str, number: u64, message: &str) -> String {
        let work = self.work(project);
        std::fs::write(work.join(format!("file{number}")), message).unwrap();
        git(&work, &["add", "."]).unwrap();
        git(&work, &["commit", "-q", "-m", message]).unwrap();
        let target = format!("HEAD:refs/changes/{:02}/{number}/1", number % 100);
        git(&work, &["push", "-q", "origin", &target]).unwrap();
        git(&work, &["rev-parse", "HEAD"]).unwrap()
    }

    fn approve(&self, project: &str, number: u64, revision: &str) {
        let vote = |label: &str, value| {
            format!("{revision}:refs/approvals/{number}/1/{label}/bob/{value}")
        };
        let (review, approved) = (vote("code-review", 2), vote("approved", 1));
        git(&self.work(project), &["push", "-q", "origin", &review, &approved]).unwrap();
    }
}

fn with_gate(folder: &Path, root: &Path) -> toci_server::ServerConfig {
    let source = toci_edge::source::git::GitConfig {
        name: "local".parse().unwrap(),
        place: toci_edge::source::git::Place::Root(root.to_owned()),
        every: Duration::from_millis(50),
        user: "toci".into(),
        email: "toci@example.org".into(),
        environment: Vec::new(),
    };
    gate::with_gate(folder, LAYOUT, SourceConfig::Git(source))
}

async fn world() -> (World, Git) {
    let folder = tempfile::tempdir().unwrap();
    let host = Git::new(folder.path());
    let running = toci_server::start(with_gate(folder.path(), &host.root)).await.unwrap();
    (World::around(running, folder), host)
}

/// The server knows the repository before anything happens in it.
async fn known(world: &World, project: &str) {
    let mirror = world.folder.path().join(format!("mirrors/local/{project}.git/toci-mirror"));
    let wait = async {
        while !mirror.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "no {}", mirror.display());
}

fn item_count(pipelines: &[Pipeline]) -> usize {
    pipelines.iter().flat_map(|p| &p.queues).map(|q| q.items.len()).sum()
}

#[tokio::test]
async fn an_approved_series_is_merged_in_its_order() {
    let (world, host) = world().await;
    known(&world, "org/b").await;
    let one = host.propose("org/a", 1, "One");
    let two = host.propose("org/b", 2, "Two\n\nDepends-On: local:1");
    ended(&world, |e| {
        has(e, "check", "local:1,1", "succeeded") && has(e, "check", "local:2,1", "succeeded")
    })
    .await;
    let votes =
        git(&host.bare("org/a"), &["for-each-ref", "--format=%(refname)", "refs/approvals"]);
    assert_eq!(votes.unwrap(), "refs/approvals/1/1/verified/toci/1");
    // The second is approved first: it waits for the first, without entering.
    host.approve("org/b", 2, &two);
    host.approve("org/a", 1, &one);
    let left = ended(&world, |e| has(e, "gate", "local:1,1", "succeeded")).await;
    let gate = left.iter().find(|e| e.pipeline == "gate").unwrap();
    assert!(gate.message.starts_with("Build succeeded."), "{}", gate.message);
    assert_eq!(git(&host.bare("org/a"), &["rev-parse", "master"]).unwrap(), one);
    ended(&world, |e| e.iter().any(|e| e.pipeline == "post" && e.end == "succeeded")).await;
    ended(&world, |e| has(e, "gate", "local:2,1", "succeeded")).await;
    assert_eq!(git(&host.bare("org/b"), &["rev-parse", "master"]).unwrap(), two);
    assert_eq!(item_count(&world.admin.pipelines().await.unwrap()), 0);
    world.running.stop().await.unwrap();
    // Another server still knows what left, page by page and by what it was.
    let folder = world.folder;
    // The tasks of the first one let go of the database a moment after it has stopped.
    let running = eventually("another server starts", async || {
        let config = with_gate(folder.path(), &host.root);
        toci_server::start(config).await.map_err(|error| format!("{error:?}"))
    })
    .await;
    let world = World::around(running, folder);
    let all = world.admin.ended_items().await.unwrap();
    assert!(all.is_sorted_by_key(|item| std::cmp::Reverse(item.ended_us)), "{all:#?}");
    let query = EndedQuery { limit: Some(2), ..EndedQuery::default() };
    let mut pages = world.admin.ended_items_page(&query).await.unwrap();
    assert_eq!(pages.len(), 2);
    loop {
        let query = EndedQuery { before: pages.last().map(|i| i.id.clone()), ..query.clone() };
        let page = world.admin.ended_items_page(&query).await.unwrap();
        if page.is_empty() {
            break;
        }
        pages.extend(page);
    }
    assert_eq!(pages, all);
    let query = EndedQuery {
        pipeline: Some("gate".into()),
        change: Some("local:1".into()),
        project: Some("org/a".into()),
        result: Some("succeeded".into()),
        ..EndedQuery::default()
    };
    let one = world.admin.ended_items_page(&query).await.unwrap();
    assert_eq!((one.len(), one[0].title.as_str()), (1, "One"), "{one:#?}");
    assert_eq!(one[0].jobs[0].result.as_deref(), Some("SUCCESS"));
    let query = EndedQuery { result: Some("failed".into()), ..EndedQuery::default() };
    assert_eq!(world.admin.ended_items_page(&query).await.unwrap(), []);
    let query = EndedQuery { change: Some("x".into()), ..EndedQuery::default() };
    match world.admin.ended_items_page(&query).await {
        Err(ClientError::Api { status: 422, .. }) => {}
        other => panic!("{other:?}"),
    }
    world.running.stop().await.unwrap();
}

#[tokio::test]
async fn whoever_follows_hears_of_items_and_reports() {
    let (world, host) = world().await;
    known(&world, "org/a").await;
    let mut changes = world.admin.changes().await.unwrap();
    host.propose("org/a", 1, "One");
    let follow = async {
        let mut heard = Vec::new();
        loop {
            match changes.next().await.unwrap().unwrap() {
                Change::Item(item) => heard.push(format!("item {}", item.subject)),
                Change::Report(report) => {
                    heard.push(format!("report {} {}", report.action, report.subject));
                }
                Change::ItemEnded(item) => {
                    assert!(item.message.starts_with("Build succeeded."), "{}", item.message);
                    heard.push(format!("ended {} {}", item.end, item.subject));
                }
                other => panic!("{other:?}"),
            }
            if heard.len() == 3 {
                return heard;
            }
        }
    };
    let heard = tokio::time::timeout(LIMIT, follow).await.unwrap();
    let expected = ["item local:1,1", "ended succeeded local:1,1", "report success local:1,1"];
    assert_eq!(heard, expected);
    world.running.stop().await.unwrap();
}

#[tokio::test]
async fn nodes_fetch_from_the_merger_and_nobody_pushes_to_it() {
    let (world, host) = world().await;
    let one = host.propose("org/a", 1, "One");
    let order = PipelineOrder { change: Some("1,1".into()), reference: None };
    world.admin.enqueue("check", &order).await.unwrap();
    ended(&world, |e| has(e, "check", "local:1,1", "succeeded")).await;
    let url = format!("http://{}/p/org/a", world.running.api[0]);
    let clone = world.folder.path().join("clone");
    let folder = world.folder.path().to_owned();
    let fetched = tokio::task::spawn_blocking(move || {
        git(&folder, &["clone", "-q", &url, clone.to_str().unwrap()])?;
        let refs = git(&clone, &["ls-remote", "origin", "refs/zuul/*", "refs/toci/*"])?;
        let pushed = git(&clone, &["push", "origin", "HEAD:refs/heads/mine"]);
        let missing = git(&clone, &["ls-remote", &url.replace("org/a", "org/none")]);
        Ok::<_, String>((refs, pushed, missing))
    });
    let (refs, pushed, missing) = fetched.await.unwrap().unwrap();
    assert!(refs.contains("refs/zuul/master/Z") && refs.contains(&one), "{refs}");
    assert!(!refs.contains("refs/toci"), "{refs}");
    assert!(pushed.unwrap_err().contains("403"));
    assert!(missing.is_err());
    world.running.stop().await.unwrap();
}

#[tokio::test]
async fn orders_by_hand_and_a_layout_that_is_wrong() {
    let (world, host) = world().await;
    host.propose("org/a", 1, "One");
    let refused = |result: Result<(), ClientError>| match result {
        Err(ClientError::Api { status, error }) => (status, error.code),
        other => panic!("{other:?}"),
    };
    let order = |change: &str| PipelineOrder { change: Some(change.into()), reference: None };
    let nothing = world.admin.enqueue("check", &order("77")).await;
    assert_eq!(refused(nothing), (404, "no_such_change".into()));
    assert_eq!(refused(world.admin.enqueue("none", &order("1")).await).0, 409);
    let none = world.admin.enqueue("check", &PipelineOrder::default()).await;
    assert_eq!(refused(none), (422, "bad_request".into()));
    let promote = Promote { changes: vec!["1".into()] };
    assert_eq!(refused(world.admin.promote("gate", &promote).await).0, 409);
    world.admin.poke("local").await.unwrap();
    assert_eq!(refused(world.admin.poke("nowhere").await).0, 404);

    let layout = world.folder.path().join("layout.yaml");
    std::fs::write(&layout, LAYOUT.replace("manager: dependent", "manager: depedent")).unwrap();
    match world.admin.reconfigure().await {
        Err(ClientError::Api { status: 422, error }) => {
            assert!(error.message.contains("layout.yaml:9:"), "{}", error.message);
        }
        other => panic!("{other:?}"),
    }
    std::fs::write(&layout, LAYOUT.replace("post", "after")).unwrap();
    world.admin.reconfigure().await.unwrap();
    let names: Vec<String> =
        world.admin.pipelines().await.unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["check", "gate", "after"]);
    world.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_project_brings_its_own_jobs_with_the_change() {
    let (world, host) = world().await;
    known(&world, "org/c").await;
    let own = host.work("org/c").join(".toci.yaml");
    std::fs::write(&own, "jobs:\n  - {name: unit, runn: make}\nproject: {check: [unit]}\n")
        .unwrap();
    host.propose("org/c", 3, "Jobs, misspelt");
    let left = ended(&world, |e| e.iter().any(|e| e.subject == "local:3,1")).await;
    let wrong = left.iter().find(|e| e.subject == "local:3,1").unwrap();
    assert_eq!((wrong.pipeline.as_str(), wrong.end.as_str()), ("check", "failed"), "{wrong:?}");
    let told = ".toci.yaml:2:18: job unit: there is no key `runn` (did you mean `run`?)";
    assert!(wrong.message.contains(told), "{}", wrong.message);
    std::fs::write(&own, "project: {check: [noop]}\n").unwrap();
    host.propose("org/c", 4, "Jobs");
    let left = ended(&world, |e| has(e, "check", "local:4,1", "succeeded")).await;
    let good = left.iter().find(|e| e.subject == "local:4,1").unwrap();
    assert!(good.message.contains("noop"), "{}", good.message);
    world.running.stop().await.unwrap();
}

/// Mail and web hooks beside the votes.
const TOLD: &str = "
pipelines:
  - name: check
    manager: independent
    trigger:
      local: [{event: patchset-created}]
    success:
      local: {verified: 1}
      smtp: {to: 'ops@example.org, Jo <jo@example.org>', from: ci@example.org, subject: '{pipeline.name} of {change.number}'}
      webhook: {url: 'URL/hooks/ci?x=1'}
projects:
  - {name: org/a, check: [noop]}
";

/// One POST, answered 200: its head in small letters, and its body.
async fn posted(listener: &tokio::net::TcpListener) -> (String, Vec<u8>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut all = Vec::new();
    loop {
        assert!(stream.read_buf(&mut all).await.unwrap() > 0, "{}", String::from_utf8_lossy(&all));
        let Some(end) = all.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap();
        let length: usize = length.parse().unwrap();
        if all.len() >= end + 4 + length {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            return (head, all[end + 4..].to_vec());
        }
    }
}

#[tokio::test]
async fn a_report_is_mailed_and_posted_as_well() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let host = Git::new(folder.path());
    // The mail server of the tests of the mail itself.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../edge/tests/smtp_server.py");
    let mut mail = tokio::process::Command::new("/usr/bin/python3")
        .args([script, "off", "/"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("apt-get install python3-aiosmtpd");
    let mut mails = BufReader::new(mail.stdout.take().unwrap()).lines();
    let port = mails.next_line().await.unwrap().expect("apt-get install python3-aiosmtpd");
    let hooks = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", hooks.local_addr().unwrap());
    let mut config = with_gate(folder.path(), &host.root);
    std::fs::write(folder.path().join("layout.yaml"), TOLD.replace("URL", &url)).unwrap();
    config.smtp.host = "127.0.0.1".into();
    config.smtp.port = port.parse().unwrap();
    let secret = toci_edge::http::Secret::new("hush");
    config.webhook.secret = Some(secret.clone());
    let world = World::around(toci_server::start(config).await.unwrap(), folder);
    known(&world, "org/a").await;
    host.propose("org/a", 1, "One change");

    let both = async { tokio::join!(posted(&hooks), mails.next_line()) };
    let ((head, body), mail) = tokio::time::timeout(LIMIT, both).await.unwrap();
    assert!(head.starts_with("post /hooks/ci?x=1 http/1.1"), "{head}");
    let signature = head.lines().find_map(|l| l.strip_prefix("x-toci-signature-256: ")).unwrap();
    assert!(toci_edge::tell::webhook::is_signed(&secret, &body, signature));
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["pipeline"], &body["action"]), (&"check".into(), &"success".into()));
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("noop"), "{message}");
    let mail: serde_json::Value = serde_json::from_str(&mail.unwrap().unwrap()).unwrap();
    assert_eq!(mail["from"], "ci@example.org");
    assert_eq!(mail["to"], serde_json::json!(["ops@example.org", "jo@example.org"]));
    let text = mail["content"].as_str().unwrap();
    assert!(text.contains("Subject: check of 1\r\n"), "{text}");
    assert!(text.contains("noop"), "{text}");
    // Nobody is told twice.
    let left = ended(&world, |e| has(e, "check", "local:1,1", "succeeded")).await;
    assert_eq!(left.len(), 1, "{left:#?}");
    world.running.stop().await.unwrap();
    let more = tokio::time::timeout(Duration::ZERO, mails.next_line()).await;
    assert!(more.is_err(), "{more:?}");
}
