//! The steps from what is found to what is wished.

use super::found::{Found, FoundThing, Owner};
use super::schema::{Change, change, is_marked};
use super::thing::{ANYWHERE, Kind, Mark, Thing, ThingId, Value, Zone};
use super::{prune, rule};
use core::fmt;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What to do about things that are ours and no longer wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Tell of them.
    Tell,
    /// Delete them.
    Delete,
}

/// A field that is not as wished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// What it is.
    pub old: Value,
    /// What it should be.
    pub new: Value,
}

/// One thing to do. Each may be done again without harm: the next plan does not hold it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Step {
    /// Make it, with these fields; it carries our mark from the first moment on.
    Create {
        /// Which.
        thing: ThingId,
        /// Like what.
        fields: BTreeMap<String, Value>,
    },
    /// Change fields of what is there.
    Change {
        /// Which.
        thing: ThingId,
        /// From what to what.
        fields: Vec<Difference>,
        /// It is not ours: the zone adopts it.
        adopted: bool,
    },
    /// Send an image's bytes again, which did not arrive when it was made.
    Upload {
        /// Which.
        thing: ThingId,
    },
    /// Delete it.
    Delete {
        /// Which.
        thing: ThingId,
    },
}

impl Step {
    /// What it is about.
    #[must_use]
    pub fn thing(&self) -> &ThingId {
        match self {
            Step::Create { thing, .. }
            | Step::Change { thing, .. }
            | Step::Upload { thing }
            | Step::Delete { thing } => thing,
        }
    }
}

/// What cannot be done, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// Which.
    pub thing: ThingId,
    /// Why, and what would help.
    pub why: String,
}

/// What to do, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// What is left as it is although it is not as wished.
    pub refused: Vec<Refusal>,
    /// What is ours and no longer wished, when it is only told of.
    pub stale: Vec<ThingId>,
}

impl Plan {
    /// All is as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.refused.is_empty() && self.stale.is_empty()
    }
}

/// From `found` to `zone`.
#[must_use]
pub fn plan(zone: &Zone, found: &Found, stale: Stale) -> Plan {
    let world = World::new(zone, found);
    let mut planner =
        Planner { world: &world, steps: Vec::new(), refused: Vec::new(), stuck: BTreeSet::new() };
    for thing in world.in_order() {
        planner.look_at(thing);
    }
    let mut plan = Plan { steps: planner.steps, refused: planner.refused, stale: Vec::new() };
    plan.refused.extend(rule::foreign(zone, found).into_iter().map(|rule| Refusal {
        thing: rule.id.clone(),
        why: format!(
            "somebody else has put it into our group ({}): take it into the zone, or delete it",
            rule.key
        ),
    }));
    let unwished = prune::unwished(zone, found);
    match stale {
        Stale::Tell => plan.stale = unwished.into_iter().cloned().collect(),
        Stale::Delete => prune::add(found, &unwished, &mut plan),
    }
    plan
}

/// Both sides, to be looked up.
struct World<'a> {
    mark: &'a Mark,
    things: &'a [Thing],
    wished: BTreeMap<&'a ThingId, &'a Thing>,
    found: BTreeMap<&'a ThingId, Vec<&'a FoundThing>>,
}

impl<'a> World<'a> {
    fn new(zone: &'a Zone, found: &'a Found) -> World<'a> {
        let mut by_id: BTreeMap<&ThingId, Vec<&FoundThing>> = BTreeMap::new();
        for thing in &found.things {
            by_id.entry(&thing.id).or_default().push(thing);
        }
        World {
            mark: &zone.mark,
            things: &zone.things,
            wished: zone.things.iter().map(|thing| (&thing.id, thing)).collect(),
            found: by_id,
        }
    }

    /// Things after what they need; otherwise by kind, and as in the file.
    fn in_order(&self) -> Vec<&'a Thing> {
        let mut by_kind: Vec<&Thing> = self.things.iter().collect();
        by_kind.sort_by_key(|thing| thing.id.kind);
        let mut order = Vec::with_capacity(by_kind.len());
        let mut seen = BTreeSet::new();
        for thing in by_kind {
            self.put_in_order(thing, &mut seen, &mut order);
        }
        order
    }

    fn put_in_order(
        &self,
        thing: &'a Thing,
        seen: &mut BTreeSet<&'a ThingId>,
        order: &mut Vec<&'a Thing>,
    ) {
        if !seen.insert(&thing.id) {
            return;
        }
        for need in thing.needs() {
            let meant = self.resolve(&need).ok();
            if let Some(needed) = meant.and_then(|id| self.wished.get(&id).copied()) {
                self.put_in_order(needed, seen, order);
            }
        }
        order.push(thing);
    }

    /// Which thing a reference means.
    fn resolve(&self, named: &ThingId) -> Result<ThingId, String> {
        if named.project != ANYWHERE {
            let known = self.wished.contains_key(named) || self.found.contains_key(named);
            return if known { Ok(named.clone()) } else { Err(nowhere(named)) };
        }
        let same = |id: &&&ThingId| id.kind == named.kind && id.name == named.name;
        let mut candidates: Vec<&&ThingId> = self.wished.keys().filter(same).collect();
        if candidates.is_empty() {
            candidates = self.found.keys().filter(same).collect();
        }
        match candidates[..] {
            [] => Err(nowhere(named)),
            [one] => Ok((*one).clone()),
            [first, second, ..] => {
                Err(format!("`{named}` may be {first} or {second}: say its project"))
            }
        }
    }
}

fn nowhere(named: &ThingId) -> String {
    format!("{named} is neither in the zone nor in the cloud")
}

struct Planner<'a> {
    world: &'a World<'a>,
    steps: Vec<Step>,
    refused: Vec<Refusal>,
    /// What is refused, and what waits for it.
    stuck: BTreeSet<ThingId>,
}

impl Planner<'_> {
    fn refuse(&mut self, thing: &ThingId, why: impl Into<String>) {
        self.stuck.insert(thing.clone());
        self.refused.push(Refusal { thing: thing.clone(), why: why.into() });
    }

    fn look_at(&mut self, thing: &Thing) {
        let (fields, needs) = match self.resolved(thing) {
            Ok(resolved) => resolved,
            Err(why) => return self.refuse(&thing.id, why),
        };
        let step = match self.step(thing, fields) {
            Ok(step) => step,
            Err(why) => return self.refuse(&thing.id, why),
        };
        let Some(step) = step else { return };
        match needs.iter().find(|need| self.stuck.contains(*need)) {
            Some(need) => self.refuse(&thing.id, format!("it waits for {need}")),
            None => self.steps.push(step),
        }
    }

    /// Its fields and needs, each reference with its project.
    fn resolved(
        &self,
        thing: &Thing,
    ) -> Result<(BTreeMap<String, Value>, BTreeSet<ThingId>), String> {
        let mut needs = BTreeSet::new();
        if let Some(project) = thing.id.owner_project() {
            needs.insert(self.world.resolve(&project)?);
        }
        let mut resolve = |named: &ThingId| {
            let meant = self.world.resolve(named)?;
            needs.insert(meant.clone());
            Ok::<ThingId, String>(meant)
        };
        let mut fields = BTreeMap::new();
        for (name, value) in &thing.fields {
            fields.insert(name.clone(), value.with_refs(&mut resolve)?);
        }
        Ok((fields, needs))
    }

    fn step(&self, thing: &Thing, fields: BTreeMap<String, Value>) -> Result<Option<Step>, String> {
        let Some(have) = self.chosen(&thing.id)? else {
            return Ok(Some(Step::Create { thing: thing.id.clone(), fields }));
        };
        let adopted = self.take(thing, have)?;
        if let Some(broken) = &have.broken {
            return Err(format!("{broken}: look at it, delete it, and apply again"));
        }
        let differences = differences(have, &fields);
        let never = |d: &&Difference| change(thing.id.kind, &d.field) == Change::Never;
        // The content of an image whose bytes have not arrived is none yet.
        let fixed: Vec<String> = differences
            .iter()
            .filter(|d| !(have.unfinished && d.field == "content"))
            .filter(never)
            .map(ToString::to_string)
            .collect();
        if !fixed.is_empty() {
            return Err(format!(
                "{}: this cannot be changed; give the wished one another name, or delete the one that is there",
                fixed.join("; ")
            ));
        }
        if have.unfinished {
            return Ok(Some(Step::Upload { thing: thing.id.clone() }));
        }
        let step = Step::Change { thing: thing.id.clone(), fields: differences, adopted };
        Ok(match &step {
            Step::Change { fields, .. } if fields.is_empty() => None,
            _ => Some(step),
        })
    }

    /// The one that is meant: of several with this name the one that is ours.
    fn chosen(&self, id: &ThingId) -> Result<Option<&FoundThing>, String> {
        let all = self.world.found.get(id).map_or(&[][..], Vec::as_slice);
        let mark = Owner::Marked(self.world.mark.clone());
        let ours: Vec<&FoundThing> = all.iter().copied().filter(|t| t.owner == mark).collect();
        match (all, &ours[..]) {
            ([], _) => Ok(None),
            (_, [one]) | ([one], []) => Ok(Some(one)),
            (_, _) if !is_marked(id.kind) => Ok(all.first().copied()),
            (all, _) => {
                let keys: Vec<&str> = all.iter().map(|t| t.key.as_str()).collect();
                Err(format!("there are {} of this name ({})", all.len(), keys.join(", ")))
            }
        }
    }

    /// Whether it is adopted; an error when it is somebody else's.
    fn take(&self, thing: &Thing, have: &FoundThing) -> Result<bool, String> {
        match &have.owner {
            Owner::Marked(mark) if mark == self.world.mark => Ok(false),
            Owner::Marked(mark) => {
                Err(format!("it belongs to the zone of `{}` ({})", mark.owner(), have.key))
            }
            Owner::Nobody if !is_marked(thing.id.kind) => Ok(false),
            Owner::Nobody if thing.adopt => Ok(true),
            Owner::Nobody => Err(format!(
                "one of this name is there and was not made by this zone ({}): name it otherwise, or say `adopt: true`",
                have.key
            )),
        }
    }
}

fn differences(have: &FoundThing, wished: &BTreeMap<String, Value>) -> Vec<Difference> {
    let differs = |(field, new): &(&String, &Value)| {
        change(have.id.kind, field) != Change::AtCreation && have.field(field) != *new
    };
    let difference = |(field, new): (&String, &Value)| Difference {
        field: field.clone(),
        old: have.field(field).clone(),
        new: new.clone(),
    };
    wished.iter().filter(differs).map(difference).collect()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.field, self.old, self.new)
    }
}

impl fmt::Display for Step {
    /// One line, and one for each field that changes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Create { thing, fields } => {
                write!(f, "+ {thing}")?;
                for (field, value) in fields {
                    // A rule or an assignment is all in its name.
                    let is_named =
                        matches!(thing.kind, Kind::Assignment | Kind::Interface | Kind::Rule);
                    if !is_named && change(thing.kind, field) != Change::AtCreation {
                        write!(f, "\n      {field}: {value}")?;
                    }
                }
                Ok(())
            }
            Step::Change { thing, fields, adopted } => {
                write!(f, "~ {thing}{}", if *adopted { " (adopted)" } else { "" })?;
                fields.iter().try_for_each(|difference| write!(f, "\n      {difference}"))
            }
            Step::Upload { thing } => write!(f, "~ {thing}: its bytes are sent again"),
            Step::Delete { thing } => write!(f, "- {thing}"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        for Refusal { thing, why } in &self.refused {
            writeln!(f, "! {thing}: {why}")?;
        }
        for thing in &self.stale {
            writeln!(f, "? {thing}: it is ours and no longer wished; `--prune` deletes it")?;
        }
        Ok(())
    }
}
