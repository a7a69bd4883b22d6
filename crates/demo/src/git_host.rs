//! The demo's git host: bare repositories of two projects and of the deployment's scripts, and what a developer and a
//! reviewer push to them.

use crate::error::{DemoError, Result};
use crate::gate::Change;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Both are tested by the same job, so they stand in one change queue.
pub const PROJECTS: [&str; 2] = ["demo/app", "demo/base"];
/// The deployment's scripts, checked out beside them.
pub const SCRIPTS: &str = "toci/examples";

/// The host's folder, and a folder for working copies.
#[derive(Debug)]
pub struct GitHost {
    root: PathBuf,
    work: PathBuf,
}

/// A change that is proposed and approved.
#[derive(Clone, Debug)]
pub struct Proposed {
    /// Its number.
    pub number: u64,
    /// Where it shall be merged.
    pub project: &'static str,
    /// Its commit.
    pub revision: String,
}

impl GitHost {
    /// Makes the repositories. `examples`: the folder that holds `devtest`.
    ///
    /// # Errors
    /// git is missing, or the folders cannot be written to.
    pub fn make(root: &Path, work: &Path, examples: &Path) -> Result<GitHost> {
        let host = GitHost { root: root.to_owned(), work: work.to_owned() };
        let sample = examples.join("devtest/sample-project");
        for project in PROJECTS {
            host.import(project, &[(&sample, ".")])?;
        }
        let devtest = examples.join("devtest");
        host.import(SCRIPTS, &[(&devtest, "devtest")])?;
        Ok(host)
    }

    fn import(&self, project: &str, content: &[(&Path, &str)]) -> Result<()> {
        let (bare, work) = (self.bare(project), self.work.join(project));
        for folder in [&bare, &work] {
            fs::create_dir_all(folder).map_err(|e| failed("make", folder, &e))?;
        }
        git(&bare, &["init", "-q", "--bare", "--initial-branch=master"])?;
        git(&work, &["init", "-q", "--initial-branch=master"])?;
        for (from, to) in content {
            copy(from, &work.join(to)).map_err(|e| failed("copy", from, &e))?;
        }
        git(&work, &["add", "--all"])?;
        git(&work, &["commit", "-q", "-m", "Begin"])?;
        let bare = bare.display().to_string();
        git(&work, &["remote", "add", "origin", &bare])?;
        git(&work, &["push", "-q", "origin", "master"]).map(drop)
    }

    fn bare(&self, project: &str) -> PathBuf {
        self.root.join(format!("{project}.git"))
    }

    /// What a developer does: a commit on master that replaces a file, pushed as patchset 1 of a change.
    ///
    /// # Errors
    /// git refuses.
    pub fn propose(&self, number: u64, change: &Change) -> Result<Proposed> {
        let Change { project, title, file: (name, content) } = *change;
        let work = self.work.join(project);
        let path = work.join(name);
        fs::write(&path, content).map_err(|e| failed("write", &path, &e))?;
        git(&work, &["add", "--all"])?;
        git(&work, &["commit", "-q", "-m", title])?;
        let target = format!("HEAD:refs/changes/{:02}/{number}/1", number % 100);
        git(&work, &["push", "-q", "origin", &target])?;
        let revision = git(&work, &["rev-parse", "HEAD"])?;
        Ok(Proposed { number, project, revision })
    }

    /// What a reviewer does: two votes.
    ///
    /// # Errors
    /// git refuses.
    pub fn approve(&self, change: &Proposed) -> Result<()> {
        let Proposed { number, project, revision } = change;
        let vote = |label: &str, value: u8| {
            format!("{revision}:refs/approvals/{number}/1/{label}/reviewer/{value}")
        };
        let (review, approved) = (vote("code-review", 2), vote("approved", 1));
        git(&self.work.join(project), &["push", "-q", "origin", &review, &approved]).map(drop)
    }

    /// Whether a change is part of its branch.
    ///
    /// # Errors
    /// git is missing.
    pub fn has_merged(&self, change: &Proposed) -> Result<bool> {
        let mut ask = command(&self.bare(change.project));
        ask.args(["merge-base", "--is-ancestor", &change.revision, "master"]);
        let output = ask.output().map_err(|e| DemoError::failed("run git", &e))?;
        Ok(output.status.success())
    }
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> DemoError {
    DemoError::failed(format!("{what} {}", path.display()), error)
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "safe.directory=*", "-c", "user.name=Demo Developer"])
        .args(["-c", "user.email=developer@example.org"])
        .stdin(Stdio::null());
    command
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = command(folder).args(arguments).output();
    let output =
        output.map_err(|e| DemoError::new(format!("run git: {e}"), "apt-get install git"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let words = arguments.first().copied().unwrap_or_default();
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DemoError::new(format!("git {words} in {}: {why}", folder.display()), ""))
}

/// A folder with everything in it; what git itself keeps is left out.
///
/// # Errors
/// It cannot be read, or the copy cannot be written.
pub fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            if entry.file_name() != ".git" {
                copy(&path, &target)?;
            }
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::CHANGES;

    #[test]
    fn what_is_proposed_can_be_approved_and_is_not_merged_yet() {
        let folder = tempfile::tempdir().unwrap();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let (root, work) = (folder.path().join("git"), folder.path().join("work"));
        let host = GitHost::make(&root, &work, &examples).unwrap();
        let change = host.propose(1, &CHANGES[0]).unwrap();
        host.approve(&change).unwrap();
        let refs = git(&host.bare(PROJECTS[0]), &["for-each-ref", "--format=%(refname)"]).unwrap();
        let expected = [
            "refs/approvals/1/1/approved/reviewer/1",
            "refs/approvals/1/1/code-review/reviewer/2",
            "refs/changes/01/1/1",
            "refs/heads/master",
        ];
        assert_eq!(refs.lines().collect::<Vec<_>>(), expected);
        assert!(!host.has_merged(&change).unwrap());
        let scripts = git(&host.bare(SCRIPTS), &["ls-tree", "--name-only", "master", "devtest/"]);
        assert!(scripts.unwrap().contains("devtest/devtest.sh"));
    }
}
