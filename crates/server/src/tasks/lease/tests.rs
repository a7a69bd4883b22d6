//! The lease task on a real SQLite file, with hosts that answer as toci-host does.

use super::*;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toci_core::id::{HostId, LeaseId, TeId};
use toci_store::{Store, StoreError};
use toci_wire::api::{self, TeReportState, TeTask};
use tokio::sync::watch;

/// No step of these tests may take longer.
const LIMIT: Duration = Duration::from_secs(20);

async fn within<T>(what: &str, f: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, f).await {
        Ok(t) => t,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

async fn open(dir: &Path) -> Store {
    let url = format!("sqlite:{}", dir.join("toci.db").display());
    within("the lock of the last server", async {
        loop {
            match Store::open(&url).await {
                Ok(store) => return store,
                Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
                Err(e) => panic!("{e:?}"),
            }
        }
    })
    .await
}

async fn book(dir: &Path) -> LeaseBook {
    LeaseBook::start(open(dir).await, Policy::default()).await.unwrap()
}

fn host_id() -> HostId {
    HostId::new("tehost1").unwrap()
}

/// A host that does at once what is wanted of it, until it is dropped.
struct FakeHost {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn fake_host(book: &LeaseBook, tes: u32, boot: &str) -> FakeHost {
    book.add_host(&host_id()).await.unwrap();
    let mut wish = book.host_stream(&host_id()).await.unwrap();
    let (book, boot) = (book.clone(), boot.to_owned());
    let mut states: Vec<TeReportState> =
        (0..tes).map(|_| TeReportState::Clean { generation: 0 }).collect();
    let task = tokio::spawn(async move {
        for sequence in 1.. {
            let testenvs = states.iter().zip(1..).map(|(state, n)| api::TeReport {
                testenv: format!("tehost1-{n}"),
                number: n,
                shape: "seed-2".into(),
                labels: vec!["devtest".into()],
                state: state.clone(),
                machines: vec![api::MachineState { name: format!("seed_{n}"), on: false }],
            });
            let report = api::HostReport {
                boot_id: boot.clone(),
                sequence,
                status: api::HostStatus::default(),
                testenvs: testenvs.collect(),
            };
            while let Err(BookError::Failed(_)) = book.host_report(&host_id(), report.clone()).await
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if wish.changed().await.is_err() {
                return;
            }
            let desired = wish.borrow_and_update().clone();
            for te in &desired.testenvs {
                let n: usize = te.testenv.rsplit_once('-').unwrap().1.parse().unwrap();
                let generation = te.generation;
                states[n - 1] = match &te.task {
                    TeTask::Serve { .. } => {
                        let te_json =
                            serde_json::json!({"env-num": n.to_string(), "ssh-key": "secret"});
                        let r = api::ServingReport { generation, te_json };
                        // A grant that was taken back meanwhile is refused; the next wish says so.
                        let _ = book
                            .host_serving(&host_id(), &TeId::new(&*te.testenv).unwrap(), r)
                            .await;
                        TeReportState::Serving { generation }
                    }
                    TeTask::Vacate | TeTask::BurnIn => TeReportState::Clean { generation },
                    TeTask::Quarantine => TeReportState::Broken { generation, reason: "q".into() },
                };
            }
        }
    });
    FakeHost { task }
}

fn ask() -> api::LeaseRequest {
    api::LeaseRequest {
        label: Some("devtest".into()),
        project: Some("demo".into()),
        ..api::LeaseRequest::default()
    }
}

async fn until(
    rx: &mut watch::Receiver<Arc<api::Lease>>,
    state: api::LeaseState,
) -> Arc<api::Lease> {
    let wait = rx.wait_for(|l| l.state == state);
    match tokio::time::timeout(LIMIT, wait).await {
        Ok(Ok(lease)) => lease.clone(),
        other => panic!("waiting for {state:?}: {:?}", other.map(|r| r.map(|l| l.clone()))),
    }
}

async fn lease_one(book: &LeaseBook) -> (LeaseId, watch::Receiver<Arc<api::Lease>>) {
    // Until the host has reported, there is nothing to ask for.
    within("a first report", async {
        while book.testenvs().await.unwrap().iter().all(|t| t.state == api::TeState::Unknown) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let lease = book.request("me", ask()).await.unwrap();
    let id: LeaseId = lease.id.parse().unwrap();
    let rx = book.watch_lease(id).await.unwrap();
    (id, rx)
}

#[tokio::test]
async fn request_grant_use_release_and_the_next_waiter() {
    let dir = tempfile::tempdir().unwrap();
    let book = book(dir.path()).await;
    let _host = fake_host(&book, 1, "b1").await;
    let (a, mut rx_a) = lease_one(&book).await;
    let active = until(&mut rx_a, api::LeaseState::Active).await;
    assert_eq!(active.testenvs[0].generation, 1);
    let (b, mut rx_b) = lease_one(&book).await;
    let waiting = rx_b.borrow_and_update().waiting.clone().unwrap();
    assert_eq!(waiting.position, 1);
    let json = book.lease_testenvs(a).await.unwrap();
    assert_eq!(json[0].te_json["ssh-key"], "secret");
    assert!(book.lease_testenvs(b).await.is_err());
    book.release(a, String::new()).await.unwrap();
    until(&mut rx_a, api::LeaseState::Released).await;
    assert_eq!(until(&mut rx_b, api::LeaseState::Active).await.testenvs[0].generation, 2);
    let err = book.lease_testenvs(a).await.unwrap_err();
    assert!(matches!(&err, BookError::Refused(r) if r.code == "not_active"), "{err:?}");
    let all = book.leases(LeaseFilter { ended: true, ..LeaseFilter::default() }).await.unwrap();
    assert_eq!(all.iter().map(|l| l.id.as_str()).collect::<Vec<_>>(), ["L2", "L1"]);
    let err =
        book.request("me", api::LeaseRequest { label: Some("devtset".into()), ..ask() }).await;
    assert_eq!(err.unwrap_err().status(), 422);
}

#[tokio::test]
async fn a_restart_loses_nothing_and_old_reports_are_no_news() {
    let dir = tempfile::tempdir().unwrap();
    let first = book(dir.path()).await;
    let host = fake_host(&first, 2, "b1").await;
    let (a, mut rx) = lease_one(&first).await;
    until(&mut rx, api::LeaseState::Active).await;
    drop((host, first, rx));
    let book = book(dir.path()).await;
    let lease = book.lease(a).await.unwrap();
    assert_eq!(lease.state, api::LeaseState::Active);
    assert_eq!(book.lease_testenvs(a).await.unwrap()[0].te_json["ssh-key"], "secret");
    book.heartbeat(a).await.unwrap();
    let te = TeId::new(lease.testenvs[0].testenv.clone()).unwrap();
    assert_eq!(book.testenv(&te).await.unwrap().host_connection, api::Connection::CutOff);
    let report = |boot: &str, sequence| api::HostReport {
        boot_id: boot.into(),
        sequence,
        status: api::HostStatus::default(),
        testenvs: ["tehost1-1", "tehost1-2"]
            .iter()
            .zip(1..)
            .map(|(te, number)| api::TeReport {
                testenv: (*te).into(),
                number,
                shape: "seed-2".into(),
                labels: vec!["devtest".into()],
                state: if *te == lease.testenvs[0].testenv {
                    TeReportState::Serving { generation: 1 }
                } else {
                    TeReportState::Clean { generation: 0 }
                },
                machines: vec![],
            })
            .collect(),
    };
    book.host_report(&host_id(), report("b1", 50)).await.unwrap();
    let wish = book.host_stream(&host_id()).await.unwrap();
    assert_eq!(book.host(&host_id()).await.unwrap().connection, api::Connection::Connected);
    assert!(matches!(wish.borrow().testenvs[0].task, TeTask::Serve { left_s: 1.., .. }));
    // Older than the newest, and of an older boot: both would end the lease if believed.
    let mut old = report("b1", 49);
    old.testenvs.clear();
    book.host_report(&host_id(), old.clone()).await.unwrap();
    book.host_report(&host_id(), report("b2", 1)).await.unwrap();
    old.sequence = 99;
    book.host_report(&host_id(), old).await.unwrap();
    assert_eq!(book.lease(a).await.unwrap().state, api::LeaseState::Active);
    drop(wish);
    within("the host is cut off when its stream ends", async {
        while book.host(&host_id()).await.unwrap().connection == api::Connection::Connected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_failed_commit_is_told_and_undone() {
    let dir = tempfile::tempdir().unwrap();
    let book = book(dir.path()).await;
    let _host = fake_host(&book, 2, "b1").await;
    let (a, mut rx) = lease_one(&book).await;
    until(&mut rx, api::LeaseState::Active).await;
    let sql = |text: &str| {
        let code = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1],timeout=9); c.execute(sys.argv[2]); c.commit()";
        let db = dir.path().join("toci.db");
        let out =
            std::process::Command::new("python3").args(["-c", code]).arg(db).arg(text).output();
        let out = out.expect("python3 runs (Debian package python3)");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    // ROLLBACK: SQLite itself ends the transaction, as it does when the disk is full.
    for how in ["ABORT", "ROLLBACK"] {
        sql(&format!(
            "CREATE TRIGGER full BEFORE UPDATE ON writer BEGIN SELECT RAISE({how}, 'disk full'); END"
        ));
        let err = book.release(a, String::new()).await.unwrap_err();
        assert!(matches!(err, BookError::Failed(_)), "{how}: {err:?}");
        assert_eq!(err.status(), 503);
        assert_eq!(book.lease(a).await.unwrap().state, api::LeaseState::Active);
        assert_eq!(rx.borrow().state, api::LeaseState::Active);
        assert!(book.request("me", ask()).await.is_err());
        sql("DROP TRIGGER full");
    }
    let b = book.request("me", ask()).await.unwrap();
    let mut rx_b = book.watch_lease(b.id.parse().unwrap()).await.unwrap();
    until(&mut rx_b, api::LeaseState::Active).await;
    book.release(a, String::new()).await.unwrap();
    until(&mut rx, api::LeaseState::Released).await;
}

#[tokio::test]
async fn many_clients_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let book = book(dir.path()).await;
    let _host = fake_host(&book, 8, "b1").await;
    lease_one(&book).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let book = book.clone();
        clients.spawn(async move {
            let lease = book.request("me", ask()).await.unwrap();
            let id: LeaseId = lease.id.parse().unwrap();
            let mut rx = book.watch_lease(id).await.unwrap();
            let lease = until(&mut rx, api::LeaseState::Active).await;
            book.release(id, String::new()).await.unwrap();
            (lease.testenvs[0].testenv.clone(), lease.testenvs[0].generation)
        });
    }
    let mut grants = within("all get their turn", clients.join_all()).await;
    grants.sort();
    grants.dedup();
    assert_eq!(grants.len(), 40, "no generation was granted twice");
}
