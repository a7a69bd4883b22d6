//! What all sections share: entries with a name and a project, references, addresses.

use super::ZONE_NAME_MAX_BYTES;
use crate::layout::fields::{Findings, Map, text};
use crate::layout::tree::{Mark, Node};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use toci_core::cloud::{ANYWHERE, Kind, Thing, ThingId, Value};

/// Collects things and errors.
#[derive(Debug)]
pub(super) struct Reader<'f> {
    pub(super) found: &'f mut Findings,
    /// Of what does not say its own.
    project: Option<String>,
    things: Vec<Thing>,
    lines: BTreeMap<ThingId, usize>,
}

/// One entry of a section.
#[derive(Debug)]
pub(super) struct Entry<'n> {
    pub(super) map: Map<'n>,
    pub(super) name: String,
    /// Where its name stands.
    pub(super) mark: Mark,
    pub(super) adopt: bool,
}

impl<'f> Reader<'f> {
    pub(super) fn new(found: &'f mut Findings, project: Option<String>) -> Reader<'f> {
        Reader { found, project, things: Vec::new(), lines: BTreeMap::new() }
    }

    /// Everything that was read; names of the zone stand for what the zone has by this name in the same project.
    pub(super) fn things(self) -> Vec<Thing> {
        let known = &self.lines;
        let mut things = self.things;
        for thing in &mut things {
            let own = thing.id.project.clone();
            let mut nearest = |named: &ThingId| {
                let near = ThingId::new(named.kind, &own, &named.name);
                let is_near = named.project == ANYWHERE && known.contains_key(&near);
                Ok::<ThingId, core::convert::Infallible>(if is_near { near } else { named.clone() })
            };
            for value in thing.fields.values_mut() {
                let Ok(resolved) = value.with_refs(&mut nearest);
                *value = resolved;
            }
        }
        things
    }

    /// The entries of a section: maps, or just names.
    pub(super) fn entries<'n>(
        &mut self,
        map: &Map<'n>,
        section: &str,
        keys: &[&str],
    ) -> Vec<Entry<'n>> {
        let nodes = map.list(section, self.found);
        nodes.into_iter().filter_map(|node| self.entry(node, section, keys)).collect()
    }

    pub(super) fn entry<'n>(
        &mut self,
        node: &'n Node,
        section: &str,
        keys: &[&str],
    ) -> Option<Entry<'n>> {
        let map = Map::of(node, section, self.found)?;
        let name = map.needed("name", self.found)?;
        let mark = map.get("name").map_or(node.mark, |name| name.mark);
        self.name(&name, mark, section);
        let map = Map { path: format!("{section} {name}"), ..map };
        let all: Vec<&str> = ["name", "adopt"].iter().chain(keys).copied().collect();
        map.known(&all, self.found);
        let adopt = map.truth("adopt", self.found).unwrap_or(false);
        Some(Entry { map, name, mark, adopt })
    }

    pub(super) fn name(&mut self, name: &str, mark: Mark, path: &str) {
        let good = (1..=ZONE_NAME_MAX_BYTES).contains(&name.len())
            && !name.chars().any(char::is_control)
            && name.trim() == name
            && name != ANYWHERE;
        if !good {
            let expected = format!("1 to {ZONE_NAME_MAX_BYTES} bytes without spaces around them");
            self.found.error(mark, path, format!("`{name}` cannot be a name"), expected);
        }
    }

    /// The project of an entry, or of the whole zone.
    pub(super) fn project(&mut self, map: &Map<'_>) -> String {
        if let Some(project) = map.text("project", self.found).or_else(|| self.project.clone()) {
            return project;
        }
        let expected = "a project's name, here or once for the whole zone";
        self.found.error(map.mark, &map.path, "`project` is missing", expected);
        String::new()
    }

    pub(super) fn add(&mut self, thing: Thing, mark: Mark) {
        if let Some(line) = self.lines.insert(thing.id.clone(), mark.line) {
            let what = format!("{} is there a second time, after line {line}", thing.id);
            self.found.error(mark, "", what, "each name once in its project");
            return;
        }
        self.things.push(thing);
    }

    /// A text that is one of a few.
    pub(super) fn word(&mut self, map: &Map<'_>, key: &str, words: &[&str]) -> Option<String> {
        let given = map.text(key, self.found)?;
        if words.contains(&given.as_str()) {
            return Some(given);
        }
        self.wrong(map, key, &format!("`{given}`"), &format!("one of {}", words.join(", ")));
        None
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, map: &Map<'_>, key: &str, min: i64) -> Option<i64> {
        let given = map.text(key, self.found)?;
        match given.parse::<i64>() {
            Ok(number) if number >= min && number <= i64::from(i32::MAX) => Some(number),
            Ok(_) | Err(_) => {
                let what = if min == -1 { " (-1: no limit)" } else { "" };
                let expected = format!("a whole number from {min} on{what}");
                self.wrong(map, key, &format!("`{given}`"), &expected);
                None
            }
        }
    }

    /// An error about the value of a key.
    pub(super) fn wrong(&mut self, map: &Map<'_>, key: &str, what: &str, expected: &str) {
        let mark = map.get(key).map_or(map.mark, |node| node.mark);
        let path = if map.path.is_empty() { key.to_owned() } else { format!("{}.{key}", map.path) };
        self.found.error(mark, &path, what, expected);
    }

    /// The name of a network, router… that may be in any project, in the zone or not.
    pub(super) fn anywhere(&mut self, map: &Map<'_>, key: &str, kind: Kind) -> Option<Value> {
        let name = map.text(key, self.found)?;
        Some(Value::Ref(ThingId::new(kind, ANYWHERE, name)))
    }

    /// The name of something that belongs to no project.
    pub(super) fn global(&mut self, map: &Map<'_>, key: &str, kind: Kind) -> Option<Value> {
        let name = map.text(key, self.found)?;
        Some(Value::Ref(ThingId::global(kind, name)))
    }

    /// One address.
    pub(super) fn address(&mut self, map: &Map<'_>, key: &str) -> Option<IpAddr> {
        let node = map.get(key)?;
        self.address_of(node, &format!("{}.{key}", map.path))
    }

    pub(super) fn address_of(&mut self, node: &Node, path: &str) -> Option<IpAddr> {
        let given = text(node, path, self.found)?;
        let address = given.parse().ok();
        if address.is_none() {
            let what = format!("`{given}` is no address");
            self.found.error(node.mark, path, what, "an address such as 172.16.3.254");
        }
        address
    }

    /// A network such as `172.16.0.0/22`.
    pub(super) fn cidr_of(&mut self, node: &Node, path: &str) -> Option<Cidr> {
        let given = text(node, path, self.found)?;
        let cidr = Cidr::parse(&given);
        if cidr.is_none() {
            let what = format!("`{given}` is no network");
            let expected = "a network such as 172.16.0.0/22, with nothing behind its prefix";
            self.found.error(node.mark, path, what, expected);
        }
        cidr
    }

    /// A path, or `file://` and a path.
    pub(super) fn path(&mut self, map: &Map<'_>, key: &str) -> Option<PathBuf> {
        let given = map.text(key, self.found)?;
        let path = given.strip_prefix("file://").unwrap_or(&given);
        if path.is_empty() || path.contains("://") {
            self.wrong(map, key, &format!("`{given}`"), "a file on this machine");
            return None;
        }
        Some(PathBuf::from(path))
    }
}

/// A network's address with its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cidr {
    pub(super) address: IpAddr,
    pub(super) prefix: u32,
}

impl Cidr {
    /// Nothing may stand behind the prefix: OpenStack would cut it off, and what is there would never be what is wished.
    pub(super) fn parse(text: &str) -> Option<Cidr> {
        let (address, prefix) = text.split_once('/')?;
        let cidr = Cidr { address: address.parse().ok()?, prefix: prefix.parse().ok()? };
        let fits = cidr.prefix <= if cidr.address.is_ipv4() { 32 } else { 128 };
        (fits && cidr.first() == cidr.address).then_some(cidr)
    }

    fn first(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
            }
        }
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Cidr { address, ..self }.first() == self.address
    }

    pub(super) fn version(self) -> i64 {
        if self.address.is_ipv4() { 4 } else { 6 }
    }
}

impl core::fmt::Display for Cidr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
