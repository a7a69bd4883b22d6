//! A node's life, and what is measured of it, whoever makes the node.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::Bench;

/// Longest wait for a node to come or go; without KVM and beside others a guest takes its time.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);
/// So many nodes are kept ready, where some are.
pub(crate) const READY: u32 = 2;
/// Between two looks at what there is no news of.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Who makes nodes.
pub(crate) trait Contender {
    /// A node is demanded; when this returns, a command has run on it.
    async fn demand(&mut self) -> Result<()>;

    /// It is no longer needed; when this returns, it and all that it had is gone.
    async fn give_back(&mut self) -> Result<()>;

    /// So many nodes are ready that nobody has demanded.
    async fn ready(&mut self) -> Result<u32>;
}

/// Nodes that nobody has prepared, one after the other: from demand to use, from the end of use to the end, and the calls of
/// the whole life.
pub(crate) async fn lives(
    bench: &Bench,
    contender: &mut impl Contender,
    times: u32,
) -> Result<Value> {
    let mut lives = Vec::new();
    for _ in 0..times {
        bench.proxy.take();
        let begun = Instant::now();
        contender.demand().await?;
        let in_use_s = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        contender.give_back().await?;
        let gone_s = begun.elapsed().as_secs_f64();
        let calls = bench.proxy.take();
        let life = json!({"in_use_s": in_use_s, "gone_s": gone_s, "calls": calls});
        println!("{life}");
        lives.push(life);
    }
    Ok(Value::Array(lives))
}

/// Nodes that are ready: from demand to use, all of them at once after the other, in each round.
pub(crate) async fn ready(contender: &mut impl Contender, rounds: u32) -> Result<Value> {
    let mut taken = Vec::new();
    for _ in 0..rounds {
        until("nodes to be ready", async || match contender.ready().await? {
            ready if ready >= READY => Ok(Ok(())),
            ready => Ok(Err(format!("{ready} of {READY} are"))),
        })
        .await?;
        for _ in 0..READY {
            let begun = Instant::now();
            contender.demand().await?;
            taken.push(begun.elapsed().as_secs_f64());
        }
        for _ in 0..READY {
            contender.give_back().await?;
        }
    }
    println!("{taken:?}");
    Ok(json!(taken))
}

/// Looks until it is so; an answer that is not so says why.
pub(crate) async fn until<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        match look().await.with_context(|| format!("waiting for {what}"))? {
            Ok(value) => return Ok(value),
            Err(state) if begun.elapsed() > LIMIT => {
                bail!("waited {} s for {what}: {state}", LIMIT.as_secs());
            }
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}
