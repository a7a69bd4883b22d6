//! Speculative merges (origin.md 7.4): each change on top of the newest commit of its project and branch in the series,
//! else on the branch's tip; then `refs/zuul/<branch>/<reference>` in every project and branch of the series.
//!
//! Everything happens in bare mirrors: `merge-tree` merges without a work tree, `commit-tree` makes the commit.

use super::command::{Git, GitError, LOCAL_LIMIT};
use super::fork::Fork;
use super::mirror::{Mirror, Mirrors, kept};
use super::series::{Memory, Series, Step};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use toci_core::chain::Chain;
use toci_core::event::{Branch, ChangeKey, ProjectKey, RefName, Revision};
use toci_core::layout::MergeMode;
use toci_core::pipeline::{MergeItem, MergeOutcome, MergeSubject, MergeWish};
use toci_core::run::variables::zuul_ref;
use toci_wire::layout::OWN_TEXT_MAX_BYTES;

/// Longest file that is read for configuration, in bytes: a project's own may be no longer.
pub const READ_MAX_BYTES: usize = OWN_TEXT_MAX_BYTES;

/// Merges series on mirrors.
#[derive(Debug)]
pub struct Merger {
    mirrors: Arc<Mirrors>,
    /// Name and address of the committer.
    identity: (String, String),
    memory: Mutex<Memory>,
}

/// Who wrote a commit, and when, as git writes it; now when that is empty.
struct Author {
    name: String,
    email: String,
    date: String,
}

/// One merge, tried.
enum Tried {
    Merged(Revision),
    Conflict(Vec<String>),
}

impl Merger {
    /// Commits are made in this name.
    #[must_use]
    pub fn new(mirrors: Arc<Mirrors>, name: &str, email: &str) -> Merger {
        let identity = (name.to_owned(), email.to_owned());
        Merger { mirrors, identity, memory: Mutex::default() }
    }

    /// Does what is wished. Only what git could not do at all is `Failed`; what the remote does not have is `Gone`.
    pub async fn merge(&self, wish: &MergeWish) -> MergeOutcome {
        match self.try_merge(wish).await {
            Ok(outcome) => outcome,
            Err(error @ (GitError::NoSuchRef { .. } | GitError::Moved { .. })) => {
                MergeOutcome::Gone { why: Chain(&error).to_string() }
            }
            Err(error) => MergeOutcome::Failed { why: Chain(&error).to_string() },
        }
    }

    async fn try_merge(&self, wish: &MergeWish) -> Result<MergeOutcome, GitError> {
        let Some(own) = wish.series.last() else {
            return Ok(MergeOutcome::Failed { why: "the series is empty".to_owned() });
        };
        let (done, mut state) = self.memory().longest(&wish.series);
        for n in done..wish.series.len() {
            if let Some(conflict) = self.link(&wish.series[n], &mut state).await? {
                return Ok(conflict);
            }
            self.memory().remember(&wish.series[..=n], &state);
        }
        self.set_refs(&wish.reference, &state).await?;
        let files = match state.commits.get(&(own.project.clone(), own.branch.clone())) {
            Some(commit) if !wish.files.is_empty() => {
                let mirror = self.mirrors.open(&own.project).await?;
                read(&mirror, commit, &wish.files).await?
            }
            Some(_) | None => Vec::new(),
        };
        let commits = state.commits.into_iter().map(|((p, b), c)| (p, b, c)).collect();
        Ok(MergeOutcome::Merged { commits, files })
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one link on the series; a conflict ends it.
    async fn link(
        &self,
        item: &MergeItem,
        state: &mut Series,
    ) -> Result<Option<MergeOutcome>, GitError> {
        let mirror = self.mirrors.open(&item.project).await?;
        let place = (item.project.clone(), item.branch.clone());
        match &item.subject {
            MergeSubject::Change { key, reference, revision, mode } => {
                let known = state.commits.get(&place).cloned();
                let fork = fork(&mirror, known, item, reference, revision).await?;
                let base = fork.ours.clone();
                match self.put(&mirror.git, fork, *mode, key).await? {
                    Tried::Merged(after) => {
                        let (project, branch) = place.clone();
                        let change = key.clone();
                        let after_too = after.clone();
                        state.steps.push(Step { project, branch, change, before: base, after });
                        state.commits.insert(place, after_too);
                        Ok(None)
                    }
                    Tried::Conflict(files) => {
                        let with = self.culprit(&mirror.git, item, state, &files).await?;
                        Ok(Some(MergeOutcome::Conflict { files, with }))
                    }
                }
            }
            MergeSubject::Ref(update) => {
                mirror.update().await?;
                if !update.new.is_none() {
                    state.commits.insert(place, update.new.clone());
                }
                Ok(None)
            }
            MergeSubject::Tip => {
                mirror.update().await?;
                state.commits.insert(place, tip(&mirror, &item.branch).await?);
                Ok(None)
            }
        }
    }

    /// Puts the second commit of a fork on the first one.
    async fn put(
        &self,
        git: &Git,
        fork: Fork,
        mode: MergeMode,
        key: &ChangeKey,
    ) -> Result<Tried, GitError> {
        let Fork { ours: base, theirs: change, common } = fork;
        let common = match mode {
            MergeMode::CherryPick => parent(git, &change).await?,
            MergeMode::Merge | MergeMode::MergeResolve | MergeMode::Squash => common,
        };
        // Without a common past nothing can be merged.
        let Some(common) = common else { return Ok(Tried::Conflict(Vec::new())) };
        if common == change {
            return Ok(Tried::Merged(base));
        }
        if common == base && mode != MergeMode::Squash {
            return Ok(Tried::Merged(change));
        }
        let side = match mode {
            // merge-tree finds the common past by itself: a stand-in for the base on top of the change's parent makes
            // that parent the common past, so that only the change's own work is put on the base.
            MergeMode::CherryPick => {
                let tree = format!("{base}^{{tree}}");
                self.commit(git, &tree, &[&common], "stand-in", &self.usual_author()).await?
            }
            MergeMode::Merge | MergeMode::MergeResolve | MergeMode::Squash => base.clone(),
        };
        let tree = match merge_trees(git, &side, &change).await? {
            Ok(tree) => tree,
            Err(files) => return Ok(Tried::Conflict(files)),
        };
        let commit = match mode {
            MergeMode::Merge | MergeMode::MergeResolve => {
                let message = format!("Merge change {} of {}", key.short(), key.source);
                self.commit(git, &tree, &[&base, &change], &message, &self.usual_author()).await?
            }
            MergeMode::CherryPick | MergeMode::Squash => {
                let (author, message) = said_by(git, &change).await?;
                self.commit(git, &tree, &[&base], &message, &author).await?
            }
        };
        Ok(Tried::Merged(commit))
    }

    fn usual_author(&self) -> Author {
        let (name, email) = self.identity.clone();
        Author { name, email, date: String::new() }
    }

    /// Makes a commit.
    async fn commit(
        &self,
        git: &Git,
        tree: &str,
        parents: &[&Revision],
        message: &str,
        author: &Author,
    ) -> Result<Revision, GitError> {
        let (name, email) = &self.identity;
        let mut arguments = vec!["commit-tree".to_owned(), tree.to_owned()];
        for parent in parents {
            arguments.extend(["-p".to_owned(), parent.to_string()]);
        }
        let mut call = git.call(&arguments, LOCAL_LIMIT);
        for (variable, value) in [
            ("GIT_COMMITTER_NAME", name),
            ("GIT_COMMITTER_EMAIL", email),
            ("GIT_AUTHOR_NAME", &author.name),
            ("GIT_AUTHOR_EMAIL", &author.email),
            ("GIT_AUTHOR_DATE", &author.date),
        ] {
            if !value.is_empty() {
                call = call.env(variable, value);
            }
        }
        let ended = call.run(message.as_bytes()).await.map_err(|source| GitError::Call {
            what: "commit-tree".to_owned(),
            repository: git.repository().to_owned(),
            source,
        })?;
        if !ended.is_well() {
            return Err(git.failed(&arguments, &ended));
        }
        let text = ended.text();
        Revision::new(text.trim()).map_err(|_| git.answer(&arguments, &text))
    }

    /// The nearest change ahead that touched one of the files.
    async fn culprit(
        &self,
        git: &Git,
        item: &MergeItem,
        state: &Series,
        files: &[String],
    ) -> Result<Option<ChangeKey>, GitError> {
        let here = |s: &&Step| s.project == item.project && s.branch == item.branch;
        for step in state.steps.iter().rev().filter(here) {
            let (before, after) = (step.before.as_str(), step.after.as_str());
            let arguments = ["diff-tree", "-r", "-z", "--name-only", before, after];
            let touched = git.local(&arguments).await?;
            if touched.split('\0').any(|f| files.iter().any(|c| c == f)) {
                return Ok(Some(step.change.clone()));
            }
        }
        Ok(None)
    }

    async fn set_refs(&self, reference: &str, state: &Series) -> Result<(), GitError> {
        let mut by_project: BTreeMap<&ProjectKey, Vec<(String, Revision)>> = BTreeMap::new();
        for ((project, branch), commit) in &state.commits {
            let name = zuul_ref(branch.as_str(), reference);
            by_project.entry(project).or_default().push((name, commit.clone()));
        }
        for (project, refs) in by_project {
            self.mirrors.open(project).await?.set_refs(&refs).await?;
        }
        Ok(())
    }
}

/// What the change goes on top of, and the change, whose commit is in the mirror afterwards.
async fn fork(
    mirror: &Mirror,
    known: Option<Revision>,
    item: &MergeItem,
    reference: &RefName,
    revision: &Revision,
) -> Result<Fork, GitError> {
    let no_base =
        |name: &str| GitError::NoSuchRef { remote: mirror.url.clone(), reference: name.to_owned() };
    match known {
        Some(base) => {
            if let Some(fork) = mirror.fork(base.as_str(), revision.as_str()).await? {
                return Ok(fork);
            }
            mirror.fetch(reference, revision).await?;
            let fork = mirror.fork(base.as_str(), revision.as_str()).await?;
            fork.ok_or_else(|| no_base(base.as_str()))
        }
        // The first of its branch: the branch must be as it is now.
        None => {
            mirror.bring(reference).await?;
            let (branch, change) = (format!("refs/heads/{}", item.branch), kept(reference));
            match mirror.fork(&branch, &change).await? {
                Some(fork) => {
                    mirror.must_be_at(reference, revision, Some(&fork.theirs))?;
                    Ok(fork)
                }
                None => {
                    let found = mirror.resolve(&change).await?;
                    mirror.must_be_at(reference, revision, found.as_ref())?;
                    Err(no_base(&branch))
                }
            }
        }
    }
}

async fn tip(mirror: &Mirror, branch: &Branch) -> Result<Revision, GitError> {
    let name = format!("refs/heads/{branch}");
    mirror
        .resolve(&name)
        .await?
        .ok_or_else(|| GitError::NoSuchRef { remote: mirror.url.clone(), reference: name })
}

/// The first parent, when there is one.
async fn parent(git: &Git, commit: &Revision) -> Result<Option<Revision>, GitError> {
    let arguments = ["rev-list", "--parents", "-n", "1", commit.as_str()];
    let text = git.local(&arguments).await?;
    match text.split_whitespace().nth(1) {
        Some(first) => Revision::new(first).map(Some).map_err(|_| git.answer(&arguments, &text)),
        None => Ok(None),
    }
}

/// A commit's author and message.
async fn said_by(git: &Git, commit: &Revision) -> Result<(Author, String), GitError> {
    let arguments = ["log", "-1", "--date=raw", "--format=%an%n%ae%n%ad%n%B", commit.as_str()];
    let text = git.local(&arguments).await?;
    let mut parts = text.splitn(4, '\n').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(email), Some(date)) => {
            Ok((Author { name, email, date }, parts.next().unwrap_or_default()))
        }
        _ => Err(git.answer(&arguments, &text)),
    }
}

/// The merged tree, or the paths in conflict.
async fn merge_trees(
    git: &Git,
    ours: &Revision,
    theirs: &Revision,
) -> Result<Result<String, Vec<String>>, GitError> {
    let arguments = [
        "merge-tree",
        "--write-tree",
        "-z",
        "--name-only",
        "--no-messages",
        ours.as_str(),
        theirs.as_str(),
    ];
    let ended = git.ask(&arguments, b"", LOCAL_LIMIT).await?;
    let text = ended.text();
    let mut parts = text.split('\0').filter(|p| !p.is_empty()).map(str::trim);
    match (ended.code, parts.next()) {
        (Some(0), Some(tree)) => Ok(Ok(tree.to_owned())),
        (Some(1), Some(_)) => Ok(Err(parts.map(str::to_owned).collect())),
        (_, _) => Err(git.failed(&arguments, &ended)),
    }
}

/// Files at a commit; those that are missing are left out. One that is too long is as a text of that length, and
/// what is no text has signs for it: whoever reads it refuses it, and the change's owner is told.
async fn read(
    mirror: &Mirror,
    commit: &Revision,
    paths: &[String],
) -> Result<Vec<(String, String)>, GitError> {
    let git = &mirror.git;
    let asked: String = paths.iter().map(|path| format!("{commit}:{path}\n")).collect();
    let arguments = ["cat-file", "--batch-check=%(objecttype) %(objectname) %(objectsize)"];
    let listed = git.run(&arguments, asked.as_bytes(), LOCAL_LIMIT).await?;
    let mut files = Vec::new();
    // A missing one is answered by its name and `missing`: no kind of object is called so.
    for (path, line) in paths.iter().zip(listed.lines()) {
        let mut words = line.split(' ');
        let (Some("blob"), Some(id), Some(size)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if !size.parse::<usize>().is_ok_and(|size| size <= READ_MAX_BYTES) {
            files.push((path.clone(), "#".repeat(READ_MAX_BYTES + 1)));
            continue;
        }
        let arguments = ["cat-file", "blob", id];
        let ended = git.ask(&arguments, b"", LOCAL_LIMIT).await?;
        if !ended.is_well() {
            return Err(git.failed(&arguments, &ended));
        }
        files.push((path.clone(), String::from_utf8_lossy(&ended.output).into_owned()));
    }
    Ok(files)
}
