//! KVM or TCG. "The device node is there" proves nothing (virtualisation.md: a stock kernel hung
//! under it for ever), so a kernel is booted under a time limit, and the answer remembered.

use crate::config::Config;
use crate::state::{self, StateDir, StateError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Longest a kernel may take to reach the mounting of its root under KVM.
pub const BOOT_MAX: Duration = Duration::from_secs(10);

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether KVM works.
    pub kvm: bool,
    /// How we know, for people.
    pub because: String,
    /// What the answer holds for: kernel, QEMU, device, settings.
    pub circumstances: String,
}

/// The remembered answer, or a new one.
pub async fn kvm(config: &Config, state: &StateDir) -> Result<Answer, StateError> {
    let path = state.root().join("probe.json");
    let circumstances = circumstances(config);
    if let Some(kept) = state::read_json::<Answer>(&path)?
        && kept.circumstances == circumstances
    {
        return Ok(kept);
    }
    let (kvm, because) = ask(config).await;
    tracing::info!(kvm, %because, "accelerator chosen");
    let answer = Answer { kvm, because, circumstances };
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    state::write_private(&path, &text)?;
    Ok(answer)
}

fn circumstances(config: &Config) -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let qemu = std::fs::metadata(QEMU).and_then(|m| m.modified()).ok();
    let device = Path::new("/dev/kvm").exists();
    let kernel = kernel(config);
    format!("{} {qemu:?} {device} {:?} {kernel:?}", release.trim(), config.accelerator)
}

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// The kernel to boot: as configured, else the newest in `/boot`.
fn kernel(config: &Config) -> Option<PathBuf> {
    if let Some(k) = &config.accelerator.probe_kernel {
        return Some(k.clone());
    }
    let entries = std::fs::read_dir("/boot").ok()?.flatten();
    let kernels = entries
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")));
    kernels.max_by_key(|p| p.metadata().and_then(|m| m.modified()).ok())
}

async fn ask(config: &Config) -> (bool, String) {
    if config.accelerator.never_kvm {
        return (false, "accelerator.never_kvm is set".into());
    }
    if !Path::new("/dev/kvm").exists() {
        return (false, "there is no /dev/kvm".into());
    }
    let Some(kernel) = kernel(config) else {
        return (
            false,
            "no kernel to prove KVM with; set accelerator.probe_kernel to a vmlinuz".into(),
        );
    };
    match tokio::time::timeout(BOOT_MAX, boot(&kernel)).await {
        Err(_) => (false, format!("{} hangs under KVM", kernel.display())),
        Ok(Err(e)) => (false, format!("QEMU with KVM did not run: {e}")),
        Ok(Ok(console)) if console.contains("Unable to mount root fs") => {
            (true, format!("{} boots under KVM", kernel.display()))
        }
        Ok(Ok(_)) => (false, format!("{} did not get to its root under KVM", kernel.display())),
    }
}

/// Boots without a root: a kernel that works says so and restarts at once, which ends QEMU.
async fn boot(kernel: &Path) -> std::io::Result<String> {
    let child = Command::new(QEMU)
        .args(["-accel", "kvm", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-serial", "stdio", "-append", "console=ttyS0 panic=-1 root=/dev/none"])
        .arg("-kernel")
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let out = child.wait_with_output().await?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
