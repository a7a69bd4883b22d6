//! Hearing what happens: webhooks as they come, and looking for updated pull requests at the start and from time to time,
//! so that what came while nobody listened is not lost.
//!
//! Two cursors a repository: `since` is GitHub's time up to which everything was seen; `heads` holds the head commits of
//! the open pull requests as they were told. Pushes to branches come by webhook only.

use super::hook::{Happened, Reviewed};
use super::json::{Comment, PullRequest, Review, time, written};
use super::name::{Pull, named};
use super::source::GithubSource;
use super::view::{self, state};
use crate::clock::wall;
use crate::source::{Cursors, Heard, SourceError, depends_on};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::PoisonError;
use std::time::Duration;
use toci_core::event::{ChangeState, EventKind, ProjectName, TriggerEvent};
use toci_core::pause::Pause;
use toci_core::time::Time;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Webhooks that wait to be told on at most.
pub const HOOKS_MAX: usize = 1_000;
/// Webhooks that are remembered by their ids, so that one that GitHub delivers again is told once.
pub const DELIVERIES_MAX: usize = 10_000;
/// Comments and reviews that are remembered as told.
const TOLD_MAX: usize = 10_000;
/// First and longest pause before GitHub is asked again that could not be reached.
const PAUSE: Pause = Pause::new(Duration::from_secs(1), Duration::from_secs(120));

/// An open pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) head: String,
    pub(super) needs: Vec<Pull>,
}

/// Names that were seen, the latest so many.
#[derive(Debug)]
pub(super) struct Seen {
    max: usize,
    order: VecDeque<String>,
    names: HashSet<String>,
}

impl Seen {
    pub(super) fn new(max: usize) -> Seen {
        Seen { max, order: VecDeque::new(), names: HashSet::new() }
    }

    pub(super) fn knows(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(super) fn note(&mut self, name: &str) {
        if self.names.insert(name.to_owned()) {
            self.order.push_back(name.to_owned());
        }
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
    }
}

/// Nobody listens any more.
struct Over;

enum Stop {
    Over,
    Failed(SourceError),
}

impl From<Over> for Stop {
    fn from(_: Over) -> Stop {
        Stop::Over
    }
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Stop {
        Stop::Failed(error)
    }
}

pub(super) struct Listener<'a> {
    source: &'a GithubSource,
    out: mpsc::Sender<Heard>,
    cursors: Cursors,
    told: Seen,
    started: bool,
    linked: Option<bool>,
}

fn since_name(project: &ProjectName) -> String {
    format!("since {project}")
}

fn heads_name(project: &ProjectName) -> String {
    format!("heads {project}")
}

impl<'a> Listener<'a> {
    pub(super) fn new(
        source: &'a GithubSource,
        cursors: Cursors,
        out: mpsc::Sender<Heard>,
    ) -> Listener<'a> {
        let told = Seen::new(TOLD_MAX);
        Listener { source, out, cursors, told, started: false, linked: None }
    }

    pub(super) async fn run(mut self) {
        let mut hooks = self.source.waiting.lock().await;
        let mut pause = PAUSE;
        let mut next_look = Instant::now();
        loop {
            let done = tokio::select! {
                biased;
                () = self.out.closed() => return,
                () = tokio::time::sleep_until(next_look) => self.look().await,
                () = self.source.poked.notified() => self.look().await,
                // Before the first look it is not known what is new.
                Some(happened) = hooks.recv(), if self.started => {
                    match self.patiently(happened).await {
                        Ok(()) => continue,
                        Err(Over) => return,
                    }
                }
            };
            match done {
                Ok(()) => {
                    pause.reset();
                    self.started = true;
                    next_look = Instant::now() + self.source.api.config.every;
                }
                Err(Stop::Over) => return,
                Err(Stop::Failed(error)) => {
                    next_look = Instant::now() + pause.longer();
                    if self.link(Err(error.to_string())).await.is_err() {
                        return;
                    }
                    continue;
                }
            }
            if self.link(Ok(())).await.is_err() {
                return;
            }
        }
    }

    /// A change of the link is told once.
    async fn link(&mut self, link: Result<(), String>) -> Result<(), Over> {
        if self.linked == Some(link.is_ok()) {
            return Ok(());
        }
        self.linked = Some(link.is_ok());
        self.say(Heard::Link(link)).await
    }

    async fn say(&self, heard: Heard) -> Result<(), Over> {
        self.out.send(heard).await.map_err(|_| Over)
    }

    /// A webhook's news, asked about until GitHub answers.
    async fn patiently(&mut self, happened: Happened) -> Result<(), Over> {
        let mut pause = PAUSE;
        loop {
            match self.tell(happened.clone()).await {
                Ok(()) => return Ok(()),
                Err(Stop::Over) => return Err(Over),
                Err(Stop::Failed(error @ SourceError::Refused { .. })) => {
                    return self.say(Heard::Malformed(error.to_string())).await;
                }
                Err(Stop::Failed(error @ SourceError::Unreachable { .. })) => {
                    self.link(Err(error.to_string())).await?;
                    tokio::select! {
                        () = tokio::time::sleep(pause.longer()) => {}
                        () = self.out.closed() => return Err(Over),
                    }
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), Stop> {
        for project in &self.source.api.config.projects {
            if !self.started {
                self.learn(project).await?;
            }
            self.look_at(project).await?;
        }
        Ok(())
    }

    /// Which pull requests are open, and what they need. Nothing of it is news.
    async fn learn(&mut self, project: &ProjectName) -> Result<(), Stop> {
        let api = &self.source.api;
        let url = api.url(project, "/pulls").query("state", "open");
        let open: Vec<PullRequest> = api.list(&url, |_| true).await?;
        for found in &open {
            self.note(project, found);
        }
        if !self.cursors.contains_key(&since_name(project)) {
            // The first time: what is there already is no news.
            let heads = open.iter().map(|p| (p.number, p.head.sha.clone())).collect();
            let newest = open.iter().filter_map(|p| time(&p.updated_at)).max();
            self.keep(heads_name(project), text(&heads)).await?;
            self.keep(since_name(project), written(newest.unwrap_or_else(now))).await?;
        }
        Ok(())
    }

    fn note(&self, project: &ProjectName, found: &PullRequest) {
        let pull = Pull { project: project.clone(), number: found.number };
        let body = found.body.as_deref().unwrap_or_default();
        self.note_open(pull, state(found), &found.head.sha, body);
    }

    fn note_open(&self, pull: Pull, state: ChangeState, head: &str, body: &str) {
        let config = &self.source.api.config;
        let needs = depends_on(body);
        let needs = needs.iter().filter_map(|f| named(config, f, Some(&pull.project))).collect();
        let mut open = self.source.open.lock().unwrap_or_else(PoisonError::into_inner);
        match state {
            ChangeState::Open => drop(open.insert(pull, Open { head: head.to_owned(), needs })),
            ChangeState::Merged | ChangeState::Abandoned => drop(open.remove(&pull)),
        }
    }

    async fn look_at(&mut self, project: &ProjectName) -> Result<(), Stop> {
        let api = &self.source.api;
        let since = self.cursors.get(&since_name(project)).cloned().unwrap_or_default();
        let from = time(&since).unwrap_or(Time(0));
        let is_new = |text: &str| time(text).is_some_and(|at| at >= from);
        let url = api.url(project, "/pulls").query("state", "all");
        let url = url.query("sort", "updated").query("direction", "desc");
        let reaches = |page: &[PullRequest]| page.last().is_some_and(|p| is_new(&p.updated_at));
        let mut updated: Vec<PullRequest> = api.list(&url, reaches).await?;
        updated.retain(|p| is_new(&p.updated_at));
        updated.reverse();
        let mut newest = from;
        for found in &updated {
            newest = newest.max(time(&found.updated_at).unwrap_or(from));
            if let Some(happened) = self.changed(project, found) {
                self.tell(happened).await?;
            }
            self.note(project, found);
            if state(found) == ChangeState::Open {
                let url = api.url(project, &format!("/pulls/{}/reviews", found.number));
                let reviews: Vec<Review> = api.list(&url, |_| true).await?;
                let pull = Reviewed { number: found.number, head: found.head.clone() };
                for review in reviews {
                    if review.submitted_at.as_deref().is_some_and(is_new) {
                        self.tell(Happened::review(project, &pull, &review)).await?;
                    }
                }
            }
        }
        let url = api.url(project, "/issues/comments").query("since", &since);
        let url = url.query("sort", "created").query("direction", "asc");
        for comment in api.list::<Comment>(&url, |_| true).await? {
            let url = comment.issue_url.as_deref().unwrap_or_default();
            let number = url.rsplit('/').next().and_then(|number| number.parse().ok());
            let Some(number) = number.filter(|_| is_new(&comment.created_at)) else { continue };
            // Others are comments on issues, or on what is closed.
            if self.head(&Pull { project: project.clone(), number }).is_some() {
                self.tell(Happened::comment(project, number, &comment)).await?;
            }
        }
        if newest > from {
            self.keep(since_name(project), written(newest)).await?;
        }
        Ok(())
    }

    fn head(&self, pull: &Pull) -> Option<String> {
        let open = self.source.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(pull).map(|open| open.head.clone())
    }

    /// What a look shows of a pull request that was not told yet.
    fn changed(&self, project: &ProjectName, found: &PullRequest) -> Option<Happened> {
        let heads = self.heads(project);
        let kind = match (state(found), heads.get(&found.number)) {
            (ChangeState::Open, Some(told)) if *told == found.head.sha => return None,
            (ChangeState::Open, _) => EventKind::PatchsetCreated,
            (ChangeState::Merged, Some(_)) => EventKind::ChangeMerged,
            (ChangeState::Abandoned, Some(_)) => EventKind::ChangeAbandoned,
            (ChangeState::Merged | ChangeState::Abandoned, None) => return None,
        };
        Some(Happened::pull(kind, project, found))
    }

    fn heads(&self, project: &ProjectName) -> BTreeMap<u64, String> {
        let text = self.cursors.get(&heads_name(project)).map(String::as_str).unwrap_or("{}");
        serde_json::from_str(text).unwrap_or_default()
    }

    /// Tells it, unless it was told.
    async fn tell(&mut self, happened: Happened) -> Result<(), Stop> {
        if happened.id.as_ref().is_some_and(|id| self.told.knows(id)) {
            return Ok(());
        }
        let mut cursor = since_name(&happened.project);
        let mut key = None;
        if let Some(pull) = happened.pull_name() {
            let Some(head) = self.head_of(&happened, &pull).await? else { return Ok(()) };
            key = Some(view::key(&self.source.api, &pull, &head).await?);
            if let Some(body) = &happened.body {
                if !self.is_news(&happened, &pull, &head) {
                    return Ok(());
                }
                cursor = heads_name(&happened.project);
                self.changed_to(happened.kind, &pull, head, body);
            }
        }
        if let Some(id) = &happened.id {
            self.told.note(id);
        }
        let kept = self.cursors.get(&cursor).cloned().unwrap_or_default();
        let event = Box::new(self.event(happened, key));
        self.say(Heard::Event { event, cursor: (cursor, kept) }).await?;
        Ok(())
    }

    /// `None`: there is no such pull request.
    async fn head_of(&self, happened: &Happened, pull: &Pull) -> Result<Option<String>, Stop> {
        let told = happened.pull.as_ref().and_then(|(_, head, _)| head.clone());
        if let Some(head) = told.or_else(|| self.head(pull)) {
            return Ok(Some(head));
        }
        Ok(self.source.api.pull(pull).await?.map(|found| found.head.sha))
    }

    /// A new commit is told once, and so is an end, whether by webhook or by looking.
    fn is_news(&self, happened: &Happened, pull: &Pull, head: &str) -> bool {
        let heads = self.heads(&happened.project);
        let told = heads.get(&pull.number);
        match happened.kind {
            EventKind::PatchsetCreated => {
                happened.id.is_some() || told.is_none_or(|told| told != head)
            }
            EventKind::ChangeMerged | EventKind::ChangeAbandoned => told.is_some(),
            EventKind::DraftPublished
            | EventKind::ChangeRestored
            | EventKind::CommentAdded
            | EventKind::RefUpdated
            | EventKind::Timer
            | EventKind::ParentChangeEnqueued
            | EventKind::ProjectChangeMerged => true,
        }
    }

    fn changed_to(&mut self, kind: EventKind, pull: &Pull, head: String, body: &str) {
        let state = match kind {
            EventKind::ChangeMerged => ChangeState::Merged,
            EventKind::ChangeAbandoned => ChangeState::Abandoned,
            EventKind::PatchsetCreated
            | EventKind::DraftPublished
            | EventKind::ChangeRestored
            | EventKind::CommentAdded
            | EventKind::RefUpdated
            | EventKind::Timer
            | EventKind::ParentChangeEnqueued
            | EventKind::ProjectChangeMerged => ChangeState::Open,
        };
        self.note_open(pull.clone(), state, &head, body);
        let mut heads = self.heads(&pull.project);
        match state {
            ChangeState::Open => drop(heads.insert(pull.number, head)),
            ChangeState::Merged | ChangeState::Abandoned => drop(heads.remove(&pull.number)),
        }
        self.cursors.insert(heads_name(&pull.project), text(&heads));
    }

    fn event(
        &self,
        happened: Happened,
        change: Option<toci_core::event::ChangeKey>,
    ) -> TriggerEvent {
        let (reference, old, new) = match happened.moved.clone() {
            Some((reference, old, new)) => (Some(reference), Some(old), Some(new)),
            None => (None, None, None),
        };
        TriggerEvent {
            kind: happened.kind,
            project: happened.project_key(&self.source.api.config),
            branch: happened.pull.and_then(|(_, _, branch)| branch),
            change,
            reference,
            old,
            new,
            by: happened.by,
            comment: happened.comment,
            approvals: happened.approvals,
            origin: String::new(),
            at: happened.at.unwrap_or_else(now),
        }
    }

    async fn keep(&mut self, name: String, text: String) -> Result<(), Over> {
        self.cursors.insert(name.clone(), text.clone());
        self.say(Heard::Cursor((name, text))).await
    }
}

fn text(heads: &BTreeMap<u64, String>) -> String {
    serde_json::to_string(heads).unwrap_or_default()
}

fn now() -> Time {
    Time(0).after(wall())
}
