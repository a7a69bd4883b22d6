//! The reset of a TE, its self-check, and its burn-in.

use crate::host::{Host, HostError};
use crate::libvirt::{LibvirtError, Power};
use crate::plan::{Plan, Step, TeSpec, reset_plan, vacate_plan};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// CPU time that shows that a machine really runs, in nanoseconds.
const BURN_IN_CPU_NS: u64 = 300_000_000;
/// Longest wait for it.
const BURN_IN_MAX: Duration = Duration::from_secs(60);
const BURN_IN_POLL: Duration = Duration::from_millis(200);

/// Why a TE is not clean.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// A step of the reset failed.
    #[error("reset")]
    Step(#[from] HostError),
    /// A look at the machines failed.
    #[error("self-check")]
    Look(#[from] LibvirtError),
    /// It was reset and is not as it should be.
    #[error("self-check: {0}")]
    NotClean(String),
    /// The seed did not run.
    #[error("burn-in: {0}")]
    BurnIn(String),
}

/// Resets a TE and proves it. Safe to repeat.
pub async fn reset(host: &Host, te: &TeSpec, burn_in: bool) -> Result<(), ResetError> {
    blank(host, te).await?;
    self_check(host, te).await?;
    if burn_in {
        burn(host, te).await?;
        blank(host, te).await?;
        self_check(host, te).await?;
    }
    Ok(())
}

/// Machines off, disks as they are.
pub async fn power_off(host: &Host, te: &TeSpec) -> Result<(), HostError> {
    let world = host.observe_machines().await?;
    host.execute(&vacate_plan(te, &world)).await
}

async fn blank(host: &Host, te: &TeSpec) -> Result<(), HostError> {
    // Whoever was cut off has none any more; one whose agent came back too late to be cut off has.
    host.dismiss(te.number).await?;
    let world = host.observe_machines().await?;
    host.execute(&reset_plan(te, &world)).await?;
    for machine in &te.machines {
        host.images.drop_partial(&machine.disk)?;
    }
    Ok(())
}

/// Looks again, at everything that a lease may have changed.
async fn self_check(host: &Host, te: &TeSpec) -> Result<(), ResetError> {
    let bad = |what: String| Err(ResetError::NotClean(what));
    let world = host.observe_machines().await?;
    let (desired, network) = host.plan_network().await?;
    for m in &te.machines {
        let Some(domain) = world.domains.get(&m.name) else {
            return bad(format!("domain {} is missing", m.name));
        };
        if domain.on {
            return bad(format!("domain {} still runs", m.name));
        }
        let wanted = desired.domains.get(&m.name).map(|d| d.fingerprint.clone());
        if domain.fingerprint != wanted || domain.boot != Some(m.boot) {
            return bad(format!("domain {} is not as its shape says", m.name));
        }
        if !host.images.is_blank(&m.disk, m.disk_bytes).await.map_err(HostError::from)? {
            return bad(format!("disk {} is not blank", m.disk.display()));
        }
    }
    let missing = |p: &Plan| p.steps.iter().find(|s| concerns(s, te)).map(Step::to_string);
    match missing(&network) {
        Some(step) => bad(format!("network: {step}")),
        None => Ok(()),
    }
}

/// Whether a step mends the network of this TE.
fn concerns(step: &Step, te: &TeSpec) -> bool {
    let tap = |d: &str| te.machines.iter().any(|m| m.nics.iter().any(|n| n.tap == d));
    let own = crate::names::private_bridge(te.number);
    let switch = |b: &str| b == own || b == crate::names::PUBLIC_BRIDGE;
    match step {
        Step::DeleteBridge { bridge }
        | Step::CreateBridge { bridge, .. }
        | Step::SetFlows { bridge, .. } => switch(bridge),
        Step::DeletePort { port, .. } | Step::CreatePort { port, .. } => tap(port),
        Step::DeleteTap { device }
        | Step::CreateTap { device }
        | Step::SetDevice { device, .. } => tap(device),
        Step::PowerOff { .. }
        | Step::Undefine { .. }
        | Step::DeleteDisk { .. }
        | Step::BlankDisk { .. }
        | Step::DropConsoles { .. }
        | Step::DropConnections { .. }
        | Step::Define { .. }
        | Step::StartDhcp { .. }
        | Step::StopDhcp => false,
    }
}

/// Starts the seed and waits until its CPU has done some work.
async fn burn(host: &Host, te: &TeSpec) -> Result<(), ResetError> {
    let name = &te.seed().name;
    host.libvirt.create(name).await?;
    let deadline = Instant::now() + BURN_IN_MAX;
    let mut worked = 0;
    while worked < BURN_IN_CPU_NS {
        if Instant::now() > deadline {
            return Err(ResetError::BurnIn(format!(
                "{name} used only {} ms of CPU in {} s",
                worked / 1_000_000,
                BURN_IN_MAX.as_secs()
            )));
        }
        sleep(BURN_IN_POLL).await;
        if host.libvirt.power(name).await? == Power::Off {
            return Err(ResetError::BurnIn(format!("{name} went off by itself")));
        }
        worked = host.libvirt.cpu_time_ns(name).await?;
    }
    Ok(())
}
