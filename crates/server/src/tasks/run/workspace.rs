//! Repositories on the node, at the revision that [`toci_core::run::workspace`] says.

use super::environment::Places;
use futures_util::StreamExt as _;
use futures_util::stream;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use toci_core::chain::Chain;
use toci_core::event::{ProjectKey, ProjectName, Revision, SourceName};
use toci_core::pipeline::{RunWish, Subject};
use toci_core::run::variables::own_commit;
use toci_core::run::workspace::{Candidate, Checkout, From, Rules, override_name};
use toci_core::shell::quoted;
use toci_edge::git::{Git, GitError, Mirrors};
use toci_edge::node::{Session, SessionError};
use toci_edge::program::CallError;
use tokio::io::AsyncWriteExt as _;

/// Repositories that are set up at the same time.
const AT_ONCE: usize = 4;
/// Repositories of one workspace at most.
pub(super) const PROJECTS_MAX: usize = 500;
/// Sending one repository; the job's own limit counts as well.
const SEND_LIMIT: Duration = Duration::from_secs(1800);
/// Commits that a node's cache is asked for.
const HAVE_MAX: usize = 5_000;
/// Longest complaint of a transfer that is told, in bytes.
const COMPLAINT_MAX_BYTES: u64 = 4 << 10;
/// Work on a mirror.
const MIRROR_LIMIT: Duration = Duration::from_secs(600);

/// The workspace could not be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetUpError {
    /// What is wanted of it cannot be: the job's configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// A mirror or its source.
    #[error("{}", Chain(.0))]
    Git(#[from] GitError),
    /// The node.
    #[error("{}", Chain(.0))]
    Node(#[from] SessionError),
    /// The pack on its way.
    #[error("send {project}: {why}")]
    Send { project: String, why: String },
}

impl std::convert::From<CallError> for SetUpError {
    fn from(error: CallError) -> SetUpError {
        SetUpError::Send { project: "a repository".to_owned(), why: Chain(&error).to_string() }
    }
}

/// A repository as it was put on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) project: ProjectKey,
    pub(super) folder: String,
    /// For people: the ref.
    pub(super) from: String,
    pub(super) commit: Revision,
}

/// What belongs into a workspace.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) checkouts: Vec<(ProjectKey, Checkout)>,
    own: Option<(ProjectKey, Revision)>,
}

/// The project under test first, then those of the changes ahead, then those that the job names.
pub(super) fn plan(wish: &RunWish, default_branch: &str) -> Result<Plan, SetUpError> {
    let context = &wish.context;
    let mut keys: Vec<ProjectKey> = Vec::new();
    let branch = match &context.subject {
        Subject::Change(_) => context.series.last().map(|i| i.branch.to_string()),
        Subject::Ref(update) => update.branch().map(str::to_owned),
        Subject::Branch { branch, .. } => Some(branch.to_string()),
    };
    match &context.subject {
        Subject::Change(_) => keys.extend(context.series.iter().rev().map(|i| i.project.clone())),
        Subject::Ref(update) => keys.push(update.project.clone()),
        Subject::Branch { project, .. } => keys.push(project.clone()),
    }
    for name in &wish.job.run.projects {
        keys.push(key_of(name, keys.first().map(|k| &k.source))?);
    }
    let mut seen = BTreeSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    if keys.len() > PROJECTS_MAX {
        let why = format!(
            "the workspace would have {} repositories, {PROJECTS_MAX} are allowed",
            keys.len()
        );
        return Err(SetUpError::Config(why));
    }
    let run = &wish.job.run;
    let named = |(name, branch): &(String, String)| match ProjectName::new(name.as_str()) {
        Ok(project) => (override_name(&project), branch.clone()),
        Err(_) => (name.clone(), branch.clone()),
    };
    let rules = Rules {
        zuul_branch: branch.unwrap_or_default(),
        reference: context.reference.clone(),
        override_branch: run.override_branch.clone(),
        project_branches: run.project_branches.iter().map(named).collect(),
        default_branch: default_branch.to_owned(),
    };
    let mut folders = BTreeMap::new();
    let mut checkouts = Vec::new();
    for key in keys {
        let checkout = rules.checkout(&key.name);
        if let Some(other) = folders.insert(checkout.folder.clone(), key.clone()) {
            let why = format!(
                "{other} and {key} would both be in the folder `{}` of the workspace: test changes of them apart, or leave \
                 one out of the job's `projects`",
                checkout.folder
            );
            return Err(SetUpError::Config(why));
        }
        checkouts.push((key, checkout));
    }
    let own = match &context.subject {
        // A ref that moved is tested where it moved to, whatever has become of it since.
        Subject::Ref(update) if !update.new.is_none() => {
            own_commit(wish).map(|commit| (update.project.clone(), commit.clone()))
        }
        Subject::Ref(_) | Subject::Change(_) | Subject::Branch { .. } => None,
    };
    Ok(Plan { checkouts, own })
}

/// `name`, or `source:name`.
fn key_of(text: &str, usual: Option<&SourceName>) -> Result<ProjectKey, SetUpError> {
    let bad = |why: String| SetUpError::Config(format!("projects: {why}"));
    let (source, name) = match (text.split_once(':'), usual) {
        (Some((source, name)), _) => {
            (SourceName::new(source).map_err(|e| bad(e.to_string()))?, name)
        }
        (None, Some(source)) => (source.clone(), text),
        (None, None) => return Err(bad(format!("`{text}` names no source"))),
    };
    Ok(ProjectKey { source, name: ProjectName::new(name).map_err(|e| bad(e.to_string()))? })
}

/// Puts every repository in place.
pub(super) async fn set_up(
    mirrors: &Mirrors,
    session: &Session,
    places: &Places,
    cache: &str,
    merger_url: impl Fn(&SourceName) -> String,
    plan: &Plan,
) -> Result<Vec<Placed>, SetUpError> {
    let one = |(key, checkout): &(ProjectKey, Checkout)| {
        let (key, checkout) = (key.clone(), checkout.clone());
        let own = plan.own.as_ref().filter(|(own, _)| *own == key).map(|(_, c)| c.clone());
        let origin = format!("{}/{}", merger_url(&key.source), key.name);
        async move {
            let (from, commit) = resolve(mirrors, &key, &checkout, own).await?;
            let folder = format!("{}/{}", places.base, checkout.folder);
            let git = Git::new(mirrors.path(&key), Vec::new());
            let placed = Placed { project: key, folder, from, commit };
            send(&git, session, &placed, cache, &origin).await?;
            Ok::<Placed, SetUpError>(placed)
        }
    };
    let mut done = Vec::with_capacity(plan.checkouts.len());
    let mut all = stream::iter(plan.checkouts.iter().map(one)).buffered(AT_ONCE);
    while let Some(placed) = all.next().await {
        done.push(placed?);
    }
    Ok(done)
}

/// The first candidate that exists, asked of the mirror. What the merger made is there already; for everything else the
/// mirror is brought up to date first, and a source that does not answer is an error, never "no such branch".
async fn resolve(
    mirrors: &Mirrors,
    key: &ProjectKey,
    checkout: &Checkout,
    own: Option<Revision>,
) -> Result<(String, Revision), SetUpError> {
    let mirror = mirrors.open(key).await?;
    if let Some(commit) = own {
        if mirror.resolve(commit.as_str()).await?.is_none() {
            mirror.update().await?;
        }
        return Ok((commit.to_string(), commit));
    }
    if let Some(Candidate { from: From::Merger(name), .. }) = checkout.candidates.first()
        && let Some(commit) = mirror.resolve(name).await?
    {
        return Ok((name.clone(), commit));
    }
    mirror.update().await?;
    for candidate in &checkout.candidates {
        if let Some(branch) = &candidate.unless_branch
            && mirror.resolve(&format!("refs/heads/{branch}")).await?.is_some()
        {
            continue;
        }
        let name = match &candidate.from {
            From::Merger(name) => name.clone(),
            From::Branch(branch) => format!("refs/heads/{branch}"),
        };
        if let Some(commit) = mirror.resolve(&name).await? {
            return Ok((name, commit));
        }
    }
    let tried: Vec<&str> = checkout
        .candidates
        .iter()
        .map(|c| match &c.from {
            From::Merger(name) | From::Branch(name) => name.as_str(),
        })
        .collect();
    Err(SetUpError::Config(format!("{key} has none of {}", tried.join(", "))))
}

/// Sends what the node has not, and checks the commit out, detached. Branches are at `origin/`, as in a clone.
async fn send(
    git: &Git,
    session: &Session,
    placed: &Placed,
    cache: &str,
    origin: &str,
) -> Result<(), SetUpError> {
    let have = prepare(git, session, placed, cache).await?;
    let heads = "--format=%(objectname) %(refname)";
    let refs = git.local(&["for-each-ref", heads, "refs/heads/", "refs/tags/"]).await?;
    let mut wants = format!("{}\n", placed.commit);
    let mut moves = String::new();
    for (object, name) in refs.lines().filter_map(|line| line.split_once(' ')) {
        wants.push_str(object);
        wants.push('\n');
        let name = match name.strip_prefix("refs/heads/") {
            Some(branch) => format!("refs/remotes/origin/{branch}"),
            None => name.to_owned(),
        };
        moves.push_str(&format!("update {name} {object}\n"));
    }
    let wants = format!("{wants}--not\n{have}");
    let text = format!(
        "set -e; cd {folder}; export GIT_TERMINAL_PROMPT=0; IFS= read -r n; moves=$(head -c \"$n\"); \
         git index-pack --stdin --fix-thin >/dev/null; printf '%s\\n' \"$moves\" | git update-ref --stdin; \
         git remote add origin {origin} 2>/dev/null || git remote set-url origin {origin}; \
         git checkout --quiet --force --detach {commit}; git clean --quiet -xfd",
        folder = quoted(&placed.folder),
        origin = quoted(origin),
        commit = placed.commit,
    );
    let moves = moves.trim_end();
    let head = format!("{}\n{moves}", moves.len());
    stream_pack(git, session, placed, &wants, &head, &text).await
}

/// Makes the repository on the node, with the objects of its cache if it has one that is whole. Says which of its commits
/// the mirror knows. Only objects are taken: branches of the cache may be old, or gone. The cache may be somebody else's,
/// which git must be told in a file: what stands in its arguments does not reach the process that reads the cache.
async fn prepare(
    git: &Git,
    session: &Session,
    placed: &Placed,
    cache: &str,
) -> Result<String, SetUpError> {
    let text = format!(
        "set -e; d={folder}; c={cache}; rm -rf \"$d\"; mkdir -p \"${{d%/*}}\"; \
         if {{ [ -e \"$c/HEAD\" ] || [ -e \"$c/.git/HEAD\" ]; }} && s=$(mktemp) && printf '[safe]\\n\\tdirectory = *\\n' >\"$s\" && \
         GIT_CONFIG_GLOBAL=\"$s\" git clone --quiet --no-checkout \"$c\" \"$d\" 2>/dev/null; then \
         rm \"$s\"; cd \"$d\"; git for-each-ref --count={HAVE_MAX} --format='%(objectname)'; \
         git for-each-ref --format='delete %(refname)' | git update-ref --stdin --no-deref; \
         else rm -rf \"$d\" \"${{s-}}\"; git init --quiet \"$d\"; fi",
        folder = quoted(&placed.folder),
        cache = quoted(&format!("{cache}/{}", placed.project.name)),
    );
    let what = format!("make {}", placed.folder);
    let ended = session.run(&what, &text, b"", SEND_LIMIT).await?;
    let said = ended.text();
    if said.trim().is_empty() {
        return Ok(String::new());
    }
    let check = ["cat-file", "--batch-check=%(objectname) %(objecttype)"];
    let known = git.run(&check, said.as_bytes(), MIRROR_LIMIT).await?;
    let commits = known.lines().filter_map(|line| {
        let (object, kind) = line.split_once(' ')?;
        matches!(kind, "commit" | "tag").then(|| format!("{object}\n"))
    });
    Ok(commits.collect())
}

/// git here packs, git there unpacks.
async fn stream_pack(
    git: &Git,
    session: &Session,
    placed: &Placed,
    wants: &str,
    head: &str,
    text: &str,
) -> Result<(), SetUpError> {
    let pack = ["pack-objects", "--revs", "--stdout", "--thin", "--delta-base-offset", "--quiet"];
    let mut from = git.call(&pack, SEND_LIMIT).start()?;
    let mut to = session.call(text, SEND_LIMIT).start()?;
    let project = placed.project.to_string();
    let failed = |why: String| SetUpError::Send { project: project.clone(), why };
    let (Some(mut wanted), Some(mut packed), Some(mut into)) =
        (from.child.stdin.take(), from.child.stdout.take(), to.child.stdin.take())
    else {
        return Err(failed("a pipe is missing".to_owned()));
    };
    let copy = async move {
        into.write_all(head.as_bytes()).await?;
        tokio::io::copy(&mut packed, &mut into).await?;
        into.shutdown().await
    };
    let ask = async move {
        wanted.write_all(wants.as_bytes()).await?;
        wanted.shutdown().await
    };
    let (here, there) = (from.child.stderr.take(), to.child.stderr.take());
    let quiet = to.child.stdout.take();
    let work =
        async { tokio::join!(copy, ask, complaint(here), complaint(there), complaint(quiet)) };
    let limit = tokio::time::timeout(SEND_LIMIT, work).await;
    let Ok((copied, asked, here, there, _)) = limit else {
        return Err(failed(format!("not within {} s", SEND_LIMIT.as_secs())));
    };
    let packed = from.child.wait().await.map_err(|e| failed(e.to_string()))?;
    let unpacked = to.child.wait().await.map_err(|e| failed(e.to_string()))?;
    if !packed.success() {
        return Err(failed(format!("git pack-objects: {here}")));
    }
    if !unpacked.success() {
        if session.is_lost(unpacked.code()) {
            let what = format!("send {project}");
            return Err(SessionError::Unreachable { what, why: there }.into());
        }
        return Err(failed(format!("on the node: {there}")));
    }
    copied.and(asked).map_err(|e| failed(e.to_string()))
}

/// The beginning of what is said on a stream; the rest is read as well, so that nobody waits.
async fn complaint(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    use tokio::io::AsyncReadExt as _;
    let Some(mut stream) = stream else { return String::new() };
    let mut text = Vec::new();
    let _ = (&mut stream).take(COMPLAINT_MAX_BYTES).read_to_end(&mut text).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&text).trim().replace('\n', "; ")
}
