//! What is collected of nodes and of test environments, whatever a run came to.

use super::testenvs::{fake_host, host_id, leases, with_te};
use super::world::*;
use crate::relay::{Answer, HostLink, Relay};
use crate::tasks::run::collect::look;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use std::sync::Arc;
use toci_core::log::collect::{ADDED_MAX, Command, INFO_FILE, Rules, Scene, plan};
use toci_core::pipeline::{Input, RunResult, RunUpdate};
use toci_edge::node::bounds::Bounds;
use toci_edge::node::local::LocalNode;
use toci_wire::api::{LeaseState, OperationKind, OperationResult};

pub(super) fn command(text: &str) -> Command {
    Command { file: INFO_FILE.to_owned(), text: text.to_owned(), of_machine: false }
}

/// A host that shows its machines: its consoles are floods of bytes that are no text.
async fn show(relay: Arc<Relay>, mut link: HostLink) {
    while let Some(order) = link.orders.recv().await {
        let answer = match order.kind {
            OperationKind::View => Answer::Output(Body::from("===== machines\non  seed_1\n")),
            OperationKind::Console { .. } => {
                let pieces =
                    (0..30).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'\xff'; 1 << 20])));
                Answer::Output(Body::from_stream(stream::iter(pieces)))
            }
            OperationKind::Screenshot { .. } => {
                Answer::Result(OperationResult::Failed { message: "the screen is dark".into() })
            }
            OperationKind::Power { .. } | OperationKind::PushImage { .. } => panic!("{order:?}"),
        };
        relay.answer(&host_id(), &order.id, answer).unwrap();
    }
}

#[tokio::test]
async fn a_testenv_is_looked_at_and_given_back_before_the_node_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let wait = "touch /tmp/looked; until [ -e /tmp/go ]; do sleep 0.02; done";
    let rules = Rules { commands: vec![command(wait)], ..Rules::default() };
    let mut world = World::start_with(dir.path(), rules).await;
    let _host = fake_host(&world.book).await;
    let shown = tokio::spawn(show(world.relay.clone(), world.relay.connect(&host_id())));
    let wish = with_te(&world, "echo broken; exit 1");
    world.want(&[&wish]);
    // The node is looked at now: the console says what was missing of the test environment, which is given back.
    let console = world.console_until(wish.run, "seed_1.png: the screen is dark").await;
    assert!(console.contains("seed_1.console.txt: 10485760 bytes in its middle"), "{console}");
    let session = world.nodes.live.lock().unwrap()[&wish.run].0.session();
    let looked = "until [ -e /tmp/looked ]; do sleep 0.02; done";
    session.run("wait", looked, b"", LIMIT).await.unwrap();
    assert_eq!(leases(&world).await[0].state, LeaseState::Released);
    session.put("/tmp/go", b"", 0o600).await.unwrap();
    let (result, kept, _) = world.end(&wish).await;
    assert_eq!(result, RunResult::Failure);
    assert!(kept["te/tehost1-1/host.txt"].contains("on  seed_1"));
    let console = &kept["te/tehost1-1/seed_1.console.txt"];
    assert!(console.contains("10485760 bytes were left out here"));
    assert!(kept["node/host_info.txt"].contains("===== touch /tmp/looked"));
    assert_eq!(world.relay.under_way(), 0);
    shown.abort();
}

#[tokio::test]
async fn every_end_is_collected_but_of_a_run_that_nobody_needs_nothing_is() {
    let dir = tempfile::tempdir().unwrap();
    let rules = Rules {
        commands: vec![command("echo seen"), command("no-such-command")],
        ..Rules::default()
    };
    let mut world = World::start_with(dir.path(), rules).await;
    let _host = fake_host(&world.book).await;
    let good = with_te(&world, "true");
    let (result, kept, _) = world.whole(&good).await;
    assert_eq!(result, RunResult::Success);
    let info = &kept["node/host_info.txt"];
    assert!(info.contains("===== echo seen\nseen\n"), "{info}");
    assert!(info.contains("no-such-command: command not found\n(exit code 127)"), "{info}");
    // No host is connected: that is told, and nothing else is disturbed.
    assert!(kept["console.txt"].contains("the host tehost1 is not connected"));

    let stopped = with_te(&world, "echo up; sleep 1000");
    world.want(&[&stopped]);
    world.console_until(stopped.run, "| up\n").await;
    assert!(world.desk.abort(stopped.run));
    let (result, kept, _) = world.end(&stopped).await;
    assert_eq!(result, RunResult::Aborted);
    assert!(kept.contains_key("node/host_info.txt"));

    let unwanted = with_te(&world, "echo up; sleep 1000");
    world.want(&[&unwanted]);
    world.console_until(unwanted.run, "| up\n").await;
    world.want(&[]);
    let (result, kept, _) = world.end(&unwanted).await;
    assert_eq!(result, RunResult::Canceled);
    assert!(!kept.contains_key("node/host_info.txt"));
    assert!(leases(&world).await.iter().all(|l| l.state == LeaseState::Released));
}

/// As on a machine of its own; the sandbox stands for it.
#[tokio::test]
async fn files_of_a_machine_are_taken_and_what_is_left_out_is_named() {
    let node = LocalNode::start("node1", number(), None, &Bounds::default()).await.unwrap();
    let session = node.session();
    let make = "mkdir -p /srv/log/a /srv/other && cd /srv/log && echo one >a/one.log && echo k >x.pem && ln -s /etc/passwd link \
                && truncate -s 70M huge.log && echo 'it'\"'\"'s' >\"it's.log\" && printf '\\377\\0' >binary";
    session.run("make files", make, b"", LIMIT).await.unwrap();
    let folders = vec!["srv/log".to_owned(), "srv/none".to_owned()];
    // All of it together is longer than an argument of a program may be.
    let long = |n: usize| command(&format!(": {}; echo seen {n}", "\"'\"".repeat(300)));
    let commands = (0..ADDED_MAX).map(long).collect();
    let rules = Rules { commands, folders, ..Rules::default() };
    let scene = Scene { verdict: RunResult::Failure, nodes: vec![true], holds_testenv: false };
    let view = &plan(&rules, &scene).nodes[0];
    assert!(view.script.len() > 128 << 10, "{}", view.script.len());
    let into = tempfile::tempdir().unwrap();
    assert_eq!(look(&session, view, into.path()).await, None);
    let kept = read(&into.path().join("node"));
    let names: Vec<&str> = kept.keys().map(String::as_str).collect();
    assert_eq!(names, ["host_info.txt", "srv/log/a/one.log", "srv/log/binary", "srv/log/it's.log"]);
    let info = &kept["host_info.txt"];
    assert!(info.contains(&format!("\nseen {}\n", ADDED_MAX - 1)), "{info}");
    assert!(info.contains("srv/log/huge.log: 73400320 bytes are too many"), "{info}");
    assert!(
        info.contains("files in /srv/none that are left out\n(there is no such folder)"),
        "{info}"
    );
    let left: Vec<_> = std::fs::read_dir(into.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let left = session.run("look", "ls /tmp", b"", LIMIT).await.unwrap();
    assert_eq!(left.text(), "");
}

#[tokio::test]
async fn a_node_that_is_lost_while_it_is_looked_at_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let rules = Rules { commands: vec![command("sleep 1000")], ..Rules::default() };
    let mut world = World::start_with(dir.path(), rules).await;
    let wish = world.wish(|job| {
        job.run = inline("mkdir -p $WORKSPACE/logs; echo mine >$WORKSPACE/logs/mine.txt")
    });
    world.want(&[&wish]);
    let mine = dir.path().join("runs").join(wish.run.to_string()).join("logs/mine.txt");
    within("the job's own logs", async {
        // It is there before it is whole.
        while std::fs::read_to_string(&mine).unwrap_or_default() != "mine\n" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    world.nodes.say_lost(wish.run);
    loop {
        match within("news", world.news.recv()).await {
            Some(Input::Run { update: RunUpdate::Finished { result, .. }, .. }) => {
                assert_eq!(result, RunResult::Success);
                break;
            }
            Some(_) => {}
            None => panic!("no news any more"),
        }
    }
    let kept = &world.shelf.0.lock().unwrap()[&wish.run].1;
    assert_eq!(kept["logs/mine.txt"], "mine\n");
}
