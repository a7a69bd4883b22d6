//! Images over SSH.

use crate::world::{CUT_MAX, Leased, STEP_MAX, World, qcow2, until};
use toci_core::id::Generation;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

/// Files in the folder of images.
fn files(lease: &Leased) -> Vec<String> {
    let folder = lease.image.parent().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn assert_untouched(lease: &Leased) {
    assert_eq!(std::fs::read(&lease.image).unwrap(), b"old");
    assert_eq!(files(lease), ["seed_1.qcow2"]);
}

async fn leased(w: &World) -> Leased {
    let lease = w.lease(1, 1).await;
    std::fs::write(&lease.image, "old").unwrap();
    lease
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_whole_with_size_and_checksum() {
    let w = World::new().await;
    let lease = leased(&w).await;
    let image = qcow2(w.folder.path(), "made.qcow2", 3 << 20);
    let sum = std::process::Command::new("sha256sum").arg(w.path("made.qcow2")).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let saw = w.copyseed(&lease, image.clone()).await;
    assert_eq!(saw.code, 0, "{saw:?}");
    assert!(saw.out.starts_with(&format!("seed_1: {} bytes in ", image.len())), "{saw:?}");
    assert!(saw.out.contains(&format!("sha256 {}", &sum[..64])), "{saw:?}");
    assert!(std::fs::read(&lease.image).unwrap() == image, "other bytes arrived");
    assert_eq!(files(&lease), ["seed_1.qcow2"]);
    let mut raw = vec![0; 1 << 20];
    raw[510..512].copy_from_slice(&[0x55, 0xaa]);
    let saw = w.copyseed(&lease, raw).await;
    assert!(saw.code == 0 && saw.out.ends_with("raw of 1048576 bytes\n"), "{saw:?}");
    assert!(std::fs::read(&lease.image).unwrap().starts_with(b"QFI\xfb"), "not converted");
    assert_eq!(files(&lease), ["seed_1.qcow2"]);
    assert_eq!(w.run(&lease, "virsh start seed_1").await.code, 0);
    let saw = w.copyseed(&lease, image).await;
    assert_eq!(saw.code, 1, "{saw:?}");
    assert!(saw.err.contains("seed_1 is running") && saw.err.contains("virsh destroy"), "{saw:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_or_not_whole_leaves_the_old_one() {
    let w = World::new().await;
    let lease = leased(&w).await;
    let good = qcow2(w.folder.path(), "made.qcow2", 2 << 20);
    let half = good[..good.len() / 2].to_vec();
    let mut backed = good;
    backed[15] = 1;
    for (bytes, why) in [
        (Vec::new(), "no disk image"),
        (b"hello".to_vec(), "no disk image"),
        (vec![0; 40 << 20], "no disk image"),
        (half, "not whole"),
        (backed, "backing file"),
    ] {
        let saw = w.copyseed(&lease, bytes).await;
        assert_eq!((saw.code, saw.out.as_str()), (1, ""), "{saw:?}");
        assert!(saw.err.contains(why) && saw.err.contains("old image is untouched"), "{saw:?}");
        assert_untouched(&lease);
    }
    let saw = w.run(&lease, "copyseed 2").await;
    assert!(saw.code == 1 && saw.err.contains("use copyseed 1"), "{saw:?}");
}

/// A `copyseed` that is under way: half of the image is sent and has arrived.
async fn half_way(
    w: &World,
    lease: &Leased,
) -> (tokio::process::Child, tokio::process::ChildStdin) {
    let image = qcow2(w.folder.path(), "made.qcow2", 4 << 20);
    let mut ssh = w.spawn(lease, "copyseed 1");
    let mut stdin = ssh.stdin.take().unwrap();
    stdin.write_all(&image[..2 << 20]).await.unwrap();
    let arrived = || {
        let folder = lease.image.parent().unwrap();
        let sizes = std::fs::read_dir(folder).unwrap().filter_map(|e| {
            let e = e.ok()?;
            let upload = e.file_name().to_string_lossy().ends_with("upload");
            Some(e.metadata().ok()?.len()).filter(|_| upload)
        });
        sizes.max()
    };
    // The client keeps some back until it has a whole packet.
    until(arrived, |size| size.is_some_and(|s| s >= 1 << 20)).await;
    (ssh, stdin)
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_cuts_a_running_copyseed() {
    let w = World::new().await;
    let lease = leased(&w).await;
    let (mut ssh, stdin) = half_way(&w, &lease).await;
    let began = Instant::now();
    w.gateway.close(&lease.grant.te, Generation(1)).await;
    assert!(began.elapsed() < CUT_MAX, "closing took {:?}", began.elapsed());
    assert_untouched(&lease);
    let ended = tokio::time::timeout(STEP_MAX, ssh.wait()).await;
    assert!(!ended.expect("the client is still connected").unwrap().success());
    drop(stdin);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_leaves_the_old_image() {
    let w = World::new().await;
    let lease = leased(&w).await;
    let (mut ssh, stdin) = half_way(&w, &lease).await;
    let second = w.copyseed(&lease, Vec::new()).await;
    assert!(second.err.contains("another copyseed of this lease is under way"), "{second:?}");
    ssh.kill().await.unwrap();
    drop(stdin);
    until(|| files(&lease), |f| f.len() == 1).await;
    assert_untouched(&lease);
    let image = qcow2(w.folder.path(), "again.qcow2", 1 << 20);
    let saw = w.copyseed(&lease, image).await;
    assert_eq!(saw.code, 0, "a new one may come at once: {saw:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_started_meanwhile_keeps_its_image() {
    let w = World::new().await;
    let lease = leased(&w).await;
    let (ssh, mut stdin) = half_way(&w, &lease).await;
    assert_eq!(w.run(&lease, "virsh start seed_1").await.code, 0);
    let image = std::fs::read(w.path("made.qcow2")).unwrap();
    stdin.write_all(&image[2 << 20..]).await.unwrap();
    drop(stdin);
    let out = tokio::time::timeout(STEP_MAX, ssh.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("seed_1 is running"));
    assert_untouched(&lease);
}
