//! Things of a cloud, and their values.

use core::fmt;
use serde::ser::{SerializeMap as _, Serializer};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The project of a [`ThingId`] that may be in any project.
pub const ANYWHERE: &str = "*";

/// What a thing is, in the order in which things come into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A role that users may have.
    Role,
    /// A project ("tenant" in 2014).
    Project,
    /// A user.
    User,
    /// That a user has a role on a project.
    Assignment,
    /// How much a project may use.
    Quota,
    /// Size of servers.
    Flavor,
    /// A public SSH key.
    KeyPair,
    /// An image that servers boot.
    Image,
    /// A network.
    Network,
    /// Addresses of a network.
    Subnet,
    /// A router.
    Router,
    /// A router's leg on a subnet.
    Interface,
    /// A security group.
    Group,
    /// One rule of a security group.
    Rule,
    /// A port of a network.
    Port,
    /// A server.
    Server,
    /// An address of an external network for a port.
    FloatingIp,
}

impl Kind {
    /// All of them, in the order in which they come into being.
    pub const ALL: [Kind; 17] = [
        Kind::Role,
        Kind::Project,
        Kind::User,
        Kind::Assignment,
        Kind::Quota,
        Kind::Flavor,
        Kind::KeyPair,
        Kind::Image,
        Kind::Network,
        Kind::Subnet,
        Kind::Router,
        Kind::Interface,
        Kind::Group,
        Kind::Rule,
        Kind::Port,
        Kind::Server,
        Kind::FloatingIp,
    ];

    /// For people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Role => "role",
            Kind::Project => "project",
            Kind::User => "user",
            Kind::Assignment => "assignment",
            Kind::Quota => "quota",
            Kind::Flavor => "flavor",
            Kind::KeyPair => "key pair",
            Kind::Image => "image",
            Kind::Network => "network",
            Kind::Subnet => "subnet",
            Kind::Router => "router",
            Kind::Interface => "interface",
            Kind::Group => "security group",
            Kind::Rule => "rule",
            Kind::Port => "port",
            Kind::Server => "server",
            Kind::FloatingIp => "floating IP",
        }
    }
}

/// Which thing: of a kind, within a project (empty where the kind has none), by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ThingId {
    /// Its kind.
    pub kind: Kind,
    /// Its project's name; empty for what belongs to no project; [`ANYWHERE`] where a reference leaves it open.
    pub project: String,
    /// Its name.
    pub name: String,
}

impl ThingId {
    /// A thing of a project.
    #[must_use]
    pub fn new(kind: Kind, project: impl Into<String>, name: impl Into<String>) -> ThingId {
        ThingId { kind, project: project.into(), name: name.into() }
    }

    /// A thing of no project.
    #[must_use]
    pub fn global(kind: Kind, name: impl Into<String>) -> ThingId {
        ThingId::new(kind, "", name)
    }

    /// The project that it belongs to, as a thing.
    #[must_use]
    pub fn owner_project(&self) -> Option<ThingId> {
        let known = !matches!(self.project.as_str(), "" | ANYWHERE);
        known.then(|| ThingId::global(Kind::Project, &self.project))
    }
}

impl fmt::Display for ThingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.kind.word();
        match self.project.as_str() {
            "" | ANYWHERE => write!(f, "{word} {}", self.name),
            project => write!(f, "{word} {project}/{}", self.name),
        }
    }
}

/// A value of a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// There is none.
    None,
    /// Yes or no.
    Truth(bool),
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
    /// Another thing.
    Ref(ThingId),
    /// Several, in this order.
    List(Vec<Value>),
    /// Several, in any order.
    Set(BTreeSet<Value>),
    /// By name.
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// Every thing that is named in it.
    #[must_use]
    pub fn refs(&self) -> Vec<&ThingId> {
        match self {
            Value::None | Value::Truth(_) | Value::Number(_) | Value::Text(_) => Vec::new(),
            Value::Ref(id) => vec![id],
            Value::List(values) => values.iter().flat_map(Value::refs).collect(),
            Value::Set(values) => values.iter().flat_map(Value::refs).collect(),
            Value::Map(values) => values.values().flat_map(Value::refs).collect(),
        }
    }

    /// The same with every reference replaced.
    pub fn with_refs<E>(
        &self,
        replace: &mut impl FnMut(&ThingId) -> Result<ThingId, E>,
    ) -> Result<Value, E> {
        Ok(match self {
            Value::None | Value::Truth(_) | Value::Number(_) | Value::Text(_) => self.clone(),
            Value::Ref(id) => Value::Ref(replace(id)?),
            Value::List(values) => {
                Value::List(values.iter().map(|v| v.with_refs(replace)).collect::<Result<_, E>>()?)
            }
            Value::Set(values) => {
                Value::Set(values.iter().map(|v| v.with_refs(replace)).collect::<Result<_, E>>()?)
            }
            Value::Map(values) => {
                let pairs =
                    values.iter().map(|(name, v)| Ok((name.clone(), v.with_refs(replace)?)));
                Value::Map(pairs.collect::<Result<_, E>>()?)
            }
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn several<'v>(
            f: &mut fmt::Formatter<'_>,
            values: impl Iterator<Item = &'v Value>,
        ) -> fmt::Result {
            let texts: Vec<String> = values.map(ToString::to_string).collect();
            write!(f, "[{}]", texts.join(", "))
        }
        match self {
            Value::None => f.write_str("none"),
            Value::Truth(truth) => write!(f, "{truth}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Text(text) => f.write_str(text),
            Value::Ref(id) if id.project.is_empty() || id.project == ANYWHERE => {
                f.write_str(&id.name)
            }
            Value::Ref(id) => write!(f, "{}/{}", id.project, id.name),
            Value::List(values) => several(f, values.iter()),
            Value::Set(values) => several(f, values.iter()),
            Value::Map(values) => {
                let texts: Vec<String> =
                    values.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                write!(f, "{{{}}}", texts.join(", "))
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::None => to.serialize_unit(),
            Value::Truth(truth) => to.serialize_bool(*truth),
            Value::Number(number) => to.serialize_i64(*number),
            Value::Text(text) => to.serialize_str(text),
            Value::Ref(_) => to.collect_str(self),
            Value::List(values) => to.collect_seq(values),
            Value::Set(values) => to.collect_seq(values),
            Value::Map(values) => {
                let mut map = to.serialize_map(Some(values.len()))?;
                for (name, value) in values {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

/// Where a password is. It is read when it is needed, and shown nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// A file that holds nothing else.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
}

/// What a thing needs from the machine where the zone is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// A new user's password.
    Password(Password),
    /// An image's bytes.
    Content(PathBuf),
    /// A key pair's public key.
    PublicKey(PathBuf),
    /// What a new server is told at its first boot.
    UserData(PathBuf),
}

/// A thing as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    /// Which.
    pub id: ThingId,
    /// What it should be like; a dot in a name leads into a map.
    pub fields: BTreeMap<String, Value>,
    /// One that is there already and not ours is taken as it is, put right, and never deleted.
    pub adopt: bool,
    /// What has to be read on this machine.
    pub local: Option<Local>,
}

impl Thing {
    /// Without fields.
    #[must_use]
    pub fn new(id: ThingId) -> Thing {
        Thing { id, fields: BTreeMap::new(), adopt: false, local: None }
    }

    /// With one more field.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Thing {
        self.fields.insert(field.to_owned(), value);
        self
    }

    /// What must be there before: its project, and what its fields name.
    #[must_use]
    pub fn needs(&self) -> Vec<ThingId> {
        let named = self.fields.values().flat_map(Value::refs).cloned();
        self.id.owner_project().into_iter().chain(named).collect()
    }
}

/// Whose things are: what their marks say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Mark(String);

impl Mark {
    /// What every mark of a zone begins with. Marks of nodes begin otherwise, so that neither takes the other's for its own.
    pub const PREFIX: &'static str = "toci-zone:";

    /// The mark of an owner.
    #[must_use]
    pub fn of(owner: &str) -> Mark {
        Mark(owner.to_owned())
    }

    /// The owner.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.0
    }

    /// As a description; `name` for things that have no name of their own.
    #[must_use]
    pub fn description(&self, name: Option<&str>) -> String {
        match name {
            Some(name) => format!("{}{}:{name}", Mark::PREFIX, self.0),
            None => format!("{}{}", Mark::PREFIX, self.0),
        }
    }

    /// From a description: whose it is, and the name.
    #[must_use]
    pub fn read(description: &str) -> Option<(Mark, Option<&str>)> {
        let rest = description.strip_prefix(Mark::PREFIX)?;
        let (owner, name) = match rest.split_once(':') {
            Some((owner, name)) => (owner, Some(name)),
            None => (rest, None),
        };
        (!owner.is_empty()).then(|| (Mark::of(owner), name))
    }
}

/// What should be in a cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Whose it is.
    pub mark: Mark,
    /// Everything, in the order of the file; no id twice.
    pub things: Vec<Thing>,
}
