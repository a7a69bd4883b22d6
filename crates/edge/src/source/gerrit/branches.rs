//! Looking at branches and tags, project by project: Gerrit has no other way to say what moved while nobody listened.

use super::listen::{Ear, Gone, now};
use super::tips::{MOVES_MAX, Refs, Standing, TIPS_MAX, Tips};
use crate::git::{GitError, branches_and_tags};
use crate::source::{Cursors, Heard};
use futures_util::StreamExt as _;
use futures_util::stream::iter;
use std::collections::BTreeSet;
use std::time::Duration;
use toci_core::chain::Chain;
use toci_core::event::{EventKind, ProjectKey, ProjectName, TriggerEvent};
use toci_core::pause::Pause;
use toci_core::time::Time;
use tokio::sync::watch;
use tokio::time::Instant;

/// Projects whose branches and tags are looked at, at a time.
const LOOKS_MAX: usize = 4;
/// How often that is done when nothing streams.
pub const BRANCHES_EVERY: Duration = Duration::from_secs(60);
/// After so many projects in a row that could not be seen the rest waits for the next look.
const BLIND_MAX: usize = 10;
/// First and longest pause before what could not be seen is looked at again.
const PAUSE: Pause = Pause::new(Duration::from_secs(5), Duration::from_secs(600));

/// What is known of branches and tags, and when they are looked at next.
#[derive(Debug)]
pub(super) struct Branches {
    /// The projects that matter.
    pub(super) watched: watch::Receiver<BTreeSet<ProjectName>>,
    tips: Tips,
    due: Option<Instant>,
    pause: Pause,
    /// Projects of which it was said already that they cannot be seen.
    blind: BTreeSet<ProjectName>,
}

impl Branches {
    pub(super) fn new(
        since: &Cursors,
        watched: watch::Receiver<BTreeSet<ProjectName>>,
    ) -> Branches {
        let blind = BTreeSet::new();
        Branches { watched, tips: Tips::read(since), due: None, pause: PAUSE, blind }
    }

    /// They are looked at now.
    pub(super) fn hurry(&mut self) {
        self.due = Some(Instant::now());
    }

    /// Ends when they are to be looked at; it may be given up and asked anew.
    pub(super) async fn is_due(due: Option<Instant>) {
        match due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl Ear<'_> {
    /// Looks, if it is time, and tells what moved.
    pub(super) async fn look_at_branches(&mut self, again: Option<Duration>) -> Result<(), Gone> {
        if self.branches.due.is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        let all = self.look_at_all().await?;
        let next = match (all, again) {
            (true, again) => {
                self.branches.pause.reset();
                again
            }
            (false, _) => Some(self.branches.pause.longer()),
        };
        self.branches.due = next.map(|pause| Instant::now() + pause);
        Ok(())
    }

    /// Says whether everything was seen.
    async fn look_at_all(&mut self) -> Result<bool, Gone> {
        let config = self.gerrit.config();
        let (source, remote) = (config.name.clone(), config.remote());
        let watched = self.branches.watched.borrow_and_update().clone();
        self.branches.tips.keep(&watched);
        let look = |name: &ProjectName| {
            let project = ProjectKey { source: source.clone(), name: name.clone() };
            let remote = &remote;
            async move { (branches_and_tags(remote, &project).await, project.name) }
        };
        let mut looks = iter(watched.iter().map(look)).buffer_unordered(LOOKS_MAX);
        let (mut all, mut blind_in_a_row) = (true, 0);
        while let Some((found, project)) = looks.next().await {
            match found {
                Ok(refs) => {
                    blind_in_a_row = 0;
                    self.branches.blind.remove(&project);
                    self.compare(&project, &refs).await?;
                }
                Err(error) => {
                    (all, blind_in_a_row) = (false, blind_in_a_row + 1);
                    self.say_blind(project, &error).await?;
                    if blind_in_a_row >= BLIND_MAX {
                        break;
                    }
                }
            }
        }
        Ok(all)
    }

    async fn say_blind(&mut self, project: ProjectName, error: &GitError) -> Result<(), Gone> {
        let text = format!("branches and tags of {project} cannot be seen: {}", Chain(error));
        if self.branches.blind.insert(project) {
            self.say(Heard::Malformed(text)).await?;
        }
        Ok(())
    }

    async fn compare(&mut self, project: &ProjectName, refs: &Refs) -> Result<(), Gone> {
        if refs.len() > TIPS_MAX {
            let text = format!("{project} has more than {TIPS_MAX} branches and tags");
            return self.say(Heard::Malformed(text)).await;
        }
        if !self.branches.tips.knows(project) {
            self.branches.tips.learn(project, refs.clone());
            return self.say(Heard::Cursor(self.branches.tips.cursor(project))).await;
        }
        let moves = self.branches.tips.moved(project, refs);
        let at = Time(0).after(Duration::from_secs(now()));
        for (n, moved) in moves.iter().enumerate() {
            self.branches.tips.tell(project, moved, now());
            let event = moved.event(&self.gerrit.config().name, project, at);
            if let Some(event) = event.filter(|_| n < MOVES_MAX) {
                let cursor = self.branches.tips.cursor(project);
                self.say(Heard::Event { event: Box::new(event), cursor }).await?;
            }
        }
        if moves.len() > MOVES_MAX {
            let text = format!(
                "more than {MOVES_MAX} branches and tags of {project} moved while it was not heard; the rest is left out"
            );
            self.say(Heard::Malformed(text)).await?;
            self.say(Heard::Cursor(self.branches.tips.cursor(project))).await?;
        }
        Ok(())
    }

    /// An event of the stream.
    pub(super) async fn hear_event(&mut self, event: TriggerEvent) -> Result<(), Gone> {
        if event.kind != EventKind::RefUpdated {
            return self.tell(event).await;
        }
        match self.branches.tips.heard(&event, now()) {
            Standing::Unknown => self.tell(event).await,
            Standing::Told => Ok(()),
            Standing::News => {
                let cursor = self.branches.tips.cursor(&event.project.name);
                self.say(Heard::Event { event: Box::new(event), cursor }).await
            }
        }
    }
}
