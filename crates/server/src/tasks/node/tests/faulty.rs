//! Providers that hang or refuse, beside one that is well.

use super::{LIMIT, count, first_number, parts, request, store, until};
use crate::tasks::node::{GUARD, NodePool, PROVIDER_JOBS_MAX, PoolParts};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use toci_core::id::{Label, ProviderName, RunId};
use toci_core::node::Policy;
use toci_edge::provider::local::{Local, LocalConfig};
use toci_edge::provider::{Machine, Provider, ProviderError, Work};
use toci_wire::api;

/// A cloud of sandboxes that has faults.
#[derive(Debug)]
struct Faulty {
    local: Local,
    builds_hang: AtomicBool,
    deletes_fail: AtomicBool,
    deletes_hang: AtomicBool,
    is_silent: AtomicBool,
}

impl Faulty {
    fn new(max: u16) -> Arc<Faulty> {
        let (addresses, bounds) = (None, BTreeMap::new());
        let config = LocalConfig { max, first_number: first_number(max), addresses, bounds };
        Arc::new(Faulty {
            local: Local::new(config),
            builds_hang: AtomicBool::new(false),
            deletes_fail: AtomicBool::new(false),
            deletes_hang: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
        })
    }
}

impl Provider for Faulty {
    fn kind(&self) -> &'static str {
        "faulty"
    }

    fn list_every(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        label: &'a Label,
    ) -> Work<'a, Result<Machine, ProviderError>> {
        if self.builds_hang.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        self.local.create(name, label)
    }

    fn find<'a>(
        &'a self,
        name: &'a str,
        token: &'a str,
    ) -> Work<'a, Result<Option<Machine>, ProviderError>> {
        self.local.find(name, token)
    }

    fn list(&self) -> Work<'_, Result<BTreeSet<String>, ProviderError>> {
        if self.is_silent.load(Ordering::Relaxed) {
            let error = ProviderError::said("list its machines", "no route to host");
            return Box::pin(std::future::ready(Err(error)));
        }
        self.local.list()
    }

    fn delete<'a>(&'a self, name: &'a str, token: &'a str) -> Work<'a, Result<(), ProviderError>> {
        if self.deletes_hang.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        if self.deletes_fail.load(Ordering::Relaxed) {
            let error = ProviderError::said(format!("delete {name}"), "it is still ACTIVE");
            return Box::pin(std::future::ready(Err(error)));
        }
        self.local.delete(name, token)
    }
}

/// A provider `cloud` with so many servers, for the label of [`parts`], and quick decisions.
fn with_cloud(mut parts: PoolParts, cloud: &Arc<Faulty>, max: u64) -> PoolParts {
    let name = ProviderName::new("cloud").unwrap();
    let mut spec = parts.settings.providers[0].clone();
    spec.name = name.clone();
    spec.quota.servers = max;
    parts.settings.providers.push(spec);
    parts.providers.insert(name, Arc::clone(cloud) as Arc<dyn Provider>);
    let short = Duration::from_millis(300);
    parts.policy = Policy {
        late_min: short,
        late_unknown: short,
        delete_limit: short,
        pause_min: short,
        ..Policy::default()
    };
    parts
}

/// Only `cloud` has nodes.
fn alone(mut parts: PoolParts) -> PoolParts {
    let cloud = parts.settings.providers.pop().unwrap();
    parts.providers.retain(|name, _| *name == cloud.name);
    parts.settings.providers = vec![cloud];
    parts
}

#[tokio::test]
async fn a_run_gets_its_node_elsewhere_when_builds_hang_where_most_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = Faulty::new(1);
    cloud.builds_hang.store(true, Ordering::Relaxed);
    let parts = with_cloud(parts(0, 2), &cloud, 9);
    let pool = NodePool::start(store(folder.path()).await, parts).await.unwrap();
    let listed = |p: &[api::Provider]| p.iter().all(|provider| provider.reachable);
    while !listed(&pool.providers().await.unwrap()) {
        tokio::task::yield_now().await;
    }
    let taken = tokio::time::timeout(LIMIT, pool.take(request(1, 1))).await.unwrap().unwrap();
    assert_eq!(taken[0].provider, "here");
    let hangs =
        |n: &api::Node| (n.provider.as_str(), n.state) == ("cloud", api::NodeState::Building);
    let nodes = pool.nodes().await.unwrap();
    assert_eq!(nodes.iter().filter(|n| hangs(n)).count(), 1, "{nodes:#?}");
    let providers = pool.providers().await.unwrap();
    let told = &providers.iter().find(|p| p.name == "cloud").unwrap().problems;
    assert_eq!(*told, ["1 builds of sandbox take longer than 0 s"]);
}

#[tokio::test]
async fn a_run_with_one_of_its_nodes_at_a_provider_that_falls_silent_goes_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = Faulty::new(3);
    let pool = with_cloud(parts(2, 2), &cloud, 3);
    let pool = NodePool::start(store(folder.path()).await, pool).await.unwrap();
    let here = ProviderName::new("here").unwrap();
    pool.pause_provider(here.clone(), "ann".into(), "not yet".into()).await.unwrap();
    for node in pool.nodes().await.unwrap().iter().filter(|node| node.provider == "here") {
        pool.delete(node.id.parse().unwrap()).await.unwrap();
    }
    until(&pool, "two are ready", |n| count(n, api::NodeState::Ready) == 2).await;
    // One of them is no good, and the cloud makes no other one.
    let lies = pool.look(|state| state.machines.values().next().map(|m| m.session.clone()));
    let lie = format!("mkdir -p /var/tmp/toci; touch {GUARD}");
    lies.await.unwrap().unwrap().run("lie", &lie, b"", LIMIT).await.unwrap();
    cloud.builds_hang.store(true, Ordering::Relaxed);
    cloud.is_silent.store(true, Ordering::Relaxed);
    let run = tokio::spawn({
        let pool = pool.clone();
        async move { pool.take(request(1, 2)).await }
    });
    until(&pool, "it has one", |n| count(n, api::NodeState::InUse) == 1).await;
    pool.resume_provider(here).await.unwrap();
    let taken = tokio::time::timeout(LIMIT, run).await.unwrap().unwrap().unwrap();
    let places: Vec<&str> = taken.iter().map(|node| node.provider.as_str()).collect();
    assert_eq!(places, ["here", "here"]);
    until(&pool, "the other one is given back", |n| count(n, api::NodeState::InUse) == 2).await;
}

#[tokio::test]
async fn a_node_that_cannot_be_deleted_is_told_until_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = Faulty::new(1);
    cloud.deletes_fail.store(true, Ordering::Relaxed);
    let parts = alone(with_cloud(parts(0, 1), &cloud, 1));
    let pool = NodePool::start(store(folder.path()).await, parts).await.unwrap();
    let taken = pool.take(request(1, 1)).await.unwrap();
    pool.give_back(RunId(1)).await;
    let told = |n: &[api::Node]| {
        n.len() == 1 && n[0].overdue && n[0].reason.ends_with("it is still ACTIVE")
    };
    until(&pool, "it is told", told).await;
    let overdue = pool.overdue().await.unwrap();
    assert_eq!(overdue[0].id, taken[0].id.to_string());
    cloud.deletes_fail.store(false, Ordering::Relaxed);
    until(&pool, "it is gone", <[api::Node]>::is_empty).await;
    assert!(pool.overdue().await.unwrap().is_empty());
}

#[tokio::test]
async fn deletions_that_hang_keep_no_run_from_the_nodes_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let most = u16::try_from(PROVIDER_JOBS_MAX).unwrap();
    let cloud = Faulty::new(most + 1);
    cloud.deletes_hang.store(true, Ordering::Relaxed);
    let parts = alone(with_cloud(parts(0, 1), &cloud, u64::from(most) + 1));
    let pool = NodePool::start(store(folder.path()).await, parts).await.unwrap();
    let runs = 1..=u128::from(most);
    for run in runs.clone() {
        pool.take(request(run, 1)).await.unwrap();
    }
    for run in runs {
        pool.give_back(RunId(run)).await;
    }
    let all = |n: &[api::Node]| count(n, api::NodeState::Deleting) == PROVIDER_JOBS_MAX;
    until(&pool, "all are being deleted", all).await;
    let taken = tokio::time::timeout(LIMIT, pool.take(request(99, 1))).await;
    assert_eq!(taken.unwrap().unwrap().len(), 1);
    cloud.deletes_hang.store(false, Ordering::Relaxed);
}
