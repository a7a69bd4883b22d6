//! The task with real sandboxes.

mod faulty;
mod fixed;

use super::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use toci_core::id::{Label, ProviderName, RunId};
use toci_core::layout::Precedence;
use toci_core::node::{Amount, LabelSpec, Policy, PoolSpec, ProviderSpec, Settings};
use toci_core::time::Time;
use toci_edge::provider::Provider;
use toci_edge::provider::local::{Local, LocalConfig};
use toci_store::Store;
use toci_wire::api;

const LIMIT: Duration = Duration::from_secs(60);

/// The first of so many numbers that no other test of this process, and hardly one of another, uses.
fn first_number(count: u16) -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 250).unwrap();
    30_000 + process * 128 + NEXT.fetch_add(count, Ordering::Relaxed)
}

fn parts(min_ready: u32, max: u16) -> PoolParts {
    let name = ProviderName::new("here").unwrap();
    let label = Label::new("sandbox").unwrap();
    let cost = Amount { servers: 1, cpus: 0, memory_mib: 0 };
    let spec = ProviderSpec {
        name: name.clone(),
        quota: Amount { servers: u64::from(max), cpus: 0, memory_mib: 0 },
        pools: BTreeMap::from([(label.clone(), PoolSpec { max: u64::MAX, cost })]),
    };
    let (first_number, bounds) = (first_number(max), BTreeMap::new());
    let config = LocalConfig { max, first_number, addresses: None, bounds };
    let local: Arc<dyn Provider> = Arc::new(Local::new(config));
    PoolParts {
        settings: Settings {
            labels: vec![LabelSpec { name: label, min_ready }],
            providers: vec![spec],
        },
        policy: Policy::default(),
        providers: BTreeMap::from([(name, local)]),
        environments: BTreeMap::new(),
    }
}

async fn store(folder: &std::path::Path) -> Store {
    let store = Store::open(&format!("sqlite:{}", folder.join("db").display())).await.unwrap();
    store.claim_book(1).await.unwrap();
    store
}

fn request(run: u128, count: u32) -> NodeRequest {
    NodeRequest {
        run: RunId(run),
        label: None,
        count,
        precedence: Precedence::Normal,
        relative_priority: 0,
        since: Time(1),
        job: "check it's".to_owned(),
    }
}

/// Waits until the nodes are as they should be.
async fn until(pool: &NodePool, what: &str, fits: impl Fn(&[api::Node]) -> bool) {
    let end = Instant::now() + LIMIT;
    loop {
        let nodes = pool.nodes().await.unwrap();
        if fits(&nodes) {
            return;
        }
        assert!(Instant::now() < end, "{what}: {nodes:#?}\n{:#?}", pool.providers().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn count(nodes: &[api::Node], state: api::NodeState) -> usize {
    nodes.iter().filter(|node| node.state == state).count()
}

#[tokio::test]
async fn a_run_gets_a_node_that_nobody_had_and_it_is_deleted_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let pool = NodePool::start(store(folder.path()).await, parts(1, 3)).await.unwrap();
    until(&pool, "one is ready", |n| count(n, api::NodeState::Ready) == 1).await;
    let ready = pool.nodes().await.unwrap().remove(0);
    let nodes = pool.take(request(1, 1)).await.unwrap();
    assert_eq!((nodes.len(), nodes[0].name.as_str()), (1, ready.name.as_str()));
    let said = nodes[0].session.run("look", &format!("cat {GUARD}"), b"", LIMIT).await.unwrap();
    assert_eq!(said.text().trim(), format!("run {}, job check it's", RunId(1)));
    // The same again; another run gets another one.
    assert_eq!(pool.take(request(1, 1)).await.unwrap()[0].id, nodes[0].id);
    let other = pool.take(request(2, 1)).await.unwrap();
    assert_ne!(other[0].id, nodes[0].id);
    assert!(!*nodes[0].lost.borrow());
    pool.give_back(RunId(1)).await;
    until(&pool, "it is gone", |n| n.iter().all(|node| node.name != ready.name)).await;
    let gone = nodes[0].session.try_run("look", "true", b"", LIMIT).await;
    assert!(gone.is_err(), "{gone:?}");
}

#[tokio::test]
async fn a_used_node_is_not_handed_over_again_whatever_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let pool = NodePool::start(store(folder.path()).await, parts(1, 2)).await.unwrap();
    until(&pool, "one is ready", |n| count(n, api::NodeState::Ready) == 1).await;
    let id = pool.nodes().await.unwrap()[0].id.clone();
    let session = pool
        .look(|state| state.machines.values().next().map(|machine| machine.session.clone()))
        .await
        .unwrap()
        .unwrap();
    session
        .run("lie", &format!("mkdir -p /var/tmp/toci; touch {GUARD}"), b"", LIMIT)
        .await
        .unwrap();
    let nodes = pool.take(request(1, 1)).await.unwrap();
    assert_ne!(nodes[0].id.to_string(), id);
}

#[tokio::test]
async fn a_wish_is_withdrawn_by_going_away_and_the_impossible_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let pool = NodePool::start(store(folder.path()).await, parts(0, 1)).await.unwrap();
    let taken = pool.take(request(1, 1)).await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(300), pool.take(request(2, 1))).await;
    assert!(waits.is_err(), "{waits:?}");
    pool.give_back(RunId(1)).await;
    until(&pool, "nothing is left", <[api::Node]>::is_empty).await;
    assert!(!*taken[0].lost.borrow());
    let error = pool.take(request(3, 2)).await.unwrap_err();
    assert!(matches!(error, NodeError::Impossible(_)), "{error:?}");
    let asked = NodeRequest { label: Some(Label::new("mainframe").unwrap()), ..request(3, 1) };
    let error = pool.take(asked).await.unwrap_err();
    assert!(error.to_string().contains("the labels are: sandbox"), "{error}");
}

#[tokio::test]
async fn a_node_that_dies_is_told_to_whoever_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let pool = NodePool::start(store(folder.path()).await, parts(0, 1)).await.unwrap();
    let mut nodes = pool.take(request(1, 1)).await.unwrap();
    // Its first process ends: a machine that is switched off.
    let _ = nodes[0].session.try_run("switch off", "kill -KILL -1; kill 1", b"", LIMIT).await;
    let toci_edge::node::Session::Namespaces { pid, .. } = nodes[0].session else { panic!() };
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .ok();
    let lost = tokio::time::timeout(LIMIT, nodes[0].lost.wait_for(|lost| *lost)).await;
    assert!(lost.is_ok(), "{:#?}", pool.nodes().await);
    let error = pool.take(request(2, 1)).await.map(|n| n[0].id);
    assert!(error.is_ok(), "the next run gets a new one: {error:?}");
}

#[tokio::test]
async fn after_a_restart_nothing_is_left_over_and_held_nodes_that_died_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let first = NodePool::start(store(folder.path()).await, parts(2, 4)).await.unwrap();
    let taken = first.take(request(1, 1)).await.unwrap();
    until(&first, "two are ready", |n| count(n, api::NodeState::Ready) == 2).await;
    first.hold(taken[0].id, Duration::from_secs(600), "why is it red".into()).await.unwrap();
    let error = first.delete(taken[0].id).await.unwrap_err();
    assert!(error.to_string().contains("has node"), "{error}");
    first.give_back(RunId(1)).await;
    until(&first, "it is held", |n| count(n, api::NodeState::Held) == 1).await;
    drop(first);
    // The task ends and frees the database.
    let end = Instant::now() + LIMIT;
    let store = loop {
        match Store::open(&format!("sqlite:{}", folder.path().join("db").display())).await {
            Ok(store) => break store,
            Err(e) => assert!(Instant::now() < end, "{e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    store.claim_book(1).await.unwrap();
    // Sandboxes end with the server: all of them are found to be gone, and two new ones are made.
    let second = NodePool::start(store, parts(2, 4)).await.unwrap();
    let new = |n: &[api::Node]| {
        n.len() == 2
            && count(n, api::NodeState::Ready) == 2
            && n.iter().all(|n| n.id.as_str() > "N3")
    };
    until(&second, "two new ones are ready", new).await;
    let error = second.hold(taken[0].id, Duration::from_secs(60), "x".into()).await.unwrap_err();
    assert!(error.to_string().contains("there is no node"), "{error}");
}
