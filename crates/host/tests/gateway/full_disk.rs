//! `copyseed` onto file systems that are really full: each a small tmpfs in a mount namespace of the
//! test's own thread, which its runtime's threads and its programs inherit.

use crate::world::{Leased, STEP_MAX, Saw, World, qcow2, until};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::io::Write as _;
use std::path::Path;
use tokio::io::AsyncWriteExt as _;

/// What the gateway wants to be free before it begins, and something on top, MiB.
const SIZE_MIB: u64 = 320;
const IMAGE_BYTES: usize = 24 << 20;

/// Runs a test with a tmpfs of that size where its images go.
fn with_small_disk<F: Future<Output = ()>>(test: impl FnOnce(World, Leased) -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        assert!(nix::unistd::Uid::effective().is_root(), "this test mounts: run it as root");
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let w = World::new().await;
            let images = w.path("images");
            std::fs::create_dir(&images).unwrap();
            let size = format!("size={SIZE_MIB}m");
            mount(Some("small"), &images, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
                .unwrap();
            let lease = w.lease(1, 1).await;
            std::fs::write(&lease.image, "old").unwrap();
            test(w, lease).await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A file beside the images that takes all that is left but `but` bytes.
fn fill(lease: &Leased, but: u64) -> std::path::PathBuf {
    let path = lease.image.parent().unwrap().join("ballast");
    let mut file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
    let block = vec![7; 64 << 10];
    while file.write_all(&block).is_ok() {}
    let end = file.metadata().unwrap().len();
    file.set_len(end.saturating_sub(but)).unwrap();
    path
}

fn only_the_old_image(lease: &Leased, ballast: &Path) {
    assert_eq!(std::fs::read(&lease.image).unwrap(), b"old");
    std::fs::remove_file(ballast).unwrap();
    let names: Vec<_> = std::fs::read_dir(lease.image.parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["seed_1.qcow2"]);
}

fn says_full(saw: &Saw) {
    assert_eq!((saw.code, saw.out.as_str()), (1, ""), "{saw:?}");
    assert!(saw.err.contains("the test environment host's disk is full"), "{saw:?}");
    assert!(saw.err.contains("the old image is untouched"), "{saw:?}");
}

async fn works_again(w: &World, lease: &Leased, image: Vec<u8>) {
    let saw = w.copyseed(lease, image).await;
    assert_eq!(saw.code, 0, "{saw:?}");
    assert!(std::fs::read(&lease.image).unwrap().starts_with(b"QFI\xfb"));
}

/// Another program takes the last block while the image comes.
#[test]
fn the_disk_fills_up_while_an_image_comes() {
    with_small_disk(|w, lease| async move {
        let image = qcow2(w.folder.path(), "made.qcow2", IMAGE_BYTES);
        let mut ssh = w.spawn(&lease, "copyseed 1");
        let mut stdin = ssh.stdin.take().unwrap();
        stdin.write_all(&image[..1 << 20]).await.unwrap();
        let folder = lease.image.parent().unwrap();
        until(|| std::fs::read_dir(folder).unwrap().count(), |files| *files == 2).await;
        let ballast = fill(&lease, 0);
        let feed = async {
            // The refusal closes the pipe under our hands.
            let _ = stdin.write_all(&image[1 << 20..]).await;
            drop(stdin);
        };
        let both = async { tokio::join!(feed, ssh.wait_with_output()) };
        let (_, out) = tokio::time::timeout(STEP_MAX, both).await.expect("it did not end");
        says_full(&out.unwrap().into());
        only_the_old_image(&lease, &ballast);
        works_again(&w, &lease, image).await;
    });
}

/// There is room for the raw image, and none for what is made of it.
#[test]
fn the_disk_is_full_when_a_raw_image_is_converted() {
    with_small_disk(|w, lease| async move {
        qcow2(w.folder.path(), "made.qcow2", IMAGE_BYTES);
        let mut image = std::fs::read(w.path("made.qcow2.raw")).unwrap();
        image[446..510].fill(0);
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        let mut ssh = w.spawn(&lease, "copyseed 1");
        let mut stdin = ssh.stdin.take().unwrap();
        stdin.write_all(&image[..1 << 20]).await.unwrap();
        let folder = lease.image.parent().unwrap();
        until(|| std::fs::read_dir(folder).unwrap().count(), |files| *files == 2).await;
        let ballast = fill(&lease, (IMAGE_BYTES + (8 << 20)) as u64);
        let feed = async {
            let _ = stdin.write_all(&image[1 << 20..]).await;
            drop(stdin);
        };
        let both = async { tokio::join!(feed, ssh.wait_with_output()) };
        let (_, out) = tokio::time::timeout(STEP_MAX, both).await.expect("it did not end");
        says_full(&out.unwrap().into());
        only_the_old_image(&lease, &ballast);
        works_again(&w, &lease, image).await;
    });
}

/// It was full before.
#[test]
fn a_disk_with_nothing_left_takes_no_image() {
    with_small_disk(|w, lease| async move {
        let ballast = fill(&lease, 0);
        let image = qcow2(w.folder.path(), "made.qcow2", 1 << 20);
        let saw = w.copyseed(&lease, image.clone()).await;
        assert_eq!((saw.code, saw.out.as_str()), (1, ""), "{saw:?}");
        assert!(saw.err.contains("less than 256 MiB of disk left"), "{saw:?}");
        only_the_old_image(&lease, &ballast);
        works_again(&w, &lease, image).await;
    });
}
