//! How machines, volumes and images are called on libvirt's host, and what follows from what is found there.

use std::collections::BTreeSet;

/// Machines of nodes begin with this.
const NODE: &str = "toci-node-";
const IMAGE: &str = "toci-image-";
const OWNER: &str = "toci-owner-";

/// What belongs to a machine besides itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Its disk, a layer over the image.
    Disk,
    /// The disk with its keys.
    Seed,
    /// What it says on its serial console.
    Console,
}

impl Part {
    fn suffix(self) -> &'static str {
        match self {
            Part::Disk => ".qcow2",
            Part::Seed => ".seed",
            Part::Console => ".console",
        }
    }
}

/// The machine of a node.
pub(super) fn domain(node: &str) -> String {
    format!("{NODE}{node}")
}

/// The node of a machine.
pub(super) fn node(domain: &str) -> Option<&str> {
    domain.strip_prefix(NODE).filter(|node| !node.is_empty())
}

/// A volume of a node.
pub(super) fn volume(node: &str, part: Part) -> String {
    format!("{NODE}{node}{}", part.suffix())
}

/// The node that a volume belongs to; virtlogd keeps older consoles as `.console.0` and so on.
pub(super) fn node_of_volume(volume: &str) -> Option<&str> {
    let rest = node(volume)?;
    let rest = match rest.rsplit_once('.') {
        Some((before, number))
            if before.ends_with(Part::Console.suffix())
                && number.bytes().all(|b| b.is_ascii_digit()) =>
        {
            before
        }
        Some(_) | None => rest,
    };
    let parts = [Part::Disk, Part::Seed, Part::Console];
    parts.iter().find_map(|part| rest.strip_suffix(part.suffix()))
}

/// The volume of an image.
pub(super) fn image_volume(image: &str) -> String {
    format!("{IMAGE}{image}.qcow2")
}

/// The image of a volume.
pub(super) fn image_of_volume(volume: &str) -> Option<&str> {
    volume.strip_prefix(IMAGE)?.strip_suffix(".qcow2")
}

/// The volume that says whose the folder is.
pub(super) fn owner_volume(owner: &str) -> String {
    format!("{OWNER}{owner}")
}

/// Whose a folder is.
pub(super) fn owner_of(volumes: &[String]) -> Option<&str> {
    volumes.iter().find_map(|volume| volume.strip_prefix(OWNER))
}

/// The machine that a provider tries an image with.
pub(super) fn test_node(provider: &str, image: &str) -> String {
    format!("image.{provider}.{image}")
}

/// What was found on libvirt's host.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Machines that run.
    pub(super) running: BTreeSet<String>,
    /// All machines of nodes that are ours.
    pub(super) ours: BTreeSet<String>,
    /// Volumes in our folder.
    pub(super) volumes: Vec<String>,
}

impl Found {
    /// The nodes that are there. One that somebody remembers is there when its machine runs; of one that nobody does,
    /// whatever is left counts, so that it is removed.
    pub(super) fn nodes(
        &self,
        known: &BTreeSet<String>,
        tests: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let machines = self.ours.iter().filter_map(|domain| {
            let node = node(domain)?;
            (self.running.contains(domain) || !known.contains(node)).then_some(node)
        });
        let remains = self.volumes.iter().filter_map(|volume| node_of_volume(volume));
        machines
            .chain(remains.filter(|node| !known.contains(*node)))
            .filter(|node| !tests.contains(*node))
            .map(str::to_owned)
            .collect()
    }

    /// Volumes of a node.
    pub(super) fn volumes_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a String> {
        self.volumes.iter().filter(move |volume| node_of_volume(volume) == Some(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_are_found_again() {
        for part in [Part::Disk, Part::Seed, Part::Console] {
            assert_eq!(node_of_volume(&volume("x.seed-p-1", part)), Some("x.seed-p-1"));
        }
        assert_eq!(node_of_volume("toci-node-x-1.console.12"), Some("x-1"));
        assert_eq!(node_of_volume("toci-node-x-1.12"), None);
        assert_eq!(node_of_volume("x-1.qcow2"), None);
        assert_eq!(image_of_volume(&image_volume("debian-ab-1")), Some("debian-ab-1"));
        assert_eq!(node(&domain("a")), Some("a"));
        assert_eq!(node("toci-node-"), None);
        assert_eq!(owner_of(&["x".into(), owner_volume("77")]), Some("77"));
    }

    #[test]
    fn what_is_there_and_what_is_left_over() {
        let found = Found {
            running: set(&["toci-node-runs", "toci-node-alien", "toci-node-image.i", "vm"]),
            ours: set(&["toci-node-runs", "toci-node-alien", "toci-node-off", "toci-node-image.i"]),
            volumes: ["runs.qcow2", "off.seed", "crashed.qcow2", "begun.seed", "old.console.3"]
                .map(|v| format!("toci-node-{v}"))
                .into(),
        };
        // `off` is known and does not run: it is lost. `begun` is being made: its machine is not there yet.
        let known = set(&["runs", "off", "begun"]);
        let expected = set(&["runs", "alien", "crashed", "old"]);
        assert_eq!(found.nodes(&known, &set(&["image.i"])), expected);
        // After a restart that forgot all of it, all of it is alien.
        assert_eq!(found.nodes(&set(&[]), &set(&[])).len(), 7);
        assert_eq!(found.volumes_of("off").count(), 1);
    }
}
