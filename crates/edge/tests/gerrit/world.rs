//! A real Gerrit on loopback, a developer with a clone, and what the source under test said.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use toci_core::event::{Change, EventKind, SourceName, TriggerEvent};
use toci_core::id::ReportId;
use toci_core::layout::{GerritVote, MergeMode};
use toci_core::pipeline::ReportAction;
use toci_edge::http::{Http, Trust, Url, secret_in};
use toci_edge::source::gerrit::{GerritConfig, GerritHttp, GerritSource, GerritSsh, Transport};
use toci_edge::source::{Cursors, Heard, Source as _, SourceReport};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Longest wait for something that must happen.
const LIMIT: Duration = Duration::from_secs(90);

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/gerrit/gerrit.sh")
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {complaint}\n(curl, maven, openjdk-17-jdk-headless: `cargo xtask install`)"
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned() + complaint.trim()
}

fn config(transport: Transport) -> GerritConfig {
    let name = SourceName::new("gerrit").unwrap();
    GerritConfig { name, transport, votes_as_flags: false }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A Gerrit that is gone with this value.
pub(crate) struct Gerrit {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) ssh: u16,
    pub(crate) http: u16,
    process: Option<Child>,
}

impl Gerrit {
    pub(crate) fn start() -> Gerrit {
        let folder = tempfile::tempdir().unwrap();
        let (ssh, http) = (free_port(), free_port());
        let ports = [ssh, http].map(|p| p.to_string());
        run(Command::new(script()).arg("site").arg(folder.path().join("site")).args(ports));
        let mut gerrit = Gerrit { folder, ssh, http, process: None };
        gerrit.start_again();
        gerrit
    }

    pub(crate) fn start_again(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("gerrit.log")).unwrap();
        let mut command = Command::new(script());
        command.arg("run").arg(self.site()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        run(Command::new(script()).arg("ready").arg(self.site()));
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // One that is killed loses the end of its index.
            run(Command::new("kill").arg(process.id().to_string()));
            process.wait().unwrap();
        }
    }

    pub(crate) fn site(&self) -> PathBuf {
        self.folder.path().join("site")
    }

    pub(crate) fn project(&self, name: &str) {
        run(Command::new(script()).arg("project").arg(self.site()).arg(name));
    }

    pub(crate) fn by_ssh(&self, known_hosts: &Path, http: Option<GerritHttp>) -> GerritSource {
        GerritSource::new(self.ssh_to(known_hosts, http))
    }

    pub(crate) fn ssh_config(&self) -> GerritConfig {
        self.ssh_to(&self.site().join("known_hosts"), None)
    }

    fn ssh_to(&self, known_hosts: &Path, http: Option<GerritHttp>) -> GerritConfig {
        let ssh = format!("jenkins@127.0.0.1:{}", self.ssh);
        let key = self.site().join("key_jenkins");
        let ssh = GerritSsh::parse(&ssh, key, known_hosts.to_owned()).unwrap();
        config(Transport::Ssh(ssh, http))
    }

    pub(crate) fn by_rest(&self) -> GerritSource {
        GerritSource::new(config(Transport::Rest(self.http(), Duration::from_secs(1))))
    }

    pub(crate) fn http(&self) -> GerritHttp {
        let password = secret_in(&self.site().join("password_jenkins")).unwrap();
        GerritHttp {
            url: Url::parse(&format!("http://127.0.0.1:{}", self.http)).unwrap(),
            client: Http::new(&Trust::System).unwrap(),
            credentials: Some(("jenkins".to_owned(), password)),
        }
    }

    fn ssh_options(&self, user: &str) -> Vec<String> {
        let site = self.site().display().to_string();
        vec![
            "-F/dev/null".to_owned(),
            format!("-i{site}/key_{user}"),
            "-oIdentitiesOnly=yes".to_owned(),
            "-oBatchMode=yes".to_owned(),
            format!("-oUserKnownHostsFile={site}/known_hosts"),
        ]
    }

    /// A command of Gerrit, given by somebody.
    pub(crate) fn gerrit(&self, user: &str, words: &str) -> String {
        let mut command = Command::new("ssh");
        command.args(self.ssh_options(user)).args(["-p", &self.ssh.to_string()]);
        run(command.args([format!("{user}@127.0.0.1"), format!("gerrit {words}")]))
    }

    /// A new branch, where master is.
    pub(crate) fn branch(&self, project: &str, name: &str) {
        self.gerrit("admin", &format!("create-branch {project} {name} master"));
    }

    /// A developer's git.
    pub(crate) fn git(&self, folder: &Path, arguments: &[&str]) -> String {
        let ssh = format!("ssh {}", self.ssh_options("dev").join(" "));
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=dev", "-c", "user.email=dev@example.org"])
            .args(arguments)
            .current_dir(folder)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_SSH_COMMAND", ssh);
        run(&mut command)
    }

    pub(crate) fn clone(&self, project: &str) -> PathBuf {
        let url = format!("ssh://dev@127.0.0.1:{}/{project}", self.ssh);
        let folder = self.folder.path().join(project.replace('/', "-"));
        self.git(self.folder.path(), &["clone", "-q", &url, folder.to_str().unwrap()]);
        folder
    }

    /// Commits a file and pushes it for review with Gerrit's options; the number that it got.
    pub(crate) fn push(&self, clone: &Path, message: &str, options: &str) -> u64 {
        std::fs::write(clone.join("file"), message).unwrap();
        self.git(clone, &["add", "file"]);
        self.git(clone, &["commit", "-q", "-m", message]);
        self.push_head(clone, options)
    }

    pub(crate) fn push_head(&self, clone: &Path, options: &str) -> u64 {
        let said = self.git(clone, &["push", "origin", &format!("HEAD:refs/for/master{options}")]);
        let number = said.lines().filter_map(|l| l.split_once("/+/")).next_back();
        number.unwrap().1.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Gerrit {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("gerrit.log"));
            let log = log.unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("gerrit's log, last line first:\n{}", tail.join("\n"));
        }
        if let Some(mut process) = self.process.take() {
            // Nothing more can be done about it.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The source under test, listening.
pub(crate) struct Ear {
    pub(crate) cursors: Cursors,
    pub(crate) seen: Vec<TriggerEvent>,
    heard: mpsc::Receiver<Heard>,
    task: JoinHandle<()>,
}

impl Ear {
    pub(crate) fn listen(source: std::sync::Arc<GerritSource>, since: Cursors) -> Ear {
        let (out, heard) = mpsc::channel(100);
        let cursors = since.clone();
        let task = tokio::spawn(async move { source.listen(since, out).await });
        Ear { cursors, seen: Vec::new(), heard, task }
    }

    /// Stops listening; whoever listens must notice it.
    pub(crate) async fn close(self) -> (Cursors, Vec<TriggerEvent>) {
        drop(self.heard);
        tokio::time::timeout(LIMIT, self.task).await.expect("it listens on").unwrap();
        (self.cursors, self.seen)
    }

    /// Hears until something is said; what it was.
    pub(crate) async fn until(&mut self, what: &str, is_it: impl Fn(&Heard) -> bool) -> Heard {
        let wait = async {
            loop {
                let heard = self.heard.recv().await.expect("it listens no more");
                match &heard {
                    Heard::Event { event, cursor } => {
                        self.cursors.extend([cursor.clone()]);
                        self.seen.push((**event).clone());
                    }
                    Heard::Cursor(cursor) => self.cursors.extend([cursor.clone()]),
                    Heard::Link(_) => {}
                    Heard::Malformed(what) => panic!("malformed: {what}"),
                }
                if is_it(&heard) {
                    return heard;
                }
            }
        };
        match tokio::time::timeout(LIMIT, wait).await {
            Ok(heard) => heard,
            Err(_) => panic!("{what} was not heard, but {:#?}", self.seen),
        }
    }

    pub(crate) async fn event(&mut self, kind: EventKind, number: u64) -> TriggerEvent {
        let is_it = |e: &TriggerEvent| {
            e.kind == kind && e.change.as_ref().is_none_or(|c| c.number == number)
        };
        let what = format!("{} of {number}", kind.word());
        let heard =
            self.until(&what, |h| matches!(h, Heard::Event { event, .. } if is_it(event))).await;
        match heard {
            Heard::Event { event, .. } => *event,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn count(&self, kind: EventKind, number: u64) -> usize {
        let is_it = |e: &&TriggerEvent| {
            e.kind == kind && e.change.as_ref().is_some_and(|c| c.number == number)
        };
        self.seen.iter().filter(is_it).count()
    }
}

pub(crate) fn report(
    change: &Change,
    message: &str,
    votes: &[(&str, i32)],
    merge: bool,
) -> SourceReport {
    let votes = votes.iter().map(|(label, value)| GerritVote::Label((*label).to_owned(), *value));
    SourceReport {
        report: ReportId(1),
        action: ReportAction::Success,
        pipeline: "gate".to_owned(),
        change: change.clone(),
        message: message.to_owned(),
        votes: votes.collect(),
        merge,
        mode: MergeMode::default(),
        commit: None,
    }
}
