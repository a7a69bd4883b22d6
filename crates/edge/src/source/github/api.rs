//! Calls of GitHub's REST.

use super::auth::{NoToken, Tokens};
use super::config::GithubConfig;
use super::json::{PullRequest, Repository};
use super::name::Pull;
use crate::http::{Answer, Http, HttpError, Method, Request, Url};
use crate::source::SourceError;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use toci_core::chain::Chain;
use toci_core::event::ProjectName;

/// What we want of GitHub: JSON, of this version.
pub(super) const MEDIA_TYPE: &str = "application/vnd.github+json";
const VERSION: &str = "2022-11-28";
/// Things on a page of a list.
const PAGE: usize = 100;
/// Pages of a list that are read at most.
pub const PAGES_MAX: usize = 30;
/// Files of a pull request that GitHub lists at most; with more of them it is not known which ones it touches.
pub const FILES_MAX: usize = 3_000;

#[derive(Debug)]
pub(super) struct Api {
    pub(super) config: GithubConfig,
    http: Http,
    tokens: Tokens,
    /// Ids of repositories, which never change.
    ids: Mutex<HashMap<ProjectName, u64>>,
}

impl Api {
    pub(super) fn new(config: GithubConfig) -> Result<Api, HttpError> {
        let http = Http::new(&config.trust)?;
        Ok(Api { config, http, tokens: Tokens::default(), ids: Mutex::default() })
    }

    /// `/repos/owner/name` and what follows.
    pub(super) fn url(&self, project: &ProjectName, rest: &str) -> Url {
        self.config.api.join(&format!("/repos/{project}{rest}"))
    }

    /// `None`: there is no such thing, or we may not see it.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        url: &Url,
    ) -> Result<Option<T>, SourceError> {
        let answer = self.call(Request::get(url)).await?;
        if answer.status() == 404 {
            return Ok(None);
        }
        self.read(self.well(answer)?).map(Some)
    }

    /// All pages of a list, while `more` says of a page that the next one matters.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        url: &Url,
        more: impl Fn(&[T]) -> bool,
    ) -> Result<Vec<T>, SourceError> {
        let mut all = Vec::new();
        for page in 1..=PAGES_MAX {
            let url = url.query("per_page", &PAGE.to_string()).query("page", &page.to_string());
            let answer = self.call(Request::get(&url)).await?;
            let things: Vec<T> = self.read(self.well(answer)?)?;
            let last = things.len() < PAGE || !more(&things);
            all.extend(things);
            if last {
                return Ok(all);
            }
        }
        tracing::warn!(%url, PAGES_MAX, "a list of GitHub is too long; its rest is left out");
        Ok(all)
    }

    /// Changes something. An answer outside of 2xx is an error.
    pub(super) async fn change(
        &self,
        method: Method,
        url: &Url,
        body: &Value,
    ) -> Result<Answer, SourceError> {
        let answer = self.call(Request::new(method, url).json(body)).await?;
        self.well(answer)
    }

    async fn call(&self, request: Request) -> Result<Answer, SourceError> {
        let token =
            self.tokens.token(&self.http, &self.config).await.map_err(|error| match &error {
                NoToken::Key(_) => self.refused(error.to_string()),
                NoToken::Ask(cause) => self.unreachable(format!("{error}: {}", Chain(cause))),
            })?;
        let request = request
            .header("accept", MEDIA_TYPE)
            .header("x-github-api-version", VERSION)
            .bearer(&token);
        let answer = self.http.send(request).await;
        let answer = answer.map_err(|error| self.unreachable(Chain(&error).to_string()))?;
        if answer.status() == 401 {
            self.tokens.forget().await;
        }
        Ok(answer)
    }

    /// What may be better later is told apart from what GitHub will not do.
    pub(super) fn well(&self, answer: Answer) -> Result<Answer, SourceError> {
        let over = answer.header("x-ratelimit-remaining") == Some("0")
            || answer.header("retry-after").is_some();
        let status = answer.status();
        answer.well().map_err(|error| match status {
            403 | 429 if over => self.unreachable(format!("we asked too often: {error}")),
            401 | 408 | 429 | 500.. => self.unreachable(error.to_string()),
            _ => self.refused(error.to_string()),
        })
    }

    fn read<T: DeserializeOwned>(&self, answer: Answer) -> Result<T, SourceError> {
        answer.json().map_err(|error| self.unreachable(Chain(&error).to_string()))
    }

    pub(super) fn unreachable(&self, why: String) -> SourceError {
        SourceError::Unreachable { source_name: self.config.name.to_string(), why }
    }

    pub(super) fn refused(&self, why: String) -> SourceError {
        SourceError::Refused { source_name: self.config.name.to_string(), why }
    }

    pub(super) async fn pull(&self, pull: &Pull) -> Result<Option<PullRequest>, SourceError> {
        self.get(&self.url(&pull.project, &format!("/pulls/{}", pull.number))).await
    }

    /// A change's number.
    pub(super) async fn number(&self, pull: &Pull) -> Result<u64, SourceError> {
        if self.config.projects.len() == 1 {
            return Ok(pull.number);
        }
        Ok(self.id(&pull.project).await? * super::name::PULLS_MAX + pull.number)
    }

    /// Which pull request a change's number means.
    pub(super) async fn meant(&self, number: u64) -> Result<Option<Pull>, SourceError> {
        let (id, number) = (number / super::name::PULLS_MAX, number % super::name::PULLS_MAX);
        if let [project] = self.config.projects.as_slice() {
            let project = project.clone();
            return Ok((id == 0).then_some(Pull { project, number }));
        }
        for project in &self.config.projects {
            if self.id(project).await? == id {
                return Ok(Some(Pull { project: project.clone(), number }));
            }
        }
        Ok(None)
    }

    async fn id(&self, project: &ProjectName) -> Result<u64, SourceError> {
        let known = self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(project).copied();
        if let Some(id) = known {
            return Ok(id);
        }
        let found: Option<Repository> = self.get(&self.url(project, "")).await?;
        let Some(found) = found else {
            return Err(
                self.refused(format!("there is no repository {project}, or we may not see it"))
            );
        };
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(project.clone(), found.id);
        Ok(found.id)
    }
}
