//! A rule of a security group has no name: what it says is its name.

use super::found::{Found, FoundThing, Owner};
use super::thing::{Kind, ThingId, Value, Zone};
use std::collections::{BTreeMap, BTreeSet};

/// What a rule is called, from its fields: `GROUP: ingress IPv4 tcp 22 from any`.
#[must_use]
pub fn rule_name(group: &str, fields: &BTreeMap<String, Value>) -> String {
    let field = |name: &str| fields.get(name).filter(|value| **value != Value::None);
    let text = |name: &str, default: &str| {
        field(name).map_or_else(|| default.to_owned(), ToString::to_string)
    };
    let ports = match (field("port_range_min"), field("port_range_max")) {
        (Some(first), Some(last)) if first == last => format!(" {first}"),
        (None, None) => String::new(),
        (first, last) => {
            let end = |value: Option<&Value>| value.map(ToString::to_string).unwrap_or_default();
            format!(" {}-{}", end(first), end(last))
        }
    };
    let peer = match (field("remote_ip_prefix"), field("remote_group_id")) {
        (Some(prefix), _) => prefix.to_string(),
        (None, Some(group)) => group.to_string(),
        (None, None) => "any".to_owned(),
    };
    let direction = text("direction", "ingress");
    let word = if direction == "egress" { "to" } else { "from" };
    let (version, protocol) = (text("ethertype", "IPv4"), text("protocol", "any"));
    format!("{group}: {direction} {version} {protocol}{ports} {word} {peer}")
}

/// Rules that somebody else has put into groups of ours: they open what the zone does not, and are not ours to delete.
pub(super) fn foreign<'f>(zone: &Zone, found: &'f Found) -> Vec<&'f FoundThing> {
    let ours = Owner::Marked(zone.mark.clone());
    let wished: BTreeSet<&ThingId> = zone.things.iter().map(|thing| &thing.id).collect();
    let is_our_group = |group: &ThingId| {
        wished.contains(group) && found.all(group).any(|thing| thing.owner == ours)
    };
    let strange = |rule: &&FoundThing| {
        rule.id.kind == Kind::Rule
            && rule.owner != ours
            && !wished.contains(&rule.id)
            && !is_born_with_its_group(rule)
            && matches!(rule.field("security_group_id"), Value::Ref(group) if is_our_group(group))
    };
    found.things.iter().filter(strange).collect()
}

/// Neutron lets everything out of a new group.
fn is_born_with_its_group(rule: &FoundThing) -> bool {
    let all =
        ["protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "remote_group_id"];
    *rule.field("direction") == Value::text("egress")
        && all.iter().all(|field| *rule.field(field) == Value::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_called_after_what_it_says() {
        let mut fields = BTreeMap::from([
            ("direction".to_owned(), Value::text("ingress")),
            ("ethertype".to_owned(), Value::text("IPv4")),
            ("protocol".to_owned(), Value::None),
        ]);
        assert_eq!(rule_name("g", &fields), "g: ingress IPv4 any from any");
        fields.insert("protocol".into(), Value::text("tcp"));
        fields.insert("port_range_min".into(), Value::Number(22));
        fields.insert("port_range_max".into(), Value::Number(22));
        assert_eq!(rule_name("g", &fields), "g: ingress IPv4 tcp 22 from any");
        fields.insert("port_range_max".into(), Value::Number(23));
        fields.insert("direction".into(), Value::text("egress"));
        fields.insert("remote_ip_prefix".into(), Value::text("10.0.0.0/8"));
        assert_eq!(rule_name("g", &fields), "g: egress IPv4 tcp 22-23 to 10.0.0.0/8");
    }
}
