//! What is in a cloud.

use super::thing::{Mark, ThingId, Value};
use std::collections::BTreeMap;

/// Whose a thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It carries the mark of this owner.
    Marked(Mark),
    /// It carries no mark, or its kind cannot.
    Nobody,
}

/// A thing as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundThing {
    /// Which.
    pub id: ThingId,
    /// What the cloud knows it by.
    pub key: String,
    /// Every field that a zone can name, as far as the cloud tells it.
    pub fields: BTreeMap<String, Value>,
    /// Whose it is.
    pub owner: Owner,
    /// What is wrong with it; nothing is done about one that does not work.
    pub broken: Option<String>,
    /// An image whose bytes have not all arrived.
    pub unfinished: bool,
}

impl FoundThing {
    /// A field, none where it has none.
    #[must_use]
    pub fn field(&self, name: &str) -> &Value {
        self.fields.get(name).unwrap_or(&Value::None)
    }

    /// What it refers to, its project included.
    #[must_use]
    pub fn refs(&self) -> Vec<ThingId> {
        let named = self.fields.values().flat_map(Value::refs).cloned();
        self.id.owner_project().into_iter().chain(named).collect()
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order in which it was read.
    pub things: Vec<FoundThing>,
}

impl Found {
    /// Everything of this name.
    pub fn all<'f>(&'f self, id: &'f ThingId) -> impl Iterator<Item = &'f FoundThing> {
        self.things.iter().filter(move |thing| thing.id == *id)
    }
}
