//! Bare mirrors: `<root>/<source>/<project>.git`. Branches and tags are those of the source; changes lie hidden under
//! `refs/toci/`, so that their objects stay; speculative states under `refs/zuul/`.

use super::command::{Git, GitError, REMOTE_LIMIT};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use toci_core::event::{ProjectKey, RefName, Revision, SourceName};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Longest time to pack a mirror.
const TIDY_LIMIT: Duration = Duration::from_secs(3600);

/// Where a source's repositories are, for fetching and pushing.
#[derive(Clone, Debug)]
pub struct Remote {
    /// What stands before the project's name, e.g. `https://review.example.org/` or `/srv/git/`.
    pub prefix: String,
    /// What stands after it, e.g. `.git` or nothing.
    pub suffix: String,
    /// Environment of git for it: GIT_SSH_COMMAND, GIT_ASKPASS and the like.
    pub environment: Vec<(String, String)>,
}

impl Remote {
    /// A project's address.
    #[must_use]
    pub fn url(&self, project: &ProjectKey) -> String {
        format!("{}{}{}", self.prefix, project.name, self.suffix)
    }
}

/// All sources' remotes.
pub type Remotes = BTreeMap<SourceName, Remote>;

/// What a mirror's own configuration says: read-only, any ref that is served may be fetched, ours are hidden, and
/// nobody collects garbage but us.
const CONFIG: [(&str, &str); 6] = [
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("transfer.hideRefs", "refs/toci"),
    ("uploadpack.allowTipSHA1InWant", "true"),
    ("uploadpack.allowReachableSHA1InWant", "true"),
    ("core.logAllRefUpdates", "false"),
];

/// Every mirror, each with a lock of its own.
#[derive(Debug)]
pub struct Mirrors {
    root: PathBuf,
    remotes: Remotes,
    locks: Mutex<HashMap<ProjectKey, Arc<AsyncMutex<()>>>>,
}

/// One mirror, locked.
#[derive(Debug)]
pub struct Mirror {
    pub(crate) git: Git,
    pub(crate) url: String,
    _lock: OwnedMutexGuard<()>,
}

impl Mirrors {
    /// Mirrors below `root`, which is made when it is needed.
    pub fn new(root: impl Into<PathBuf>, remotes: Remotes) -> Mirrors {
        Mirrors { root: root.into(), remotes, locks: Mutex::new(HashMap::new()) }
    }

    /// Where a project's mirror is, whether it exists or not.
    #[must_use]
    pub fn path(&self, project: &ProjectKey) -> PathBuf {
        self.root.join(project.source.as_str()).join(format!("{}.git", project.name))
    }

    /// How a source is reached.
    pub fn remote(&self, source: &SourceName) -> Result<&Remote, GitError> {
        self.remotes.get(source).ok_or_else(|| GitError::NoSuchSource(source.to_string()))
    }

    /// The project's mirror, alone. Made (empty) when there is none, or when what is there is no repository.
    pub async fn open(&self, project: &ProjectKey) -> Result<Mirror, GitError> {
        let remote = self.remote(&project.source)?;
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.entry(project.clone()).or_default().clone()
        };
        let lock = lock.lock_owned().await;
        let path = self.path(project);
        let git = Git::new(&path, remote.environment.clone());
        if !path.join("toci-mirror").exists() {
            make(&path).await?;
        }
        Ok(Mirror { git, url: remote.url(project), _lock: lock })
    }

    /// Packs what is loose in a mirror that is there, and forgets what nothing has referred to for two weeks. Nobody
    /// waits for it: git's own locks are enough, and on a large repository it takes minutes.
    pub async fn tidy(&self, project: &ProjectKey) -> Result<(), GitError> {
        let git = Git::new(self.path(project), Vec::new());
        git.run(&["gc", "--quiet"], b"", TIDY_LIMIT).await.map(drop)
    }
}

/// Makes an empty mirror beside its place and moves it there, so that a half-made one is never used.
async fn make(path: &Path) -> Result<(), GitError> {
    let file = |what, path: &Path| {
        let path = path.to_owned();
        move |source| GitError::File { what, path, source }
    };
    let fresh = path.with_extension("new");
    for old in [path, &fresh] {
        match std::fs::remove_dir_all(old) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(file("clear", old)(e));
            }
            Ok(()) | Err(_) => {}
        }
    }
    std::fs::create_dir_all(&fresh).map_err(file("make", &fresh))?;
    let git = Git::new(&fresh, Vec::new());
    git.local(&["init", "--bare", "--quiet", "--initial-branch=master"]).await?;
    for (name, value) in CONFIG {
        git.local(&["config", name, value]).await?;
    }
    let mark = fresh.join("toci-mirror");
    std::fs::write(&mark, "made by toci; may be removed when no server runs\n")
        .map_err(file("write", &mark))?;
    std::fs::rename(&fresh, path).map_err(file("move into place", path))
}

/// Where a change's commit is kept.
pub(super) fn kept(reference: &RefName) -> String {
    format!("refs/toci/{reference}")
}

impl Mirror {
    /// Brings branches and tags up to the source's.
    pub async fn update(&self) -> Result<(), GitError> {
        let arguments = [
            "fetch",
            "--quiet",
            "--prune",
            "--no-auto-maintenance",
            "--no-write-fetch-head",
            "--end-of-options",
            self.url.as_str(),
            "+refs/heads/*:refs/heads/*",
            "+refs/tags/*:refs/tags/*",
        ];
        self.git.run(&arguments, b"", REMOTE_LIMIT).await.map(drop)
    }

    /// Brings branches, tags of their commits, and one ref that must be at `revision`. A ref that is gone is told from a failed fetch.
    pub async fn fetch(&self, reference: &RefName, revision: &Revision) -> Result<(), GitError> {
        self.bring(reference).await?;
        let found = self.resolve(&kept(reference)).await?;
        self.must_be_at(reference, revision, found.as_ref())
    }

    /// Brings branches, tags of their commits, and one ref, which is at [`kept`] afterwards.
    pub(super) async fn bring(&self, reference: &RefName) -> Result<(), GitError> {
        let change = format!("+{reference}:{}", kept(reference));
        let arguments = [
            "fetch",
            "--quiet",
            "--prune",
            "--no-auto-maintenance",
            "--no-write-fetch-head",
            "--end-of-options",
            self.url.as_str(),
            "+refs/heads/*:refs/heads/*",
            change.as_str(),
        ];
        let ended = self.git.ask(&arguments, b"", REMOTE_LIMIT).await?;
        if !ended.is_well() {
            self.must_exist(reference).await?;
            return Err(self.git.failed(&arguments, &ended));
        }
        Ok(())
    }

    /// Whether what was found is what is wanted.
    pub(super) fn must_be_at(
        &self,
        reference: &RefName,
        wanted: &Revision,
        found: Option<&Revision>,
    ) -> Result<(), GitError> {
        if found == Some(wanted) {
            return Ok(());
        }
        Err(GitError::Moved {
            remote: self.url.clone(),
            reference: reference.to_string(),
            wanted: wanted.to_string(),
            found: found.map_or_else(|| "nothing".to_owned(), ToString::to_string),
        })
    }

    /// Asks the remote whether it has a ref: `ls-remote --exit-code` ends with 2 when it answered "no".
    async fn must_exist(&self, reference: &RefName) -> Result<(), GitError> {
        let arguments = [
            "ls-remote",
            "--exit-code",
            "--quiet",
            "--end-of-options",
            &self.url,
            reference.as_str(),
        ];
        let ended = self.git.ask(&arguments, b"", REMOTE_LIMIT).await?;
        match ended.code {
            Some(0) => Ok(()),
            Some(2) => Err(GitError::NoSuchRef {
                remote: self.url.clone(),
                reference: reference.to_string(),
            }),
            Some(_) | None => Err(self.git.failed(&arguments, &ended)),
        }
    }

    /// The commit of a local name, when there is one.
    pub async fn resolve(&self, name: &str) -> Result<Option<Revision>, GitError> {
        let commit = format!("{name}^{{commit}}");
        let arguments = ["rev-parse", "--quiet", "--verify", "--end-of-options", &commit];
        let ended = self.git.ask(&arguments, b"", super::command::LOCAL_LIMIT).await?;
        match ended.code {
            Some(0) => {
                let text = ended.text();
                let text = text.trim();
                Revision::new(text).map(Some).map_err(|_| self.git.answer(&arguments, text))
            }
            Some(1) => Ok(None),
            Some(_) | None => Err(self.git.failed(&arguments, &ended)),
        }
    }

    /// Moves refs, all or none.
    pub async fn set_refs(&self, refs: &[(String, Revision)]) -> Result<(), GitError> {
        let mut text = String::new();
        for (name, revision) in refs {
            text.push_str(&format!("update {name}\0{revision}\0\0"));
        }
        let arguments = ["update-ref", "-z", "--stdin"];
        self.git.run(&arguments, text.as_bytes(), super::command::LOCAL_LIMIT).await.map(drop)
    }

    /// Removes every speculative ref that `keep` does not want, by the last part of its name. Says how many went.
    pub async fn sweep(&self, keep: impl Fn(&str) -> bool) -> Result<usize, GitError> {
        let arguments = ["for-each-ref", "--format=%(refname)", "refs/zuul/"];
        let listed = self.git.local(&arguments).await?;
        let mut text = String::new();
        let mut gone = 0;
        for name in listed.lines() {
            if !keep(name.rsplit('/').next().unwrap_or_default()) {
                text.push_str(&format!("delete {name}\0\0"));
                gone += 1;
            }
        }
        let arguments = ["update-ref", "-z", "--stdin"];
        self.git.run(&arguments, text.as_bytes(), super::command::LOCAL_LIMIT).await?;
        Ok(gone)
    }
}
