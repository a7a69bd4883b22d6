//! Bare metal: Ironic, and a second nova-compute whose servers are its machines. It is there for the tests that ask for it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use crate::{Api, wait_for};

/// The network that machines boot on, the first of their two cards.
pub const METAL_NETWORK: &str = "metal";
/// What a server on a machine is called as a flavor.
pub const METAL_FLAVOR: &str = "metal";
/// Longest wait until a machine that was given back can be had again.
const FREE_LIMIT: Duration = Duration::from_secs(120);

/// Machines that Nova may give to servers; dropped, they are gone, with their services, network and flavor.
#[derive(Debug)]
pub struct BareMetal(());

impl BareMetal {
    /// So many machines. It takes about 20 s.
    ///
    /// # Errors
    /// What did not come up.
    pub fn start(machines: u32) -> Result<BareMetal> {
        let metal = BareMetal(());
        run(&["up", &machines.to_string()])?;
        Ok(metal)
    }

    /// Waits until every machine is as it was at the start: off, nobody's, to be had by anybody.
    ///
    /// # Errors
    /// What Ironic says of them.
    pub fn is_free(&self) -> Result<()> {
        let admin = Api::admin()?;
        wait_for("the machines to be free", FREE_LIMIT, || {
            let path = "/v1/nodes?fields=name,provision_state,power_state,instance_uuid,last_error";
            let answer = admin.get("baremetal", path)?;
            let nodes = answer["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_free = |node: &Value| {
                node["provision_state"] == "available"
                    && node["power_state"] == "power off"
                    && node["instance_uuid"].is_null()
            };
            ensure!(!nodes.is_empty() && nodes.iter().all(is_free), "{answer}");
            Ok(())
        })
    }
}

impl Drop for BareMetal {
    fn drop(&mut self) {
        if let Err(why) = run(&["down"]) {
            eprintln!("bare metal is left behind: {why:#}");
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stack/metal.sh");
    let output = Command::new(script).args(arguments).output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if !output.status.success() {
        bail!("metal.sh {arguments:?}: {}", said.trim());
    }
    println!("{}", said.trim());
    Ok(())
}
