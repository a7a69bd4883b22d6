//! One user at one cloud: its token, the addresses of the services.

use super::config::{Place, load};
use super::error::{CloudError, OpenCloud};
use super::identity::{self, Token, TokenFacts};
use super::pace::{CallCount, Pace};
use crate::http::{Http, HttpError, Trust, Url};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toci_wire::clouds::{CloudSettings, TlsSettings};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

/// Calls of one cloud at the same time; more wait.
pub const CALLS_AT_ONCE_MAX: usize = 16;
/// So long before its end a token is not used any more: a call, and what services do on its behalf, takes its time.
const TOKEN_RESERVE: Duration = Duration::from_secs(120);

/// Wait before the second attempt when a service does not say; doubled with each one.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// The services that are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Keystone.
    Identity,
    /// Nova.
    Compute,
    /// Neutron.
    Network,
    /// Glance.
    Image,
    /// Cinder.
    Volume,
}

impl Service {
    /// Its types in catalogues, the usual one first.
    pub(super) fn types(self) -> &'static [&'static str] {
        match self {
            Service::Identity => &["identity"],
            Service::Compute => &["compute"],
            Service::Network => &["network"],
            Service::Image => &["image"],
            Service::Volume => &["block-storage", "volumev3", "block-store", "volume"],
        }
    }

    /// Its usual type, which is also what people and metrics see.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.types()[0]
    }

    /// The version that is spoken, as addresses name it, and how addresses of it begin.
    fn version(self) -> (&'static str, &'static str) {
        match self {
            Service::Identity => ("v3", "v3"),
            Service::Compute => ("v2.1", "v2"),
            Service::Network => ("v2.0", "v2"),
            Service::Image => ("v2", "v2"),
            Service::Volume => ("v3", "v3"),
        }
    }
}

/// One user at one cloud. See [`super`].
#[derive(Debug)]
pub struct Cloud {
    pub(super) http: Http,
    settings: CloudSettings,
    auth_url: Url,
    /// Held while a token is got, so that only one is.
    token: Mutex<Option<Arc<Token>>>,
    pub(super) pace: Pace,
    pub(super) permits: Semaphore,
    /// Wait before the second attempt when a service does not say; doubled with each one.
    pub(super) retry_wait: Duration,
}

impl Cloud {
    /// The cloud that this name has at a place, or the one that the place's variables tell; nothing is asked yet.
    pub fn open(
        place: &Place,
        name: Option<&str>,
        region: Option<&str>,
    ) -> Result<Cloud, OpenCloud> {
        Ok(Cloud::new(load(place, name, region)?)?)
    }

    /// Nothing is asked yet.
    pub fn new(settings: CloudSettings) -> Result<Cloud, HttpError> {
        let http = match &settings.tls {
            TlsSettings::System => Http::new(&Trust::System)?,
            TlsSettings::File(file) => Http::new(&Trust::File(PathBuf::from(file)))?,
            TlsSettings::Nobody => {
                tracing::warn!(
                    cloud = settings.name,
                    "its certificate is not checked (verify: false): whoever sits between can take its password"
                );
                Http::unchecked()?
            }
        };
        let auth_url = identity_v3(&settings.auth_url)?;
        Ok(Cloud {
            http,
            settings,
            auth_url,
            token: Mutex::default(),
            pace: Pace::default(),
            permits: Semaphore::new(CALLS_AT_ONCE_MAX),
            retry_wait: RETRY_WAIT,
        })
    }

    /// What it was made of.
    #[must_use]
    pub fn settings(&self) -> &CloudSettings {
        &self.settings
    }

    /// How many calls there were so far.
    #[must_use]
    pub fn counts(&self) -> Vec<CallCount> {
        self.pace.counts()
    }

    /// Who the token says that one is. Gets one when there is none yet, so that it also proves that the credentials are
    /// taken.
    pub async fn whoami(&self) -> Result<TokenFacts, CloudError> {
        Ok(self.token().await?.facts.clone())
    }

    /// A token that is good for a while.
    pub(super) async fn token(&self) -> Result<Arc<Token>, CloudError> {
        self.token_but(None).await
    }

    /// The same, but not this one, which a service did not take.
    pub(super) async fn token_but(
        &self,
        refused: Option<&Arc<Token>>,
    ) -> Result<Arc<Token>, CloudError> {
        let mut kept = self.token.lock().await;
        if let Some(token) = kept.as_ref()
            && refused.is_none_or(|refused| !Arc::ptr_eq(refused, token))
            && token.ends > Instant::now() + TOKEN_RESERVE
        {
            return Ok(Arc::clone(token));
        }
        // The lock is held so that of many who need one, one gets it.
        *kept = None;
        let token = Arc::new(identity::authenticate(self, &self.auth_url).await?);
        *kept = Some(Arc::clone(&token));
        Ok(token)
    }

    /// Where a service is, with its version.
    pub(super) fn endpoint(&self, service: Service, token: &Token) -> Result<Url, CloudError> {
        let given = service.types().iter().find_map(|kind| self.settings.overrides.get(*kind));
        let address = match given {
            Some(address) => address.clone(),
            None => token.address(service, &self.settings)?,
        };
        let bad = |e: HttpError| CloudError::NoEndpoint {
            service: service.word(),
            why: format!("its address in the catalogue is of no use: {e}"),
        };
        let url = Url::parse(address.trim_end_matches('/')).map_err(bad)?;
        Ok(versioned(service, &url, token.facts.project_id.as_deref()))
    }
}

/// Keystone's address with its version, whether or not it has one.
fn identity_v3(text: &str) -> Result<Url, HttpError> {
    let text = text.trim_end_matches('/');
    let text = text.strip_suffix("/v3").or_else(|| text.strip_suffix("/v2.0")).unwrap_or(text);
    Ok(Url::parse(text)?.join("/v3"))
}

/// An address with the version that is spoken. Catalogues have it or not: Nova's and Cinder's mostly, Neutron's and
/// Glance's mostly not; asking each service for its versions would tell the same.
fn versioned(service: Service, url: &Url, project: Option<&str>) -> Url {
    let (version, begin) = service.version();
    let is_version = |part: &str| {
        part.strip_prefix(begin).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let has_version = url.path().split('/').any(is_version);
    match (service, has_version, project) {
        (_, true, _) => url.clone(),
        (Service::Volume, false, Some(project)) => url.join(&format!("/{version}/{project}")),
        (_, false, _) => url.join(&format!("/{version}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_version_that_is_spoken() {
        for (service, address, expected) in [
            (Service::Compute, "http://h:8774/v2.1", "http://h:8774/v2.1"),
            (Service::Compute, "http://h:8774/v2.1/p1", "http://h:8774/v2.1/p1"),
            (Service::Compute, "http://h/compute", "http://h/compute/v2.1"),
            (Service::Network, "http://h:9696", "http://h:9696/v2.0"),
            (Service::Network, "http://h:9696/v2.0", "http://h:9696/v2.0"),
            (Service::Image, "http://h/image", "http://h/image/v2"),
            (Service::Volume, "http://h:8776", "http://h:8776/v3/p1"),
            (Service::Volume, "http://h:8776/v3/p1", "http://h:8776/v3/p1"),
        ] {
            let url = versioned(service, &Url::parse(address).unwrap(), Some("p1"));
            assert_eq!(url.to_string(), expected, "{address}");
        }
        for address in ["http://h:5000", "http://h:5000/v3/", "http://h:5000/v2.0"] {
            assert_eq!(identity_v3(address).unwrap().to_string(), "http://h:5000/v3");
        }
    }
}
