//! From merged values to settings: what is asked for is a type, what is missing is told.

use super::merge::{Value, ValueKind, plain_keys};
use super::{CloudsError, CloudsInput, CloudsText};
use crate::secret::Secret;
use std::collections::{BTreeMap, BTreeSet};

/// What the cloud of the variables is called.
const OF_VARIABLES: &str = "envvars";

/// Variables that are not a cloud's, although they begin with `OS_`.
const NO_CLOUDS: [&str; 6] = [
    "OS_CLOUD",
    "OS_CLIENT_CONFIG_FILE",
    "OS_CLIENT_SECURE_FILE",
    "OS_CLIENT_VENDOR_FILE",
    "OS_CLOUD_NAME",
    "OS_REGION_NAME",
];

/// One cloud, and who one is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudSettings {
    /// Its name in `clouds.yaml`, or `envvars`.
    pub name: String,
    /// Keystone, with or without `/v3`.
    pub auth_url: String,
    /// Who one is, and what for.
    pub auth: Auth,
    /// Which of its regions; none: whichever the catalogue has.
    pub region: Option<String>,
    /// Which of a service's addresses.
    pub interface: Interface,
    /// Whose certificates are believed.
    pub tls: TlsSettings,
    /// Addresses that count instead of the catalogue's, by type of service (`compute`, `block-storage`).
    pub overrides: BTreeMap<String, String>,
}

/// Who one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A user.
    Password {
        /// Who.
        user: UserRef,
        /// Its password.
        password: Secret,
        /// What for.
        scope: Scope,
    },
    /// A token that somebody else got.
    Token {
        /// It.
        token: Secret,
        /// What for.
        scope: Scope,
    },
    /// An application credential, which says what for by itself.
    ApplicationCredential {
        /// Its id, or its name and whose it is.
        credential: Result<String, (String, UserRef)>,
        /// Its secret.
        secret: Secret,
    },
}

/// A domain.
pub type Domain = Named;

/// By id or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// By id.
    Id(String),
    /// By name.
    Name(String),
}

/// A user or a project: by id, or by name in a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserRef {
    /// By id.
    Id(String),
    /// By name.
    Name {
        /// Its name.
        name: String,
        /// In which domain.
        domain: Domain,
    },
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Whatever Keystone thinks.
    Unscoped,
    /// A project.
    Project(UserRef),
    /// A domain.
    Domain(Domain),
    /// The whole cloud.
    System,
}

/// Which of a service's addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// For everybody.
    #[default]
    Public,
    /// Within the cloud.
    Internal,
    /// For operators.
    Admin,
}

impl Interface {
    /// As in the catalogue.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Interface::Public => "public",
            Interface::Internal => "internal",
            Interface::Admin => "admin",
        }
    }
}

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsSettings {
    /// The system's authorities.
    System,
    /// Those in this PEM file.
    File(String),
    /// Anybody's: `verify: false`.
    Nobody,
}

/// The names of all clouds in a `clouds.yaml`.
pub fn cloud_names(text: CloudsText<'_>) -> Result<BTreeSet<String>, CloudsError> {
    let clouds = Value::read(text)?.child("clouds")?;
    Ok(clouds.map().into_iter().flatten().map(|(name, _)| name.clone()).collect())
}

/// One cloud: the one named here, else by `OS_CLOUD`, else that of the variables, else the only one there is.
/// A region named here counts more than any that is configured.
pub fn cloud(
    input: &CloudsInput<'_>,
    name: Option<&str>,
    region: Option<&str>,
) -> Result<CloudSettings, CloudsError> {
    let read = |text: Option<CloudsText<'_>>, key: &str| match text {
        Some(text) => Value::read(text)?.child(key),
        None => Ok(Value::empty("")),
    };
    let (clouds, secure) = (read(input.clouds, "clouds")?, read(input.secure, "clouds")?);
    let name = chosen(input, name, &clouds)?;
    let merged = if name == OF_VARIABLES && clouds.get(&name).is_none() {
        of_variables(input.variables)
    } else {
        let (below, above) = (clouds.get(&name), secure.get(&name));
        if below.is_none() && above.is_none() {
            return Err(no_such_cloud(input, &name, &clouds));
        }
        let own = below.cloned().unwrap_or_else(|| Value::empty("secure.yaml"));
        let own = plain_keys(match above {
            Some(above) => own.over(above.clone()),
            None => own,
        });
        with_profile(own, &read(input.public, "public-clouds")?)?
    };
    let (merged, region) = with_region(merged, region)?;
    settings(name, &merged, region)
}

fn chosen(
    input: &CloudsInput<'_>,
    name: Option<&str>,
    clouds: &Value,
) -> Result<String, CloudsError> {
    let variable = |name: &str| input.variables.get(name).filter(|text| !text.is_empty());
    if let Some(name) = name.or(variable("OS_CLOUD").map(String::as_str)) {
        return Ok(name.to_owned());
    }
    let of_cloud = |(name, text): (&String, &String)| {
        name.starts_with("OS_") && !text.is_empty() && !NO_CLOUDS.contains(&name.as_str())
    };
    if input.variables.iter().any(of_cloud) {
        return Ok(OF_VARIABLES.to_owned());
    }
    let mut names = clouds.map().into_iter().flatten().map(|(name, _)| name);
    match (names.next(), names.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) => {
            let message = "no cloud is configured: write clouds.yaml (in ., ~/.config/openstack or /etc/openstack), or set OS_AUTH_URL, OS_USERNAME, OS_PASSWORD and OS_PROJECT_NAME";
            Err(CloudsError { place: "OS_CLOUD".to_owned(), message: message.to_owned() })
        }
        (Some(_), Some(_)) => {
            let message = format!("say which cloud: {}", known(clouds));
            Err(CloudsError { place: "OS_CLOUD".to_owned(), message })
        }
    }
}

fn known(clouds: &Value) -> String {
    let names: Vec<&str> = clouds.map().into_iter().flatten().map(|(n, _)| n.as_str()).collect();
    if names.is_empty() { "none is there".to_owned() } else { names.join(", ") }
}

fn no_such_cloud(input: &CloudsInput<'_>, name: &str, clouds: &Value) -> CloudsError {
    let place = input.clouds.map_or("clouds.yaml", |text| text.file).to_owned();
    let message = format!("clouds.{name} is not there; there are: {}", known(clouds));
    CloudsError { place, message }
}

/// `OS_*` as a cloud.
fn of_variables(variables: &BTreeMap<String, String>) -> Value {
    let entry = |(name, text): (&String, &String)| {
        let key = name.strip_prefix("OS_")?.to_ascii_lowercase();
        (!text.is_empty()).then(|| (key, Value::text_from(name, text)))
    };
    let map = variables.iter().filter_map(entry).collect();
    Value { place: "OS_*".to_owned(), kind: ValueKind::Map(map) }
}

/// A cloud's values over those of the profile that it names.
fn with_profile(own: Value, profiles: &Value) -> Result<Value, CloudsError> {
    // `cloud` is what `profile` was called before.
    for key in ["profile", "cloud"] {
        let Some((name, value)) = own.text(key)? else { continue };
        let Some(profile) = profiles.get(name) else {
            let there = known(profiles);
            return Err(value.error(format!(
                "{key}: clouds-public.yaml has no public-clouds.{name}; there are: {there}"
            )));
        };
        return Ok(plain_keys(profile.clone()).over(own));
    }
    Ok(own)
}

/// The region, and what its entry of `regions` says besides.
fn with_region(cloud: Value, wanted: Option<&str>) -> Result<(Value, Option<String>), CloudsError> {
    let configured = cloud.text("region_name")?.map(|(text, _)| text.to_owned());
    let wanted = wanted.map(str::to_owned).or(configured);
    let Some(regions) = cloud.get("regions") else { return Ok((cloud, wanted)) };
    let ValueKind::List(entries) = &regions.kind else {
        return Err(regions.error("regions: it must be a list"));
    };
    let mut names = Vec::new();
    for entry in entries {
        let (name, values) = match &entry.kind {
            ValueKind::Text(name) => (name.clone(), Value::empty(&entry.place)),
            ValueKind::Map(_) => {
                let name = entry.text("name")?.map(|(text, _)| text.to_owned());
                let name = name.ok_or_else(|| entry.error("regions: `name` is missing"))?;
                (name, entry.child("values")?)
            }
            ValueKind::List(_) => {
                return Err(entry.error("regions: an entry is a name, or a map with `name`"));
            }
        };
        if wanted.as_ref().is_none_or(|wanted| *wanted == name) {
            return Ok((cloud.over(values), Some(name)));
        }
        names.push(name);
    }
    match wanted {
        Some(wanted) if !names.is_empty() => {
            Err(regions.error(format!("there is no region {wanted}: {}", names.join(", "))))
        }
        wanted => Ok((cloud, wanted)),
    }
}

/// A look-up in `auth`, and where tools of old put it: beside `auth`.
struct AuthMap<'v> {
    auth: Value,
    cloud: &'v Value,
}

impl AuthMap<'_> {
    fn any(&self, keys: &[&str]) -> Result<Option<String>, CloudsError> {
        for value in [&self.auth, self.cloud] {
            for key in keys {
                if let Some((text, _)) = value.text(key)? {
                    return Ok(Some(text.to_owned()));
                }
            }
        }
        Ok(None)
    }

    fn needed(&self, keys: &[&str], what: &str) -> Result<String, CloudsError> {
        self.any(keys)?.ok_or_else(|| {
            let variable = format!("OS_{}", keys[0].to_ascii_uppercase());
            self.auth.error(format!("auth.{} is missing ({variable}): {what}", keys[0]))
        })
    }

    /// The domain that names with this prefix are in.
    fn domain(&self, of: &str) -> Result<Domain, CloudsError> {
        for prefix in [of, "default_domain"] {
            if let Some(id) = self.any(&[&format!("{prefix}_id")])? {
                return Ok(Named::Id(id));
            }
            if let Some(name) = self.any(&[&format!("{prefix}_name")])? {
                return Ok(Named::Name(name));
            }
        }
        Ok(Named::Id(self.any(&["default_domain"])?.unwrap_or_else(|| "default".to_owned())))
    }

    fn user(&self) -> Result<UserRef, CloudsError> {
        if let Some(id) = self.any(&["user_id"])? {
            return Ok(UserRef::Id(id));
        }
        let name = self.needed(&["username", "user_name"], "or auth.user_id")?;
        Ok(UserRef::Name { name, domain: self.domain("user_domain")? })
    }

    fn scope(&self) -> Result<Scope, CloudsError> {
        let project = match self.any(&["project_id", "tenant_id"])? {
            Some(id) => Some(UserRef::Id(id)),
            None => match self.any(&["project_name", "tenant_name"])? {
                Some(name) => Some(UserRef::Name { name, domain: self.domain("project_domain")? }),
                None => None,
            },
        };
        let system = self.any(&["system_scope"])?;
        match (project, system) {
            (Some(_), Some(_)) => {
                Err(self.auth.error("auth.system_scope: a project is given too: use one of them"))
            }
            (Some(project), None) => Ok(Scope::Project(project)),
            (None, Some(all)) if all == "all" => Ok(Scope::System),
            (None, Some(other)) => {
                Err(self.auth.error(format!("auth.system_scope: it is `{other}`: use `all`")))
            }
            (None, None) => Ok(match self.any(&["domain_id"])? {
                Some(id) => Scope::Domain(Named::Id(id)),
                None => match self.any(&["domain_name"])? {
                    Some(name) => Scope::Domain(Named::Name(name)),
                    None => Scope::Unscoped,
                },
            }),
        }
    }

    fn auth(&self) -> Result<Auth, CloudsError> {
        let has = |keys: &[&str]| self.any(keys).map(|value| value.is_some());
        let said = self.cloud.text("auth_type")?.map(|(text, _)| text.to_ascii_lowercase());
        let kind = match said.as_deref() {
            Some(kind) => kind,
            None if has(&["application_credential_secret"])? => "v3applicationcredential",
            None if has(&["token"])? && !has(&["password"])? => "token",
            None => "password",
        };
        match kind {
            "password" | "v3password" => Ok(Auth::Password {
                user: self.user()?,
                password: Secret::new(self.needed(&["password"], "secure.yaml is the place")?),
                scope: self.scope()?,
            }),
            "token" | "v3token" => Ok(Auth::Token {
                token: Secret::new(self.needed(&["token", "auth_token"], "a token of Keystone")?),
                scope: self.scope()?,
            }),
            "v3applicationcredential" => {
                let credential = match self.any(&["application_credential_id"])? {
                    Some(id) => Ok(id),
                    None => {
                        let keys = ["application_credential_name"];
                        let what = "or auth.application_credential_id";
                        Err((self.needed(&keys, what)?, self.user()?))
                    }
                };
                let keys = ["application_credential_secret"];
                let secret = Secret::new(self.needed(&keys, "secure.yaml is the place")?);
                Ok(Auth::ApplicationCredential { credential, secret })
            }
            other => {
                let place = self.cloud.get("auth_type").unwrap_or(self.cloud);
                Err(place.error(format!(
                    "auth_type: it is `{other}`: use password, token or v3applicationcredential"
                )))
            }
        }
    }
}

fn settings(
    name: String,
    cloud: &Value,
    region: Option<String>,
) -> Result<CloudSettings, CloudsError> {
    let map = AuthMap { auth: cloud.child("auth")?, cloud };
    if let Some((version, value)) = cloud.text("identity_api_version")?
        && !version.trim_start_matches('v').starts_with('3')
    {
        return Err(value.error(format!("identity_api_version: it is {version}: only 3 is spoken")));
    }
    if let Some((_, value)) = cloud.text("cert")? {
        return Err(value.error("cert: client certificates are not supported"));
    }
    let auth_url = map.needed(&["auth_url"], "Keystone's URL")?;
    if !auth_url.starts_with("http://") && !auth_url.starts_with("https://") {
        let message = "auth.auth_url: it must begin with http:// or https://";
        return Err(map.auth.get("auth_url").unwrap_or(cloud).error(message));
    }
    Ok(CloudSettings {
        name,
        auth_url,
        auth: map.auth()?,
        region,
        interface: interface(cloud)?,
        tls: tls(cloud)?,
        overrides: overrides(cloud)?,
    })
}

fn interface(cloud: &Value) -> Result<Interface, CloudsError> {
    for key in ["interface", "endpoint_type"] {
        let Some((text, value)) = cloud.text(key)? else { continue };
        return match text.to_ascii_lowercase().trim_end_matches("url") {
            "public" => Ok(Interface::Public),
            "internal" => Ok(Interface::Internal),
            "admin" => Ok(Interface::Admin),
            other => {
                Err(value.error(format!("{key}: it is `{other}`: use public, internal or admin")))
            }
        };
    }
    Ok(Interface::Public)
}

fn tls(cloud: &Value) -> Result<TlsSettings, CloudsError> {
    let truth = |key: &str| -> Result<Option<bool>, CloudsError> {
        let Some((text, value)) = cloud.text(key)? else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(Some(true)),
            "false" | "no" | "off" | "0" => Ok(Some(false)),
            other => Err(value.error(format!("{key}: it is `{other}`: use true or false"))),
        }
    };
    if truth("verify")? == Some(false) || truth("insecure")? == Some(true) {
        return Ok(TlsSettings::Nobody);
    }
    Ok(match cloud.text("cacert")? {
        Some((file, _)) => TlsSettings::File(file.to_owned()),
        None => TlsSettings::System,
    })
}

/// `<service>_endpoint_override`.
fn overrides(cloud: &Value) -> Result<BTreeMap<String, String>, CloudsError> {
    let mut overrides = BTreeMap::new();
    for key in cloud.map().into_iter().flatten().map(|(key, _)| key) {
        let Some(service) = key.strip_suffix("_endpoint_override") else { continue };
        if let Some((url, value)) = cloud.text(key)? {
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(value.error(format!("{key}: it must begin with http:// or https://")));
            }
            overrides.insert(service.replace('_', "-"), url.to_owned());
        }
    }
    Ok(overrides)
}
