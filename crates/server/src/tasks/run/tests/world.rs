//! A server's run stage, a project in a real repository, sandboxes as nodes.

use super::git::git;
use super::job;
use crate::config::{RunConfig, SecretConfig};
use crate::relay::Relay;
use crate::tasks::lease::{LeaseBook, Policy};
use crate::tasks::log::{Archived, Finished, LogError};
use crate::tasks::node::{NodeError, NodeHandle, NodeRequest};
use crate::tasks::run::*;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use toci_core::event::*;
use toci_core::id::{ItemId, Label, NodeId, RunId};
use toci_core::layout::{JobRun, MergeMode, Pattern, PipelineName, Precedence, Script};
use toci_core::log::collect::Rules;
use toci_core::node::{Failure, Hold};
use toci_core::pipeline::*;
use toci_core::run::record::Record;
use toci_core::time::Time;
use toci_edge::git::{Mirrors, Remote};
use toci_edge::node::Session;
use toci_edge::node::bounds::Bounds;
use toci_edge::node::local::LocalNode;
use toci_store::{Store, StoreError};
use tokio::sync::{mpsc, watch};

/// No step of these tests may take longer.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Last part of the speculative refs.
pub(super) const REFERENCE: &str = "Z0123456789abcdef0123456789abcdef";

pub(super) async fn within<T>(what: &str, f: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, f).await {
        Ok(t) => t,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

/// A number for each sandbox of this process, so that their users differ.
pub(super) fn number() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 600).unwrap();
    process * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Sandboxes.
#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    pub(super) live: Mutex<BTreeMap<RunId, (LocalNode, watch::Sender<bool>)>>,
    pub(super) given_back: Mutex<Vec<RunId>>,
    /// Nodes of runs that fail are held so.
    pub(super) hold: Mutex<Option<Hold>>,
    /// What sandboxes may take.
    pub(super) bounds: Mutex<Bounds>,
    /// What is given is dead already.
    pub(super) lies: AtomicBool,
    /// The machine that is given in the place of sandboxes.
    pub(super) machine: Mutex<Option<Session>>,
    /// Nobody gets one.
    pub(super) none: watch::Sender<bool>,
}

impl Sandboxes {
    /// The node goes, and nobody says so.
    pub(super) fn kill(&self, run: RunId) {
        drop(self.live.lock().unwrap().remove(&run));
    }

    /// The pool says that the node is lost.
    pub(super) fn say_lost(&self, run: RunId) {
        self.live.lock().unwrap()[&run].1.send_replace(true);
    }
}

impl Nodes for Sandboxes {
    fn take(&self, request: NodeRequest) -> BoxFuture<'_, Result<Vec<NodeHandle>, NodeError>> {
        async move {
            let mut none = self.none.subscribe();
            none.wait_for(|none| !none).await.map_err(|e| NodeError::Failed(e.to_string()))?;
            let label = request.label.clone().unwrap_or(Label::new("small").unwrap());
            if label.as_str() == "huge" {
                return Err(NodeError::Impossible("no provider has label huge".into()));
            }
            let (lost, receiver) = watch::channel(false);
            let handle = |session| NodeHandle {
                id: NodeId(1),
                name: "node1".into(),
                label,
                provider: "local".into(),
                cloud_address: None,
                environment: std::sync::Arc::new(
                    [("NODE_MIRROR".to_owned(), "http://mirror.example".to_owned())].into(),
                ),
                session,
                lost: receiver,
            };
            if let Some(machine) = self.machine.lock().unwrap().clone() {
                return Ok(vec![handle(machine)]);
            }
            let bounds = self.bounds.lock().unwrap().clone();
            let node = LocalNode::start("node1", number(), None, &bounds)
                .await
                .map_err(|e| NodeError::Failed(e.to_string()))?;
            let handle = handle(node.session());
            if self.lies.load(Ordering::SeqCst) {
                node.end().await;
                return Ok(vec![handle]);
            }
            self.live.lock().unwrap().insert(request.run, (node, lost));
            Ok(vec![handle])
        }
        .boxed()
    }

    fn failed(&self, _: Failure) -> BoxFuture<'_, Option<Hold>> {
        let hold = self.hold.lock().unwrap().clone();
        async { hold }.boxed()
    }

    fn give_back(&self, run: RunId) -> BoxFuture<'_, ()> {
        self.live.lock().unwrap().remove(&run);
        self.given_back.lock().unwrap().push(run);
        async {}.boxed()
    }
}

/// What was archived of a run: its files with their texts.
pub(super) type Kept = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub(super) struct Shelf(pub(super) Mutex<BTreeMap<RunId, (RunResult, Kept)>>);

impl Archive for Shelf {
    fn archive<'a>(&'a self, f: Finished<'a>) -> BoxFuture<'a, Result<Archived, LogError>> {
        async move {
            let kept = read(f.folder);
            self.0.lock().unwrap().insert(f.wish.run, (f.result, kept));
            Ok(Archived { url: format!("http://logs/{}", f.wish.run), first_error: String::new() })
        }
        .boxed()
    }
}

/// The files of a folder with their texts.
pub(super) fn read(folder: &Path) -> Kept {
    let mut kept = Kept::new();
    read_all(folder, folder, &mut kept);
    kept
}

fn read_all(root: &Path, folder: &Path, out: &mut Kept) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_all(root, &path, out);
        } else {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let bytes = std::fs::read(&path).unwrap();
            out.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

/// All of it.
pub(super) struct World {
    pub(super) dir: PathBuf,
    pub(super) store: Store,
    pub(super) book: LeaseBook,
    pub(super) desk: RunDesk,
    pub(super) wanted: watch::Sender<Arc<Wanted>>,
    pub(super) news: mpsc::Receiver<Input>,
    pub(super) nodes: Arc<Sandboxes>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) tested: Revision,
    /// The way to TE hosts.
    pub(super) relay: Arc<Relay>,
}

pub(super) fn project(name: &str) -> ProjectKey {
    ProjectKey { source: SourceName::new("local").unwrap(), name: ProjectName::new(name).unwrap() }
}

/// `org/app` with a change that the merger has merged, and `org/lib` without one.
async fn projects(dir: &Path, mirrors: &Mirrors) -> Revision {
    for name in ["app", "lib"] {
        let work = dir.join(format!("work-{name}"));
        std::fs::create_dir_all(&work).unwrap();
        git(&work, &["init", "-q"]).unwrap();
        std::fs::write(work.join("version"), "base\n").unwrap();
        let script = "#!/bin/bash\necho \"app is $(cat $(dirname $0)/version)\" \"$@\"\n";
        std::fs::write(work.join("test.sh"), script).unwrap();
        git(&work, &["add", "."]).unwrap();
        git(&work, &["update-index", "--chmod=+x", "test.sh"]).unwrap();
        git(&work, &["commit", "-qm", "base"]).unwrap();
        git(&work, &["tag", "-am", "1.0", "1.0"]).unwrap();
        let bare = dir.join(format!("git/org/{name}.git"));
        git(dir, &["clone", "-q", "--bare", &format!("work-{name}"), bare.to_str().unwrap()])
            .unwrap();
    }
    let work = dir.join("work-app");
    std::fs::write(work.join("version"), "tested\n").unwrap();
    git(&work, &["commit", "-qam", "change"]).unwrap();
    let change = git(&work, &["rev-parse", "HEAD"]).unwrap();
    let bare = dir.join("git/org/app.git");
    git(&work, &["push", "-q", bare.to_str().unwrap(), "HEAD:refs/changes/01/1/1"]).unwrap();
    let change = Revision::new(change).unwrap();
    let mirror = mirrors.open(&project("org/app")).await.unwrap();
    mirror.fetch(&RefName::new("refs/changes/01/1/1").unwrap(), &change).await.unwrap();
    let name = format!("refs/zuul/master/{REFERENCE}");
    mirror.set_refs(&[(name, change.clone())]).await.unwrap();
    change
}

async fn open(dir: &Path) -> Store {
    let url = format!("sqlite:{}", dir.join("toci.db").display());
    within("the lock of the last server", async {
        loop {
            match Store::open(&url).await {
                Ok(store) => return store,
                Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
                Err(e) => panic!("{e:?}"),
            }
        }
    })
    .await
}

impl World {
    /// In a folder, which may have been another server's.
    pub(super) async fn start(dir: &Path) -> World {
        World::start_with(dir, Rules::default()).await
    }

    /// As [`World::start`], and this is collected.
    pub(super) async fn start_with(dir: &Path, rules: Rules) -> World {
        let remote = Remote {
            prefix: format!("{}/git/", dir.display()),
            suffix: ".git".into(),
            environment: vec![],
        };
        let remotes = [(SourceName::new("local").unwrap(), remote)].into_iter().collect();
        let mirrors = Arc::new(Mirrors::new(dir.join("mirrors"), remotes));
        let tested = if dir.join("git").exists() {
            let mirror = mirrors.open(&project("org/app")).await.unwrap();
            mirror.resolve(&format!("refs/zuul/master/{REFERENCE}")).await.unwrap().unwrap()
        } else {
            projects(dir, &mirrors).await
        };
        let store = open(dir).await;
        let policy = Policy::default();
        let (lease_max, hold_max) = (policy.lease_max, policy.hold_max);
        let book = LeaseBook::start(store.clone(), policy).await.unwrap();
        std::fs::write(dir.join("secret"), "hunter2-hunter2\n").unwrap();
        let secret = SecretConfig {
            name: "password".into(),
            file: dir.join("secret"),
            projects: vec![Pattern::new("^org/app$").unwrap()],
        };
        let config = RunConfig {
            folder: dir.join("runs"),
            base: "/opt/stack/new".into(),
            workspace: "/home/toci/workspace".into(),
            git_cache: "/opt/git".into(),
            default_branch: "master".into(),
            grace: Duration::from_secs(2),
            keep: Duration::from_secs(3600),
            url: "http://ci".into(),
            console_head_bytes: HEAD_MAX_BYTES,
            secrets: vec![secret],
        };
        let (wanted, receiver) = watch::channel(Arc::new(Wanted::default()));
        let (news, heard) = mpsc::channel(100);
        let nodes = Arc::new(Sandboxes::default());
        let shelf = Arc::new(Shelf::default());
        let relay: Arc<Relay> = Arc::default();
        let parts = Parts {
            store: store.clone(),
            book: book.clone(),
            lease_max,
            hold_max,
            mirrors,
            merger_url: "http://zm/p".into(),
            first_source: SourceName::new("local").ok(),
            nodes: nodes.clone(),
            archive: shelf.clone(),
            collection: Collection::of(rules, &book, &relay),
            config,
        };
        let desk = RunDesk::start(parts, receiver, news).await.unwrap();
        World {
            dir: dir.to_owned(),
            store,
            book,
            desk,
            wanted,
            news: heard,
            nodes,
            shelf,
            tested,
            relay,
        }
    }

    /// A wish for a run of `org/app`'s change.
    pub(super) fn wish(&self, change: impl FnOnce(&mut JobRun)) -> RunWish {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let key = ChangeKey {
            source: SourceName::new("local").unwrap(),
            number: 1,
            patchset: "1".into(),
        };
        let branch = Branch::new("master").unwrap();
        let item = MergeItem {
            project: project("org/app"),
            branch: branch.clone(),
            subject: MergeSubject::Change {
                key: key.clone(),
                reference: RefName::new("refs/changes/01/1/1").unwrap(),
                revision: self.tested.clone(),
                mode: MergeMode::Merge,
            },
        };
        let context = RunContext {
            pipeline: PipelineName("check".into()),
            post_review: false,
            subject: Subject::Change(key),
            change: None,
            series: vec![item],
            changes: vec![("org/app:master:refs/changes/01/1/1".into(), "1,1".into())],
            reference: REFERENCE.into(),
            commits: vec![(project("org/app"), branch, self.tested.clone())],
        };
        let number = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let mut run = job::plain();
        change(&mut run);
        let mut job = job::job("unit", run);
        job.parameters = vec![("PARAMETER".into(), "it's one".into())];
        RunWish {
            run: RunId(number << 64 | 0xabc),
            item: ItemId(1),
            job: Arc::new(job),
            attempt: 1,
            context: Arc::new(context),
            precedence: Precedence::Normal,
            relative_priority: 0,
            enqueued: Time(0),
        }
    }

    pub(super) fn want(&self, wishes: &[&RunWish]) {
        let runs = wishes.iter().map(|w| (*w).clone()).collect();
        self.wanted.send_replace(Arc::new(Wanted { runs, ..Wanted::default() }));
    }

    /// The next news, which must be of this run.
    pub(super) async fn hear(&mut self, run: RunId) -> RunUpdate {
        match within("news", self.news.recv()).await {
            Some(Input::Run { run: of, update }) if of == run => update,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for its end: its result, what was archived, its record.
    pub(super) async fn end(&mut self, wish: &RunWish) -> (RunResult, Kept, Record) {
        let result = loop {
            if let RunUpdate::Finished { result, .. } = self.hear(wish.run).await {
                break result;
            }
        };
        let kept = self.shelf.0.lock().unwrap().remove(&wish.run);
        let record = self.desk.get(wish.run).await.unwrap().unwrap();
        assert_eq!(record.result(), Some(result));
        let kept = kept.map(|(archived, kept)| {
            assert_eq!(archived, result);
            kept
        });
        (result, kept.unwrap_or_default(), record.as_ref().clone())
    }

    /// Wants it alone and waits for its end.
    pub(super) async fn whole(&mut self, wish: &RunWish) -> (RunResult, Kept, Record) {
        self.want(&[wish]);
        self.end(wish).await
    }

    /// Waits until a text is in its console; gives back all of it so far.
    pub(super) async fn console_until(&self, run: RunId, text: &str) -> String {
        let mut whole = String::new();
        within(text, async {
            let mut reader = loop {
                match self.desk.console(run) {
                    Some(reader) => break reader,
                    None => tokio::task::yield_now().await,
                }
            };
            while let Some(piece) = reader.next().await.unwrap() {
                whole.push_str(&piece);
                if whole.contains(text) {
                    return whole;
                }
            }
            panic!("{text:?} never came: {whole}")
        })
        .await
    }
}

pub(super) fn inline(text: &str) -> Vec<Script> {
    vec![Script::Inline(text.into())]
}

/// Its lines without their times.
pub(super) fn said(console: &str) -> Vec<&str> {
    console.lines().map(|line| line.split_once(" | ").map_or(line, |(_, text)| text)).collect()
}
