//! GitHub behind the port of all sources.

use super::api::Api;
use super::config::GithubConfig;
use super::hook::{Happened, HookError, read};
use super::json::PullRequest;
use super::listen::{DELIVERIES_MAX, HOOKS_MAX, Listener, Open, Seen};
use super::name::{Pull, named};
use super::report::report;
use super::view;
use crate::git::Remote;
use crate::http::HttpError;
use crate::source::{Cursors, Heard, Source, SourceError, SourceReport, Work};
use crate::tell::webhook::is_signed;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use toci_core::event::{Change, ProjectName, Revision, SourceName};
use tokio::sync::{Notify, mpsc};

/// Fewest hex digits of a commit that name it for people.
const SHORT_DIGITS: usize = 7;

/// A GitHub.
#[derive(Debug)]
pub struct GithubSource {
    pub(super) api: Api,
    /// Pull requests that are open, as far as they were heard of.
    pub(super) open: Mutex<BTreeMap<Pull, Open>>,
    hooks: mpsc::Sender<Happened>,
    pub(super) waiting: tokio::sync::Mutex<mpsc::Receiver<Happened>>,
    deliveries: Mutex<Seen>,
    pub(super) poked: Notify,
}

impl GithubSource {
    /// Nothing is sent yet.
    pub fn new(config: GithubConfig) -> Result<GithubSource, HttpError> {
        let (hooks, waiting) = mpsc::channel(HOOKS_MAX);
        Ok(GithubSource {
            api: Api::new(config)?,
            open: Mutex::default(),
            hooks,
            waiting: tokio::sync::Mutex::new(waiting),
            deliveries: Mutex::new(Seen::new(DELIVERIES_MAX)),
            poked: Notify::new(),
        })
    }

    /// A webhook came: GitHub's `X-GitHub-Event`, `X-GitHub-Delivery` and `X-Hub-Signature-256`, and the body as it was
    /// sent. What a crash loses of it is found by looking.
    pub fn deliver(
        &self,
        event: &str,
        delivery: &str,
        signature: &str,
        body: &[u8],
    ) -> Result<(), HookError> {
        let Some(secret) = &self.api.config.webhook_secret else {
            return Err(HookError::NotConfigured);
        };
        if !is_signed(secret, body, signature) {
            return Err(HookError::Unsigned);
        }
        let happened = read(&self.api.config, event, body)?;
        let mut deliveries = self.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
        if !delivery.is_empty() && deliveries.knows(delivery) {
            return Ok(());
        }
        // All of it or nothing.
        let places = self.hooks.try_reserve_many(happened.len()).map_err(|_| HookError::Busy)?;
        for (place, happened) in places.zip(happened) {
            place.send(happened);
        }
        deliveries.note(delivery);
        Ok(())
    }

    async fn view(&self, pull: &Pull, found: &PullRequest) -> Result<Change, SourceError> {
        let mut change = view::whole(&self.api, pull, found).await?;
        let needing: Vec<(Pull, String)> = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let needs_it =
                open.iter().filter(|(other, o)| *other != pull && o.needs.contains(pull));
            needs_it.map(|(other, o)| (other.clone(), o.head.clone())).collect()
        };
        for (other, head) in needing {
            change.needed_by.push(view::key(&self.api, &other, &head).await?);
        }
        Ok(change)
    }

    async fn look_up(
        &self,
        number: u64,
        patchset: Option<&str>,
    ) -> Result<Option<Change>, SourceError> {
        let Some(pull) = self.api.meant(number).await? else { return Ok(None) };
        let Some(found) = self.api.pull(&pull).await? else { return Ok(None) };
        let head = found.head.sha.as_str();
        let is_head =
            |asked: &str| asked == head || (asked.len() >= SHORT_DIGITS && head.starts_with(asked));
        let old = match patchset.filter(|asked| !is_head(asked)).map(Revision::new) {
            None => None,
            Some(Ok(old)) => Some(old),
            Some(Err(_)) => return Ok(None),
        };
        let mut change = self.view(&pull, &found).await?;
        if let Some(old) = old {
            change.current = false;
            change.key.patchset = old.to_string();
            change.revision = old;
        }
        Ok(Some(change))
    }
}

impl Source for GithubSource {
    fn name(&self) -> &SourceName {
        &self.api.config.name
    }

    fn remote(&self) -> Remote {
        self.api.config.remote()
    }

    fn listen(&self, since: Cursors, out: mpsc::Sender<Heard>) -> Work<'_, ()> {
        Box::pin(async move { Listener::new(self, since, out).run().await })
    }

    fn poke(&self) {
        self.poked.notify_one();
    }

    fn change<'a>(
        &'a self,
        number: u64,
        patchset: Option<&'a str>,
    ) -> Work<'a, Result<Option<Change>, SourceError>> {
        Box::pin(self.look_up(number, patchset))
    }

    fn find<'a>(&'a self, footer: &'a str) -> Work<'a, Result<Vec<Change>, SourceError>> {
        Box::pin(async move {
            let Some(pull) = named(&self.api.config, footer, None) else { return Ok(Vec::new()) };
            let Some(found) = self.api.pull(&pull).await? else { return Ok(Vec::new()) };
            Ok(vec![self.view(&pull, &found).await?])
        })
    }

    fn open_changes<'a>(
        &'a self,
        project: &'a ProjectName,
    ) -> Work<'a, Result<Vec<Change>, SourceError>> {
        Box::pin(async move {
            let url = self.api.url(project, "/pulls").query("state", "open");
            let mut changes = Vec::new();
            for found in self.api.list::<PullRequest>(&url, |_| true).await? {
                let pull = Pull { project: project.clone(), number: found.number };
                changes.push(view::outline(&self.api, &pull, &found).await?);
            }
            changes.truncate(crate::source::CHANGES_MAX);
            Ok(changes)
        })
    }

    fn report<'a>(&'a self, told: &'a SourceReport) -> Work<'a, Result<bool, SourceError>> {
        Box::pin(report(&self.api, told))
    }
}
