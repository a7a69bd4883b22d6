//! What is in the cloud, as things.

mod compute;
mod identity;
mod network;

use super::api::{Api, ApiError};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use toci_core::cloud::{Found, FoundThing, Kind, Mark, Owner, ThingId, Value, Zone};

/// What was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) found: Found,
    /// Names of things by what the cloud knows them by.
    names: HashMap<(Kind, String), ThingId>,
    /// The domain of projects and users.
    pub(super) domain: String,
}

/// Reads everything that a zone may be about: also what this one does not name may be ours. Who is no administrator sees
/// less, which is enough for a zone without users.
pub(super) async fn read(api: &Api, zone: &Zone) -> Result<Reading, ApiError> {
    let mut reading = Reading::default();
    identity::projects(api, &mut reading).await?;
    let has = |kinds: &[Kind]| zone.things.iter().any(|thing| kinds.contains(&thing.id.kind));
    let is_needed = has(&[Kind::Role, Kind::User, Kind::Assignment]);
    match identity::users(api, zone, &mut reading).await {
        Err(error) if error.status() == Some(403) && !is_needed => {}
        read => read?,
    }
    identity::quotas(api, zone, &mut reading).await?;
    compute::flavors(api, &mut reading).await?;
    compute::key_pairs(api, &mut reading).await?;
    compute::images(api, &mut reading).await?;
    network::read(api, zone, &mut reading).await?;
    compute::servers(api, &mut reading).await?;
    network::floating_ips(api, &mut reading).await?;
    Ok(reading)
}

impl Reading {
    /// What something is called; its key where nobody has told.
    fn name(&self, kind: Kind, key: &str) -> ThingId {
        let known = self.names.get(&(kind, key.to_owned()));
        known.cloned().unwrap_or_else(|| ThingId::new(kind, "", key))
    }

    /// The name of a project.
    fn project(&self, key: &str) -> String {
        self.name(Kind::Project, key).name
    }

    /// A reference by a key, none by an empty one.
    fn reference(&self, kind: Kind, key: Option<&str>) -> Value {
        match key {
            Some(key) if !key.is_empty() => Value::Ref(self.name(kind, key)),
            Some(_) | None => Value::None,
        }
    }

    fn add(&mut self, thing: FoundThing) {
        self.names.insert((thing.id.kind, thing.key.clone()), thing.id.clone());
        self.found.things.push(thing);
    }

    fn owner(&self, id: &ThingId) -> Owner {
        self.found.all(id).next().map_or(Owner::Nobody, |thing| thing.owner.clone())
    }
}

fn thing(id: ThingId, key: &str, owner: Owner) -> FoundThing {
    let key = key.to_owned();
    FoundThing { id, key, fields: BTreeMap::new(), owner, broken: None, unfinished: false }
}

/// A text of an object, empty where there is none.
fn text<'j>(json: &'j Json, key: &str) -> &'j str {
    json[key].as_str().unwrap_or_default()
}

/// Whose something is by its description.
fn described(json: &Json) -> Owner {
    match Mark::read(text(json, "description")) {
        Some((mark, _)) => Owner::Marked(mark),
        None => Owner::Nobody,
    }
}

/// A simple value as it is; objects and lists have their own readers.
fn plain(json: &Json) -> Value {
    match json {
        Json::Bool(truth) => Value::Truth(*truth),
        Json::Number(number) => number.as_i64().map_or(Value::None, Value::Number),
        Json::String(text) => Value::Text(text.clone()),
        Json::Null | Json::Array(_) | Json::Object(_) => Value::None,
    }
}

/// These fields, as they are.
fn fields(json: &Json, names: &[&str]) -> BTreeMap<String, Value> {
    names.iter().map(|name| ((*name).to_owned(), plain(&json[*name]))).collect()
}

/// Entries of a list of objects.
fn each<'j>(json: &'j Json, key: &str) -> impl Iterator<Item = &'j Json> {
    json[key].as_array().into_iter().flatten()
}

/// Objects of texts.
fn maps(json: &Json, key: &str, names: [&str; 2]) -> Value {
    let map = |entry: &Json| {
        let pairs = names.map(|name| (name.to_owned(), Value::text(text(entry, name))));
        Value::Map(BTreeMap::from(pairs))
    };
    Value::Set(each(json, key).map(map).collect::<BTreeSet<Value>>())
}
