//! The merger on a file system that is really full: a small tmpfs in a mount namespace of the test's own thread, which its
//! runtime and its programs inherit.
#![expect(clippy::unwrap_used, reason = "tests")]

mod git_host;

use git_host::git;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use toci_core::event::{Branch, ChangeKey, ProjectKey, ProjectName, RefName, Revision, SourceName};
use toci_core::id::BuildSetId;
use toci_core::layout::{MergeMode, Precedence};
use toci_core::pipeline::{MergeItem, MergeOutcome, MergeSubject, MergeWish};
use toci_core::time::Time;
use toci_edge::git::{Merger, Mirrors, Remote, Remotes};

/// Of the file system with the mirrors.
const SIZE: &str = "size=8m,mode=700";
/// Of one change; random, so that it is as long in a pack.
const CHANGE_BYTES: usize = 512 << 10;

struct World {
    folder: tempfile::TempDir,
    merger: Merger,
    mirrors: Arc<Mirrors>,
}

fn project() -> ProjectKey {
    ProjectKey { source: SourceName::new("local").unwrap(), name: ProjectName::new("p").unwrap() }
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let small = folder.path().join("mirrors");
        std::fs::create_dir(&small).unwrap();
        mount(Some("small"), &small, Some("tmpfs"), MsFlags::empty(), Some(SIZE)).unwrap();
        let prefix = format!("{}/host/", folder.path().display());
        let remote = Remote { prefix, suffix: ".git".into(), environment: vec![] };
        let remotes = Remotes::from([(project().source, remote)]);
        let mirrors = Arc::new(Mirrors::new(small, remotes));
        let merger = Merger::new(mirrors.clone(), "toci", "toci@example.org");
        let world = World { folder, merger, mirrors };
        let (host, work) = (world.path("host/p.git"), world.path("work"));
        for path in [&host, &work] {
            std::fs::create_dir_all(path).unwrap();
        }
        git(&host, &["init", "-q", "--bare", "--initial-branch=master"]);
        git(&work, &["init", "-q", "--initial-branch=master"]);
        git(&work, &["remote", "add", "origin", host.to_str().unwrap()]);
        git(&work, &["commit", "-q", "--allow-empty", "-m", "start"]);
        git(&work, &["push", "-q", "origin", "master"]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A change that brings a large file.
    fn change(&self, number: u64) -> MergeItem {
        let work = self.path("work");
        git(&work, &["checkout", "-q", "--detach", "origin/master"]);
        let mut seed = number;
        let bytes: Vec<u8> = (0..CHANGE_BYTES)
            .map(|_| {
                // Knuth's MMIX generator.
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_be_bytes()[0]
            })
            .collect();
        std::fs::write(work.join(format!("file{number}")), bytes).unwrap();
        git(&work, &["add", "."]);
        git(&work, &["commit", "-q", "-m", &format!("change {number}")]);
        let reference = format!("refs/changes/{number:02}/{number}/1");
        git(&work, &["push", "-q", "origin", &format!("HEAD:{reference}")]);
        MergeItem {
            project: project(),
            branch: Branch::new("master").unwrap(),
            subject: MergeSubject::Change {
                key: ChangeKey { source: project().source, number, patchset: "1".into() },
                reference: RefName::new(reference).unwrap(),
                revision: Revision::new(git(&work, &["rev-parse", "HEAD"])).unwrap(),
                mode: MergeMode::MergeResolve,
            },
        }
    }

    async fn merge(&self, reference: &str, series: &[MergeItem]) -> MergeOutcome {
        let wish = MergeWish {
            build_set: BuildSetId(1),
            reference: reference.into(),
            series: series.to_vec(),
            files: vec![],
            precedence: Precedence::Normal,
            not_before: Time(0),
        };
        self.merger.merge(&wish).await
    }

    async fn merged(&self, reference: &str, series: &[MergeItem]) {
        let outcome = self.merge(reference, series).await;
        assert!(matches!(outcome, MergeOutcome::Merged { .. }), "{outcome:?}");
    }

    /// A file that takes all that is left but so many bytes.
    fn fill(&self, but: u64) {
        let path = self.path("mirrors/ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        let block = vec![7; 64 << 10];
        while file.write_all(&block).is_ok() {}
        let end = file.metadata().unwrap().len();
        file.set_len(end.saturating_sub(but)).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.path("mirrors/ballast")).unwrap();
    }

    fn is_sound(&self) {
        git(&self.mirrors.path(&project()), &["fsck", "--full", "--strict", "--no-dangling"]);
    }
}

/// Runs it with a mount namespace of its own, which goes with its thread.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(World) -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        assert!(nix::unistd::Uid::effective().is_root(), "this test mounts: run it as root");
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(World::new()).await });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Whatever git was about to write when the disk was full, it is a failure of the world, to be tried again; never a
/// conflict. The mirror is sound all the time, and with room again everything goes on.
#[test]
fn a_full_disk_is_no_conflict_and_leaves_the_mirror_sound() {
    in_namespace(async |w: World| {
        w.merged("ZA", &[w.change(1)]).await;
        let (second, third) = (w.change(2), w.change(3));
        for room in [0, 4 << 10, 16 << 10, 64 << 10, 256 << 10] {
            w.fill(room);
            match w.merge("ZB", &[second.clone(), third.clone()]).await {
                MergeOutcome::Failed { why } => {
                    assert!(why.contains("No space left on device"), "{room}: {why}");
                }
                other => panic!("{room}: {other:?}"),
            }
            w.is_sound();
            w.free();
        }
        w.merged("ZC", &[second.clone(), third.clone()]).await;
        w.is_sound();
        // Everything is there but the merge commit and its ref.
        w.fill(0);
        let fourth = w.merge("ZD", &[third, second]).await;
        assert!(matches!(fourth, MergeOutcome::Failed { .. }), "{fourth:?}");
        w.is_sound();
        w.free();
        let names =
            git(&w.mirrors.path(&project()), &["for-each-ref", "--format=%(refname)", "refs/zuul"]);
        assert_eq!(
            names, "refs/zuul/master/ZA\nrefs/zuul/master/ZC",
            "no ref to what is not there"
        );
    });
}

/// A mirror that could not even be made is made once there is room.
#[test]
fn a_mirror_that_has_no_room_is_made_later() {
    in_namespace(async |w: World| {
        let change = w.change(1);
        w.fill(8 << 10);
        let outcome = w.merge("ZA", std::slice::from_ref(&change)).await;
        assert!(matches!(outcome, MergeOutcome::Failed { .. }), "{outcome:?}");
        w.free();
        w.merged("ZB", &[change]).await;
        w.is_sound();
    });
}
