//! Nodes that go, servers that are started anew.

use super::world::*;
use crate::tasks::run::LEASE_OWNER;
use std::sync::Arc;
use toci_core::pipeline::{Input, RunResult, RunUpdate, Wanted};
use toci_core::run::record::Record;
use toci_core::run::steps::{Part, State};
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

#[tokio::test]
async fn a_node_that_is_not_there_after_all_is_no_failure_of_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    world.nodes.lies.store(true, std::sync::atomic::Ordering::SeqCst);
    let wish = world.wish(|job| job.run = inline("echo never"));
    let (result, kept, record) = world.whole(&wish).await;
    assert_eq!(result, RunResult::NodeFailure, "{}", kept["console.txt"]);
    assert!(record.note.contains("the node cannot be reached"), "{}", record.note);
    assert_eq!(world.nodes.given_back.lock().unwrap()[..], [wish.run]);
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
        while !world.nodes.given_back.lock().unwrap().contains(&run) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (result, kept, _) = world.whole(&wish).await;
    assert_eq!(result, RunResult::Success);
    assert_eq!(said(&kept["console.txt"]).iter().filter(|l| **l == "once").count(), 1);
}

#[tokio::test]
async fn whatever_a_killed_server_was_doing_nothing_runs_twice_and_nothing_leaks() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let host = super::testenvs::fake_host(&world.book).await;
    let since = Time(5);
    let verdict = RunResult::Success;
    let running = |part| State::Running { since, part, step: 0 };
    // Every state that a row can have, and what the run comes to in the end.
    let cases = [
        (State::WaitingNode, RunResult::Success),
        (State::WaitingTestenv, RunResult::Success),
        (State::Preparing { since }, RunResult::Lost),
        (running(Part::Pre), RunResult::Lost),
        (running(Part::Run), RunResult::Lost),
        (State::Post { since, step: 0, verdict }, RunResult::Lost),
        (State::Collecting { since, verdict }, RunResult::Lost),
        (State::Over(RunResult::Failure), RunResult::Failure),
        (State::Over(RunResult::Success), RunResult::Success),
    ];
    let mut wishes = Vec::new();
    for (state, _) in &cases {
        let wish = world.wish(|job| job.run = inline("echo once"));
        let mut record = Record { state: *state, ..Record::new(&wish, since) };
        if record.result().is_none() {
            let project = Some("app".to_owned());
            let request = toci_wire::api::LeaseRequest { project, ..Default::default() };
            let lease = world.book.request(LEASE_OWNER, request).await.unwrap();
            record.lease = lease.id.parse().ok();
        }
        put(&world, &record).await;
        wishes.push(wish);
    }
    drop((host, world));
    let mut world = World::start(dir.path()).await;
    world.want(&wishes.iter().collect::<Vec<_>>());
    let mut ends = std::collections::BTreeMap::new();
    while ends.len() < cases.len() {
        if let Input::Run { run, update: RunUpdate::Finished { result, .. } } =
            within("news", world.news.recv()).await.unwrap()
        {
            assert!(ends.insert(run, result).is_none(), "an end is told twice");
        }
    }
    for ((state, expected), wish) in cases.iter().zip(&wishes) {
        assert_eq!(ends[&wish.run], *expected, "{state:?}");
        let shelf = world.shelf.0.lock().unwrap();
        let console = shelf.get(&wish.run).and_then(|(_, kept)| kept.get("console.txt"));
        let ran = said(console.map_or("", |c| c)).iter().filter(|l| **l == "once").count();
        let had_not_begun = matches!(state, State::WaitingNode | State::WaitingTestenv);
        assert_eq!(ran, usize::from(had_not_begun), "{state:?}: {console:?}");
        let given_back = world.nodes.given_back.lock().unwrap().contains(&wish.run);
        assert_eq!(given_back, !matches!(state, State::Over(_)), "{state:?}");
    }
    assert!(world.nodes.live.lock().unwrap().is_empty());
    let filter = crate::tasks::lease::LeaseFilter { ended: true, ..Default::default() };
    let leases = world.book.leases(filter).await.unwrap();
    assert_eq!(leases.len(), 7);
    assert!(leases.iter().all(|l| l.state.is_over()), "{leases:?}");
    assert!(world.desk.list(0).await.unwrap().is_empty());
    assert!(world.news.try_recv().is_err(), "nothing more is told");
}

#[test]
fn killed_within_any_script_a_run_is_lost_and_what_ran_is_gone() {
    for part in [0, 1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2).enable_all().build().unwrap()
        };
        let first = runtime();
        let (wish, session) = first.block_on(async {
            let world = World::start(dir.path()).await;
            let wish = world.wish(|job| {
                let text = |own| if own == part { "echo up; sleep 1000" } else { "echo other" };
                job.pre = inline(text(0));
                job.run = inline(text(1));
                job.post = inline(text(2));
            });
            world.want(&[&wish]);
            world.console_until(wish.run, "| up\n").await;
            let session = world.nodes.live.lock().unwrap()[&wish.run].0.session();
            (wish, session)
        });
        first.shutdown_background();
        runtime().block_on(async {
            let mut world = World::start(dir.path()).await;
            world.want(&[&wish]);
            assert_eq!(world.end(&wish).await.0, RunResult::Lost);
            let console = world.console_until(wish.run, "result: LOST").await;
            assert_eq!(said(&console).iter().filter(|l| **l == "up").count(), 1, "{console}");
            within("its sandbox ends", async {
                while session.try_run("look", "true", b"", LIMIT).await.is_ok_and(|e| e.is_well()) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            assert_eq!(world.nodes.given_back.lock().unwrap()[..], [wish.run]);
        });
    }
}

async fn put(world: &World, record: &Record) {
    world.store.put_run(record).await.unwrap();
}
