//! Load generator of the lease benchmark (`cargo xtask bench lease`): clients that take and give
//! back as fast as they can, of our server over its HTTP API with simulated TE hosts, and of etcd
//! over its own. Prints one line of JSON.
//!
//! ```text
//! lease_load serve STATE API-ADDRESS           our server
//! lease_load toci ADDRESS TOKEN-FILE CLIENTS SECONDS
//! lease_load handover ADDRESS TOKEN-FILE TIMES
//! lease_load reclaim ADDRESS TOKEN-FILE
//! lease_load etcd ADDRESS CLIENTS SECONDS own|standing
//! ```

mod etcd;
mod figures;
mod hosts;
mod toci;

use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use toci_server::{Overrides, ServerConfig};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        match text.as_slice() {
            ["serve", state, api] => serve(state, api).await,
            ["toci", address, token, clients, seconds] => {
                let clients = clients.parse()?;
                toci::cycles(address, token, clients, seconds.parse()?).await
            }
            ["handover", address, token, times] => {
                toci::handover(address, token, times.parse()?).await
            }
            ["reclaim", address, token] => toci::reclaim(address, token).await,
            ["etcd", address, clients, seconds, kind] => {
                let own = *kind == "own";
                etcd::cycles(address, clients.parse()?, seconds.parse()?, own).await
            }
            _ => bail!("see the head of crates/client/examples/lease_load/main.rs"),
        }
    })
}

async fn serve(state: &str, api: &str) -> Result<()> {
    let flags = Overrides {
        state: Some(PathBuf::from(state)),
        listen: Some(api.parse().context("the API's address")?),
        socket: Some(PathBuf::from(state).join("socket")),
        gearman: Some("127.0.0.1:0".parse()?),
    };
    toci_server::run(ServerConfig::load(None, flags)?).await?;
    Ok(())
}
