//! Several sources in one layout, with projects of the same name and changes of the same number, on a real server and real
//! repositories; and what happens to the gate when repositories do odd things. Jobs are `noop`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::git::git;
use common::{World, config, eventually};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_client::api::ClientError;
use toci_edge::source::git::{GitConfig, Place};
use toci_server::{GateConfig, MergerConfig, SourceConfig};
use toci_wire::api::{EndedItem, PipelineOrder};

const SOURCES: [&str; 3] = ["local", "other", "third"];
const PROJECT: &str = "org/a";

/// The same two pipelines for each source.
fn layout() -> String {
    let mut text = "pipelines:\n".to_owned();
    for name in SOURCES {
        text.push_str(&format!(
            "
  - name: check-{name}
    source: {name}
    manager: independent
    trigger: {{{name}: [{{event: patchset-created}}]}}
    success: {{{name}: {{verified: 1}}}}
    failure: {{{name}: {{verified: -1}}}}
  - name: gate-{name}
    source: {name}
    manager: dependent
    trigger: {{{name}: [{{event: comment-added, approval: [{{approved: 1}}]}}]}}
    success: {{{name}: {{verified: 2, submit: true}}}}
    failure: {{{name}: {{verified: -2}}}}
"
        ));
    }
    text.push_str("projects:\n");
    for name in SOURCES {
        let jobs = format!("check-{name}: [noop], gate-{name}: [noop]");
        text.push_str(&format!("  - {{name: {PROJECT}, source: {name}, {jobs}}}\n"));
    }
    text
}

/// A server with three sources, each with a repository of the same name.
struct Hosts {
    world: World,
}

impl Hosts {
    async fn start() -> Hosts {
        let folder = tempfile::tempdir().unwrap();
        for name in SOURCES {
            let (bare, work) = (bare(folder.path(), name), work(folder.path(), name));
            std::fs::create_dir_all(&bare).unwrap();
            std::fs::create_dir_all(&work).unwrap();
            git(&bare, &["init", "-q", "--bare", "--initial-branch=master"]).unwrap();
            git(&work, &["init", "-q", "--initial-branch=master"]).unwrap();
            git(&work, &["remote", "add", "origin", bare.to_str().unwrap()]).unwrap();
            git(&work, &["commit", "-q", "--allow-empty", "-m", &format!("begin {name}")]).unwrap();
            git(&work, &["push", "-q", "origin", "master"]).unwrap();
        }
        let path = folder.path().join("layout.yaml");
        std::fs::write(&path, layout()).unwrap();
        let source = |name: &&str| {
            SourceConfig::Git(GitConfig {
                name: name.parse().unwrap(),
                place: Place::Root(folder.path().join(name)),
                every: Duration::from_millis(50),
                user: "toci".into(),
                email: "toci@example.org".into(),
                environment: Vec::new(),
            })
        };
        let gate = GateConfig {
            layout: path,
            sources: SOURCES.iter().map(source).collect(),
            merger: MergerConfig {
                folder: folder.path().join("mirrors"),
                url: None,
                identity: ("toci".into(), "toci@example.org".into()),
            },
            status_url: None,
        };
        let config = toci_server::ServerConfig { gate: Some(gate), ..config(folder.path()) };
        let running = toci_server::start(config).await.unwrap();
        let world = World::around(running, folder);
        eventually("all sources to be heard", async || {
            let sources = world.admin.sources().await.unwrap();
            let up = sources.iter().filter(|source| source.state == "up").count();
            if up == SOURCES.len() { Ok(()) } else { Err(format!("{sources:?}")) }
        })
        .await;
        Hosts { world }
    }

    fn folder(&self) -> &Path {
        self.world.folder.path()
    }

    /// A commit on what is checked out, pushed as a patchset; its id.
    fn propose(&self, source: &str, number: u64, message: &str) -> String {
        let work = work(self.folder(), source);
        std::fs::write(work.join(format!("file{number}")), message).unwrap();
        git(&work, &["add", "."]).unwrap();
        git(&work, &["commit", "-q", "-m", message]).unwrap();
        git(&work, &["push", "-q", "origin", &format!("HEAD:refs/changes/{number:02}/{number}/1")])
            .unwrap();
        git(&work, &["rev-parse", "HEAD"]).unwrap()
    }

    fn approve(&self, source: &str, number: u64, times: u32) {
        let vote = format!("HEAD:refs/approvals/{number}/1/approved/bob{times}/1");
        git(&work(self.folder(), source), &["push", "-q", "origin", &vote]).unwrap();
    }

    fn master(&self, source: &str) -> String {
        git(&bare(self.folder(), source), &["rev-parse", "master"]).unwrap()
    }

    async fn ended(&self, pipeline: &str, subject: &str, end: &str) -> EndedItem {
        eventually(&format!("{subject} of {pipeline}"), async || {
            let ended = self.world.admin.ended_items().await.unwrap();
            let is_it =
                |e: &&EndedItem| e.pipeline == pipeline && e.subject == subject && e.end == end;
            let found = ended.iter().find(is_it).cloned();
            found.ok_or_else(|| format!("{ended:#?}"))
        })
        .await
    }
}

fn bare(folder: &Path, source: &str) -> PathBuf {
    folder.join(source).join(format!("{PROJECT}.git"))
}

fn work(folder: &Path, source: &str) -> PathBuf {
    folder.join("work").join(source)
}

#[tokio::test]
async fn projects_and_numbers_of_several_sources_do_not_meet() {
    let hosts = Hosts::start().await;
    let one = hosts.propose("local", 1, "One of local");
    let same = hosts.propose("other", 1, "One of other");
    hosts.ended("check-local", "local:1,1", "succeeded").await;
    hosts.ended("check-other", "other:1,1", "succeeded").await;
    for name in ["local", "other"] {
        let arguments = ["for-each-ref", "--format=%(refname)", "refs/approvals"];
        eventually("the vote", async || match git(&bare(hosts.folder(), name), &arguments)? {
            votes if votes == "refs/approvals/1/1/verified/toci/1" => Ok(()),
            votes => Err(votes),
        })
        .await;
    }
    // Nodes fetch each from its own mirror.
    let heads = async |path: &str| {
        let url = format!("http://{}/p/{path}", hosts.world.running.api[0]);
        let folder = hosts.folder().to_owned();
        let asked = move || git(&folder, &["ls-remote", &url, "refs/zuul/master/*"]).unwrap();
        tokio::task::spawn_blocking(asked).await.unwrap()
    };
    assert!(heads("org/a").await.starts_with(&one), "the first source's");
    assert!(heads("@local/org/a").await.starts_with(&one));
    assert!(heads("@other/org/a").await.starts_with(&same));
    // The one is approved; the other one of the same number stays.
    let before = hosts.master("other");
    hosts.approve("local", 1, 1);
    hosts.ended("gate-local", "local:1,1", "succeeded").await;
    assert_eq!((hosts.master("local"), hosts.master("other")), (one, before));
    hosts.world.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_change_may_need_one_of_another_source() {
    let hosts = Hosts::start().await;
    let needed = hosts.propose("local", 1, "Needed");
    hosts.ended("check-local", "local:1,1", "succeeded").await;
    // A bare number is one of its own source, which has no change 1.
    let two = hosts.propose("other", 2, "Needs it\n\nDepends-On: local:1\nDepends-On: 1");
    hosts.ended("check-other", "other:2,1", "succeeded").await;
    let tested = |name: &str| {
        let mirror = hosts.folder().join("mirrors").join(name).join(format!("{PROJECT}.git"));
        let refs =
            git(&mirror, &["for-each-ref", "--format=%(refname) %(objectname)", "refs/zuul"])
                .unwrap();
        let pairs = refs.lines().filter_map(|line| line.split_once(' '));
        pairs.map(|(name, commit)| (name.to_owned(), commit.to_owned())).collect::<Vec<_>>()
    };
    // It was tested together with what it needs: both repositories have the same ref.
    let (name, _) = tested("other").into_iter().find(|(_, commit)| *commit == two).unwrap();
    assert!(tested("local").contains(&(name, needed.clone())), "{:?}", tested("local"));
    // It is gated only when that is merged.
    hosts.approve("other", 2, 1);
    let order = PipelineOrder { change: Some("other:2,1".into()), reference: None };
    match hosts.world.admin.enqueue("gate-other", &order).await {
        Err(ClientError::Api { status: 409, error }) => {
            assert!(error.message.contains("it needs local:1,1"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    hosts.approve("local", 1, 1);
    hosts.ended("gate-local", "local:1,1", "succeeded").await;
    hosts.approve("other", 2, 2);
    hosts.ended("gate-other", "other:2,1", "succeeded").await;
    assert_eq!((hosts.master("local"), hosts.master("other")), (needed, two));
    hosts.world.running.stop().await.unwrap();
}

/// A source that is away holds up what needs a change of it, and nothing else.
#[tokio::test]
async fn a_source_that_is_away_holds_up_only_what_needs_it() {
    let hosts = Hosts::start().await;
    hosts.propose("other", 2, "Needed");
    hosts.ended("check-other", "other:2,1", "succeeded").await;
    let (there, away) = (hosts.folder().join("other"), hosts.folder().join("away"));
    std::fs::rename(&there, &away).unwrap();
    hosts.propose("local", 1, "Needs it\n\nDepends-On: other:2");
    eventually("the event to wait", async || {
        let source = hosts.world.admin.sources().await.unwrap().remove(1);
        if source.state == "down" { Ok(()) } else { Err(format!("{source:?}")) }
    })
    .await;
    git(&work(hosts.folder(), "local"), &["reset", "-q", "--hard", "HEAD~1"]).unwrap();
    hosts.propose("local", 3, "Needs nothing");
    hosts.ended("check-local", "local:3,1", "succeeded").await;
    hosts.propose("third", 4, "Neither");
    hosts.ended("check-third", "third:4,1", "succeeded").await;
    let ended = hosts.world.admin.ended_items().await.unwrap();
    assert!(ended.iter().all(|e| e.subject != "local:1,1"), "{ended:#?}");
    std::fs::rename(&away, &there).unwrap();
    hosts.ended("check-local", "local:1,1", "succeeded").await;
    hosts.world.running.stop().await.unwrap();
}

/// A repository that vanishes, and an event of an unknown project: each ends with a word to people, and others go on.
#[tokio::test]
async fn what_vanishes_ends_its_own_items_only() {
    let hosts = Hosts::start().await;
    hosts.propose("third", 3, "Gone soon");
    hosts.ended("check-third", "third:3,1", "succeeded").await;
    std::fs::rename(bare(hosts.folder(), "third"), hosts.folder().join("away")).unwrap();
    let another = hosts.folder().join("third/org/b.git");
    git(hosts.folder(), &["init", "-q", "--bare", another.to_str().unwrap()]).unwrap();
    let state = async || hosts.world.admin.sources().await.unwrap().remove(2);
    eventually("the source to say so", async || match state().await {
        said if said.last_malformed == "the repository of org/a is gone" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let order = PipelineOrder { change: Some("third:3".into()), reference: None };
    match hosts.world.admin.enqueue("gate-third", &order).await {
        Err(ClientError::Api { status: 404, error }) => assert_eq!(error.code, "no_such_change"),
        other => panic!("{other:?}"),
    }
    // `org/b` is no project of the layout: its changes are nobody's business, and others are heard.
    let pushed = ["push", "-q", another.to_str().unwrap(), "HEAD:refs/changes/09/9/1"];
    git(&work(hosts.folder(), "third"), &pushed).unwrap();
    hosts.propose("other", 4, "Goes on");
    hosts.ended("check-other", "other:4,1", "succeeded").await;
    hosts.world.running.stop().await.unwrap();
}
