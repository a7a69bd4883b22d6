//! Pulling the plug of a machine whose disks are about to be thrown away.

use crate::libvirt::{Libvirt, LibvirtError, Power};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest wait until libvirt has noticed that its QEMU is gone.
const NOTICE_MAX: Duration = Duration::from_secs(10);
const NOTICE_POLL: Duration = Duration::from_millis(20);

/// Ends a machine at once. `destroy` asks QEMU to leave and waits, which under TCG takes up to
/// 2 s; nobody will miss what it has not written. A machine that is off or gone is fine.
pub async fn pull_plug(libvirt: &Libvirt, domain: &str) -> Result<(), LibvirtError> {
    if let Some(pid) = qemu_pid(domain) {
        let _ = kill(pid, Signal::SIGKILL);
    }
    let deadline = Instant::now() + NOTICE_MAX;
    loop {
        let failed = match libvirt.destroy(domain).await {
            Ok(()) | Err(LibvirtError::NoDomain(_) | LibvirtError::WrongState { .. }) => None,
            // QEMU may vanish under libvirt's hands.
            Err(e) => Some(e),
        };
        match libvirt.power(domain).await {
            Ok(Power::Off) | Err(LibvirtError::NoDomain(_)) => return Ok(()),
            Ok(Power::On) if Instant::now() < deadline => sleep(NOTICE_POLL).await,
            Ok(Power::On) => {
                return Err(failed.unwrap_or_else(|| LibvirtError::TooSlow("destroy".into())));
            }
            Err(e) => return Err(e),
        }
    }
}

/// The QEMU of a domain, by libvirt's pid file; checked against its command line, since a pid
/// may have been given to another process meanwhile.
fn qemu_pid(domain: &str) -> Option<Pid> {
    let text = std::fs::read_to_string(format!("/run/libvirt/qemu/{domain}.pid")).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let guest = format!("guest={domain}");
    let is_it = line.split('\0').any(|a| a == guest || a.starts_with(&format!("{guest},")));
    is_it.then_some(Pid::from_raw(pid))
}
