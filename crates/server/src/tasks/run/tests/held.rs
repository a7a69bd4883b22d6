//! Runs that may not begin: while they wait they sit on nothing, and they begin anew when they may.

use super::testenvs::{fake_host, leases, with_te};
use super::world::*;
use toci_core::id::RunId;
use toci_core::pipeline::RunResult;
use toci_wire::api::{LeaseRequest, LeaseState};

/// Somebody else has the only TE; its lease.
async fn taken(world: &World) -> toci_core::id::LeaseId {
    let other = LeaseRequest { label: Some("devtest".into()), ..Default::default() };
    world.book.request("somebody", other).await.unwrap().id.parse().unwrap()
}

async fn waits_with_its_node(world: &World, run: RunId) {
    within("it waits for its TE", async {
        loop {
            let list = world.desk.list(0).await.unwrap();
            if list.iter().any(|r| r.run == run && r.waits_for.contains("test environment")) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(world.nodes.live.lock().unwrap().contains_key(&run));
}

async fn sits_on_nothing(world: &World) {
    within("it is put back", async {
        while !world.desk.list(0).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(world.nodes.live.lock().unwrap().is_empty());
    let mine = leases(world).await.into_iter().filter(|lease| lease.owner != "somebody");
    let states: Vec<LeaseState> = mine.map(|lease| lease.state).collect();
    assert!(states.iter().all(|state| state.is_over()), "{states:?}");
    assert_eq!(world.store.live_runs().await.unwrap(), []);
}

#[tokio::test]
async fn a_run_that_waits_for_its_testenv_while_its_job_is_paused_keeps_no_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let _host = fake_host(&world.book).await;
    let other = taken(&world).await;
    let wish = with_te(&world, "echo once");
    world.want(&[&wish]);
    waits_with_its_node(&world, wish.run).await;
    world.desk.pause("unit", "ann", "the mirror is down").await.unwrap();
    sits_on_nothing(&world).await;
    let all = leases(&world).await;
    let theirs = all.iter().find(|lease| lease.owner == "somebody").map(|lease| lease.state);
    assert_eq!(
        theirs,
        Some(LeaseState::Active),
        "it was put back for the pause, not for a free TE"
    );
    assert!(world.news.try_recv().is_err(), "nothing is told: it is still wanted");
    // Nothing begins until the job is resumed, also when there is a TE.
    world.book.release(other, "done".into()).await.unwrap();
    let next = with_te(&world, "echo twice");
    world.want(&[&wish, &next]);
    assert!(world.desk.resume("unit").await.unwrap());
    let mut results = std::collections::BTreeMap::new();
    while results.len() < 2 {
        if let toci_core::pipeline::Input::Run {
            run,
            update: toci_core::pipeline::RunUpdate::Finished { result, .. },
        } = within("news", world.news.recv()).await.unwrap()
        {
            results.insert(run, result);
        }
    }
    assert_eq!(results[&wish.run], RunResult::Success);
    assert_eq!(results[&next.run], RunResult::Success);
    let kept = &world.shelf.0.lock().unwrap()[&wish.run].1;
    assert_eq!(said(&kept["console.txt"]).iter().filter(|line| **line == "once").count(), 1);
}

#[tokio::test]
async fn a_server_that_exits_gracefully_does_not_wait_for_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let _host = fake_host(&world.book).await;
    taken(&world).await;
    let runs =
        world.wish(|job| job.run = inline("echo up; until [ -e /tmp/go ]; do sleep 0.01; done"));
    let waits = with_te(&world, "echo never");
    world.want(&[&runs, &waits]);
    world.console_until(runs.run, "| up\n").await;
    waits_with_its_node(&world, waits.run).await;
    let (desk, session) =
        (world.desk.clone(), world.nodes.live.lock().unwrap()[&runs.run].0.session());
    let (left, mut told) = tokio::sync::mpsc::unbounded_channel();
    let drained = tokio::spawn(async move {
        desk.drain(|busy| {
            let _ = left.send(busy);
        })
        .await;
    });
    assert_eq!(within("what is left", told.recv()).await, Some(1));
    within("its node is given back", async {
        while !world.nodes.given_back.lock().unwrap().contains(&waits.run) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    session.put("/tmp/go", b"", 0o600).await.unwrap();
    assert_eq!(world.end(&runs).await.0, RunResult::Success);
    within("nothing is left", drained).await.unwrap();
    assert_eq!(told.recv().await, Some(0));
    sits_on_nothing(&world).await;
}

#[tokio::test]
async fn a_run_that_waits_for_a_node_is_put_back_and_one_that_runs_can_still_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let runs = world.wish(|job| job.run = inline("echo up; sleep 1000"));
    world.want(&[&runs]);
    world.console_until(runs.run, "| up\n").await;
    world.nodes.none.send_replace(true);
    let waits = world.wish(|job| job.run = inline("echo never"));
    world.want(&[&runs, &waits]);
    within("it waits for a node", async {
        while world.desk.list(0).await.unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    world.desk.pause("unit", "ann", "x").await.unwrap();
    within("it is put back", async {
        while world.desk.list(0).await.unwrap().len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!world.desk.abort(waits.run), "there is nothing to be stopped");
    assert!(world.desk.abort(runs.run));
    assert_eq!(world.end(&runs).await.0, RunResult::Aborted);
}
