//! Load of the flow benchmark (`cargo xtask bench flow`): a real server with plain git repositories and sandboxes on this
//! machine. Each mode prints one line of JSON.
//!
//! ```text
//! flow_load serve FOLDER API-ADDRESS NODES     the server, with what it needs
//! flow_load lines ADDRESS FOLDER TIMES         one change after the other: when its job's lines are seen
//! flow_load burst ADDRESS FOLDER CHANGES       all at once
//! ```

mod burst;
mod lines;
mod world;

use anyhow::{Result, bail};
use std::path::Path;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        match text.as_slice() {
            ["serve", folder, api, nodes] => {
                world::serve(Path::new(folder), api, nodes.parse()?).await
            }
            ["lines", address, folder, times] => {
                let printed = lines::run(address, Path::new(folder), times.parse()?).await?;
                println!("{printed}");
                Ok(())
            }
            ["burst", address, folder, changes] => {
                let printed = burst::run(address, Path::new(folder), changes.parse()?).await?;
                println!("{printed}");
                Ok(())
            }
            _ => bail!("see the head of crates/client/examples/flow_load/main.rs"),
        }
    })
}
