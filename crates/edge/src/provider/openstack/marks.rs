//! Marks of what is ours. Only what carries our own mark is ever changed or deleted.

use crate::openstack::{Server, Volume};
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;
use toci_core::hex::hex;

const OWNER: &str = "toci_owner";
const PROVIDER: &str = "toci_provider";
const NODE: &str = "toci_node";
const IMAGE: &str = "toci_image";

/// Which toci, and which of its providers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) owner: String,
    pub(super) provider: String,
}

impl Marks {
    /// Metadata of a node's server and volume.
    pub(super) fn metadata(&self, node: &str) -> BTreeMap<String, String> {
        [(OWNER, self.owner.as_str()), (PROVIDER, &self.provider), (NODE, node)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// The node that a server of ours is.
    pub(super) fn node_of_server<'s>(&self, server: &'s Server) -> Option<&'s str> {
        self.node_of_metadata(&server.metadata)
    }

    /// The node that a volume of ours belongs to.
    pub(super) fn node_of_volume<'v>(&self, volume: &'v Volume) -> Option<&'v str> {
        self.node_of_metadata(&volume.metadata)
    }

    fn node_of_metadata<'m>(&self, metadata: &'m BTreeMap<String, String>) -> Option<&'m str> {
        let is = |key: &str, value: &str| metadata.get(key).is_some_and(|v| v == value);
        let ours = is(OWNER, &self.owner) && is(PROVIDER, &self.provider);
        metadata.get(NODE).filter(|_| ours).map(String::as_str)
    }

    /// Description of a node's ports and floating IPs.
    pub(super) fn description(&self, node: &str) -> String {
        format!("toci:{}:{}:{node}", self.owner, self.provider)
    }

    /// The node that something with this description belongs to.
    pub(super) fn node_of<'d>(&self, description: &'d str) -> Option<&'d str> {
        let rest = description.strip_prefix("toci:")?.strip_prefix(self.owner.as_str())?;
        let node =
            rest.strip_prefix(':')?.strip_prefix(self.provider.as_str())?.strip_prefix(':')?;
        (!node.is_empty()).then_some(node)
    }

    /// The name of the key pair with this key. Key pairs have nothing but a name; Nova takes letters, digits, `_` and
    /// `-` in it.
    pub(super) fn key_pair(&self, public_key: &str) -> String {
        let hash = hex(digest(&SHA256, public_key.as_bytes()).as_ref());
        format!("{}{}", self.key_pairs(), &hash[..12])
    }

    /// How the names of all key pairs of ours begin.
    pub(super) fn key_pairs(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let provider: String = self.provider.chars().map(plain).collect();
        format!("toci_{}_{provider}_", self.owner)
    }

    /// Properties of an image of ours.
    pub(super) fn image(&self, id: &str) -> BTreeMap<String, String> {
        [(OWNER, self.owner.as_str()), (PROVIDER, &self.provider), (IMAGE, id)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// The query that finds all images of ours.
    pub(super) fn image_query(&self) -> [(&str, &str); 2] {
        [(OWNER, &self.owner), (PROVIDER, &self.provider)]
    }

    /// The id of an image of ours.
    pub(super) fn image_id<'i>(&self, image: &'i crate::openstack::Image) -> Option<&'i str> {
        let ours = image.property(OWNER) == Some(&self.owner)
            && image.property(PROVIDER) == Some(&self.provider);
        image.property(IMAGE).filter(|_| ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        Marks { owner: "0a1b".into(), provider: "hp1.a".into() }
    }

    fn server(metadata: BTreeMap<String, String>) -> Server {
        Server {
            id: "1".into(),
            name: "x".into(),
            status: "ACTIVE".into(),
            task: None,
            metadata,
            addresses: BTreeMap::new(),
            fault: None,
            zone: None,
            flavor: Default::default(),
            volumes: Vec::new(),
        }
    }

    #[test]
    fn only_our_own_marks_count() {
        let marks = marks();
        let others = [
            Marks { owner: "0a1c".into(), ..marks.clone() },
            Marks { provider: "hp1".into(), ..marks.clone() },
            Marks { owner: "0a1".into(), ..marks.clone() },
        ];
        let node = "debian-hp1.a-7";
        assert_eq!(marks.node_of_server(&server(marks.metadata(node))), Some(node));
        assert_eq!(marks.node_of(&marks.description(node)), Some(node));
        for other in &others {
            assert_eq!(marks.node_of_server(&server(other.metadata(node))), None);
            assert_eq!(marks.node_of(&other.description(node)), None, "{other:?}");
            assert_ne!(marks.key_pairs(), other.key_pairs());
        }
        assert_eq!(marks.node_of_server(&server(BTreeMap::new())), None);
        for text in ["", "toci:", "toci:0a1b:hp1.a:", "x toci:0a1b:hp1.a:n"] {
            assert_eq!(marks.node_of(text), None, "{text}");
        }
        let pair = marks.key_pair("ssh-ed25519 AAAA");
        assert!(pair.starts_with("toci_0a1b_hp1_a_") && pair.len() == 28, "{pair}");
    }
}
