//! Projects, roles, users, assignments, quotas.

use super::{Reading, described, fields, plain, text, thing};
use crate::cloud::api::{Api, ApiError, Service};
use std::collections::BTreeSet;
use toci_core::cloud::{Kind, Mark, Owner, ThingId, Value, Zone};

/// All projects; who may not see them knows its own.
pub(super) async fn projects(api: &Api, reading: &mut Reading) -> Result<(), ApiError> {
    let (own_key, own_name) = api.own_project();
    let own = api.get(Service::Identity, &format!("projects/{own_key}")).await?;
    reading.domain = match text(&own["project"], "domain_id") {
        "" => "default".to_owned(),
        domain => domain.to_owned(),
    };
    let path = format!("projects?domain_id={}", reading.domain);
    let listed = match api.list(Service::Identity, &path, "projects").await {
        Err(error) if error.status() == Some(403) => {
            let id = ThingId::global(Kind::Project, own_name);
            reading.add(thing(id, own_key, described(&own["project"])));
            return Ok(());
        }
        listed => listed?,
    };
    for json in listed {
        let id = ThingId::global(Kind::Project, text(&json, "name"));
        reading.add(thing(id, text(&json, "id"), described(&json)));
    }
    Ok(())
}

/// Roles, users, and who is what where.
pub(super) async fn users(api: &Api, zone: &Zone, reading: &mut Reading) -> Result<(), ApiError> {
    for json in api.list(Service::Identity, "roles", "roles").await? {
        let id = ThingId::global(Kind::Role, text(&json, "name"));
        reading.add(thing(id, text(&json, "id"), described(&json)));
    }
    let path = format!("users?domain_id={}", reading.domain);
    for json in api.list(Service::Identity, &path, "users").await? {
        let id = ThingId::global(Kind::User, text(&json, "name"));
        let mut found = thing(id, text(&json, "id"), described(&json));
        found.fields = fields(&json, &["email"]);
        let project = reading.reference(Kind::Project, json["default_project_id"].as_str());
        found.fields.insert("default_project_id".to_owned(), project);
        reading.add(found);
    }
    assignments(api, zone, reading).await
}

/// Of the projects that are ours or named by the zone's assignments.
async fn assignments(api: &Api, zone: &Zone, reading: &mut Reading) -> Result<(), ApiError> {
    let ours = Owner::Marked(zone.mark.clone());
    let named = zone.things.iter().filter(|t| t.id.kind == Kind::Assignment);
    let named: BTreeSet<String> = named.map(|t| t.id.project.clone()).collect();
    let all = reading.found.things.iter().filter(|t| t.id.kind == Kind::Project);
    let looked_at = all.filter(|t| named.contains(&t.id.name) || t.owner == ours);
    let projects: Vec<(String, String)> =
        looked_at.map(|t| (t.key.clone(), t.id.name.clone())).collect();
    for (key, project) in projects {
        let path = format!("role_assignments?scope.project.id={key}");
        for json in api.list(Service::Identity, &path, "role_assignments").await? {
            let Some(user) = json["user"]["id"].as_str() else { continue };
            let user = reading.name(Kind::User, user);
            let role = reading.name(Kind::Role, text(&json["role"], "id"));
            let id =
                ThingId::new(Kind::Assignment, &project, format!("{} as {}", user.name, role.name));
            // It has no mark: it is ours where both of its ends are.
            let both = reading.owner(&user) == ours
                && reading.owner(&ThingId::global(Kind::Project, &project)) == ours;
            let owner = if both { ours.clone() } else { Owner::Nobody };
            let name = id.name.clone();
            let mut found = thing(id, &format!("{key}: {name}"), owner);
            found.fields.insert("user".to_owned(), Value::Ref(user));
            found.fields.insert("role".to_owned(), Value::Ref(role));
            reading.add(found);
        }
    }
    Ok(())
}

/// Of the projects whose quotas the zone names.
pub(super) async fn quotas(api: &Api, zone: &Zone, reading: &mut Reading) -> Result<(), ApiError> {
    for wish in zone.things.iter().filter(|thing| thing.id.kind == Kind::Quota) {
        let project = ThingId::global(Kind::Project, &wish.id.project);
        let Some(key) = reading.found.all(&project).next().map(|thing| thing.key.clone()) else {
            continue;
        };
        let mut found = thing(wish.id.clone(), &key, Owner::Nobody);
        for (section, service, path, name) in [
            ("compute", Service::Compute, format!("os-quota-sets/{key}"), "quota_set"),
            ("network", Service::Network, format!("quotas/{key}"), "quota"),
        ] {
            if !wish.fields.keys().any(|field| field.starts_with(section)) {
                continue;
            }
            let json = api.get(service, &path).await?;
            for (field, value) in json[name].as_object().into_iter().flatten() {
                found.fields.insert(format!("{section}.{field}"), plain(value));
            }
        }
        reading.add(found);
    }
    Ok(())
}

/// A mark in a property.
pub(super) fn property(value: Option<&str>) -> Owner {
    match value {
        Some(owner) if !owner.is_empty() => Owner::Marked(Mark::of(owner)),
        Some(_) | None => Owner::Nobody,
    }
}
