//! The demo's Gerrit (`toci demo --gerrit`): a real one, started by `examples/gerrit/gerrit.sh`, and what a developer and a
//! reviewer do there.

use super::folder::Folder;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use toci_demo::{Change, PROJECTS, Process, Proposed, SCRIPTS, copy};

/// Its ports, in the lab's own network.
const SSH_PORT: &str = "29418";
const HTTP_PORT: &str = "8090";

/// The site, and a folder for working copies.
#[derive(Debug)]
pub(super) struct GerritHost {
    site: PathBuf,
    work: PathBuf,
}

/// Fetches what a lab without a network cannot: Gerrit's jars, and a site to copy.
pub(super) fn fetch(examples: &Path) -> Result<()> {
    run(Command::new(script(examples)).arg("fetch").stderr(Stdio::inherit())).map(drop)
}

fn script(examples: &Path) -> PathBuf {
    examples.join("gerrit/gerrit.sh")
}

impl GerritHost {
    /// Starts it, and makes the repositories. `examples`: the folder that holds `devtest`.
    pub(super) fn start(folder: &Folder, examples: &Path) -> Result<(GerritHost, Process)> {
        let host = GerritHost { site: folder.gerrit(), work: folder.work() };
        let script = script(examples);
        run(Command::new(&script).arg("site").arg(&host.site).args([SSH_PORT, HTTP_PORT]))?;
        let mut command = Command::new(&script);
        command.arg("run").arg(&host.site);
        let process = Process::start("Gerrit", command, folder.logs().join("gerrit.log"))?;
        run(Command::new(&script).arg("ready").arg(&host.site))?;
        let mut projects = Command::new(&script);
        run(projects.arg("project").arg(&host.site).args(PROJECTS).arg(SCRIPTS))?;
        for project in PROJECTS {
            host.import(project, &examples.join("devtest/sample-project"), ".")?;
        }
        host.import(SCRIPTS, &examples.join("devtest"), "devtest")?;
        Ok((host, process))
    }

    /// The administrator puts what is there on master.
    fn import(&self, project: &str, from: &Path, to: &str) -> Result<()> {
        let work = self.work.join(project);
        fs::create_dir_all(&work)
            .map_err(|e| CliError::failed(format!("make {}", work.display()), &e))?;
        let url = |user: &str| format!("ssh://{user}@127.0.0.1:{SSH_PORT}/{project}");
        self.git("admin", &work, &["clone", "-q", &url("admin"), "."])?;
        copy(from, &work.join(to))
            .map_err(|e| CliError::failed(format!("copy {}", from.display()), &e))?;
        self.git("admin", &work, &["add", "--all"])?;
        self.git("admin", &work, &["commit", "-q", "-m", "Begin"])?;
        self.git("admin", &work, &["push", "-q", "origin", "HEAD:refs/heads/master"])?;
        self.git("dev", &work, &["remote", "set-url", "origin", &url("dev")]).map(drop)
    }

    /// What a developer does: a commit on master that replaces a file, pushed for review.
    pub(super) fn propose(&self, change: &Change) -> Result<Proposed> {
        let Change { project, title, file: (name, content) } = *change;
        let work = self.work.join(project);
        let path = work.join(name);
        fs::write(&path, content)
            .map_err(|e| CliError::failed(format!("write {}", path.display()), &e))?;
        self.git("dev", &work, &["add", "--all"])?;
        let tree = self.git("dev", &work, &["write-tree"])?;
        let message = format!("{title}\n\nChange-Id: I{}", tree.trim());
        self.git("dev", &work, &["commit", "-q", "-m", &message])?;
        let said = self.git("dev", &work, &["push", "origin", "HEAD:refs/for/master"])?;
        let number = said
            .split("/+/")
            .nth(1)
            .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        let number = number.ok_or_else(|| {
            CliError::new(Exit::Failed, format!("Gerrit named no change, but said: {said}"), "")
        })?;
        let revision = self.git("dev", &work, &["rev-parse", "HEAD"])?.trim().to_owned();
        Ok(Proposed { number, project, revision })
    }

    /// What a reviewer does: two votes.
    pub(super) fn approve(&self, change: &Proposed) -> Result<()> {
        let mut command = Command::new("ssh");
        command.args(self.ssh("dev")).args(["-p", SSH_PORT, "dev@127.0.0.1"]);
        let vote =
            format!("gerrit review --code-review +2 --label Workflow=+1 {},1", change.number);
        run(command.arg(vote)).map(drop)
    }

    /// Whether a change is part of its branch.
    pub(super) fn has_merged(&self, change: &Proposed) -> Result<bool> {
        let work = self.work.join(change.project);
        self.git("dev", &work, &["fetch", "-q", "origin", "master"])?;
        let inside = ["merge-base", "--is-ancestor", &change.revision, "FETCH_HEAD"];
        let status = self.command("dev", &work).args(inside).status();
        Ok(status.map_err(|e| CliError::failed("run git", &e))?.success())
    }

    /// `[[source]]` of the control plane.
    pub(super) fn source(site: &Path) -> String {
        let quoted =
            |name: &str| toml::Value::String(site.join(name).display().to_string()).to_string();
        format!(
            "name = \"gerrit\"\nkind = \"gerrit\"\nssh = \"jenkins@127.0.0.1:{SSH_PORT}\"\n\
             ssh_key_file = {}\nknown_hosts_file = {}",
            quoted("key_jenkins"),
            quoted("known_hosts"),
        )
    }

    fn ssh(&self, user: &str) -> [String; 5] {
        let site = self.site.display();
        [
            "-F/dev/null".to_owned(),
            format!("-i{site}/key_{user}"),
            "-oIdentitiesOnly=yes".to_owned(),
            "-oBatchMode=yes".to_owned(),
            format!("-oUserKnownHostsFile={site}/known_hosts"),
        ]
    }

    fn command(&self, user: &str, folder: &Path) -> Command {
        let options = self.ssh(user).map(|o| format!("'{}'", o.replace('\'', r"'\''")));
        let mut command = Command::new("git");
        command
            .current_dir(folder)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_SSH_COMMAND", format!("ssh {}", options.join(" ")))
            .args(["-c", "safe.directory=*", "-c", "user.name=Demo Developer"])
            .args(["-c", "user.email=dev@example.org"]);
        command
    }

    fn git(&self, user: &str, folder: &Path, arguments: &[&str]) -> Result<String> {
        run(self.command(user, folder).args(arguments))
    }
}

/// Runs it to its end; what it said on both outputs.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| CliError::failed(format!("run {program}"), &e))?;
    let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    if output.status.success() {
        return Ok(text.concat());
    }
    let why = text.concat().trim().to_owned();
    let hint = "apt-get install maven openjdk-17-jdk-headless curl jq openssh-client";
    Err(CliError::new(Exit::Failed, format!("{program}: {why}"), hint))
}
