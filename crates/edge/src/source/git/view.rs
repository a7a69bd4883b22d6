//! Changes of a plain git source as they are now.

use super::refs::{Meaning, Snapshot, changes, current, meaning, patchset_ref};
use super::source::{GitSource, Known};
use crate::git::{GitError, Mirror};
use crate::source::{CHANGES_MAX, SourceError, depends_on};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use toci_core::event::{
    Approval, Change, ChangeKey, ChangeState, Person, ProjectName, RefName, Revision,
};
use toci_core::time::Time;

/// Commits and names of files in them that are remembered at most.
const KEPT_MAX: usize = 500_000;
/// A commit, and what it touches on top of its first parent; with the revision it makes one call of git.
const COMMIT: [&str; 8] = [
    "log",
    "-1",
    "-m",
    "--first-parent",
    "--name-only",
    "--no-renames",
    "-z",
    "--format=%an%n%ae%n%at%n%P%n%B%x00",
];
/// Commits between a change and its branch that are looked at for changes which it needs.
const SERIES_MAX: &str = "--max-count=200";

/// What a commit says.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    author: Person,
    /// Seconds since 1970.
    at_s: i64,
    parents: Vec<Revision>,
    message: String,
    /// What it touches on top of its first parent; a first commit touches all that it has.
    files: Vec<String>,
}

/// Commits that were read; they never change.
#[derive(Debug, Default)]
pub(super) struct Commits {
    known: BTreeMap<Revision, Commit>,
    /// So many commits and names of files in them.
    kept: usize,
}

impl Commits {
    /// Forgets all others when they are too many.
    fn keep(&mut self, revision: Revision, commit: Commit) {
        let more = 1 + commit.files.len();
        if self.kept + more > KEPT_MAX {
            *self = Commits::default();
        }
        if self.known.insert(revision, commit).is_none() {
            self.kept += more;
        }
    }
}

/// A patchset, and where it is.
#[derive(Clone, Debug)]
struct Patchset {
    project: ProjectName,
    number: u64,
    patchset: u32,
    revision: Revision,
}

impl GitSource {
    pub(super) async fn change_now(
        &self,
        number: u64,
        patchset: Option<&str>,
    ) -> Result<Option<Change>, SourceError> {
        let Some(project) = self.home_now(number).await? else { return Ok(None) };
        let known = self.look(&project).await.map_err(|e| self.failed(&e))?;
        let newest = current(&known.refs, number);
        let patchset = match patchset {
            Some(text) => text.parse().ok(),
            None => newest,
        };
        let Some(patchset) = patchset else { return Ok(None) };
        let Some(revision) = known.refs.get(&patchset_ref(number, patchset)) else {
            return Ok(None);
        };
        let of = Patchset { project, number, patchset, revision: revision.clone() };
        self.view(&of, &known, newest).await.map(Some)
    }

    /// The project of a change; everything is looked at when no known project has it.
    async fn home_now(&self, number: u64) -> Result<Option<ProjectName>, SourceError> {
        if let Some(project) = self.home(number) {
            return Ok((!self.is_gone(&project)).then_some(project));
        }
        for name in self.projects().map_err(|why| SourceError::Unreachable {
            source_name: self.config.name.to_string(),
            why,
        })? {
            self.look(&name).await.map_err(|e| self.failed(&e))?;
        }
        Ok(self.home(number))
    }

    async fn view(
        &self,
        of: &Patchset,
        known: &Known,
        newest: Option<u32>,
    ) -> Result<Change, SourceError> {
        let project = self.key(&of.project);
        let branch = self
            .target(&of.project, of.number)
            .ok_or_else(|| self.refused(format!("change {} has no branch", of.number)))?;
        let reference = RefName::new(patchset_ref(of.number, of.patchset))
            .map_err(|e| self.refused(e.to_string()))?;
        let tip = known.refs.get(&format!("refs/heads/{branch}"));
        let inside = async {
            let mirror = self.mirrors.open(&project).await?;
            let commit = self.commit(&mirror, &of.revision).await?;
            let outside = match tip {
                Some(tip) => Some(outside(&mirror, tip, &of.revision).await?),
                None => None,
            };
            Ok((commit, outside))
        };
        let (commit, outside) = inside.await.map_err(|e: GitError| self.failed(&e))?;
        let in_branch = outside.as_ref().is_some_and(Vec::is_empty);
        let mut needs = self.series_keys(of, known, &outside.unwrap_or_default());
        for footer in depends_on(&commit.message) {
            for key in self.keys_of(&footer).await? {
                if key.number != of.number && !needs.contains(&key) {
                    needs.push(key);
                }
            }
        }
        let key = self.change_key(of.number, of.patchset);
        Ok(Change {
            url: format!(
                "{}#{}",
                self.mirrors.remote(&project.source).map(|r| r.url(&project)).unwrap_or_default(),
                reference
            ),
            reference,
            revision: of.revision.clone(),
            change_id: change_id(&commit.message),
            state: state(&known.refs, of.number, in_branch),
            current: newest == Some(of.patchset),
            wip: false,
            title: commit.message.lines().next().unwrap_or_default().to_owned(),
            owner: commit.author.clone(),
            topic: String::new(),
            hashtags: Vec::new(),
            approvals: approvals(&known.refs, of, Time(commit.at_s.saturating_mul(1_000_000))),
            submit: Vec::new(),
            needed_by: self.needing(of, &commit).await?,
            files: Some(commit.files),
            message: commit.message,
            needs,
            branch,
            project,
            key,
        })
    }

    fn change_key(&self, number: u64, patchset: u32) -> ChangeKey {
        ChangeKey { source: self.config.name.clone(), number, patchset: patchset.to_string() }
    }

    /// The changes whose patchsets lie between the branch and this one, the nearest first.
    fn series_keys(&self, of: &Patchset, known: &Known, series: &[Revision]) -> Vec<ChangeKey> {
        let mut by_revision: BTreeMap<&Revision, (u64, u32)> = BTreeMap::new();
        for (name, revision) in &known.refs {
            if let Meaning::Patchset { number, patchset } = meaning(name) {
                by_revision.insert(revision, (number, patchset));
            }
        }
        let others = series.iter().filter(|revision| **revision != of.revision);
        others
            .filter_map(|revision| by_revision.get(revision))
            .filter(|(number, _)| *number != of.number)
            .map(|(number, patchset)| self.change_key(*number, *patchset))
            .collect()
    }

    /// What a commit says; remembered.
    async fn commit(&self, mirror: &Mirror, revision: &Revision) -> Result<Commit, GitError> {
        let known = {
            let commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
            commits.known.get(revision).cloned()
        };
        if let Some(commit) = known {
            return Ok(commit);
        }
        let arguments = COMMIT.into_iter().chain(["--end-of-options", revision.as_str()]);
        let arguments: Vec<&str> = arguments.collect();
        let text = mirror.git.local(&arguments).await?;
        let commit = read_commit(&text);
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        commits.keep(revision.clone(), commit.clone());
        Ok(commit)
    }

    /// The newest patchset of every change of a project that is not marked as merged or abandoned.
    fn unmarked(&self, project: &ProjectName) -> Vec<Patchset> {
        let known = self.known();
        let Some(known) = known.get(project) else { return Vec::new() };
        let open = changes(&known.refs)
            .into_iter()
            .filter(|(number, _)| state(&known.refs, *number, false) == ChangeState::Open);
        open.filter_map(|(number, patchset)| {
            let revision = known.refs.get(&patchset_ref(number, patchset))?.clone();
            Some(Patchset { project: project.clone(), number, patchset, revision })
        })
        .take(CHANGES_MAX)
        .collect()
    }

    /// Every such patchset of the source with its commit.
    async fn all_unmarked(&self) -> Result<Vec<(Patchset, Commit)>, SourceError> {
        let names: Vec<ProjectName> = self.known().keys().cloned().collect();
        let mut all = Vec::new();
        for name in names {
            let unmarked = self.unmarked(&name);
            if unmarked.is_empty() {
                continue;
            }
            let inside = async {
                let mirror = self.mirrors.open(&self.key(&name)).await?;
                let mut found = Vec::new();
                for patchset in unmarked {
                    let commit = self.commit(&mirror, &patchset.revision).await?;
                    found.push((patchset, commit));
                }
                Ok(found)
            };
            all.extend(inside.await.map_err(|e: GitError| self.failed(&e))?);
        }
        Ok(all)
    }

    /// Who stands on this one or names it.
    async fn needing(&self, of: &Patchset, own: &Commit) -> Result<Vec<ChangeKey>, SourceError> {
        let own_id = change_id(&own.message);
        let mut found = Vec::new();
        for (other, commit) in self.all_unmarked().await? {
            if other.number == of.number {
                continue;
            }
            let stands = other.project == of.project && commit.parents.contains(&of.revision);
            let names = depends_on(&commit.message)
                .iter()
                .any(|footer| names(footer, &self.config.name, of.number, &own_id));
            if stands || names {
                found.push(self.change_key(other.number, other.patchset));
            }
        }
        Ok(found)
    }

    /// The changes that a footer names, in their newest patchset; also merged and abandoned ones by their number.
    async fn keys_of(&self, footer: &str) -> Result<Vec<ChangeKey>, SourceError> {
        let mut found = Vec::new();
        if let Some(number) = number_in(footer, self.config.name.as_str()) {
            let home = self.home(number);
            let newest = home.and_then(|h| current(&self.known().get(&h)?.refs, number));
            found.extend(newest.map(|patchset| self.change_key(number, patchset)));
        } else if footer.starts_with('I') {
            for (other, commit) in self.all_unmarked().await? {
                if change_id(&commit.message) == footer {
                    found.push(self.change_key(other.number, other.patchset));
                }
            }
        }
        Ok(found)
    }

    /// For another source's change: a bare number is one of that source's own.
    pub(super) async fn found(&self, footer: &str) -> Result<Vec<Change>, SourceError> {
        let mut changes = Vec::new();
        if footer.starts_with(|first: char| first.is_ascii_digit()) {
            return Ok(changes);
        }
        for key in self.keys_of(footer).await? {
            changes.extend(self.change_now(key.number, None).await?);
        }
        Ok(changes)
    }

    pub(super) async fn open_of(&self, project: &ProjectName) -> Result<Vec<Change>, SourceError> {
        self.look(project).await.map_err(|e| self.failed(&e))?;
        let mut changes = Vec::new();
        for patchset in self.unmarked(project) {
            let change = self.change_now(patchset.number, None).await?;
            changes.extend(change.filter(|c| c.state == ChangeState::Open));
        }
        Ok(changes)
    }
}

fn names(footer: &str, source: &toci_core::event::SourceName, number: u64, id: &str) -> bool {
    number_in(footer, source.as_str()) == Some(number) || (!id.is_empty() && footer == id)
}

/// `<source>:<number>` or `<number>`, with or without a patchset.
fn number_in(footer: &str, source: &str) -> Option<u64> {
    let rest = footer.strip_prefix(source).and_then(|rest| rest.strip_prefix(':'));
    let rest = rest.unwrap_or(footer);
    rest.split(',').next()?.parse().ok()
}

/// Gerrit's footer, when a message has one.
fn change_id(message: &str) -> String {
    let ids = message.lines().filter_map(|line| line.strip_prefix("Change-Id:"));
    ids.map(|id| id.trim().to_owned()).next_back().unwrap_or_default()
}

fn state(refs: &Snapshot, number: u64, in_branch: bool) -> ChangeState {
    let merged = format!("refs/merged/{number}/");
    let merged = refs.range(merged.clone()..).next().is_some_and(|(n, _)| n.starts_with(&merged));
    if merged || in_branch {
        ChangeState::Merged
    } else if refs.contains_key(&format!("refs/abandoned/{number}")) {
        ChangeState::Abandoned
    } else {
        ChangeState::Open
    }
}

fn approvals(refs: &Snapshot, of: &Patchset, at: Time) -> Vec<Approval> {
    let first = format!("refs/approvals/{}/{}/", of.number, of.patchset);
    let own = refs.range(first.clone()..).take_while(|(name, _)| name.starts_with(&first));
    own.filter_map(|(name, _)| match meaning(name) {
        Meaning::Vote { label, user, value, .. } => {
            let by = Person { username: user.to_owned(), ..Person::default() };
            Some(Approval { label, value, by, at })
        }
        _ => None,
    })
    .collect()
}

/// Reads what [`COMMIT`] writes: what the commit says, two NULs, a line feed, the names of the files with a NUL after each.
fn read_commit(text: &str) -> Commit {
    let (said, files) = text.split_once('\0').unwrap_or((text, ""));
    let mut lines = said.splitn(5, '\n');
    let mut next = || lines.next().unwrap_or_default().to_owned();
    let (name, email, at, parents, message) = (next(), next(), next(), next(), next());
    let username = email.split('@').next().unwrap_or_default().to_owned();
    let parents = parents.split_whitespace().filter_map(|p| Revision::new(p).ok()).collect();
    let files = files.strip_prefix("\0\n").unwrap_or_default();
    Commit {
        author: Person { username, email, name },
        at_s: at.parse().unwrap_or(0),
        parents,
        message: message.trim_end_matches('\n').to_owned(),
        files: files.split('\0').filter(|f| !f.is_empty()).map(str::to_owned).collect(),
    }
}

/// The commits that come with the change and are not in its branch, the nearest first, its own among them; none: it is in the branch.
async fn outside(
    mirror: &Mirror,
    tip: &Revision,
    revision: &Revision,
) -> Result<Vec<Revision>, GitError> {
    let not = format!("^{tip}");
    let text = mirror.git.local(&["rev-list", SERIES_MAX, revision.as_str(), not.as_str()]).await?;
    Ok(text.lines().filter_map(|line| Revision::new(line).ok()).collect())
}
