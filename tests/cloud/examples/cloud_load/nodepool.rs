//! Nodepool, asked for nodes as Zuul asks.

use anyhow::{Context as _, Result};

use crate::Bench;
use crate::life::Contender;
use crate::script::Script;

/// A launcher with a ZooKeeper of its own.
#[derive(Debug)]
pub(crate) struct Nodepool(Script);

impl Nodepool {
    /// It keeps so many nodes ready.
    pub(crate) async fn start(bench: &Bench, min_ready: u32) -> Result<Nodepool> {
        let script = Script::start(bench, "nodepool_load", &[&min_ready.to_string()]).await?;
        Ok(Nodepool(script))
    }

    /// Nothing is left, and nothing more is made.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.0.told("end").await.map(drop)
    }
}

impl Contender for Nodepool {
    async fn demand(&mut self) -> Result<()> {
        self.0.told("demand").await.map(drop)
    }

    async fn give_back(&mut self) -> Result<()> {
        self.0.told("give-back").await.map(drop)
    }

    async fn ready(&mut self) -> Result<u32> {
        let ready = self.0.told("ready").await?;
        let number = ready.as_u64().with_context(|| format!("{ready} is no number"))?;
        Ok(u32::try_from(number)?)
    }
}
