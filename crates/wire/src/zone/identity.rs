//! Roles, projects, users, assignments, quotas.

use super::reader::Reader;
use crate::layout::fields::{Map, text};
use crate::layout::tree::{Kind as NodeKind, Mark};
use toci_core::cloud::{Kind, Local, Password, Thing, ThingId, Value};

/// Names in a zone file, and names of OpenStack's compute service.
const COMPUTE_QUOTAS: [(&str, &str); 7] = [
    ("cores", "cores"),
    ("ram-mib", "ram"),
    ("instances", "instances"),
    ("key-pairs", "key_pairs"),
    ("metadata-items", "metadata_items"),
    ("server-groups", "server_groups"),
    ("server-group-members", "server_group_members"),
];

/// Names in a zone file, and names of OpenStack's network service.
const NETWORK_QUOTAS: [(&str, &str); 8] = [
    ("networks", "network"),
    ("subnets", "subnet"),
    ("ports", "port"),
    ("routers", "router"),
    ("floating-ips", "floatingip"),
    ("security-groups", "security_group"),
    ("security-group-rules", "security_group_rule"),
    ("subnet-pools", "subnetpool"),
];

pub(super) fn read(map: &Map<'_>, reader: &mut Reader<'_>) {
    named(map, "roles", Kind::Role, reader);
    named(map, "projects", Kind::Project, reader);
    users(map, reader);
    assignments(map, reader);
    quotas(map, reader);
}

/// Things that are hardly more than a name: a text will do.
fn named(map: &Map<'_>, section: &str, kind: Kind, reader: &mut Reader<'_>) {
    for node in map.list(section, reader.found) {
        if let NodeKind::Scalar { text, .. } = &node.kind {
            reader.name(text, node.mark, section);
            reader.add(Thing::new(ThingId::global(kind, text)), node.mark);
        } else if let Some(entry) = reader.entry(node, section, &[]) {
            let thing = Thing::new(ThingId::global(kind, entry.name));
            reader.add(Thing { adopt: entry.adopt, ..thing }, entry.mark);
        }
    }
}

fn users(map: &Map<'_>, reader: &mut Reader<'_>) {
    let keys = ["project", "email", "password-file", "password-env", "password", "roles"];
    for entry in reader.entries(map, "users", &keys) {
        let map = &entry.map;
        if map.get("password").is_some() {
            let expected = "`password-file` or `password-env`";
            reader.wrong(map, "password", "passwords do not belong into this file", expected);
        }
        let file = reader.path(map, "password-file").map(Password::File);
        let variable = map.text("password-env", reader.found).map(Password::Environment);
        let password = match (file, variable) {
            (Some(password), None) | (None, Some(password)) => Some(password),
            (None, None) if entry.adopt => None,
            (file, _) => {
                let what = if file.is_some() { "two passwords" } else { "no password" };
                reader.wrong(map, "", what, "one of `password-file` and `password-env`");
                None
            }
        };
        let mut thing = Thing::new(ThingId::global(Kind::User, &entry.name));
        thing.adopt = entry.adopt;
        thing.local = password.map(Local::Password);
        if let Some(email) = map.text("email", reader.found) {
            thing = thing.with("email", Value::text(email));
        }
        let roles = map.texts(&["roles"], reader.found);
        if map.get("project").is_some() || !roles.is_empty() {
            let project = reader.project(map);
            let reference = Value::Ref(ThingId::global(Kind::Project, &project));
            thing = thing.with("default_project_id", reference);
            for role in roles {
                assign(&entry.name, &role, &project, entry.mark, reader);
            }
        }
        reader.add(thing, entry.mark);
    }
}

fn assignments(map: &Map<'_>, reader: &mut Reader<'_>) {
    for node in map.list("assignments", reader.found) {
        let Some(one) = Map::of(node, "assignments", reader.found) else { continue };
        one.known(&["user", "role", "project"], reader.found);
        let user = one.needed("user", reader.found);
        let role = one.needed("role", reader.found);
        let project = reader.project(&one);
        if let (Some(user), Some(role)) = (user, role) {
            assign(&user, &role, &project, node.mark, reader);
        }
    }
}

fn assign(user: &str, role: &str, project: &str, mark: Mark, reader: &mut Reader<'_>) {
    let reference = |kind, name: &str| Value::Ref(ThingId::global(kind, name));
    let thing = Thing::new(ThingId::new(Kind::Assignment, project, format!("{user} as {role}")))
        .with("user", reference(Kind::User, user))
        .with("role", reference(Kind::Role, role));
    reader.add(thing, mark);
}

fn quotas(map: &Map<'_>, reader: &mut Reader<'_>) {
    for node in map.list("quotas", reader.found) {
        let Some(one) = Map::of(node, "quotas", reader.found) else { continue };
        one.known(&["project", "compute", "network"], reader.found);
        let project = reader.project(&one);
        let mut thing = Thing::new(ThingId::new(Kind::Quota, &project, "limits"));
        for (section, names) in [("compute", &COMPUTE_QUOTAS[..]), ("network", &NETWORK_QUOTAS)] {
            let path = format!("quotas {project}.{section}");
            let Some(node) = one.get(section) else { continue };
            let Some(limits) = Map::of(node, &path, reader.found) else { continue };
            let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            limits.known(&known, reader.found);
            for (name, theirs) in names {
                if let Some(limit) = reader.number(&limits, name, -1) {
                    thing = thing.with(&format!("{section}.{theirs}"), Value::Number(limit));
                }
            }
        }
        reader.add(thing, node.mark);
    }
}

/// Pairs of texts.
pub(super) fn pairs(map: &Map<'_>, key: &str, reader: &mut Reader<'_>) -> Vec<(String, String)> {
    let path = format!("{}.{key}", map.path);
    let Some(one) = map.get(key).and_then(|node| Map::of(node, &path, reader.found)) else {
        return Vec::new();
    };
    let entries = one.entries.iter();
    entries.filter_map(|(k, _, node)| Some((k.clone(), text(node, &path, reader.found)?))).collect()
}
