//! Static machines: real OpenSSH servers, each in a mount namespace of its own, so that each has its own /var/tmp.

use super::{LIMIT, count, parts, request, store, until};
use crate::tasks::node::{GUARD, NodePool, PoolParts};
use crate::tasks::sshd::{Machine, known, machine, ssh_keygen};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use toci_core::id::RunId;
use toci_core::node::Policy;
use toci_edge::provider::Provider;
use toci_edge::provider::fixed::{Fixed, FixedConfig, FixedMachine};
use toci_wire::api;

struct Rack {
    folder: tempfile::TempDir,
    key: PathBuf,
    machines: Vec<Machine>,
}

impl Rack {
    fn new(count: usize) -> Rack {
        let folder = tempfile::tempdir().unwrap();
        let (key, host) = (folder.path().join("key"), folder.path().join("host"));
        ssh_keygen(&key);
        ssh_keygen(&host);
        let machines: Vec<Machine> =
            (0..count).map(|n| machine(folder.path(), &format!("m{n}"), &host, &key, "")).collect();
        let lines: String = machines.iter().map(|m| known(m, &host)).collect();
        std::fs::write(folder.path().join("known_hosts"), lines).unwrap();
        Rack { folder, key, machines }
    }

    fn parts(&self, cleanup: &str) -> PoolParts {
        let most = u16::try_from(self.machines.len()).unwrap();
        let mut parts = parts(0, most);
        let label = parts.settings.labels[0].name.clone();
        let fixed = |m: &Machine| FixedMachine {
            target: "root@127.0.0.1".into(),
            port: m.port,
            label: label.clone(),
            address: Some([127, 0, 0, 1].into()),
        };
        let provider: Arc<dyn Provider> = Arc::new(Fixed::new(FixedConfig {
            key: self.key.clone(),
            known_hosts: self.folder.path().join("known_hosts"),
            cleanup: cleanup.into(),
            cleanup_limit: LIMIT,
            machines: self.machines.iter().map(fixed).collect(),
        }));
        for place in parts.providers.values_mut() {
            *place = Arc::clone(&provider);
        }
        parts.policy = Policy { pause_min: Duration::from_secs(1), ..Policy::default() };
        parts
    }
}

#[tokio::test]
async fn a_machine_is_one_runs_at_a_time_and_is_cleaned_before_the_next() {
    let rack = Rack::new(2);
    let parts = rack.parts(
        "test ! -e /var/tmp/broken; rm -rf /var/tmp/work; echo $TOCI_NODE >/var/tmp/cleaned",
    );
    let pool = NodePool::start(store(rack.folder.path()).await, parts).await.unwrap();
    let (a, b) = tokio::join!(pool.take(request(1, 1)), pool.take(request(2, 1)));
    let (a, b) = (a.unwrap().remove(0), b.unwrap().remove(0));
    assert_ne!(a.session, b.session);
    assert_eq!(a.cloud_address, Some([127, 0, 0, 1].into()));
    let dirty = format!("cat {GUARD}; mkdir /var/tmp/work");
    let said = a.session.run("work", &dirty, b"", LIMIT).await.unwrap().text();
    assert_eq!(said.trim(), format!("run {}, job check it's", RunId(1)));
    // The third run gets the first one's machine, as another node, and clean.
    let third = tokio::spawn({
        let pool = pool.clone();
        async move { pool.take(request(3, 1)).await }
    });
    pool.give_back(RunId(1)).await;
    let c = third.await.unwrap().unwrap().remove(0);
    assert_eq!(c.session, a.session);
    assert_ne!(c.id, a.id);
    let look = "ls /var/tmp/work 2>&1; cat /var/tmp/cleaned";
    let said = c.session.run("look", look, b"", LIMIT).await.unwrap().text();
    assert!(said.contains("No such file") && said.ends_with(&format!("{}\n", a.name)), "{said}");
}

#[tokio::test]
async fn a_machine_that_cannot_be_cleaned_is_not_used_again_and_told() {
    let rack = Rack::new(1);
    let parts =
        rack.parts("if [ -e /var/tmp/broken ]; then echo the disk is broken >&2; exit 1; fi");
    let pool = NodePool::start(store(rack.folder.path()).await, parts).await.unwrap();
    let a = pool.take(request(1, 1)).await.unwrap().remove(0);
    a.session.run("break it", "touch /var/tmp/broken", b"", LIMIT).await.unwrap();
    pool.give_back(RunId(1)).await;
    let told = |n: &[api::Node]| n.iter().any(|node| node.reason.contains("the disk is broken"));
    until(&pool, "it is told", told).await;
    let waits = tokio::time::timeout(Duration::from_millis(500), pool.take(request(2, 1))).await;
    assert!(waits.is_err(), "{waits:?}");
    a.session.run("repair it", "rm /var/tmp/broken", b"", LIMIT).await.unwrap();
    let next = pool.take(request(2, 1)).await.unwrap().remove(0);
    assert_eq!(next.session, a.session);
}

#[tokio::test]
async fn a_machine_with_another_host_key_is_not_trusted() {
    let rack = Rack::new(1);
    let other = rack.folder.path().join("other");
    ssh_keygen(&other);
    let line = known(&rack.machines[0], &other);
    std::fs::write(rack.folder.path().join("known_hosts"), line).unwrap();
    let mut parts = rack.parts("true");
    parts.policy.failures_max = 1;
    let pool = NodePool::start(store(rack.folder.path()).await, parts).await.unwrap();
    let error = pool.take(request(1, 1)).await.unwrap_err().to_string();
    assert!(
        error.contains("Host key verification failed") || error.contains("REMOTE HOST"),
        "{error}"
    );
}

#[tokio::test]
async fn a_run_finds_its_machine_after_a_restart_of_the_server() {
    let rack = Rack::new(2);
    let first = NodePool::start(store(rack.folder.path()).await, rack.parts("true")).await.unwrap();
    let before = first.take(request(1, 1)).await.unwrap().remove(0);
    drop(first);
    let end = Instant::now() + LIMIT;
    let url = format!("sqlite:{}", rack.folder.path().join("db").display());
    let store = loop {
        match toci_store::Store::open(&url).await {
            Ok(store) => break store,
            Err(e) => assert!(Instant::now() < end, "{e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    store.claim_book(1).await.unwrap();
    let second = NodePool::start(store, rack.parts("true")).await.unwrap();
    let after = second.take(request(1, 1)).await.unwrap().remove(0);
    assert_eq!((after.id, &after.session), (before.id, &before.session));
    let other = second.take(request(2, 1)).await.unwrap().remove(0);
    assert_ne!(other.session, after.session);
    until(&second, "both are in use", |n| count(n, api::NodeState::InUse) == 2).await;
}
