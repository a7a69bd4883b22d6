//! Every call to the cloud.

use serde_json::Value as Json;
use std::path::Path;
use toci_edge::http::Method;
use toci_edge::openstack::config::Place;
use toci_edge::openstack::{Cloud, CloudError, OpenCloud};
use toci_wire::clouds::{Auth, Scope, UserRef};

pub(super) use toci_edge::openstack::Service;

/// Where servers and images say whose they are.
pub(super) const MARK_PROPERTY: &str = "toci_zone";

/// Why something could not be asked or done.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The cloud's settings.
    #[error(transparent)]
    Open(#[from] OpenCloud),
    /// The cloud's answer.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The credentials are for no project.
    #[error("log in to {cloud}: its credentials are for no project")]
    NoProject {
        /// Which cloud.
        cloud: String,
    },
    /// Application credentials are for one project only.
    #[error("act for another project than the credentials': an application credential is for one")]
    OneProject,
    /// Something that was there a moment ago is not any more.
    #[error("find {thing} in the cloud: it was there a moment ago")]
    Gone {
        /// What.
        thing: String,
    },
}

impl ApiError {
    /// The status that the cloud answered, where that says it all.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            ApiError::Cloud(CloudError::Unauthorised { .. }) => Some(401),
            ApiError::Cloud(CloudError::NotFound { .. }) => Some(404),
            ApiError::Cloud(CloudError::Conflict { .. }) => Some(409),
            ApiError::Cloud(CloudError::Refused { status, .. }) => Some(*status),
            ApiError::Cloud(_)
            | ApiError::Open(_)
            | ApiError::NoProject { .. }
            | ApiError::OneProject
            | ApiError::Gone { .. } => None,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            ApiError::Open(_) => {
                "clouds.yaml or OS_* say where the cloud is and who you are there; docs/cloud.md"
            }
            ApiError::NoProject { .. } => "name a project in clouds.yaml or with OS_PROJECT_NAME",
            ApiError::OneProject => "use a user with its password",
            ApiError::Gone { .. } => "apply again",
            ApiError::Cloud(CloudError::Unauthorised { .. }) => {
                "check user, password and project; servers are made in the name of their project, on which the user needs a role"
            }
            ApiError::Cloud(_) => "",
        }
    }
}

/// One user at a cloud, for one project.
#[derive(Debug)]
pub(super) struct Api {
    cloud: Cloud,
    /// Its key and its name.
    project: (String, String),
}

impl Api {
    /// Logs in to the cloud of this name in clouds.yaml, or to the one that the environment says.
    pub(super) async fn connect(cloud: Option<&str>) -> Result<Api, ApiError> {
        Api::of(Cloud::open(&Place::here(), cloud, None)?).await
    }

    async fn of(cloud: Cloud) -> Result<Api, ApiError> {
        let facts = cloud.whoami().await?;
        match (facts.project_id, facts.project_name) {
            (Some(key), Some(name)) => Ok(Api { cloud, project: (key, name) }),
            (_, _) => Err(ApiError::NoProject { cloud: cloud.settings().name.clone() }),
        }
    }

    /// The same user, for another project.
    pub(super) async fn within(&self, project: &str) -> Result<Api, ApiError> {
        let mut settings = self.cloud.settings().clone();
        match &mut settings.auth {
            Auth::Password { scope, .. } | Auth::Token { scope, .. } => {
                *scope = Scope::Project(UserRef::Id(project.to_owned()));
            }
            Auth::ApplicationCredential { .. } if self.project.0 == project => {}
            Auth::ApplicationCredential { .. } => return Err(ApiError::OneProject),
        }
        Api::of(Cloud::new(settings).map_err(OpenCloud::Http)?).await
    }

    /// Key and name of the project.
    pub(super) fn own_project(&self) -> (&str, &str) {
        (&self.project.0, &self.project.1)
    }

    pub(super) async fn get(&self, service: Service, path: &str) -> Result<Json, ApiError> {
        Ok(self.cloud.get(service, &format!("/{path}")).await?)
    }

    /// All entries of a list. The path may have a query whose values need no quoting.
    pub(super) async fn list(
        &self,
        service: Service,
        path: &str,
        key: &str,
    ) -> Result<Vec<Json>, ApiError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query: Vec<(&str, &str)> =
            query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        Ok(self.cloud.list(service, &format!("/{path}"), key, &query).await?)
    }

    pub(super) async fn post(
        &self,
        service: Service,
        path: &str,
        body: Json,
    ) -> Result<Json, ApiError> {
        Ok(self.cloud.post(service, &format!("/{path}"), body).await?)
    }

    pub(super) async fn put(
        &self,
        service: Service,
        path: &str,
        body: Json,
    ) -> Result<Json, ApiError> {
        Ok(self.cloud.put(service, &format!("/{path}"), body).await?)
    }

    pub(super) async fn patch(
        &self,
        service: Service,
        path: &str,
        body: Json,
    ) -> Result<(), ApiError> {
        self.order(Method::PATCH, service, path, Some(body)).await
    }

    /// A call whose answer is empty.
    pub(super) async fn order(
        &self,
        method: Method,
        service: Service,
        path: &str,
        body: Option<Json>,
    ) -> Result<(), ApiError> {
        Ok(self.cloud.order(method, service, &format!("/{path}"), body).await?)
    }

    /// What is gone already is as good as deleted.
    pub(super) async fn delete(&self, service: Service, path: &str) -> Result<(), ApiError> {
        Ok(self.cloud.delete(service, &format!("/{path}")).await.map(drop)?)
    }

    /// Sends an image's bytes.
    pub(super) async fn upload(&self, image: &str, file: &Path) -> Result<(), ApiError> {
        Ok(self.cloud.upload_image(image, file).await?)
    }
}
