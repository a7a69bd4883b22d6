//! Load of the benchmark of nodes on a cloud (`cargo xtask bench cloud`). It runs inside of the sandbox of a cloud that is up,
//! tells what it is doing, and writes its figures to `FOLDER/figures.json`.
//!
//! ```text
//! cloud_load FOLDER VENV PART=SIZE...
//!     lives=TIMES     nodes that nobody has prepared, one after the other
//!     ready=ROUNDS    nodes that are ready, two in each round
//!     churn=NODES     so many that come and go, on Nova's fake driver
//! ```
//!
//! `VENV` is a Python virtual environment with openstacksdk and Nodepool.

mod churn;
mod guests;
mod life;
mod nodepool;
mod proxy;
mod script;
mod toci;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cloud_tests::Footprint;
use serde_json::{Value, json};

use nodepool::Nodepool;
use proxy::Proxy;
use script::Sdk;
use toci::Toci;

/// What all parts need.
#[derive(Debug)]
struct Bench {
    /// For everything that is written.
    folder: PathBuf,
    /// With the contenders' Python.
    venv: PathBuf,
    /// clouds.yaml whose ways all lead through the proxy.
    clouds: PathBuf,
    proxy: Proxy,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, venv, parts @ ..] = arguments.as_slice() else {
        bail!("see the head of tests/cloud/examples/cloud_load/main.rs");
    };
    let folder = Path::new(folder).to_owned();
    let (clouds, figures) = (folder.join("clouds.yaml"), folder.join("figures.json"));
    std::fs::write(&clouds, proxy::CLOUDS).with_context(|| clouds.display().to_string())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let told = runtime.block_on(async {
        let proxy = Proxy::start().await?;
        let bench = Bench { folder, venv: PathBuf::from(venv), clouds, proxy };
        let mut told = serde_json::Map::new();
        for part in parts {
            let (name, size) = part.split_once('=').context("a part is NAME=SIZE")?;
            let measured = measure(&bench, name, size.parse()?).await;
            told.insert(name.to_owned(), measured.with_context(|| name.to_owned())?);
        }
        anyhow::Ok(Value::Object(told))
    })?;
    Ok(std::fs::write(figures, told.to_string())?)
}

async fn measure(bench: &Bench, part: &str, size: u32) -> Result<Value> {
    println!("{part}");
    let before = Footprint::now()?;
    let told = match part {
        "lives" => {
            let mut sdk = Sdk::start(bench).await?;
            // The first server of a cloud waits until its host has fetched the image: that is nobody's time.
            life::lives(bench, &mut sdk, 1).await?;
            let mut toci = Toci::start(bench, "toci", 0).await?;
            let toci_told = life::lives(bench, &mut toci, size).await?;
            toci.end().await?;
            let sdk_told = life::lives(bench, &mut sdk, size).await?;
            sdk.end().await?;
            let mut nodepool = Nodepool::start(bench, 0).await?;
            let nodepool_told = life::lives(bench, &mut nodepool, size).await?;
            nodepool.end().await?;
            json!({"toci": toci_told, "openstacksdk": sdk_told, "nodepool": nodepool_told})
        }
        "ready" => {
            let mut toci = Toci::start(bench, "toci-ready", life::READY).await?;
            let toci_told = life::ready(&mut toci, size).await?;
            toci.end().await?;
            let mut nodepool = Nodepool::start(bench, life::READY).await?;
            let nodepool_told = life::ready(&mut nodepool, size).await?;
            nodepool.end().await?;
            json!({"toci": toci_told, "nodepool": nodepool_told})
        }
        "churn" => churn::churn(bench, size).await?,
        _ => bail!("there is no part {part}"),
    };
    before.is_restored(life::LIMIT)?;
    Ok(told)
}
