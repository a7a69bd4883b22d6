//! How things are made. What carries a mark carries it from its first moment on, so that nothing is ever made and lost.

use super::api::{ApiError, MARK_PROPERTY, Service};
use super::apply::{Executor, StepFailed};
use super::body::below;
use super::prepare::user_data;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use toci_core::cloud::{Kind, Local, Password, ThingId, Value};
use toci_edge::http::{Method, Secret, secret_in};

type Fields = BTreeMap<String, Value>;

/// Where things of a kind are, and what one is called in JSON.
pub(super) fn place(kind: Kind) -> Option<(Service, &'static str, &'static str)> {
    Some(match kind {
        Kind::Role => (Service::Identity, "roles", "role"),
        Kind::Project => (Service::Identity, "projects", "project"),
        Kind::User => (Service::Identity, "users", "user"),
        Kind::Flavor => (Service::Compute, "flavors", "flavor"),
        Kind::KeyPair => (Service::Compute, "os-keypairs", "keypair"),
        Kind::Image => (Service::Image, "images", ""),
        Kind::Network => (Service::Network, "networks", "network"),
        Kind::Subnet => (Service::Network, "subnets", "subnet"),
        Kind::Router => (Service::Network, "routers", "router"),
        Kind::Group => (Service::Network, "security-groups", "security_group"),
        Kind::Rule => (Service::Network, "security-group-rules", "security_group_rule"),
        Kind::Port => (Service::Network, "ports", "port"),
        Kind::Server => (Service::Compute, "servers", "server"),
        Kind::FloatingIp => (Service::Network, "floatingips", "floatingip"),
        Kind::Assignment | Kind::Quota | Kind::Interface => return None,
    })
}

impl Executor<'_> {
    /// Makes a thing; what the cloud calls it.
    pub(super) async fn create(&self, id: &ThingId, fields: &Fields) -> Result<String, StepFailed> {
        match id.kind {
            Kind::Role | Kind::Project | Kind::User => self.create_identity(id, fields).await,
            Kind::Assignment => Ok(self.assign(id, fields).await?),
            Kind::Quota => Ok(self.set_quota(id, fields).await?),
            Kind::Flavor => Ok(self.create_flavor(id, fields).await?),
            Kind::KeyPair => {
                let body =
                    json!({"name": id.name, "public_key": self.keys.json(&fields["public_key"])?});
                Ok(self.post(id, body).await?)
            }
            Kind::Image => Ok(self.create_image(id, fields).await?),
            Kind::Interface => Ok(self.plug(id, fields).await?),
            Kind::Group if id.name == "default" => Ok(self.default_group(id).await?),
            Kind::Network
            | Kind::Subnet
            | Kind::Router
            | Kind::Group
            | Kind::Rule
            | Kind::Port
            | Kind::FloatingIp => Ok(self.create_network_thing(id, fields).await?),
            Kind::Server => self.create_server(id, fields).await,
        }
    }

    async fn post(&self, id: &ThingId, body: Json) -> Result<String, ApiError> {
        let Some((service, path, name)) = place(id.kind) else {
            return Err(ApiError::Gone { thing: id.to_string() });
        };
        let wrapped = if name.is_empty() { body } else { json!({ name: body }) };
        let answer = self.api.post(service, path, wrapped).await?;
        let made = if name.is_empty() { &answer } else { &answer[name] };
        // A key pair's name is all there is of it.
        let key = if id.kind == Kind::KeyPair { &made["name"] } else { &made["id"] };
        key.as_str().map(str::to_owned).ok_or_else(|| ApiError::Gone { thing: id.to_string() })
    }

    fn marked(&self, name: Option<&str>) -> Json {
        json!(self.zone.mark.description(name))
    }

    async fn create_identity(&self, id: &ThingId, fields: &Fields) -> Result<String, StepFailed> {
        let mut body = self.keys.object(fields)?;
        body.insert("name".to_owned(), json!(id.name));
        body.insert("description".to_owned(), self.marked(None));
        if id.kind != Kind::Role {
            body.insert("domain_id".to_owned(), json!(self.domain()));
        }
        if let Some(Local::Password(place)) = self.wished(id).and_then(|t| t.local.as_ref()) {
            let password = password(&id.name, place)?;
            body.insert("password".to_owned(), json!(password.reveal()));
        }
        Ok(self.post(id, Json::Object(body)).await?)
    }

    /// The way to an assignment.
    pub(super) fn assignment(&self, id: &ThingId, fields: &Fields) -> Result<String, ApiError> {
        let key = |name: &str| match fields.get(name) {
            Some(Value::Ref(thing)) => self.keys.of_thing(thing),
            Some(_) | None => Err(ApiError::Gone { thing: format!("{name} of {id}") }),
        };
        let (project, user, role) = (self.project(id)?, key("user")?, key("role")?);
        Ok(format!("projects/{project}/users/{user}/roles/{role}"))
    }

    async fn assign(&self, id: &ThingId, fields: &Fields) -> Result<String, ApiError> {
        let path = self.assignment(id, fields)?;
        self.api.order(Method::PUT, Service::Identity, &path, None).await?;
        Ok(path)
    }

    pub(super) async fn set_quota(
        &self,
        id: &ThingId,
        fields: &Fields,
    ) -> Result<String, ApiError> {
        let project = self.project(id)?;
        for (section, service, path, name) in [
            ("compute", Service::Compute, "os-quota-sets", "quota_set"),
            ("network", Service::Network, "quotas", "quota"),
        ] {
            let limits = below(fields, section);
            if !limits.is_empty() {
                let body = json!({ name: self.keys.object(&limits)? });
                self.api.put(service, &format!("{path}/{project}"), body).await?;
            }
        }
        Ok(project.to_owned())
    }

    async fn create_flavor(&self, id: &ThingId, fields: &Fields) -> Result<String, ApiError> {
        let mut body = self.keys.object(fields)?;
        let extra = body.remove("extra_specs");
        body.insert("name".to_owned(), json!(id.name));
        body.insert("description".to_owned(), self.marked(None));
        let key = self.post(id, Json::Object(body)).await?;
        if let Some(extra) = extra {
            let path = format!("flavors/{key}/os-extra_specs");
            self.api.post(Service::Compute, &path, json!({"extra_specs": extra})).await?;
        }
        Ok(key)
    }

    async fn create_image(&self, id: &ThingId, fields: &Fields) -> Result<String, ApiError> {
        let mut body = self.keys.object(fields)?;
        body.remove("content");
        if let Some(Json::Object(properties)) = body.remove("properties") {
            body.extend(properties);
        }
        body.insert("name".to_owned(), json!(id.name));
        body.insert(MARK_PROPERTY.to_owned(), json!(self.zone.mark.owner()));
        self.post(id, Json::Object(body)).await
    }

    /// Sends an image's bytes.
    pub(super) async fn upload(&self, id: &ThingId) -> Result<(), StepFailed> {
        let key = self.keys.of_thing(id)?;
        if let Some(Local::Content(file)) = self.wished(id).and_then(|t| t.local.as_ref()) {
            self.api.upload(key, file).await?;
        }
        Ok(())
    }

    async fn plug(&self, id: &ThingId, fields: &Fields) -> Result<String, ApiError> {
        let (router, subnet) = self.leg(id, fields)?;
        let path = format!("routers/{router}/add_router_interface");
        let answer = self.api.put(Service::Network, &path, json!({"subnet_id": subnet})).await?;
        Ok(answer["port_id"].as_str().unwrap_or_default().to_owned())
    }

    /// A router and a subnet.
    pub(super) fn leg(&self, id: &ThingId, fields: &Fields) -> Result<(&str, &str), ApiError> {
        let key = |name: &str| match fields.get(name) {
            Some(Value::Ref(thing)) => self.keys.of_thing(thing),
            Some(_) | None => Err(ApiError::Gone { thing: format!("{name} of {id}") }),
        };
        Ok((key("router")?, key("subnet")?))
    }

    /// Neutron makes it by itself when it is asked for the groups of a project.
    async fn default_group(&self, id: &ThingId) -> Result<String, ApiError> {
        let path = format!("security-groups?tenant_id={}", self.project(id)?);
        let groups = self.api.list(Service::Network, &path, "security_groups").await?;
        let default = groups.iter().find(|group| group["name"] == "default");
        let key = default.and_then(|group| group["id"].as_str());
        key.map(str::to_owned).ok_or_else(|| ApiError::Gone { thing: id.to_string() })
    }

    async fn create_network_thing(
        &self,
        id: &ThingId,
        fields: &Fields,
    ) -> Result<String, ApiError> {
        let mut body = self.keys.object(fields)?;
        let has_name = !matches!(id.kind, Kind::Rule | Kind::FloatingIp);
        if has_name {
            body.insert("name".to_owned(), json!(id.name));
        }
        let name = (id.kind == Kind::FloatingIp).then_some(id.name.as_str());
        body.insert("description".to_owned(), self.marked(name));
        body.insert("project_id".to_owned(), json!(self.project(id)?));
        self.post(id, Json::Object(body)).await
    }

    /// Servers belong to whoever makes them: they are made in the project's name.
    async fn create_server(&self, id: &ThingId, fields: &Fields) -> Result<String, StepFailed> {
        let mut body = Map::new();
        body.insert("name".to_owned(), json!(id.name));
        body.insert("metadata".to_owned(), json!({ MARK_PROPERTY: self.zone.mark.owner() }));
        for (field, theirs) in [("image", "imageRef"), ("flavor", "flavorRef")] {
            if let Some(value) = fields.get(field) {
                body.insert(theirs.to_owned(), self.keys.json(value)?);
            }
        }
        for field in ["key_name", "config_drive", "availability_zone"] {
            if let Some(value) = fields.get(field) {
                body.insert(field.to_owned(), self.keys.json(value)?);
            }
        }
        let nics = fields.get("nics").map(Value::refs).unwrap_or_default();
        let nics: Result<Vec<Json>, ApiError> =
            nics.into_iter().map(|port| Ok(json!({"port": self.keys.of_thing(port)?}))).collect();
        body.insert("networks".to_owned(), Json::Array(nics?));
        if let Some(Local::UserData(file)) = self.wished(id).and_then(|t| t.local.as_ref()) {
            body.insert("user_data".to_owned(), json!(STANDARD.encode(user_data(file)?)));
        }
        let project = self.api.within(self.project(id)?).await?;
        let body = json!({"server": body});
        let answer = project.post(Service::Compute, "servers", body).await?;
        let key = answer["server"]["id"].as_str().map(str::to_owned);
        Ok(key.ok_or_else(|| ApiError::Gone { thing: id.to_string() })?)
    }
}

fn password(user: &str, place: &Password) -> Result<Secret, StepFailed> {
    let failed = |why: String| StepFailed::Password { user: user.to_owned(), why };
    match place {
        Password::File(file) => secret_in(file).map_err(|e| failed(e.to_string())),
        Password::Environment(name) => match std::env::var(name) {
            Ok(password) if !password.is_empty() => Ok(Secret::new(password)),
            Ok(_) | Err(_) => Err(failed(format!("{name} is not in the environment"))),
        },
    }
}
