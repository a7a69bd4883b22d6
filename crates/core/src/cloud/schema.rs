//! What can be done about a field that differs.

use super::thing::Kind;

/// What can be done about a field that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is changed where it is.
    InPlace,
    /// It is what it was made as, for ever: a difference is told.
    Never,
    /// It counts only when the thing is made: the cloud does not tell it, or it wears off.
    AtCreation,
}

/// What can be done about a field of a kind; `field` up to its first dot counts.
#[must_use]
pub fn change(kind: Kind, field: &str) -> Change {
    let field = field.split('.').next().unwrap_or(field);
    match kind {
        Kind::Role | Kind::Assignment | Kind::KeyPair | Kind::Interface | Kind::Rule => {
            Change::Never
        }
        Kind::Project | Kind::User | Kind::Quota | Kind::Router | Kind::Group => Change::InPlace,
        Kind::Flavor if field == "extra_specs" => Change::InPlace,
        Kind::Flavor => Change::Never,
        Kind::Image => match field {
            "content" | "disk_format" | "container_format" => Change::Never,
            _ => Change::InPlace,
        },
        Kind::Network if field.starts_with("provider:") => Change::Never,
        Kind::Network => Change::InPlace,
        Kind::Subnet => match field {
            "network_id" | "cidr" | "ip_version" => Change::Never,
            _ => Change::InPlace,
        },
        Kind::Port if field == "network_id" => Change::Never,
        Kind::Port => Change::InPlace,
        Kind::Server => match field {
            "config_drive" | "availability_zone" | "nics" => Change::AtCreation,
            _ => Change::Never,
        },
        Kind::FloatingIp if field == "port_id" => Change::InPlace,
        Kind::FloatingIp => Change::Never,
    }
}

/// Whether a thing of this kind can say whose it is. One that cannot is taken as it is found, when it is as wished.
pub(super) fn is_marked(kind: Kind) -> bool {
    match kind {
        Kind::Assignment | Kind::Quota | Kind::KeyPair | Kind::Interface | Kind::Rule => false,
        Kind::Role
        | Kind::Project
        | Kind::User
        | Kind::Flavor
        | Kind::Image
        | Kind::Network
        | Kind::Subnet
        | Kind::Router
        | Kind::Group
        | Kind::Port
        | Kind::Server
        | Kind::FloatingIp => true,
    }
}

/// Whether it goes with what it names, so that it is not in the way when that is deleted.
pub(super) fn is_part(kind: Kind) -> bool {
    matches!(kind, Kind::Assignment | Kind::Quota | Kind::Rule)
}

/// Kinds that are deleted before anything is made, in this order: what is made may take over their addresses.
pub(super) const DELETED_FIRST: [Kind; 3] = [Kind::FloatingIp, Kind::Server, Kind::Port];

/// Kinds that are deleted in the end, in this order. A quota is a property of its project.
pub(super) const DELETED_LAST: [Kind; 12] = [
    Kind::Rule,
    Kind::Interface,
    Kind::Router,
    Kind::Subnet,
    Kind::Network,
    Kind::Group,
    Kind::Image,
    Kind::Flavor,
    Kind::Assignment,
    Kind::User,
    Kind::Project,
    Kind::Role,
];
