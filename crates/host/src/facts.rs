//! What the machine has.

use crate::carve::Resources;
use std::path::Path;

/// MiB of physical memory.
#[must_use]
pub fn memory_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib: Option<u64> = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) / 1024
}

/// CPUs that this process may use.
#[must_use]
pub fn cpus() -> u32 {
    std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1)
}

/// MiB free where `path` lies.
#[must_use]
pub fn disk_free_mib(path: &Path) -> u64 {
    match nix::sys::statvfs::statvfs(path) {
        Ok(v) => (v.blocks_available() * v.fragment_size()) >> 20,
        Err(_) => 0,
    }
}

/// MiB that the files directly in `folder` take.
fn disk_used_mib(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).map(|m| m.blocks() * 512).sum::<u64>() >> 20
}

/// What there is to carve. Disk is what is free plus what TEs use already, so that a restart in
/// the midst of use finds the same as the first start.
#[must_use]
pub fn resources(images: &Path) -> Resources {
    Resources {
        memory_mib: memory_mib(),
        cpus: cpus(),
        disk_mib: disk_free_mib(images) + disk_used_mib(images),
    }
}
