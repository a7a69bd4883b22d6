//! How things are changed and deleted.

use super::api::{ApiError, Service};
use super::apply::{Executor, StepFailed};
use super::body::with_siblings;
use super::create::place;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use toci_core::cloud::{Difference, Kind, ThingId, Value};

type Fields = BTreeMap<String, Value>;

impl Executor<'_> {
    pub(super) async fn change(
        &self,
        id: &ThingId,
        differences: &[Difference],
    ) -> Result<(), StepFailed> {
        let key = self.keys.of_thing(id)?;
        let changed: Fields =
            differences.iter().map(|d| (d.field.clone(), d.new.clone())).collect();
        match id.kind {
            Kind::Quota => {
                self.set_quota(id, &changed).await?;
            }
            Kind::Flavor => {
                let body = self.keys.object(&changed)?;
                let path = format!("flavors/{key}/os-extra_specs");
                self.api.post(Service::Compute, &path, Json::Object(body)).await?;
            }
            Kind::Image => self.change_image(key, differences).await?,
            Kind::Project | Kind::User => self.patch(id, key, &changed).await?,
            Kind::Network
            | Kind::Subnet
            | Kind::Router
            | Kind::Group
            | Kind::Port
            | Kind::FloatingIp => self.put(id, key, &changed).await?,
            // Nothing of these can be changed; no plan has such a step.
            Kind::Role
            | Kind::Assignment
            | Kind::KeyPair
            | Kind::Interface
            | Kind::Rule
            | Kind::Server => {}
        }
        Ok(())
    }

    async fn patch(&self, id: &ThingId, key: &str, changed: &Fields) -> Result<(), ApiError> {
        let Some((service, path, name)) = place(id.kind) else { return Ok(()) };
        let body = json!({ name: self.keys.object(changed)? });
        self.api.patch(service, &format!("{path}/{key}"), body).await
    }

    async fn put(&self, id: &ThingId, key: &str, changed: &Fields) -> Result<(), ApiError> {
        let Some((service, path, name)) = place(id.kind) else { return Ok(()) };
        let whole = with_siblings(self.wished(id), changed);
        let body = json!({ name: self.keys.object(&whole)? });
        self.api.put(service, &format!("{path}/{key}"), body).await.map(|_| ())
    }

    /// Glance takes a list of changes.
    async fn change_image(&self, key: &str, differences: &[Difference]) -> Result<(), ApiError> {
        let mut patches = Vec::new();
        for difference in differences {
            let field = &difference.field;
            let name = field.strip_prefix("properties.").unwrap_or(field);
            let is_new = difference.old == Value::None && field != name;
            let op = if is_new { "add" } else { "replace" };
            // `~` and `/` have a meaning in the path.
            let name = name.replace('~', "~0").replace('/', "~1");
            let value = self.keys.json(&difference.new)?;
            patches.push(json!({"op": op, "path": format!("/{name}"), "value": value}));
        }
        self.api.patch(Service::Image, &format!("images/{key}"), Json::Array(patches)).await
    }

    pub(super) async fn delete(&self, id: &ThingId) -> Result<(), StepFailed> {
        let key = self.keys.of_thing(id)?;
        match id.kind {
            Kind::Assignment => self.unassign(id).await?,
            Kind::Interface => self.unplug(id).await?,
            Kind::Quota => {}
            Kind::Project => {
                self.delete_default_group(key).await?;
                self.api.delete(Service::Identity, &format!("projects/{key}")).await?;
            }
            kind => {
                if let Some((service, path, _)) = place(kind) {
                    self.api.delete(service, &format!("{path}/{key}")).await?;
                }
            }
        }
        if id.kind == Kind::Server {
            self.wait_until_gone(id, key).await?;
        }
        Ok(())
    }

    /// Neutron makes a group `default` for whatever project it hears of, and never learns that one has gone.
    async fn delete_default_group(&self, project: &str) -> Result<(), ApiError> {
        let path = format!("security-groups?project_id={project}&name=default");
        for group in self.api.list(Service::Network, &path, "security_groups").await? {
            let id = group["id"].as_str().unwrap_or_default();
            self.api.delete(Service::Network, &format!("security-groups/{id}")).await?;
        }
        Ok(())
    }

    async fn unassign(&self, id: &ThingId) -> Result<(), ApiError> {
        let Some(fields) = self.found_fields(id) else { return Ok(()) };
        let path = self.assignment(id, fields)?;
        self.api.delete(Service::Identity, &path).await
    }

    async fn unplug(&self, id: &ThingId) -> Result<(), ApiError> {
        let Some(fields) = self.found_fields(id) else { return Ok(()) };
        let (router, subnet) = self.leg(id, fields)?;
        let path = format!("routers/{router}/remove_router_interface");
        self.api.put(Service::Network, &path, json!({"subnet_id": subnet})).await.map(|_| ())
    }
}
