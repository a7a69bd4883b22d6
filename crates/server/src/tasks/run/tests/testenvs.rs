//! Runs with a test environment, on a TE host that answers as toci-host does.

use super::world::*;
use crate::tasks::lease::{BookError, LeaseBook};
use toci_core::id::{HostId, Label, TeId};
use toci_core::layout::TestenvWish;
use toci_core::pipeline::{RunResult, RunWish};
use toci_wire::api::{self, TeReportState, TeTask};

const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0LWtleQ\n-----END-----\n";

pub(super) fn host_id() -> HostId {
    HostId::new("tehost1").unwrap()
}

/// A host with one TE that does at once what is wanted of it, until it is dropped.
pub(super) struct FakeHost(tokio::task::JoinHandle<()>);

impl Drop for FakeHost {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) async fn fake_host(book: &LeaseBook) -> FakeHost {
    book.add_host(&host_id()).await.unwrap();
    let mut wish = book.host_stream(&host_id()).await.unwrap();
    let book = book.clone();
    let followed = book.clone();
    let task = tokio::spawn(async move {
        let mut state = TeReportState::Clean { generation: 0 };
        for sequence in 1.. {
            let testenvs = vec![api::TeReport {
                testenv: "tehost1-1".into(),
                number: 1,
                shape: "seed-2".into(),
                labels: vec!["devtest".into()],
                state: state.clone(),
                machines: vec![api::MachineState { name: "seed_1".into(), on: true }],
            }];
            let report = api::HostReport {
                boot_id: "b1".into(),
                sequence,
                status: api::HostStatus::default(),
                testenvs,
            };
            book.host_report(&host_id(), report).await.unwrap();
            if wish.changed().await.is_err() {
                return;
            }
            let desired = wish.borrow_and_update().clone();
            for te in &desired.testenvs {
                let generation = te.generation;
                state = match &te.task {
                    TeTask::Serve { .. } => {
                        let te_json = serde_json::json!({"env-num": "1", "ssh-key": KEY, "toci": {"generation": generation}});
                        let report = api::ServingReport { generation, te_json };
                        let te = TeId::new(&*te.testenv).unwrap();
                        // A grant that was taken back meanwhile is refused; the next wish says so.
                        match book.host_serving(&host_id(), &te, report).await {
                            Ok(()) | Err(BookError::Refused(_)) => {}
                            Err(e) => panic!("{e:?}"),
                        }
                        TeReportState::Serving { generation }
                    }
                    TeTask::Vacate | TeTask::BurnIn => TeReportState::Clean { generation },
                    TeTask::Quarantine => TeReportState::Broken { generation, reason: "q".into() },
                };
            }
        }
    });
    within("a first report", async {
        while followed.testenvs().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    FakeHost(task)
}

pub(super) fn with_te(world: &World, script: &str) -> RunWish {
    world.wish(|job| {
        let label = Some(Label::new("devtest").unwrap());
        job.testenv = Some(TestenvWish { label, shape: None, count: 1 });
        job.run = inline(script);
    })
}

pub(super) async fn leases(world: &World) -> Vec<api::Lease> {
    let filter = crate::tasks::lease::LeaseFilter { ended: true, ..Default::default() };
    world.book.leases(filter).await.unwrap()
}

#[tokio::test]
async fn a_declared_testenv_is_there_when_the_job_begins_and_given_back_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let _host = fake_host(&world.book).await;
    let script = "stat -c %a $TE_DATAFILE; grep env-num $TE_DATAFILE; cat $TE_DATAFILE; echo up; until [ -e /tmp/go ]; do sleep 0.01; done";
    let first = with_te(&world, script);
    let second = with_te(&world, "grep -o '\"generation\": 2' $TE_DATAFILE");
    world.want(&[&first]);
    world.console_until(first.run, "| up\n").await;
    let lease = &leases(&world).await[0];
    assert_eq!((lease.state, lease.project.as_str()), (api::LeaseState::Active, "app"));
    assert!(lease.purpose.contains(&first.run.to_string()));
    // The second waits for it, and says so.
    world.want(&[&first, &second]);
    within("the second waits", async {
        loop {
            let list = world.desk.list(0).await.unwrap();
            if list.iter().any(|r| r.waits_for.contains("test environment, number 1")) {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let session = world.nodes.live.lock().unwrap()[&first.run].0.session();
    session.put("/tmp/go", b"", 0o600).await.unwrap();
    world.hear(first.run).await;
    let mut results = Vec::new();
    for _ in 0..3 {
        if let Some(toci_core::pipeline::Input::Run {
            update: toci_core::pipeline::RunUpdate::Finished { result, .. },
            ..
        }) = within("news", world.news.recv()).await
        {
            results.push(result);
        }
    }
    assert_eq!(results, [RunResult::Success; 2]);
    let console = world.shelf.0.lock().unwrap()[&first.run].1["console.txt"].clone();
    let lines = said(&console);
    assert!(lines.contains(&"600"), "{console}");
    assert!(!console.contains("c2VjcmV0LWtleQ"), "the lease's key is seen: {console}");
    assert!(leases(&world).await.iter().all(|l| l.state == api::LeaseState::Released));
}

#[tokio::test]
async fn a_testenv_that_is_lost_is_no_failure_of_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let _host = fake_host(&world.book).await;
    let wish = with_te(&world, "echo up; sleep 1000");
    world.want(&[&wish]);
    world.console_until(wish.run, "| up\n").await;
    let id = leases(&world).await[0].id.parse().unwrap();
    world.book.revoke(id, "the host burns".into()).await.unwrap();
    let (result, kept, record) = world.end(&wish).await;
    assert_eq!(result, RunResult::TeFailure);
    assert!(record.note.contains("revoked: the host burns"), "{}", record.note);
    assert!(kept.contains_key("console.txt"));
}

#[tokio::test]
async fn without_a_testenv_nothing_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let wish = with_te(&world, "echo never");
    let (result, _, record) = world.whole(&wish).await;
    assert_eq!(result, RunResult::TeFailure);
    assert!(record.note.contains("no test environment"), "{}", record.note);
    let _host = fake_host(&world.book).await;
    // Somebody else has the only one.
    let other = api::LeaseRequest { label: Some("devtest".into()), ..Default::default() };
    world.book.request("somebody", other).await.unwrap();
    let mut wish = with_te(&world, "echo never");
    let mut job = wish.job.as_ref().clone();
    job.run.wait_timeout = Some(std::time::Duration::from_millis(300));
    wish.job = job.into();
    let (result, _, record) = world.whole(&wish).await;
    assert_eq!(result, RunResult::TeFailure);
    assert!(record.note.contains("wait-timeout"), "{}", record.note);
}

#[test]
fn a_server_that_is_started_anew_gives_the_testenv_back() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    };
    let first = runtime();
    let wish = first.block_on(async {
        let world = World::start(dir.path()).await;
        let host = fake_host(&world.book).await;
        let wish = with_te(&world, "echo up; sleep 1000");
        world.want(&[&wish]);
        world.console_until(wish.run, "| up\n").await;
        drop(host);
        wish
    });
    first.shutdown_background();
    runtime().block_on(async {
        let mut world = World::start(dir.path()).await;
        world.want(&[&wish]);
        assert_eq!(world.end(&wish).await.0, RunResult::Lost);
        assert_eq!(leases(&world).await[0].state, api::LeaseState::Released);
    });
}

fn hold(seconds: u64) -> toci_core::node::Hold {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = toci_core::time::Time(0).after(now + std::time::Duration::from_secs(seconds));
    toci_core::node::Hold { until, reason: "A1, run x: look (ann)".into() }
}

#[test]
fn a_failure_that_somebody_looks_at_keeps_its_testenv_also_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    };
    let first = runtime();
    first.block_on(async {
        let mut world = World::start(dir.path()).await;
        let host = fake_host(&world.book).await;
        *world.nodes.hold.lock().unwrap() = Some(hold(3600));
        let good = with_te(&world, "true");
        assert_eq!(world.whole(&good).await.0, RunResult::Success);
        assert_eq!(leases(&world).await[0].state, api::LeaseState::Released, "it did not fail");
        let bad = with_te(&world, "false");
        let (result, kept, _) = world.whole(&bad).await;
        assert_eq!(result, RunResult::Failure);
        let console = &kept["console.txt"];
        assert!(console.contains("toci: the node is kept for 3"), "{console}");
        assert!(console.contains("toci: so is the test environment, for 3"), "{console}");
        let lease = &leases(&world).await[0];
        assert_eq!(
            (lease.state, lease.reason.as_str()),
            (api::LeaseState::Held, "A1, run x: look (ann)")
        );
        drop(host);
    });
    first.shutdown_background();
    runtime().block_on(async {
        let world = World::start(dir.path()).await;
        assert_eq!(leases(&world).await[0].state, api::LeaseState::Held);
    });
}

#[tokio::test]
async fn a_testenv_is_kept_as_long_as_may_be_and_one_that_cannot_be_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path()).await;
    let _host = fake_host(&world.book).await;
    for (seconds, state, line) in [
        (0, api::LeaseState::Released, "toci: the test environment cannot be kept: a hold of 0 s"),
        (100 * 3600, api::LeaseState::Held, "toci: so is the test environment, for 43200 s"),
    ] {
        *world.nodes.hold.lock().unwrap() = Some(hold(seconds));
        let (result, kept, _) = world.whole(&with_te(&world, "false")).await;
        let console = &kept["console.txt"];
        assert_eq!(result, RunResult::Failure);
        assert_eq!(leases(&world).await[0].state, state, "{console}");
        assert!(said(console).iter().any(|l| l.starts_with(line)), "{console}");
    }
}
