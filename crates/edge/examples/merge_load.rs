//! Speculative merges on a large repository, for `cargo xtask bench gate`: prints one line of JSON.
#![expect(clippy::print_stdout, reason = "its only result")]

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use toci_core::event::{Branch, ChangeKey, ProjectKey, ProjectName, RefName, Revision, SourceName};
use toci_core::id::BuildSetId;
use toci_core::layout::{MergeMode, Precedence};
use toci_core::pipeline::{MergeItem, MergeOutcome, MergeSubject, MergeWish};
use toci_core::time::Time;
use toci_edge::git::{Merger, Mirrors, Remote, Remotes};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Commits of the history: with a blob and a tree each, three times as many objects.
const COMMITS: usize = 33_400;
/// Files of a tree.
const FILES: usize = 50;
/// Measured merges of each kind; the first one, which makes the mirror, is not.
const MERGES: u64 = 40;

fn git(folder: &Path, arguments: &[&str], input: &[u8]) -> Outcome<String> {
    use std::io::Write;
    let mut child = Command::new("git")
        .args(["-c", "user.name=b", "-c", "user.email=b@example.org"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input)?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("git {arguments:?}: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A long history on master, and changes that were begun a hundred commits before its end.
fn make_source(bare: &Path) -> Outcome<Vec<String>> {
    std::fs::create_dir_all(bare)?;
    git(bare, &["init", "-q", "--bare", "--initial-branch=master"], b"")?;
    let mut text = String::new();
    for n in 0..COMMITS {
        // The changes were begun here.
        let mark = if n + 101 == COMMITS { "mark :1\n" } else { "" };
        write!(
            text,
            "commit refs/heads/master\n{mark}committer b <b@example.org> {} +0000\ndata 1\nx\nM 100644 inline f{}\ndata {}\n{n}\n\n",
            1_400_000_000 + n,
            n % FILES,
            n.to_string().len(),
        )?;
    }
    for n in 0..=2 * MERGES {
        write!(
            text,
            "commit refs/changes/{:02}/{n}/1\ncommitter b <b@example.org> 1500000000 +0000\ndata 1\ny\nfrom :1\nM 100644 inline new{n}\ndata 1\nz\n\n",
            n % 100,
        )?;
    }
    git(bare, &["fast-import", "--quiet"], text.as_bytes())?;
    let refs = "--format=%(objectname)";
    (0..=2 * MERGES)
        .map(|n| {
            git(bare, &["for-each-ref", refs, &format!("refs/changes/{:02}/{n}/1", n % 100)], b"")
        })
        .collect()
}

fn project() -> Outcome<ProjectKey> {
    Ok(ProjectKey { source: SourceName::new("bench")?, name: ProjectName::new("p")? })
}

fn wish(number: u64, revision: &str) -> Outcome<MergeWish> {
    let project = project()?;
    let key = ChangeKey { source: project.source.clone(), number, patchset: "1".into() };
    let reference = RefName::new(format!("refs/changes/{:02}/{number}/1", number % 100))?;
    let revision = Revision::new(revision)?;
    let subject = MergeSubject::Change { key, reference, revision, mode: MergeMode::Merge };
    Ok(MergeWish {
        build_set: BuildSetId(u128::from(number)),
        reference: format!("Z{number:032x}"),
        series: vec![MergeItem { project, branch: Branch::new("master")?, subject }],
        files: Vec::new(),
        precedence: Precedence::Normal,
        not_before: Time(0),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("source");
    let revisions = make_source(&root.join("p.git"))?;
    let objects = git(&root.join("p.git"), &["count-objects", "-v"], b"")?;
    let objects = objects.lines().find_map(|l| l.strip_prefix("in-pack: ")).unwrap_or("0");
    let objects: u64 = objects.parse()?;
    let prefix = format!("{}/", root.display());
    let remote = Remote { prefix, suffix: ".git".into(), environment: Vec::new() };
    let remotes = Remotes::from([(SourceName::new("bench")?, remote)]);
    let mirrors = Arc::new(Mirrors::new(folder.path().join("mirrors"), remotes));
    let merger = Merger::new(Arc::clone(&mirrors), "b", "b@example.org");
    let mut ms = Vec::new();
    for (number, revision) in (0..).zip(&revisions) {
        if number == MERGES + 1 {
            // From here on the changes are in the mirror already, as where a plain git source has seen them.
            let mirror = mirrors.open(&project()?).await?;
            mirror.fetch_refs(&["+refs/changes/*:refs/toci/refs/changes/*"]).await?;
        }
        let wish = wish(number, revision)?;
        let began = Instant::now();
        match merger.merge(&wish).await {
            MergeOutcome::Merged { .. } => {}
            other => return Err(format!("{other:?}").into()),
        }
        ms.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let first = ms.remove(0);
    let known = ms.split_off(ms.len() / 2);
    let (fresh, known) = (spread(ms), spread(known));
    println!(
        "{}",
        serde_json::json!({ "objects": objects, "first_ms": first, "fresh_ms": fresh, "known_ms": known })
    );
    Ok(())
}

/// Median, 95 of a hundred, largest.
fn spread(mut ms: Vec<f64>) -> serde_json::Value {
    ms.sort_by(f64::total_cmp);
    let last = ms.len() - 1;
    serde_json::json!({ "p50": ms[last / 2], "p95": ms[last * 95 / 100], "max": ms[last] })
}
