//! From several files and the environment to one map, whose values know where they come from.

use super::{CLOUDS_FILE_MAX_BYTES, CLOUDS_FILE_VALUES_MAX, CloudsError, CloudsText};
use crate::layout::tree::{self, Kind, Limits, Mark, Node};
use std::collections::BTreeMap;

const LIMITS: Limits = Limits { bytes: CLOUDS_FILE_MAX_BYTES, nodes: CLOUDS_FILE_VALUES_MAX };

/// A value with its place. Text is not shown: it may be a secret.
#[derive(Clone)]
pub(super) struct Value {
    pub(super) place: String,
    pub(super) kind: ValueKind,
}

#[derive(Clone)]
pub(super) enum ValueKind {
    Text(String),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

impl Value {
    pub(super) fn empty(place: &str) -> Value {
        Value { place: place.to_owned(), kind: ValueKind::Map(BTreeMap::new()) }
    }

    pub(super) fn text_from(place: &str, text: &str) -> Value {
        Value { place: place.to_owned(), kind: ValueKind::Text(text.to_owned()) }
    }

    pub(super) fn error(&self, message: impl Into<String>) -> CloudsError {
        CloudsError { place: self.place.clone(), message: message.into() }
    }

    /// Reads a file; nothing in it is nothing.
    pub(super) fn read(text: CloudsText<'_>) -> Result<Value, CloudsError> {
        let place = |mark: Mark| format!("{}:{}:{}", text.file, mark.line, mark.column);
        let root = tree::parse(text.text, LIMITS)
            .map_err(|(mark, message)| CloudsError { place: place(mark), message })?;
        let value = of_node(&root, text.file).unwrap_or_else(|| Value::empty(text.file));
        match &value.kind {
            ValueKind::Map(_) => Ok(value),
            ValueKind::Text(_) | ValueKind::List(_) => Err(value.error("it must be a map")),
        }
    }

    pub(super) fn map(&self) -> Option<&BTreeMap<String, Value>> {
        match &self.kind {
            ValueKind::Map(map) => Some(map),
            ValueKind::Text(_) | ValueKind::List(_) => None,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map()?.get(key)
    }

    /// A map at this key; an empty one when it is not there.
    pub(super) fn child(&self, key: &str) -> Result<Value, CloudsError> {
        match self.get(key) {
            None => Ok(Value::empty(&self.place)),
            Some(value) if value.map().is_some() => Ok(value.clone()),
            Some(value) => Err(value.error(format!("{key}: it must be a map"))),
        }
    }

    /// A text at this key. An empty one is as none: that is how variables are unset by many.
    pub(super) fn text(&self, key: &str) -> Result<Option<(&str, &Value)>, CloudsError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match &value.kind {
                ValueKind::Text(text) if text.is_empty() => Ok(None),
                ValueKind::Text(text) => Ok(Some((text, value))),
                ValueKind::List(_) | ValueKind::Map(_) => {
                    Err(value.error(format!("{key}: it must be a text")))
                }
            },
        }
    }

    /// Puts `over` over this: maps are merged at every depth, all else is replaced.
    pub(super) fn over(self, over: Value) -> Value {
        match (self.kind, over.kind) {
            (ValueKind::Map(mut below), ValueKind::Map(above)) => {
                for (key, value) in above {
                    let merged = match below.remove(&key) {
                        Some(old) => old.over(value),
                        None => value,
                    };
                    below.insert(key, merged);
                }
                Value { place: over.place, kind: ValueKind::Map(below) }
            }
            (_, kind) => Value { place: over.place, kind },
        }
    }
}

/// None for nothing.
fn of_node(node: &Node, file: &str) -> Option<Value> {
    let place = format!("{file}:{}:{}", node.mark.line, node.mark.column);
    let kind = match &node.kind {
        Kind::Null => return None,
        Kind::Scalar { text, .. } => ValueKind::Text(text.clone()),
        Kind::List(items) => {
            ValueKind::List(items.iter().filter_map(|item| of_node(item, file)).collect())
        }
        Kind::Map(entries) => {
            let entry =
                |(key, _, value): &(String, Mark, Node)| Some((key.clone(), of_node(value, file)?));
            ValueKind::Map(entries.iter().filter_map(entry).collect())
        }
    };
    Some(Value { place, kind })
}

/// The same with `_` for `-` in all keys, as far down as keys have a meaning.
pub(super) fn plain_keys(value: Value) -> Value {
    let kind = match value.kind {
        ValueKind::Map(map) => ValueKind::Map(
            map.into_iter().map(|(k, v)| (k.replace('-', "_"), plain_keys(v))).collect(),
        ),
        kind @ (ValueKind::Text(_) | ValueKind::List(_)) => kind,
    };
    Value { place: value.place, kind }
}
