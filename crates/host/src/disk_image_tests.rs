//! Image formats: what is taken for a disk image, and what is refused.

use super::*;
use std::process::Command;

const DISK: u64 = 64 << 20;

fn qemu(folder: &Path, args: &[&str]) {
    let out = Command::new("qemu-img").args(args).current_dir(folder).output();
    let out = out.expect("qemu-img is missing: install the Debian package qemu-utils");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A raw disk with one bootable partition over all of it, and something written to it.
fn raw_disk(bytes: u64) -> Vec<u8> {
    let mut disk = vec![0; usize::try_from(bytes).unwrap()];
    let sectors = u32::try_from(bytes / SECTOR - 1).unwrap();
    disk[446] = 0x80;
    disk[450] = 0x83;
    disk[454] = 1;
    disk[458..462].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let random = |i: usize| u8::try_from(i.wrapping_mul(2_654_435_761) >> 13 & 0xff).unwrap();
    let at = disk.len() / 2;
    for (i, byte) in disk.iter_mut().enumerate().skip(at).take(1 << 20) {
        *byte = random(i);
    }
    disk
}

fn check(path: &Path) -> Result<ImageInfo, BadImage> {
    check_file(&File::open(path).unwrap(), DISK)
}

#[test]
fn whole_images_of_both_formats_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    std::fs::write(f.join("raw"), raw_disk(8 << 20)).unwrap();
    let raw = ImageInfo { format: ImageFormat::Raw, virtual_bytes: 8 << 20 };
    assert_eq!(check(&f.join("raw")).unwrap(), raw);
    for (n, options) in [
        &["-O", "qcow2"][..],
        &["-O", "qcow2", "-o", "compat=0.10"],
        &["-O", "qcow2", "-c"],
        &["-O", "qcow2", "-o", "cluster_size=512"],
        &["-O", "qcow2", "-o", "extended_l2=on"],
        &["-O", "qcow2", "-o", "preallocation=metadata"],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("q{n}");
        qemu(f, &[&["convert", "-f", "raw"], options, &["raw", &name]].concat());
        let info = check(&f.join(&name)).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        assert_eq!(info, ImageInfo { format: ImageFormat::Qcow2, virtual_bytes: 8 << 20 });
    }
}

#[test]
fn images_that_name_other_files_or_are_too_large_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    qemu(f, &["create", "-q", "-f", "qcow2", "base", "1M"]);
    qemu(f, &["create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "child"]);
    assert!(matches!(check(&f.join("child")), Err(BadImage::BackingFile)));
    qemu(f, &["create", "-q", "-f", "qcow2", "-o", "data_file=secret", "outside", "1M"]);
    assert!(matches!(check(&f.join("outside")), Err(BadImage::ExternalData)));
    qemu(f, &["create", "-q", "-f", "qcow2", "large", "65M"]);
    assert!(matches!(check(&f.join("large")), Err(BadImage::TooLarge { .. })));
    // Only the header is made: qemu-img times its key derivation to make a whole LUKS image, and
    // fails at that on a busy machine ("Unable to get accurate CPU usage").
    let mut locked = std::fs::read(f.join("base")).unwrap();
    locked[32..36].copy_from_slice(&2_u32.to_be_bytes());
    std::fs::write(f.join("locked"), locked).unwrap();
    assert!(matches!(check(&f.join("locked")), Err(BadImage::Encrypted)));
}

#[test]
fn what_is_no_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    for bytes in
        [&b""[..], b"hello", &[0; 4096], b"QFI\xfb", &[b"QFI\xfb".to_vec(), vec![0; 2000]].concat()]
    {
        std::fs::write(&path, bytes).unwrap();
        check(&path).expect_err("not an image");
    }
}

#[test]
fn an_image_cut_anywhere_in_its_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    std::fs::write(f.join("raw"), raw_disk(8 << 20)).unwrap();
    qemu(f, &["convert", "-f", "raw", "-O", "qcow2", "raw", "whole"]);
    for name in ["raw", "whole"] {
        let whole = std::fs::read(f.join(name)).unwrap();
        check(&f.join(name)).unwrap();
        for part in [1, 2, 3, 7, 12, 15] {
            let cut = whole.len() * part / 16;
            std::fs::write(f.join("cut"), &whole[..cut]).unwrap();
            let e = check(&f.join("cut")).expect_err("cut").to_string();
            assert!(e.contains("not whole"), "{name} cut at {cut} of {}: {e}", whole.len());
        }
    }
}

#[test]
fn no_header_makes_the_check_panic_or_read_without_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    qemu(f, &["create", "-q", "-f", "qcow2", "good", "1M"]);
    let good = std::fs::read(f.join("good")).unwrap();
    for at in 4..112 {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            std::fs::write(f.join("bad"), &bad).unwrap();
            let _ = check(&f.join("bad"));
        }
    }
}

#[tokio::test]
async fn a_raw_image_becomes_the_qcow2_that_the_domain_wants() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (upload, target) = (f.join("seed_1.qcow2.upload"), f.join("seed_1.qcow2"));
    std::fs::write(&upload, raw_disk(8 << 20)).unwrap();
    std::fs::write(&target, "old").unwrap();
    let ready = as_qcow2(&upload, ImageFormat::Raw).await.unwrap();
    install(&ready, &target).await.unwrap();
    assert_eq!(check(&target).unwrap().format, ImageFormat::Qcow2);
    let left: Vec<_> = std::fs::read_dir(f).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["seed_1.qcow2"]);
}
