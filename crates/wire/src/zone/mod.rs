//! A zone file: what should be in one cloud, from YAML to [`toci_core::cloud::Zone`]. docs/cloud.md describes every key.
//!
//! ```text
//!   text ─▶ tree (every node knows its line and column) ─▶ readers, one for each kind of section ─▶ Zone
//!                                                            └─▶ every error, with its place and what was expected
//! ```

mod compute;
mod identity;
mod network;
mod reader;
#[cfg(test)]
mod tests;

pub use crate::layout::LayoutError as ZoneError;
pub use compute::normal_key;

use crate::layout::fields::{Findings, Map};
use crate::layout::tree;
use reader::Reader;
use toci_core::cloud::{Mark, Zone};

/// Longest zone file, in bytes.
pub const ZONE_FILE_MAX_BYTES: usize = 1 << 20;
/// Values in a zone file at most, those that aliases repeat included.
pub const ZONE_VALUES_MAX: usize = 100_000;
/// Longest name in a zone, in bytes: what OpenStack keeps.
pub const ZONE_NAME_MAX_BYTES: usize = 255;

/// What a zone file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneFile {
    /// The cloud by its name in clouds.yaml; without one the `OS_*` of the environment count.
    pub cloud: Option<String>,
    /// What should be there.
    pub zone: Zone,
}

const KEYS: &[&str] = &[
    "cloud",
    "owner",
    "project",
    "roles",
    "projects",
    "users",
    "assignments",
    "quotas",
    "flavors",
    "key-pairs",
    "images",
    "networks",
    "routers",
    "security-groups",
    "ports",
    "servers",
];

/// Reads a zone file; `file` is named in errors, of which there is at least one when there is no zone.
pub fn read(file: &str, text: &str) -> Result<ZoneFile, Vec<ZoneError>> {
    let mut found = Findings::new(file);
    let limits = tree::Limits { bytes: ZONE_FILE_MAX_BYTES, nodes: ZONE_VALUES_MAX };
    let zone = match tree::parse(text, limits) {
        Ok(root) => read_root(&root, &mut found),
        Err((mark, what)) => {
            found.error(mark, "", what, "YAML");
            None
        }
    };
    match zone {
        Some(zone) if found.errors.is_empty() => Ok(zone),
        Some(_) | None => Err(found.errors),
    }
}

fn read_root(root: &tree::Node, found: &mut Findings) -> Option<ZoneFile> {
    let map = Map::of(root, "", found)?;
    map.known(KEYS, found);
    let owner = map.needed("owner", found)?;
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if owner.is_empty() || owner.len() > 64 || !owner.chars().all(word) {
        let mark = map.get("owner").map_or(map.mark, |node| node.mark);
        let expected = "1 to 64 of a-z A-Z 0-9 . _ -: it becomes part of the mark";
        found.error(mark, "owner", format!("`{owner}` cannot be an owner"), expected);
    }
    let cloud = map.text("cloud", found);
    let project = map.text("project", found);
    let mut reader = Reader::new(found, project);
    identity::read(&map, &mut reader);
    compute::flavors(&map, &mut reader);
    compute::key_pairs(&map, &mut reader);
    compute::images(&map, &mut reader);
    network::read(&map, &mut reader);
    compute::servers(&map, &mut reader);
    let things = reader.things();
    Some(ZoneFile { cloud, zone: Zone { mark: Mark::of(&owner), things } })
}
