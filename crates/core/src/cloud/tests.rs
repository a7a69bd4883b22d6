//! Plans of a few things by hand, and of many by chance.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const OURS: &str = "lab";

fn id(kind: Kind, name: &str) -> ThingId {
    let in_project = kind >= Kind::Network;
    ThingId::new(kind, if in_project { "ci" } else { "" }, name)
}

fn reference(kind: Kind, name: &str) -> Value {
    Value::Ref(id(kind, name))
}

fn zone(things: Vec<Thing>) -> Zone {
    Zone { mark: Mark::of(OURS), things }
}

fn owner(of: &str) -> Owner {
    if of.is_empty() { Owner::Nobody } else { Owner::Marked(Mark::of(of)) }
}

fn there(thing: &Thing, of: &str) -> FoundThing {
    FoundThing {
        id: thing.id.clone(),
        key: format!("key of {}", thing.id),
        fields: thing.fields.clone(),
        owner: owner(of),
        broken: None,
        unfinished: false,
    }
}

fn project() -> Thing {
    Thing::new(id(Kind::Project, "ci"))
}

fn network() -> Thing {
    Thing::new(id(Kind::Network, "test")).with("mtu", Value::Number(1500))
}

fn subnet() -> Thing {
    Thing::new(id(Kind::Subnet, "test-subnet"))
        .with("network_id", reference(Kind::Network, "test"))
        .with("cidr", Value::text("172.16.0.0/22"))
        .with("dns_nameservers", Value::List(vec![Value::text("8.8.8.8")]))
}

fn shown(zone: &Zone, found: Vec<FoundThing>, stale: Stale) -> String {
    plan(zone, &Found { things: found }, stale).to_string()
}

#[test]
fn an_empty_cloud_gets_everything_in_order() {
    let wish = zone(vec![subnet(), network(), project()]);
    let expected = "\
+ project ci
+ network ci/test
      mtu: 1500
+ subnet ci/test-subnet
      cidr: 172.16.0.0/22
      dns_nameservers: [8.8.8.8]
      network_id: ci/test
";
    assert_eq!(shown(&wish, vec![], Stale::Tell), expected);
}

#[test]
fn drift_is_told_field_by_field_and_only_of_fields_that_are_wished() {
    let wish = zone(vec![project(), network(), subnet()]);
    let mut found: Vec<FoundThing> = wish.things.iter().map(|t| there(t, OURS)).collect();
    found[1].fields.insert("shared".into(), Value::Truth(true));
    assert_eq!(shown(&wish, found.clone(), Stale::Tell), "");
    found[2].fields.insert("dns_nameservers".into(), Value::List(vec![]));
    let expected = "~ subnet ci/test-subnet\n      dns_nameservers: [] -> [8.8.8.8]\n";
    assert_eq!(shown(&wish, found, Stale::Tell), expected);
}

#[test]
fn what_is_somebody_elses_is_refused_and_what_needs_it_waits() {
    let wish = zone(vec![project(), network(), subnet()]);
    for (of, why) in [
        ("", "was not made by this zone (key of network ci/test)"),
        ("other", "it belongs to the zone of `other`"),
    ] {
        let found = vec![there(&project(), OURS), there(&network(), of)];
        let text = shown(&wish, found, Stale::Delete);
        assert!(text.starts_with("! network ci/test: ") && text.contains(why), "{text}");
        assert!(
            text.ends_with("! subnet ci/test-subnet: it waits for network ci/test\n"),
            "{text}"
        );
    }
}

#[test]
fn what_the_zone_adopts_is_put_right_and_never_deleted() {
    let mut adopted = network();
    adopted.adopt = true;
    let wish = zone(vec![project(), adopted.clone()]);
    let mut found = vec![there(&project(), OURS), there(&network(), "")];
    found[1].fields.insert("mtu".into(), Value::Number(1400));
    let expected = "~ network ci/test (adopted)\n      mtu: 1400 -> 1500\n";
    assert_eq!(shown(&wish, found.clone(), Stale::Tell), expected);
    assert_eq!(shown(&zone(vec![project()]), found, Stale::Delete), "");
    // The mark of another zone counts more than the wish.
    let others = vec![there(&project(), OURS), there(&network(), "other")];
    assert!(shown(&wish, others, Stale::Tell).starts_with("! network ci/test: it belongs to"));
}

#[test]
fn what_cannot_be_changed_is_told() {
    let flavor = |ram| Thing::new(id(Kind::Flavor, "h1.ci")).with("ram", Value::Number(ram));
    let wish = zone(vec![flavor(8192)]);
    let text = shown(&wish, vec![there(&flavor(4096), OURS)], Stale::Tell);
    assert!(
        text.starts_with("! flavor h1.ci: ram: 4096 -> 8192: this cannot be changed"),
        "{text}"
    );
}

#[test]
fn an_upload_that_was_cut_off_is_done_again() {
    let image = Thing::new(id(Kind::Image, "f20")).with("content", Value::text("sha512:1"));
    let mut cut = there(&image, OURS);
    (cut.unfinished, cut.fields) = (true, BTreeMap::new());
    let wish = zone(vec![image]);
    assert_eq!(shown(&wish, vec![cut], Stale::Tell), "~ image f20: its bytes are sent again\n");
}

#[test]
fn a_name_without_a_project_means_the_only_one() {
    let router = Thing::new(id(Kind::Router, "r")).with(
        "external_gateway_info.network_id",
        Value::Ref(ThingId::new(Kind::Network, ANYWHERE, "ext")),
    );
    let wish = zone(vec![project(), router]);
    let of = |project: &str| there(&Thing::new(ThingId::new(Kind::Network, project, "ext")), "");
    let text = |networks: Vec<FoundThing>| shown(&wish, networks, Stale::Tell);
    assert!(text(vec![of("admin")]).contains("network_id: admin/ext"));
    assert!(
        text(vec![]).contains("! router ci/r: network ext is neither in the zone nor in the cloud")
    );
    let both = text(vec![of("admin"), of("lab")]);
    assert!(
        both.contains("may be network admin/ext or network lab/ext: say its project"),
        "{both}"
    );
}

#[test]
fn of_two_with_one_name_ours_is_meant() {
    let wish = zone(vec![project(), network()]);
    let project = there(&project(), OURS);
    let (ours, other) = (there(&network(), OURS), there(&network(), ""));
    let two = vec![project.clone(), other.clone(), ours];
    assert_eq!(shown(&wish, two, Stale::Delete), "");
    let text = shown(&wish, vec![project, other.clone(), other], Stale::Delete);
    assert!(text.starts_with("! network ci/test: there are 2 of this name"), "{text}");
}

#[test]
fn what_is_no_longer_wished_goes_only_when_asked_and_when_nothing_uses_it() {
    let wish = zone(vec![project()]);
    let found: Vec<_> = [project(), network(), subnet()].iter().map(|t| there(t, OURS)).collect();
    let told = "\
? network ci/test: it is ours and no longer wished; `--prune` deletes it
? subnet ci/test-subnet: it is ours and no longer wished; `--prune` deletes it
";
    assert_eq!(shown(&wish, found.clone(), Stale::Tell), told);
    let gone = "- subnet ci/test-subnet\n- network ci/test\n";
    assert_eq!(shown(&wish, found.clone(), Stale::Delete), gone);
    let port =
        Thing::new(id(Kind::Port, "vm")).with("network_id", reference(Kind::Network, "test"));
    let used = [found, vec![there(&port, "")]].concat();
    let kept = "\
- subnet ci/test-subnet
! network ci/test: it is ours and no longer wished, and port ci/vm still uses it
";
    assert_eq!(shown(&wish, used, Stale::Delete), kept);
}

#[test]
fn a_rule_that_somebody_put_into_our_group_is_told_and_stays() {
    let group = Thing::new(id(Kind::Group, "ci"));
    let rule = |name: &str, direction: &str, protocol: Value| {
        Thing::new(id(Kind::Rule, name))
            .with("security_group_id", reference(Kind::Group, "ci"))
            .with("direction", Value::text(direction))
            .with("protocol", protocol)
    };
    let wish = zone(vec![project(), group.clone()]);
    let found = |group_of: &str| {
        vec![
            there(&project(), OURS),
            there(&group, group_of),
            there(&rule("ci: egress IPv4 any to any", "egress", Value::None), ""),
            there(&rule("ci: ingress IPv4 tcp from any", "ingress", Value::text("tcp")), ""),
        ]
    };
    let told = shown(&wish, found(OURS), Stale::Delete);
    let expected =
        "! rule ci/ci: ingress IPv4 tcp from any: somebody else has put it into our group";
    assert!(told.starts_with(expected) && told.lines().count() == 1, "{told}");
    // A group that is not ours may have what it likes.
    let adopted = zone(vec![project(), Thing { adopt: true, ..group.clone() }]);
    assert_eq!(shown(&adopted, found(""), Stale::Delete), "");
}

#[test]
fn a_project_stays_while_something_is_in_it() {
    let group = Thing::new(id(Kind::Group, "default"));
    let empty = vec![there(&project(), OURS), there(&group, "")];
    assert_eq!(shown(&zone(vec![]), empty.clone(), Stale::Delete), "- project ci\n");
    let used = [empty, vec![there(&network(), "")]].concat();
    let text = shown(&zone(vec![]), used, Stale::Delete);
    assert!(text.contains("and network ci/test still uses it"), "{text}");
}

#[test]
fn a_plan_is_json_too() {
    let wish = zone(vec![project(), network()]);
    let plan = plan(&wish, &Found { things: vec![there(&project(), OURS)] }, Stale::Tell);
    let json = serde_json::to_value(&plan).unwrap();
    let step = serde_json::json!({
        "do": "create", "thing": {"kind": "network", "project": "ci", "name": "test"}, "fields": {"mtu": 1500},
    });
    assert_eq!(json["steps"][0], step);
}

#[test]
fn marks_are_read_as_they_are_written() {
    let mark = Mark::of("hp1");
    assert_eq!(Mark::read(&mark.description(None)), Some((mark.clone(), None)));
    assert_eq!(Mark::read(&mark.description(Some("a:b"))), Some((mark, Some("a:b"))));
    for none in ["", "toci:hp1:x", "toci-zone:", "mine"] {
        assert_eq!(Mark::read(none), None, "{none}");
    }
}

/// A cloud that does what it is told, and refuses what a real one would.
fn execute(plan: &Plan, found: &mut Found) -> Result<(), TestCaseError> {
    for step in &plan.steps {
        let exists = |id: &ThingId, found: &Found| found.all(id).next().is_some();
        match step {
            Step::Create { thing, fields } => {
                prop_assert!(!exists(thing, found), "{thing} is made twice");
                let made = Thing { fields: fields.clone(), ..Thing::new(thing.clone()) };
                for need in made.needs() {
                    prop_assert!(exists(&need, found), "{thing} is made before {need}");
                }
                found.things.push(there(&made, OURS));
            }
            Step::Change { thing, fields, adopted } => {
                let ours = owner(OURS);
                let mut known = found.things.iter_mut().filter(|t| t.id == *thing);
                let Some(have) = known.next() else { return Err(TestCaseError::fail("gone")) };
                prop_assert!(*adopted || have.owner == ours, "{thing} is not ours");
                for d in fields {
                    prop_assert_eq!(change(thing.kind, &d.field), Change::InPlace);
                    prop_assert_eq!(have.field(&d.field), &d.old);
                    have.fields.insert(d.field.clone(), d.new.clone());
                }
            }
            Step::Upload { .. } => prop_assert!(false, "no image is unfinished here"),
            Step::Delete { thing } => {
                let users = found.things.iter().filter(|t| t.refs().contains(thing));
                let users: Vec<String> = users.map(|t| t.id.to_string()).collect();
                prop_assert!(users.is_empty(), "{thing} is deleted before {users:?}");
                let before = found.things.len();
                found.things.retain(|t| t.id != *thing || t.owner != owner(OURS));
                prop_assert_eq!(before - found.things.len(), 1, "{} was not ours", thing);
            }
        }
    }
    Ok(())
}

/// A few things that refer to each other; `n` chooses names and values.
fn thing(kind: Kind) -> impl Strategy<Value = Thing> {
    (0..3_i64, 0..3_i64, 0..3_i64, any::<bool>()).prop_map(move |(own, a, b, adopt)| {
        let name = |n: i64| format!("n{n}");
        let link = |kind, n| reference(kind, &name(n));
        let mut thing = Thing::new(id(kind, &name(own)));
        thing.adopt = adopt;
        match kind {
            Kind::Flavor => {
                thing.with("ram", Value::Number(a)).with("extra_specs.x", Value::Number(b))
            }
            Kind::Network => {
                thing.with("mtu", Value::Number(a)).with("provider:x", Value::Number(b))
            }
            Kind::Subnet => {
                thing.with("network_id", link(Kind::Network, a)).with("dns", Value::Number(b))
            }
            Kind::Router => thing.with("external_gateway_info.network_id", link(Kind::Network, a)),
            Kind::Port => {
                thing.with("network_id", link(Kind::Network, a)).with("mac", Value::Number(b))
            }
            Kind::Server => thing
                .with("flavor", link(Kind::Flavor, a))
                .with("ports", Value::List(vec![link(Kind::Port, b)])),
            Kind::FloatingIp => thing
                .with("network_id", link(Kind::Network, a))
                .with("port_id", link(Kind::Port, b)),
            _ => thing,
        }
    })
}

fn things() -> impl Strategy<Value = Vec<Thing>> {
    let kinds = [
        Kind::Flavor,
        Kind::Network,
        Kind::Subnet,
        Kind::Router,
        Kind::Port,
        Kind::Server,
        Kind::FloatingIp,
    ];
    let each: Vec<_> = kinds.into_iter().map(|k| prop::collection::vec(thing(k), 0..4)).collect();
    each.prop_map(|lists| {
        let mut seen = BTreeSet::new();
        let all = lists.into_iter().flatten();
        all.filter(|thing| seen.insert(thing.id.clone())).collect()
    })
}

/// What is there refers only to what is there.
fn founds() -> impl Strategy<Value = Found> {
    (things(), prop::collection::vec(0..3_usize, 40)).prop_map(|(things, owners)| {
        let mut found = Found { things: vec![there(&project(), OURS)] };
        for (thing, of) in things.iter().zip(owners) {
            if thing.needs().iter().all(|need| found.all(need).next().is_some()) {
                found.things.push(there(thing, [OURS, "", "other"][of]));
            }
        }
        found
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn after_its_plan_a_cloud_is_as_wished(mut wish in things(), mut found in founds(), prune in any::<bool>()) {
        wish.push(project());
        let wish = zone(wish);
        let stale = if prune { Stale::Delete } else { Stale::Tell };
        let not_ours: Vec<FoundThing> =
            found.things.iter().filter(|t| t.owner != owner(OURS)).cloned().collect();
        let first = plan(&wish, &found, stale);
        prop_assert_eq!(&first, &plan(&wish, &found, stale), "the same plan from the same input");
        execute(&first, &mut found)?;
        // What was still in use by something that moved away goes the second time.
        let second = plan(&wish, &found, stale);
        prop_assert!(
            second.steps.iter().all(|step| matches!(step, Step::Delete { .. })),
            "{second}after\n{first}"
        );
        execute(&second, &mut found)?;
        prop_assert_eq!(plan(&wish, &found, stale).steps, vec![]);
        for before in not_ours {
            let after: Vec<&FoundThing> = found.all(&before.id).collect();
            prop_assert_eq!(after.len(), 1, "{} is gone", before.id);
            prop_assert_eq!(&after[0].owner, &before.owner);
            let adopted = wish.things.iter().any(|t| t.id == before.id && t.adopt);
            prop_assert!(*after[0] == before || adopted, "{} was touched", before.id);
        }
    }

    #[test]
    fn killed_anywhere_the_rest_is_done_the_next_time(
        mut wish in things(), mut found in founds(), at in 0..20_usize, prune in any::<bool>(),
    ) {
        wish.push(project());
        let wish = zone(wish);
        let stale = if prune { Stale::Delete } else { Stale::Tell };
        let mut whole = found.clone();
        for _ in 0..3 {
            execute(&plan(&wish, &whole, stale), &mut whole)?;
        }
        let mut cut = plan(&wish, &found, stale);
        cut.steps.truncate(at);
        execute(&cut, &mut found)?;
        for _ in 0..3 {
            execute(&plan(&wish, &found, stale), &mut found)?;
        }
        let sorted = |found: &Found| {
            let mut things = found.things.clone();
            things.sort_by(|a, b| a.id.cmp(&b.id));
            things
        };
        prop_assert_eq!(sorted(&whole), sorted(&found));
    }
}
