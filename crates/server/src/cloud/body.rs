//! Fields of things as OpenStack's JSON.

use super::api::ApiError;
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, HashMap};
use toci_core::cloud::{ANYWHERE, Found, Mark, Owner, Thing, ThingId, Value};

/// What the cloud knows things by.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys(HashMap<ThingId, String>);

impl Keys {
    /// Of several with one name ours counts, otherwise the first.
    pub(super) fn of(found: &Found, mark: &Mark) -> Keys {
        let mut keys = Keys::default();
        let ours = Owner::Marked(mark.clone());
        for thing in &found.things {
            if thing.owner == ours || !keys.0.contains_key(&thing.id) {
                keys.add(&thing.id, &thing.key);
            }
        }
        keys
    }

    pub(super) fn add(&mut self, id: &ThingId, key: &str) {
        self.0.insert(id.clone(), key.to_owned());
    }

    pub(super) fn of_thing(&self, id: &ThingId) -> Result<&str, ApiError> {
        let exact = self.0.get(id);
        let same = |other: &&ThingId| other.kind == id.kind && other.name == id.name;
        let found = match exact {
            None if id.project == ANYWHERE => self.0.keys().find(same).and_then(|k| self.0.get(k)),
            other => other,
        };
        found.map(String::as_str).ok_or_else(|| ApiError::Gone { thing: id.to_string() })
    }

    /// A value in OpenStack's words: things by their keys.
    pub(super) fn json(&self, value: &Value) -> Result<Json, ApiError> {
        Ok(match value {
            Value::None => Json::Null,
            Value::Truth(truth) => json!(truth),
            Value::Number(number) => json!(number),
            Value::Text(text) => json!(text),
            Value::Ref(id) => json!(self.of_thing(id)?),
            Value::List(values) => self.array(values.iter())?,
            Value::Set(values) => self.array(values.iter())?,
            Value::Map(values) => {
                let mut map = Map::new();
                for (name, value) in values {
                    map.insert(name.clone(), self.json(value)?);
                }
                Json::Object(map)
            }
        })
    }

    fn array<'v>(&self, values: impl Iterator<Item = &'v Value>) -> Result<Json, ApiError> {
        Ok(Json::Array(values.map(|value| self.json(value)).collect::<Result<_, _>>()?))
    }

    /// Fields as an object; a dot in a name leads into another one.
    pub(super) fn object<'f>(
        &self,
        fields: impl IntoIterator<Item = (&'f String, &'f Value)>,
    ) -> Result<Map<String, Json>, ApiError> {
        let mut out = Map::new();
        for (name, value) in fields {
            let json = match name.as_str() {
                "fixed_ips" => each(value, "ip_address"),
                "allowed_address_pairs" => each(value, "ip_address"),
                _ => self.json(value)?,
            };
            match name.split_once('.') {
                None => {
                    out.insert(name.clone(), json);
                }
                Some((outer, inner)) => {
                    let map = out.entry(outer).or_insert_with(|| json!({}));
                    if let Json::Object(map) = map {
                        map.insert(inner.to_owned(), json);
                    }
                }
            }
        }
        Ok(out)
    }
}

/// Texts as objects with one key.
fn each(value: &Value, key: &str) -> Json {
    let texts = match value {
        Value::Set(values) => values.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    Json::Array(texts.into_iter().map(|text| json!({ key: text })).collect())
}

/// The fields below a name with a dot, without it.
pub(super) fn below(fields: &BTreeMap<String, Value>, outer: &str) -> BTreeMap<String, Value> {
    let inner = |(name, value): (&String, &Value)| {
        let rest = name.strip_prefix(outer)?.strip_prefix('.')?;
        Some((rest.to_owned(), value.clone()))
    };
    fields.iter().filter_map(inner).collect()
}

/// Fields that change together: where one of a map does, the whole map as the zone wishes it.
pub(super) fn with_siblings(
    thing: Option<&Thing>,
    changed: &BTreeMap<String, Value>,
) -> BTreeMap<String, Value> {
    let mut out = changed.clone();
    let outers = changed.keys().filter_map(|name| Some(name.split_once('.')?.0));
    for outer in outers {
        for (inner, value) in thing.map(|t| below(&t.fields, outer)).unwrap_or_default() {
            out.entry(format!("{outer}.{inner}")).or_insert(value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use toci_core::cloud::Kind;

    fn keys() -> Keys {
        let mut keys = Keys::default();
        keys.add(&ThingId::new(Kind::Network, "admin", "ext"), "n1");
        keys.add(&ThingId::new(Kind::Group, "ci", "default"), "g1");
        keys
    }

    fn fields(pairs: &[(&str, Value)]) -> BTreeMap<String, Value> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn fields_become_what_openstack_takes() {
        let network = Value::Ref(ThingId::new(Kind::Network, ANYWHERE, "ext"));
        let group = Value::Ref(ThingId::new(Kind::Group, "ci", "default"));
        let fields = fields(&[
            ("external_gateway_info.network_id", network),
            ("external_gateway_info.enable_snat", Value::Truth(false)),
            ("fixed_ips", Value::Set([Value::text("10.0.0.1")].into())),
            ("security_groups", Value::Set([group].into())),
            ("gateway_ip", Value::None),
        ]);
        let expected = json!({
            "external_gateway_info": {"network_id": "n1", "enable_snat": false},
            "fixed_ips": [{"ip_address": "10.0.0.1"}], "security_groups": ["g1"], "gateway_ip": null,
        });
        assert_eq!(Json::Object(keys().object(&fields).unwrap()), expected);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let gone = Value::Ref(ThingId::new(Kind::Network, "ci", "ext"));
        let error = keys().json(&gone).unwrap_err().to_string();
        assert!(error.contains("network ci/ext"), "{error}");
    }

    #[test]
    fn a_map_is_changed_as_a_whole() {
        let mut thing = Thing::new(ThingId::new(Kind::Router, "ci", "r"));
        thing.fields =
            fields(&[("a.x", Value::Number(1)), ("a.y", Value::Number(2)), ("b", Value::None)]);
        let changed = fields(&[("a.x", Value::Number(3))]);
        let whole = with_siblings(Some(&thing), &changed);
        assert_eq!(whole, fields(&[("a.x", Value::Number(3)), ("a.y", Value::Number(2))]));
    }
}
