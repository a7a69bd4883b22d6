//! Keystone: getting a token, reading its catalogue.

use super::call::{CALL_LIMIT, retry_after};
use super::error::CloudError;
use super::session::{Cloud, Service};
use crate::http::{Request, Secret, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use toci_wire::clouds::{Auth, CloudSettings, Named, Scope, UserRef};
use tokio::time::Instant;

/// How long a token is thought to last when the answer does not say.
const TOKEN_LIFE: Duration = Duration::from_secs(600);

/// Who a token says that one is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFacts {
    /// The user.
    pub user_id: String,
    /// Its name.
    pub user_name: String,
    /// The project, if the token is for one.
    pub project_id: Option<String>,
    /// Its name.
    pub project_name: Option<String>,
    /// What one may be there.
    pub roles: Vec<String>,
}

/// A token.
pub(super) struct Token {
    pub(super) value: Secret,
    /// Reckoned by our own clock from how long it lasts: clocks of clouds differ from ours.
    pub(super) ends: Instant,
    pub(super) facts: TokenFacts,
    catalogue: Vec<CatalogueEntry>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("facts", &self.facts).finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
struct CatalogueEntry {
    #[serde(rename = "type")]
    kind: String,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    interface: String,
    region: Option<String>,
    region_id: Option<String>,
    url: String,
}

impl Endpoint {
    fn is_in(&self, region: &str) -> bool {
        self.region.as_deref() == Some(region) || self.region_id.as_deref() == Some(region)
    }
}

#[derive(Debug, Deserialize)]
struct Answered {
    token: AnsweredToken,
}

#[derive(Debug, Deserialize)]
struct AnsweredToken {
    expires_at: Option<String>,
    issued_at: Option<String>,
    user: Whose,
    project: Option<Whose>,
    #[serde(default)]
    roles: Vec<Whose>,
    #[serde(default)]
    catalog: Vec<CatalogueEntry>,
}

#[derive(Debug, Deserialize)]
struct Whose {
    id: String,
    name: String,
}

impl Token {
    /// The address of a service, as the settings choose among those of the catalogue.
    pub(super) fn address(
        &self,
        service: Service,
        settings: &CloudSettings,
    ) -> Result<String, CloudError> {
        let no = |why| CloudError::NoEndpoint { service: service.word(), why };
        let entry = |kind: &&str| self.catalogue.iter().find(|entry| entry.kind == **kind);
        let Some(entry) = service.types().iter().find_map(entry) else {
            let there: Vec<&str> = self.catalogue.iter().map(|e| e.kind.as_str()).collect();
            return Err(no(match (there.is_empty(), &self.facts.project_id) {
                (true, None) => "the token is for no project: name one in the settings".to_owned(),
                (_, _) => format!("the cloud has {}", there.join(", ")),
            }));
        };
        let interface = settings.interface.word();
        let fits = |endpoint: &&Endpoint| {
            endpoint.interface == interface
                && settings.region.as_ref().is_none_or(|region| endpoint.is_in(region))
        };
        let found = entry.endpoints.iter().find(fits);
        found.map(|endpoint| endpoint.url.clone()).ok_or_else(|| {
            let there = |e: &Endpoint| {
                let region = e.region.as_ref().or(e.region_id.as_ref());
                format!("{} in {}", e.interface, region.map_or("no region", String::as_str))
            };
            let there: Vec<String> = entry.endpoints.iter().map(there).collect();
            let region = settings.region.as_deref().unwrap_or("any region");
            no(format!("wanted is {interface} in {region}, there is {}", there.join(", ")))
        })
    }
}

/// Gets a token. The same attempts as any other call's are made by whoever needs it.
pub(super) async fn authenticate(cloud: &Cloud, auth_url: &Url) -> Result<Token, CloudError> {
    let url = auth_url.join("/auth/tokens");
    let what = format!("POST {url}");
    let request = Request::post(&url).json(&question(&cloud.settings().auth)).within(CALL_LIMIT);
    let method = crate::http::Method::POST;
    let asked = Instant::now();
    let answer = match cloud.http.send(request).await {
        Ok(answer) => answer,
        Err(error) => {
            cloud.pace.count(Service::Identity, &method, None);
            return Err(CloudError::of_http(&what, error));
        }
    };
    cloud.pace.count(Service::Identity, &method, Some(answer.status()));
    if !matches!(answer.status(), 200 | 201) {
        return Err(CloudError::of_answer(&what, &answer, retry_after(&answer)));
    }
    let unexpected = |why: String| CloudError::Unexpected { what: what.clone(), why };
    let value = answer.header("x-subject-token");
    let value = Secret::new(value.ok_or_else(|| unexpected("no X-Subject-Token".to_owned()))?);
    let token = answer.json::<Answered>().map_err(|e| unexpected(e.to_string()))?.token;
    let (project_id, project_name) = token.project.map(|p| (p.id, p.name)).unzip();
    Ok(Token {
        value,
        ends: asked + life(token.issued_at.as_deref(), token.expires_at.as_deref()),
        facts: TokenFacts {
            user_id: token.user.id,
            user_name: token.user.name,
            project_id,
            project_name,
            roles: token.roles.into_iter().map(|role| role.name).collect(),
        },
        catalogue: token.catalog,
    })
}

fn life(issued: Option<&str>, expires: Option<&str>) -> Duration {
    let at = |text: Option<&str>| text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match (at(issued), at(expires)) {
        (Some(issued), Some(expires)) => {
            Duration::try_from(expires.duration_since(issued)).unwrap_or_default()
        }
        (_, _) => TOKEN_LIFE,
    }
}

/// The body of the request for a token.
fn question(auth: &Auth) -> Value {
    let (identity, scope) = match auth {
        Auth::Password { user, password, scope } => {
            let mut user = in_domain(user);
            user["password"] = json!(password.reveal());
            (json!({"methods": ["password"], "password": {"user": user}}), Some(scope))
        }
        Auth::Token { token, scope } => {
            let identity = json!({"methods": ["token"], "token": {"id": token.reveal()}});
            (identity, Some(scope))
        }
        Auth::ApplicationCredential { credential, secret } => {
            let mut one = match credential {
                Ok(id) => json!({"id": id}),
                Err((name, user)) => json!({"name": name, "user": in_domain(user)}),
            };
            one["secret"] = json!(secret.reveal());
            let methods = ["application_credential"];
            // It has a scope of its own; asking for one is refused.
            (json!({"methods": methods, "application_credential": one}), None)
        }
    };
    let mut auth = json!({"identity": identity});
    match scope {
        Some(Scope::Project(project)) => auth["scope"] = json!({"project": in_domain(project)}),
        Some(Scope::Domain(domain)) => auth["scope"] = json!({"domain": named(domain)}),
        Some(Scope::System) => auth["scope"] = json!({"system": {"all": true}}),
        Some(Scope::Unscoped) | None => {}
    }
    json!({"auth": auth})
}

fn in_domain(one: &UserRef) -> Value {
    match one {
        UserRef::Id(id) => json!({"id": id}),
        UserRef::Name { name, domain } => json!({"name": name, "domain": named(domain)}),
    }
}

fn named(named: &Named) -> Value {
    match named {
        Named::Id(id) => json!({"id": id}),
        Named::Name(name) => json!({"name": name}),
    }
}
