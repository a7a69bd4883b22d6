//! Many nodes that come and go, on Nova's fake driver: what the node provider itself costs, and whether something is left.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use cloud_tests::{Footprint, fake_servers};
use serde_json::{Value, json};
use toci_core::id::RunId;
use toci_edge::provider::openstack::HostKeySource;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use crate::Bench;
use crate::guests::Guests;
use crate::life::LIMIT;
use crate::script::Sdk;
use crate::toci::{Toci, given_back, taken};

/// Nodes at once: what the tenant's quota lets it have.
const AT_ONCE: u32 = 20;

/// openstacksdk makes one for so many of toci's: for comparison that is enough.
const SDK_SHARE: u32 = 10;

/// So many nodes with toci, each demanded, used and given back; with openstacksdk some are made and deleted.
pub(crate) async fn churn(bench: &Bench, nodes: u32) -> Result<Value> {
    let before = Footprint::now()?;
    let _fake = fake_servers()?;
    let guests = Guests::start(&bench.folder)?;
    let mut toci = LocalSet::new().run_until(toci(bench, nodes)).await?;
    before.is_restored(LIMIT).context("toci has left something in the cloud")?;
    toci["left"] = json!(0);
    drop(guests);
    let mut sdk = sdk(bench, nodes.div_ceil(SDK_SHARE)).await?;
    before.is_restored(LIMIT).context("openstacksdk has left something in the cloud")?;
    sdk["left"] = json!(0);
    Ok(json!({"at_once": AT_ONCE, "toci": toci, "openstacksdk": sdk}))
}

async fn toci(bench: &Bench, nodes: u32) -> Result<Value> {
    let most = u64::from(AT_ONCE);
    let toci = Toci::start_with(bench, "toci-churn", 0, most, HostKeySource::UserData).await?;
    let at_once = Arc::new(Semaphore::new(usize::try_from(AT_ONCE)?));
    let mut lives = JoinSet::new();
    bench.proxy.take();
    let begun = Instant::now();
    for number in 0..nodes {
        let (pool, at_once) = (toci.pool().clone(), Arc::clone(&at_once));
        lives.spawn_local(async move {
            let _turn = at_once.acquire_owned().await?;
            let run = RunId(u128::from(number) + 1);
            let node = taken(&pool, run).await?;
            given_back(&pool, run, &node).await
        });
    }
    while let Some(ended) = lives.join_next().await {
        ended??;
        if lives.len() % 20 == 0 {
            println!("{} nodes to go after {:.0} s", lives.len(), begun.elapsed().as_secs_f64());
        }
    }
    let (took_s, calls) = (begun.elapsed().as_secs_f64(), bench.proxy.take());
    toci.end().await?;
    Ok(json!({"nodes": nodes, "took_s": took_s, "calls": calls}))
}

async fn sdk(bench: &Bench, nodes: u32) -> Result<Value> {
    let mut sdk = Sdk::start(bench).await?;
    bench.proxy.take();
    let told = sdk.churn(nodes, AT_ONCE).await?;
    let calls = bench.proxy.take();
    sdk.end().await?;
    Ok(json!({"nodes": nodes, "took_s": told["took_s"], "calls": calls}))
}
