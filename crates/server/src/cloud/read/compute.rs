//! Flavors, key pairs, images, servers.

use super::identity::property;
use super::{Reading, described, each, fields, plain, text, thing};
use crate::cloud::api::{Api, ApiError, MARK_PROPERTY, Service};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use toci_core::cloud::{Kind, Owner, ThingId, Value};
use toci_wire::zone::normal_key;

pub(super) async fn flavors(api: &Api, reading: &mut Reading) -> Result<(), ApiError> {
    for json in api.list(Service::Compute, "flavors/detail?is_public=None", "flavors").await? {
        let id = ThingId::global(Kind::Flavor, text(&json, "name"));
        let mut found = thing(id, text(&json, "id"), described(&json));
        let names = ["vcpus", "ram", "disk", "os-flavor-access:is_public"];
        found.fields = fields(&json, &names);
        for (name, value) in json["extra_specs"].as_object().into_iter().flatten() {
            found.fields.insert(format!("extra_specs.{name}"), plain(value));
        }
        reading.add(found);
    }
    Ok(())
}

pub(super) async fn key_pairs(api: &Api, reading: &mut Reading) -> Result<(), ApiError> {
    for json in api.list(Service::Compute, "os-keypairs", "keypairs").await? {
        let json = &json["keypair"];
        let name = text(json, "name");
        let mut found = thing(ThingId::global(Kind::KeyPair, name), name, Owner::Nobody);
        let key = normal_key(text(json, "public_key")).map_or(Value::None, Value::Text);
        found.fields.insert("public_key".to_owned(), key);
        reading.add(found);
    }
    Ok(())
}

/// What Glance says of an image that is not a property.
const IMAGE_FIELDS: [&str; 5] =
    ["disk_format", "container_format", "visibility", "min_disk", "min_ram"];

pub(super) async fn images(api: &Api, reading: &mut Reading) -> Result<(), ApiError> {
    let all = api.list(Service::Image, "images", "images").await?;
    for json in &all {
        let id = ThingId::global(Kind::Image, text(json, "name"));
        reading.names.insert((Kind::Image, text(json, "id").to_owned()), id);
    }
    for json in &all {
        let id = ThingId::global(Kind::Image, text(json, "name"));
        let mut found = thing(id, text(json, "id"), property(json[MARK_PROPERTY].as_str()));
        found.fields = fields(json, &IMAGE_FIELDS);
        if let (Some(kind), Some(hash)) =
            (json["os_hash_algo"].as_str(), json["os_hash_value"].as_str())
        {
            found.fields.insert("content".to_owned(), Value::text(format!("{kind}:{hash}")));
        }
        for (name, value) in json.as_object().into_iter().flatten() {
            let value = match name.as_str() {
                "kernel_id" | "ramdisk_id" => reading.reference(Kind::Image, value.as_str()),
                _ => plain(value),
            };
            found.fields.insert(format!("properties.{name}"), value);
        }
        match text(json, "status") {
            "active" => {}
            "queued" | "saving" | "uploading" => found.unfinished = true,
            other => found.broken = Some(format!("it is {other} ({})", found.key)),
        }
        reading.add(found);
    }
    Ok(())
}

/// All servers that may be seen: of every project for an administrator, of the own one for others.
pub(super) async fn servers(api: &Api, reading: &mut Reading) -> Result<(), ApiError> {
    let all = api.list(Service::Compute, "servers/detail?all_tenants=1", "servers").await;
    let all = match all {
        Err(error) if error.status() == Some(403) => {
            api.list(Service::Compute, "servers/detail", "servers").await?
        }
        all => all?,
    };
    for json in &all {
        let found = server(json, reading);
        reading.add(found);
    }
    Ok(())
}

fn server(json: &Json, reading: &Reading) -> toci_core::cloud::FoundThing {
    let key = text(json, "id");
    let project = reading.project(text(json, "tenant_id"));
    let id = ThingId::new(Kind::Server, project, text(json, "name"));
    let mut found = thing(id, key, property(json["metadata"][MARK_PROPERTY].as_str()));
    let mut put = |name: &str, value| found.fields.insert(name.to_owned(), value);
    put("image", reading.reference(Kind::Image, json["image"]["id"].as_str()));
    let flavor = match (json["flavor"]["id"].as_str(), json["flavor"]["original_name"].as_str()) {
        (None, Some(name)) => Value::Ref(ThingId::global(Kind::Flavor, name)),
        (key, _) => reading.reference(Kind::Flavor, key),
    };
    put("flavor", flavor);
    put("key_name", reading.reference(Kind::KeyPair, json["key_name"].as_str()));
    let ports = reading.ports_of(key).map(|port| Value::Ref(port.clone()));
    put("ports", Value::Set(ports.collect::<BTreeSet<Value>>()));
    if text(json, "status") == "ERROR" {
        let fault = text(&json["fault"], "message");
        let fault = if fault.is_empty() { String::new() } else { format!(": {fault}") };
        found.broken = Some(format!("it is in ERROR{fault} ({key})"));
    }
    found
}

impl Reading {
    /// The ports that are plugged into something.
    fn ports_of<'r>(&'r self, device: &'r str) -> impl Iterator<Item = &'r ThingId> {
        let ports = self.found.things.iter().filter(|thing| thing.id.kind == Kind::Port);
        let here = Value::text(device);
        ports.filter(move |port| *port.field("device_id") == here).map(|port| &port.id)
    }
}

/// Texts of a list.
pub(super) fn texts(json: &Json, key: &str) -> Vec<Value> {
    each(json, key).filter_map(|entry| entry.as_str().map(Value::text)).collect()
}
