//! Times what the benchmarks want to know of a TE host.

use crate::host::Host;
use crate::te::reset;
use std::time::Instant;

/// Resets of TE 1 with its machines off and with all of them running, in milliseconds; printed
/// as one line of JSON.
pub(crate) async fn reset_times(host: Host, rounds: u32) -> anyhow::Result<()> {
    host.prepare_folders()?;
    host.converge().await?;
    let Some(te) = host.tes.first() else { anyhow::bail!("the configuration carves no TE") };
    // The first start makes libvirt find out what QEMU can do; that is not part of a reset.
    start_all(&host).await?;
    reset(&host, te, false).await?;
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        off.push(timed(&host).await?);
    }
    for _ in 0..rounds {
        start_all(&host).await?;
        on.push(timed(&host).await?);
    }
    let machines = te.machines.len();
    println!("{}", serde_json::json!({"machines": machines, "off_ms": off, "on_ms": on}));
    Ok(())
}

async fn start_all(host: &Host) -> anyhow::Result<()> {
    for machine in &host.tes[0].machines {
        host.libvirt.create(&machine.name).await?;
    }
    Ok(())
}

async fn timed(host: &Host) -> anyhow::Result<f64> {
    let began = Instant::now();
    reset(host, &host.tes[0], false).await?;
    Ok((began.elapsed().as_secs_f64() * 1e5).round() / 100.0)
}
