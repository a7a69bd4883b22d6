//! Nodes that go, servers that are started anew.

use super::world::*;
use std::sync::Arc;
use toci_core::pipeline::{RunResult, Wanted};
use toci_core::run::record::Record;
use toci_core::run::steps::State;
use toci_core::time::Time;

#[tokio::test]
async fn a_node_that_is_lost_is_no_failure_of_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    for told in [false, true, false] {
        let wish = world.wish(|job| {
            job.run = inline("echo up; while :; do sleep 0.01; done");
            job.post = inline("echo never");
        });
        world.want(&[&wish]);
        world.console_until(wish.run, "| up\n").await;
        if told {
            world.nodes.say_lost(wish.run);
        } else {
            world.nodes.kill(wish.run);
        }
        let (result, kept, record) = world.end(&wish).await;
        assert_eq!(result, RunResult::NodeFailure, "{}", kept["console.txt"]);
        assert!(record.note.contains("the node was lost"), "{}", record.note);
        assert!(!said(&kept["console.txt"]).contains(&"never"));
    }
    // Three in a row are told, of the job and of the provider; a success ends it.
    let troubles = world.desk.troubles();
    let of: Vec<&str> = troubles.iter().map(|t| t.of.as_str()).collect();
    assert_eq!(of, ["job unit", "provider local"]);
    let wish = world.wish(|job| job.run = inline("true"));
    assert_eq!(world.whole(&wish).await.0, RunResult::Success);
    assert!(world.desk.troubles().is_empty());
}

#[test]
fn a_server_that_is_started_anew_says_lost_and_runs_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    };
    let first = runtime();
    let (running, over, mark) = first.block_on(async {
        let mut world = World::start(dir.path()).await;
        let over = world.wish(|job| job.run = inline("echo once"));
        assert_eq!(world.whole(&over).await.0, RunResult::Success);
        let running = world.wish(|job| job.run = inline("echo up; sleep 1000"));
        world.want(&[&running]);
        world.console_until(running.run, "| up\n").await;
        let session = world.nodes.live.lock().unwrap()[&running.run].0.session();
        (running, over, session)
    });
    // Nothing is awaited, nothing is told: as if it were killed.
    first.shutdown_background();
    let second = runtime();
    second.block_on(async {
        let mut world = World::start(dir.path()).await;
        let waiting = world.wish(|job| job.run = inline("echo new"));
        world.want(&[&running, &over, &waiting]);
        let mut ends = std::collections::BTreeMap::new();
        while ends.len() < 3 {
            match within("news", world.news.recv()).await.unwrap() {
                toci_core::pipeline::Input::Run {
                    run,
                    update: toci_core::pipeline::RunUpdate::Finished { result, note, .. },
                } => {
                    ends.insert(run, (result, note));
                }
                toci_core::pipeline::Input::Run { run, .. } => assert_eq!(run, waiting.run),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ends[&running.run].0, RunResult::Lost);
        assert!(ends[&running.run].1.contains("started anew"), "{:?}", ends[&running.run]);
        assert_eq!(ends[&over.run].0, RunResult::Success, "told again, not run again");
        assert_eq!(ends[&waiting.run].0, RunResult::Success);
        assert!(!mark.try_run("look", "true", b"", LIMIT).await.is_ok_and(|e| e.is_well()));
        let console = world.console_until(running.run, "result: LOST").await;
        assert!(console.contains("| up\n"), "what was said before is still there: {console}");
        let live = world.desk.list(10).await.unwrap();
        assert_eq!(live.len(), 3);
        assert!(live.iter().all(|r| r.result().is_some()));
    });
}

#[tokio::test]
async fn a_run_that_had_not_begun_begins_under_the_same_name() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let wish = world.wish(|job| job.run = inline("echo once"));
    let run = wish.run;
    drop(world);
    let mut world = {
        // A row as a server leaves it that is killed while the run waits.
        let record = Record { state: State::WaitingTestenv, ..Record::new(&wish, Time(5)) };
        let world = World::start(dir.path()).await;
        put(&world, &record).await;
        drop(world);
        World::start(dir.path()).await
    };
    // At first a gate may not have said yet what it wants.
    world.wanted.send_replace(Arc::new(Wanted::default()));
    within("the node is given back", async {
        while !world.nodes.given_back.lock().unwrap().contains(&(run, false)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (result, kept, _) = world.whole(&wish).await;
    assert_eq!(result, RunResult::Success);
    assert_eq!(said(&kept["console.txt"]).iter().filter(|l| **l == "once").count(), 1);
}

async fn put(world: &World, record: &Record) {
    world.store.put_run(record).await.unwrap();
}
