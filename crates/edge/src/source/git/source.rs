//! Listening: looks at the repositories, and says what came and went.

use super::refs::{self, Meaning, Snapshot, Step, happened, meaning};
use super::view::Commits;
use crate::clock::wall;
use crate::git::{GitError, Mirrors, Remote};
use crate::source::{Cursors, Heard, Source, SourceError, SourceReport, Work};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use toci_core::chain::Chain;
use toci_core::event::{
    Branch, Change, ChangeKey, EventKind, Person, ProjectKey, ProjectName, RefName, SourceName,
    TriggerEvent,
};
use toci_core::time::Time;
use tokio::sync::{Notify, mpsc};

/// Repositories of one source at most.
const PROJECTS_MAX: usize = 10_000;
/// How deep below the root repositories are looked for.
const DEPTH_MAX: usize = 5;

/// Where the repositories are.
#[derive(Clone, Debug)]
pub enum Place {
    /// Bare repositories `<root>/<project>.git` on this machine; new ones are found by themselves.
    Root(PathBuf),
    /// `<url><project>.git` for these projects.
    Url {
        /// What stands before a project's name, e.g. `ssh://git@example.org/`.
        url: String,
        /// Which projects there are.
        projects: Vec<ProjectName>,
    },
}

/// Settings of a plain git source.
#[derive(Clone, Debug)]
pub struct GitConfig {
    /// What layouts call it.
    pub name: SourceName,
    /// Where the repositories are.
    pub place: Place,
    /// How often they are looked at.
    pub every: Duration,
    /// In whose name it votes: the last part but one of its vote refs.
    pub user: String,
    /// The address in its commits (notes).
    pub email: String,
    /// Environment of git, e.g. `GIT_SSH_COMMAND`.
    pub environment: Vec<(String, String)>,
}

impl GitConfig {
    /// Where its repositories are, for the mirrors.
    #[must_use]
    pub fn remote(&self) -> Remote {
        let prefix = match &self.place {
            Place::Root(root) => format!("{}/", root.display()),
            Place::Url { url, .. } => url.clone(),
        };
        let environment = self.environment.clone();
        Remote { prefix, suffix: ".git".to_owned(), environment }
    }
}

/// One project as last seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) refs: Snapshot,
    head: Option<String>,
}

/// A plain git source.
#[derive(Debug)]
pub struct GitSource {
    pub(super) config: GitConfig,
    pub(super) mirrors: Arc<Mirrors>,
    known: Mutex<BTreeMap<ProjectName, Known>>,
    pub(super) commits: Mutex<Commits>,
    pub(super) poked: Notify,
}

impl GitSource {
    /// The mirrors must know its remote ([`GitConfig::remote`]).
    #[must_use]
    pub fn new(config: GitConfig, mirrors: Arc<Mirrors>) -> GitSource {
        let (known, commits) = (Mutex::default(), Mutex::default());
        GitSource { config, mirrors, known, commits, poked: Notify::new() }
    }

    pub(super) fn key(&self, name: &ProjectName) -> ProjectKey {
        ProjectKey { source: self.config.name.clone(), name: name.clone() }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, BTreeMap<ProjectName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failed(&self, error: &GitError) -> SourceError {
        SourceError::Unreachable {
            source_name: self.config.name.to_string(),
            why: Chain(error).to_string(),
        }
    }

    pub(super) fn refused(&self, why: impl Into<String>) -> SourceError {
        SourceError::Refused { source_name: self.config.name.to_string(), why: why.into() }
    }

    pub(super) fn projects(&self) -> Result<Vec<ProjectName>, String> {
        match &self.config.place {
            Place::Url { projects, .. } => Ok(projects.clone()),
            Place::Root(root) => {
                let mut found = Vec::new();
                look_below(root, root, 0, &mut found)
                    .map_err(|e| format!("{}: {e}", root.display()))?;
                found.sort();
                Ok(found)
            }
        }
    }

    /// Looks at one project: what it has, and every open patchset's commit in the mirror.
    pub(super) async fn look(&self, name: &ProjectName) -> Result<Known, GitError> {
        let mirror = self.mirrors.open(&self.key(name)).await?;
        let found = mirror.remote_refs().await?;
        let now = Known { refs: found.refs, head: found.head };
        let before = self.known().get(name).cloned().unwrap_or_default();
        if before.refs != now.refs {
            mirror
                .fetch_refs(&[
                    "+refs/heads/*:refs/heads/*",
                    "+refs/changes/*:refs/toci/refs/changes/*",
                ])
                .await?;
            self.known().insert(name.clone(), now.clone());
        }
        Ok(now)
    }

    async fn listen_on(&self, since: Cursors, out: mpsc::Sender<Heard>) {
        // What was there before the source was heard for the first time is no news.
        let mut first_time = since.is_empty();
        let mut heard: BTreeMap<ProjectName, Snapshot> = since
            .into_iter()
            .filter_map(|(name, text)| {
                Some((ProjectName::new(name).ok()?, serde_json::from_str(&text).ok()?))
            })
            .collect();
        let mut up = None;
        loop {
            let result = self.look_around(&mut heard, first_time, &out).await;
            let Ok(link) = result else { return };
            if up.as_ref() != Some(&link) {
                up = Some(link.clone());
                if out.send(Heard::Link(link.clone())).await.is_err() {
                    return;
                }
            }
            first_time &= link.is_err();
            tokio::select! {
                () = tokio::time::sleep(self.config.every) => {}
                () = self.poked.notified() => {}
                () = out.closed() => return,
            }
        }
    }

    /// One look at everything. The outer error: nobody listens.
    async fn look_around(
        &self,
        heard: &mut BTreeMap<ProjectName, Snapshot>,
        first_time: bool,
        out: &mpsc::Sender<Heard>,
    ) -> Result<Result<(), String>, mpsc::error::SendError<Heard>> {
        let projects = match self.projects() {
            Ok(projects) => projects,
            Err(why) => return Ok(Err(why)),
        };
        let mut link = Ok(());
        let gone: Vec<ProjectName> =
            heard.keys().filter(|name| self.is_gone(name)).cloned().collect();
        for name in gone {
            self.tell_gone(&name, heard.remove(&name).unwrap_or_default(), out).await?;
        }
        for name in projects {
            let now = match self.look(&name).await {
                Ok(now) => now.refs,
                Err(error) => {
                    link = Err(Chain(&error).to_string());
                    continue;
                }
            };
            let before = heard.get(&name).cloned();
            if before.as_ref() == Some(&now) {
                continue;
            }
            let text = |refs: &Snapshot| serde_json::to_string(refs).unwrap_or_default();
            let old = before.clone().unwrap_or_default();
            if before.is_some() || !first_time {
                let cursor = (name.to_string(), text(&old));
                for step in happened(&old, &now) {
                    let said = match self.event(&name, &now, &step) {
                        Some(event) => {
                            Heard::Event { event: Box::new(event), cursor: cursor.clone() }
                        }
                        None => Heard::Malformed(format!("{name}: {step:?}")),
                    };
                    out.send(said).await?;
                }
            }
            out.send(Heard::Cursor((name.to_string(), text(&now)))).await?;
            heard.insert(name, now);
        }
        Ok(link)
    }

    /// A repository that was removed: its open changes are given up.
    async fn tell_gone(
        &self,
        name: &ProjectName,
        refs: Snapshot,
        out: &mpsc::Sender<Heard>,
    ) -> Result<(), mpsc::error::SendError<Heard>> {
        out.send(Heard::Malformed(format!("the repository of {name} is gone"))).await?;
        let cursor = (name.to_string(), "{}".to_owned());
        let known = || Known { refs: refs.clone(), head: None };
        self.known().entry(name.clone()).or_insert_with(known);
        for (number, patchset) in refs::changes(&refs) {
            let step = Step {
                kind: EventKind::ChangeAbandoned,
                change: Some((number, Some(patchset))),
                line: None,
                by: String::new(),
                votes: Vec::new(),
            };
            if let Some(event) = self.event(name, &refs, &step) {
                let text = serde_json::to_string(&refs).unwrap_or_default();
                let cursor = (name.to_string(), text);
                out.send(Heard::Event { event: Box::new(event), cursor }).await?;
            }
        }
        self.known().remove(name);
        out.send(Heard::Cursor(cursor)).await
    }

    /// Whether a project's repository was removed: what is known of it counts no more.
    pub(super) fn is_gone(&self, name: &ProjectName) -> bool {
        match &self.config.place {
            // A root without anything is rather a file system that is not mounted.
            Place::Root(root) => {
                let something = std::fs::read_dir(root).is_ok_and(|mut all| all.next().is_some());
                something && !root.join(format!("{name}.git")).exists()
            }
            Place::Url { .. } => false,
        }
    }

    fn event(&self, name: &ProjectName, refs: &Snapshot, step: &Step) -> Option<TriggerEvent> {
        let mut event = TriggerEvent {
            kind: step.kind,
            project: self.key(name),
            branch: None,
            change: None,
            reference: None,
            old: None,
            new: None,
            by: Person { username: step.by.clone(), ..Person::default() },
            comment: String::new(),
            approvals: step.votes.clone(),
            origin: String::new(),
            at: Time(0).after(wall()),
        };
        if let Some((number, patchset)) = step.change {
            // A number belongs to one project of the source: the first that has it.
            if self.home(number).as_ref() != Some(name) {
                return None;
            }
            let patchset = patchset.or_else(|| refs::current(refs, number))?;
            let source = self.config.name.clone();
            event.change = Some(ChangeKey { source, number, patchset: patchset.to_string() });
            event.branch = self.target(name, number);
        }
        if let Some((reference, old, new)) = &step.line {
            event.reference = Some(RefName::new(reference.clone()).ok()?);
            event.old = Some(old.clone());
            event.new = Some(new.clone());
            event.branch = reference.strip_prefix("refs/heads/").and_then(|b| Branch::new(b).ok());
        }
        Some(event)
    }

    /// The project of a change.
    pub(super) fn home(&self, number: u64) -> Option<ProjectName> {
        let known = self.known();
        let mut all = known.iter();
        all.find(|(_, k)| refs::current(&k.refs, number).is_some()).map(|(name, _)| name.clone())
    }

    /// The branch of a change.
    pub(super) fn target(&self, name: &ProjectName, number: u64) -> Option<Branch> {
        let known = self.known();
        let known = known.get(name)?;
        let first = format!("refs/changes/{:02}/{number}/branch/", number % 100);
        let own = known.refs.range(first.clone()..).next();
        let branch = match own.map(|(name, _)| meaning(name)) {
            Some(Meaning::Target { number: n, branch }) if n == number => branch,
            _ => known.head.as_deref().unwrap_or("master"),
        };
        Branch::new(branch).ok()
    }
}

fn look_below(
    root: &Path,
    folder: &Path,
    depth: usize,
    found: &mut Vec<ProjectName>,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if !path.is_dir() || found.len() >= PROJECTS_MAX {
            continue;
        }
        match path.to_str().and_then(|p| p.strip_suffix(".git")) {
            Some(name) => {
                let name = Path::new(name).strip_prefix(root).ok().and_then(Path::to_str);
                found.extend(name.and_then(|name| ProjectName::new(name).ok()));
            }
            None if depth < DEPTH_MAX => look_below(root, &path, depth + 1, found)?,
            None => {}
        }
    }
    Ok(())
}

impl Source for GitSource {
    fn name(&self) -> &SourceName {
        &self.config.name
    }

    fn remote(&self) -> Remote {
        self.config.remote()
    }

    fn listen(&self, since: Cursors, out: mpsc::Sender<Heard>) -> Work<'_, ()> {
        Box::pin(self.listen_on(since, out))
    }

    fn poke(&self) {
        self.poked.notify_one();
    }

    fn change<'a>(
        &'a self,
        number: u64,
        patchset: Option<&'a str>,
    ) -> Work<'a, Result<Option<Change>, SourceError>> {
        Box::pin(self.change_now(number, patchset))
    }

    fn find<'a>(&'a self, footer: &'a str) -> Work<'a, Result<Vec<Change>, SourceError>> {
        Box::pin(self.found(footer))
    }

    fn open_changes<'a>(
        &'a self,
        project: &'a ProjectName,
    ) -> Work<'a, Result<Vec<Change>, SourceError>> {
        Box::pin(self.open_of(project))
    }

    fn report<'a>(&'a self, report: &'a SourceReport) -> Work<'a, Result<bool, SourceError>> {
        Box::pin(self.tell(report))
    }
}
