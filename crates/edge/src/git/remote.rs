//! What a mirror's remote has, and pushing to it.

use super::command::{Git, GitError, REMOTE_LIMIT};
use super::mirror::{Mirror, Remote};
use std::collections::BTreeMap;
use toci_core::event::{ProjectKey, Revision};

/// All refs of a remote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteRefs {
    /// By full name.
    pub refs: BTreeMap<String, Revision>,
    /// What its HEAD stands for, e.g. `master`.
    pub head: Option<String>,
}

/// Branches and tags of a remote's project, without a mirror of it.
pub(crate) async fn branches_and_tags(
    remote: &Remote,
    project: &ProjectKey,
) -> Result<BTreeMap<String, Revision>, GitError> {
    // No repository is needed to ask.
    let git = Git::new("/nonexistent", remote.environment.clone());
    let url = remote.url(project);
    let arguments = ["ls-remote", "--heads", "--tags", "--quiet", "--end-of-options", &url];
    let text = git.run(&arguments, b"", REMOTE_LIMIT).await?;
    Ok(read(&text).refs)
}

/// What `ls-remote` said.
fn read(text: &str) -> RemoteRefs {
    let mut found = RemoteRefs::default();
    for line in text.lines() {
        match line.split_once('\t') {
            Some((left, "HEAD")) => {
                if let Some(branch) = left.strip_prefix("ref: refs/heads/") {
                    found.head = Some(branch.to_owned());
                }
            }
            // A tag's own commit stands on a line of its own.
            Some((_, name)) if name.ends_with("^{}") => {}
            Some((id, name)) => {
                if let Ok(id) = Revision::new(id) {
                    found.refs.insert(name.to_owned(), id);
                }
            }
            None => {}
        }
    }
    found
}

/// How a push went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Everything is there.
    Done,
    /// The remote was reached and took nothing.
    Refused(String),
}

impl Mirror {
    /// What the remote has now.
    pub async fn remote_refs(&self) -> Result<RemoteRefs, GitError> {
        let arguments = ["ls-remote", "--symref", "--quiet", "--end-of-options", &self.url];
        let text = self.git.run(&arguments, b"", REMOTE_LIMIT).await?;
        Ok(read(&text))
    }

    /// Fetches by these refspecs.
    pub async fn fetch_refs(&self, specs: &[&str]) -> Result<(), GitError> {
        let mut arguments = vec![
            "fetch",
            "--quiet",
            "--prune",
            "--no-tags",
            "--no-auto-maintenance",
            "--no-write-fetch-head",
            "--end-of-options",
            self.url.as_str(),
        ];
        arguments.extend(specs);
        self.git.run(&arguments, b"", REMOTE_LIMIT).await.map(drop)
    }

    /// Pushes these refspecs, all or none. A remote that cannot be reached is an error; one that refuses is an answer.
    pub async fn push(&self, specs: &[String]) -> Result<Pushed, GitError> {
        let mut arguments = vec!["push", "--porcelain", "--atomic", "--no-verify", &self.url];
        arguments.extend(specs.iter().map(String::as_str));
        let ended = self.git.ask(&arguments, b"", REMOTE_LIMIT).await?;
        if ended.is_well() {
            return Ok(Pushed::Done);
        }
        // `!\t<from>:<to>\t<why>`, only when the remote answered.
        let text = ended.text();
        let refused = text.lines().filter_map(|line| line.strip_prefix("!\t"));
        let why: Vec<&str> = refused.filter_map(|line| line.split('\t').next_back()).collect();
        if why.is_empty() {
            return Err(self.git.failed(&arguments, &ended));
        }
        Ok(Pushed::Refused(why.join("; ")))
    }
}
