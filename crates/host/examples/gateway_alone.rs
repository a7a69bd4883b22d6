//! A gateway on loopback with one TE whose machines only exist in memory: what `cargo xtask bench
//! copyseed` sends images to. Its only argument is a folder; there it leaves `key`, `known_hosts` and
//! `port`, and the image in `seed_1.qcow2`. It ends with its standard input.

#[path = "../tests/gateway/fake.rs"]
mod fake;

use anyhow::{Context as _, Result};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;
use toci_core::id::{Generation, LeaseId, TeId};
use toci_host::gateway::{Gateway, GatewayConfig, PublicKey, TeGrant};
use toci_host::te::LeaseKey;
use tokio::time::Instant;

/// No benchmark takes longer.
const OPEN_MAX: Duration = Duration::from_secs(3600);

#[tokio::main]
async fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).context("usage: gateway_alone FOLDER")?);
    let address = "127.0.0.1:0".parse().context("an address")?;
    let gateway = Gateway::start(GatewayConfig::new(address, &folder)).await?;
    let key = LeaseKey::new(1)?;
    let mut private = std::fs::File::options();
    let mut private = private
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(folder.join("key"))
        .context("write the key")?;
    std::io::Write::write_all(&mut private, key.private.as_bytes())?;
    gateway
        .open(TeGrant {
            te: TeId::new("bench-1").context("a name")?,
            generation: Generation(1),
            lease: LeaseId(1),
            key: PublicKey::from_line(&key.public)?,
            expires: Instant::now() + OPEN_MAX,
            machines: fake::Fake::new(1, folder.join("seed_1.qcow2")),
        })
        .await?;
    let port = gateway.address().port();
    let known = format!("[127.0.0.1]:{port} {}\n", gateway.host_key());
    std::fs::write(folder.join("known_hosts"), known).context("write known_hosts")?;
    // Last, and in one step: it says that all the others are there.
    std::fs::write(folder.join("port.new"), port.to_string()).context("write the port")?;
    std::fs::rename(folder.join("port.new"), folder.join("port")).context("rename the port")?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    gateway.shut_down().await;
    Ok(())
}
