//! Flavors, key pairs, images, servers.

use super::identity::pairs;
use super::network::port;
use super::reader::{Entry, Reader};
use crate::layout::fields::Map;
use crate::layout::tree::Kind as NodeKind;
use toci_core::cloud::{ANYWHERE, Kind, Local, Thing, ThingId, Value};

const DISK_FORMATS: [&str; 9] = ["qcow2", "raw", "iso", "ami", "ari", "aki", "vmdk", "vhd", "vhdx"];
const CONTAINER_FORMATS: [&str; 5] = ["bare", "ami", "ari", "aki", "ovf"];
const VISIBILITIES: [&str; 4] = ["public", "private", "shared", "community"];

pub(super) fn flavors(map: &Map<'_>, reader: &mut Reader<'_>) {
    let keys = ["vcpus", "ram-mib", "disk-gib", "public", "extra-specs"];
    for entry in reader.entries(map, "flavors", &keys) {
        let mut thing = Thing::new(ThingId::global(Kind::Flavor, &entry.name));
        thing.adopt = entry.adopt;
        for (key, field, min) in
            [("vcpus", "vcpus", 1), ("ram-mib", "ram", 1), ("disk-gib", "disk", 0)]
        {
            if entry.map.get(key).is_none() {
                reader.wrong(&entry.map, key, "it is missing", "a whole number");
            }
            if let Some(number) = reader.number(&entry.map, key, min) {
                thing = thing.with(field, Value::Number(number));
            }
        }
        let public = entry.map.truth("public", reader.found).unwrap_or(true);
        thing = thing.with("os-flavor-access:is_public", Value::Truth(public));
        for (name, value) in pairs(&entry.map, "extra-specs", reader) {
            thing = thing.with(&format!("extra_specs.{name}"), Value::Text(value));
        }
        reader.add(thing, entry.mark);
    }
}

pub(super) fn key_pairs(map: &Map<'_>, reader: &mut Reader<'_>) {
    for entry in reader.entries(map, "key-pairs", &["public-key", "public-key-file"]) {
        let mut thing = Thing::new(ThingId::global(Kind::KeyPair, &entry.name));
        let key = entry.map.text("public-key", reader.found);
        let file = reader.path(&entry.map, "public-key-file");
        match (key, file) {
            (Some(key), None) => match normal_key(&key) {
                Some(key) => thing = thing.with("public_key", Value::Text(key)),
                None => {
                    let expected = "one line as in a `.pub` file of ssh-keygen";
                    reader.wrong(&entry.map, "public-key", "this is no public key", expected);
                }
            },
            (None, Some(file)) => thing.local = Some(Local::PublicKey(file)),
            (key, _) => {
                let what = if key.is_some() { "two keys" } else { "no key" };
                let expected = "one of `public-key` and `public-key-file`";
                reader.wrong(&entry.map, "", what, expected);
            }
        }
        reader.add(thing, entry.mark);
    }
}

/// A public key's kind and value, without its comment; absent when it is no key.
#[must_use]
pub fn normal_key(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let (kind, value) = (words.next()?, words.next()?);
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let known = ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| kind.starts_with(prefix));
    (known && value.len() > 16 && value.chars().all(base64)).then(|| format!("{kind} {value}"))
}

pub(super) fn images(map: &Map<'_>, reader: &mut Reader<'_>) {
    let keys = [
        "file",
        "disk-format",
        "container-format",
        "visibility",
        "min-disk-gib",
        "min-ram-mib",
        "kernel",
        "ramdisk",
        "properties",
    ];
    for entry in reader.entries(map, "images", &keys) {
        let (map, adopt) = (&entry.map, entry.adopt);
        let mut thing = Thing { adopt, ..Thing::new(ThingId::global(Kind::Image, &entry.name)) };
        match reader.path(map, "file") {
            Some(file) => thing.local = Some(Local::Content(file)),
            None if map.get("file").is_some() => {}
            None => reader.wrong(map, "file", "`file` is missing", "a file on this machine"),
        }
        for (key, words, default) in [
            ("disk-format", &DISK_FORMATS[..], Some("qcow2")),
            ("container-format", &CONTAINER_FORMATS, Some("bare")),
            ("visibility", &VISIBILITIES, None),
        ] {
            let word = reader.word(map, key, words).or(default.map(str::to_owned));
            if let Some(word) = word {
                thing = thing.with(&key.replace('-', "_"), Value::Text(word));
            }
        }
        for (key, field) in [("min-disk-gib", "min_disk"), ("min-ram-mib", "min_ram")] {
            if let Some(number) = reader.number(map, key, 0) {
                thing = thing.with(field, Value::Number(number));
            }
        }
        for (key, field) in [("kernel", "kernel_id"), ("ramdisk", "ramdisk_id")] {
            if let Some(image) = reader.global(map, key, Kind::Image) {
                thing = thing.with(&format!("properties.{field}"), image);
            }
        }
        for (name, value) in pairs(map, "properties", reader) {
            thing = thing.with(&format!("properties.{name}"), Value::Text(value));
        }
        reader.add(thing, entry.mark);
    }
}

const SERVER_KEYS: [&str; 9] = [
    "project",
    "image",
    "flavor",
    "key-pair",
    "networks",
    "floating-ip",
    "user-data-file",
    "config-drive",
    "availability-zone",
];

pub(super) fn servers(map: &Map<'_>, reader: &mut Reader<'_>) {
    for entry in reader.entries(map, "servers", &SERVER_KEYS) {
        server(&entry, reader);
    }
}

fn server(entry: &Entry<'_>, reader: &mut Reader<'_>) {
    let map = &entry.map;
    let project = reader.project(map);
    let mut thing = Thing::new(ThingId::new(Kind::Server, &project, &entry.name));
    thing.adopt = entry.adopt;
    for (key, kind, needed) in [
        ("image", Kind::Image, true),
        ("flavor", Kind::Flavor, true),
        ("key-pair", Kind::KeyPair, false),
    ] {
        let field = if kind == Kind::KeyPair { "key_name" } else { key };
        match reader.global(map, key, kind) {
            Some(value) => thing = thing.with(field, value),
            None if needed && map.get(key).is_none() => {
                reader.wrong(map, key, &format!("`{key}` is missing"), "its name");
            }
            None => {}
        }
    }
    thing.local = reader.path(map, "user-data-file").map(Local::UserData);
    if let Some(drive) = map.truth("config-drive", reader.found) {
        thing = thing.with("config_drive", Value::Truth(drive));
    }
    if let Some(zone) = map.text("availability-zone", reader.found) {
        thing = thing.with("availability_zone", Value::Text(zone));
    }
    let ports = legs(entry, &project, reader);
    if let (Some(to), Some(first)) = (map.get("floating-ip"), ports.first()) {
        let path = format!("{}.floating-ip", map.path);
        let mut floating = Thing::new(ThingId::new(Kind::FloatingIp, &project, &entry.name))
            .with("port_id", first.clone());
        if let NodeKind::Scalar { text, .. } = &to.kind {
            let network = ThingId::new(Kind::Network, ANYWHERE, text);
            floating = floating.with("floating_network_id", Value::Ref(network));
        } else if let Some(one) = Map::of(to, &path, reader.found) {
            one.known(&["network", "address"], reader.found);
            match reader.anywhere(&one, "network", Kind::Network) {
                Some(network) => floating = floating.with("floating_network_id", network),
                None => reader.wrong(&one, "network", "`network` is missing", "its name"),
            }
            if let Some(address) = reader.address(&one, "address") {
                floating = floating.with("floating_ip_address", Value::text(address.to_string()));
            }
        }
        reader.add(floating, to.mark);
    }
    // In which order they are plugged in counts when it is made; the cloud does not tell it afterwards.
    thing = thing.with("nics", Value::List(ports.clone()));
    thing = thing.with("ports", Value::Set(ports.into_iter().collect()));
    reader.add(thing, entry.mark);
}

/// A port for each network of a server, called after both.
fn legs(entry: &Entry<'_>, project: &str, reader: &mut Reader<'_>) -> Vec<Value> {
    let nodes = entry.map.several(&["networks"]);
    if nodes.is_empty() {
        reader.wrong(&entry.map, "networks", "it has no network", "at least one");
    }
    let mut ports = Vec::new();
    for node in nodes {
        let path = format!("{}.networks", entry.map.path);
        let name = |network: &str| format!("{}-{network}", entry.name);
        if let NodeKind::Scalar { text, .. } = &node.kind {
            let id = ThingId::new(Kind::Port, project, name(text));
            let network = Value::Ref(ThingId::new(Kind::Network, ANYWHERE, text));
            reader.add(Thing::new(id.clone()).with("network_id", network), node.mark);
            ports.push(Value::Ref(id));
        } else if let Some(one) = Map::of(node, &path, reader.found) {
            let Some(network) = one.needed("network", reader.found) else { continue };
            let id = ThingId::new(Kind::Port, project, name(&network));
            let thing = port(Thing::new(id.clone()), &one, &[], reader);
            reader.add(thing, node.mark);
            ports.push(Value::Ref(id));
        }
    }
    ports
}
