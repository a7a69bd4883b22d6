//! What the tenant `ci` has in the cloud: a test leaves as much as it found.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::{Api, wait_for};

/// Everything of the tenant that counts as a trace, as lines `kind name id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint(BTreeSet<String>);

/// Kinds of things: service, path, name of the list in the answer.
const KINDS: [(&str, &str, &str); 8] = [
    ("compute", "/servers/detail", "servers"),
    ("network", "/ports", "ports"),
    ("network", "/floatingips", "floatingips"),
    ("network", "/networks", "networks"),
    ("network", "/routers", "routers"),
    ("network", "/security-groups", "security_groups"),
    ("image", "/images?limit=500", "images"),
    ("volumev3", "/volumes", "volumes"),
];

/// Deletes the key pairs of a node provider of this owner, which it keeps for its next node.
///
/// # Errors
/// The cloud does not answer.
pub fn forget_key_pairs(owner: &str) -> Result<()> {
    let ci = Api::ci()?;
    for pair in ci.get("compute", "/os-keypairs")?["keypairs"].as_array().into_iter().flatten() {
        let name = pair["keypair"]["name"].as_str().unwrap_or_default();
        if name.starts_with(&format!("toci_{owner}_")) {
            ci.delete("compute", &format!("/os-keypairs/{name}"))?;
        }
    }
    Ok(())
}

impl Footprint {
    /// As it is now.
    ///
    /// # Errors
    /// The cloud does not answer.
    pub fn now() -> Result<Footprint> {
        let ci = Api::ci()?;
        let mut found = BTreeSet::new();
        for (service, path, kind) in KINDS {
            // There are volumes only while a test has them.
            if !ci.has(service) {
                continue;
            }
            for item in ci.get(service, path)?[kind].as_array().into_iter().flatten() {
                // Routers' and DHCP's own ports come and go by themselves.
                let own = item["device_owner"].as_str().unwrap_or_default();
                if !own.starts_with("network:") {
                    let name = item["name"].as_str().unwrap_or_default();
                    found.insert(format!("{kind} {name:?} {}", item["id"]));
                }
            }
        }
        for item in ci.get("compute", "/os-keypairs")?["keypairs"].as_array().into_iter().flatten()
        {
            found.insert(format!("keypairs {}", item["keypair"]["name"]));
        }
        Ok(Footprint(found))
    }

    /// Waits until the tenant has what it had then, no more and no less.
    ///
    /// # Errors
    /// Names what is left or missing when `limit` has passed.
    pub fn is_restored(&self, limit: Duration) -> Result<()> {
        wait_for("the cloud to be as before", limit, || {
            let now = Footprint::now()?;
            let left: Vec<_> = now.0.difference(&self.0).collect();
            let missing: Vec<_> = self.0.difference(&now.0).collect();
            if left.is_empty() && missing.is_empty() {
                return Ok(());
            }
            bail!("left behind: {left:?}; missing: {missing:?}");
        })
    }
}
