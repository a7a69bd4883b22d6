//! What is ours and no longer wished.

use super::found::{Found, FoundThing, Owner};
use super::plan::{Plan, Refusal, Step};
use super::schema::{DELETED_FIRST, DELETED_LAST, is_part};
use super::thing::{Kind, ThingId, Value, Zone};
use std::collections::{BTreeMap, BTreeSet};

/// Ours, and not in the zone; as they were found.
pub(super) fn unwished<'f>(zone: &Zone, found: &'f Found) -> Vec<&'f ThingId> {
    let wished: BTreeSet<&ThingId> = zone.things.iter().map(|thing| &thing.id).collect();
    let ours = Owner::Marked(zone.mark.clone());
    let of_us = found.things.iter().filter(|thing| thing.owner == ours);
    of_us.map(|thing| &thing.id).filter(|id| !wished.contains(id)).collect()
}

/// Adds the deletions to a plan: servers and their addresses before everything, the rest after it. What something that
/// stays still uses is left, and told.
pub(super) fn add(found: &Found, unwished: &[&ThingId], plan: &mut Plan) {
    let mut going: BTreeSet<&ThingId> = unwished.iter().copied().collect();
    let changed = changes(plan);
    let made = made(plan);
    let mut kept: Vec<Refusal> = Vec::new();
    // What is kept may itself use what else would go.
    while let Some((id, user)) =
        first_named(&made, &going).or_else(|| first_in_use(found, &going, &changed))
    {
        going.remove(id);
        let why = format!("it is ours and no longer wished, and {user} still uses it");
        kept.push(Refusal { thing: id.clone(), why });
    }
    let of = |kinds: &'static [Kind]| {
        let each = kinds.iter().flat_map(|kind| going.iter().filter(move |id| id.kind == *kind));
        each.map(|id| Step::Delete { thing: (*id).clone() }).collect::<Vec<Step>>()
    };
    let (first, last) = (of(&DELETED_FIRST), of(&DELETED_LAST));
    plan.steps.splice(0..0, first);
    plan.steps.extend(last);
    plan.refused.extend(kept);
}

/// Fields that the plan changes, with what they refer to then.
fn changes(plan: &Plan) -> BTreeMap<(ThingId, String), Vec<ThingId>> {
    let mut out = BTreeMap::new();
    for step in &plan.steps {
        let Step::Change { thing, fields, .. } = step else { continue };
        for difference in fields {
            let refs = difference.new.refs().into_iter().cloned().collect();
            out.insert((thing.clone(), difference.field.clone()), refs);
        }
    }
    out
}

/// What is made, and what it refers to: the zone may name what it no longer has itself.
fn made(plan: &Plan) -> Vec<(ThingId, Vec<ThingId>)> {
    let each = plan.steps.iter().filter_map(|step| match step {
        Step::Create { thing, fields } => {
            let named = fields.values().flat_map(Value::refs).cloned();
            Some((thing.clone(), thing.owner_project().into_iter().chain(named).collect()))
        }
        Step::Change { .. } | Step::Upload { .. } | Step::Delete { .. } => None,
    });
    each.collect()
}

/// One that would go although something that is made needs it.
fn first_named<'f, 'm>(
    made: &'m [(ThingId, Vec<ThingId>)],
    going: &BTreeSet<&'f ThingId>,
) -> Option<(&'f ThingId, &'m ThingId)> {
    let mut pairs = made.iter().flat_map(|(user, used)| used.iter().map(move |id| (user, id)));
    pairs.find_map(|(user, used)| Some((*going.get(used)?, user)))
}

/// One that would go although something that stays uses it.
fn first_in_use<'f>(
    found: &'f Found,
    going: &BTreeSet<&'f ThingId>,
    changed: &BTreeMap<(ThingId, String), Vec<ThingId>>,
) -> Option<(&'f ThingId, &'f ThingId)> {
    for user in found.things.iter().filter(|thing| !going.contains(&thing.id)) {
        if is_part(user.id.kind) || is_default_group(user) {
            continue;
        }
        let used = used_by(user, changed);
        if let Some(id) = going.iter().find(|id| used.contains(**id)) {
            return Some((id, &user.id));
        }
    }
    None
}

/// What a thing uses: before the steps what it uses now, after them what it uses then.
fn used_by(
    user: &FoundThing,
    changed: &BTreeMap<(ThingId, String), Vec<ThingId>>,
) -> BTreeSet<ThingId> {
    let mut used: BTreeSet<ThingId> = user.id.owner_project().into_iter().collect();
    for (field, value) in &user.fields {
        let then = changed.get(&(user.id.clone(), field.clone()));
        let now = value.refs().into_iter().cloned();
        match then {
            Some(then) => {
                used.extend(then.iter().cloned());
                used.extend(now.filter(|id| DELETED_FIRST.contains(&id.kind)));
            }
            None => used.extend(now),
        }
    }
    used
}

/// Every project has one from the beginning, and it goes with the project.
fn is_default_group(thing: &FoundThing) -> bool {
    thing.id.kind == Kind::Group && thing.id.name == "default"
}
