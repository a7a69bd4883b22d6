//! The reset of a test environment with five machines (a seed and four nodes) on a real sandboxed host: libvirt,
//! QEMU and Open vSwitch, with the self-check that follows. `toci-host bench-reset` does the work and the timing.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::Report;
use super::report::{Figure, Goal};
use crate::{cargo, shell};

/// Resets with the machines off, and as many with all of them running.
const ROUNDS: u32 = 10;
const ROUNDS_SMOKE: u32 = 1;
/// Nodes beside the seed.
const NODES: usize = 4;
/// What to reach with the machines off, ms; the median counts.
const GOAL_OFF_MS: f64 = 2500.0;

/// What `toci-host bench-reset` prints.
#[derive(Debug, Deserialize)]
struct Times {
    machines: usize,
    off_ms: Vec<f64>,
    on_ms: Vec<f64>,
}

/// Measure everything.
pub(super) fn run(smoke: bool) -> Result<Report> {
    let program = cargo::build_quick()?.join("toci-host");
    let folder = cargo::target_dir().join("bench/te");
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(e).with_context(|| folder.display().to_string());
        }
        Ok(()) | Err(_) => fs::create_dir_all(&folder)?,
    }
    let config = folder.join("toci-host.toml");
    fs::write(&config, config_text(&folder.join("state")))?;
    let rounds = if smoke { ROUNDS_SMOKE } else { ROUNDS };
    // It makes its sandbox itself, which ends with it.
    let printed = shell::read(
        Command::new(program)
            .arg("bench-reset")
            .arg("--config")
            .arg(&config)
            .args(["--rounds", &rounds.to_string()])
            .env("TOCI_LOG", "warn"),
    )?;
    let times: Times = serde_json::from_str(printed.trim())
        .with_context(|| format!("toci-host bench-reset printed: {printed}"))?;
    if times.machines != NODES + 1 {
        bail!("a TE with {} machines was reset, not with {}", times.machines, NODES + 1);
    }
    fs::remove_dir_all(&folder)?;
    report(&times)
}

/// No network is shared with the machine, and nothing is kept free for it: memory is only used by what runs.
fn config_text(state: &Path) -> String {
    format!(
        "name = \"bench\"\nstate = \"{}\"\n\
         [network]\naddress = \"198.18.61.2/24\"\nseed_addresses = \"198.18.61.101-198.18.61.101\"\n\
         [reserve]\nmemory_mib = 0\ndisk_mib = 0\n\
         [accelerator]\nnever_kvm = true\n\
         [[testenv]]\nshape = \"five\"\ncount = 1\n\
         [shape.five]\ncpu_overcommit = 64.0\n\
         seed = {{ cpus = 1, memory_mib = 128, disk_gb = 2 }}\n\
         nodes = {{ count = {NODES}, cpus = 1, memory_mib = 128, disk_gb = 2 }}\n",
        state.display()
    )
}

fn report(times: &Times) -> Result<Report> {
    let machines = times.machines;
    let mut report = Report {
        name: "te",
        setting: vec![
            ("test environment".into(), format!("{machines} machines of 128 MiB, QEMU's TCG")),
            ("resets".into(), format!("{} each way", times.off_ms.len())),
            ("QEMU".into(), first_line(Command::new("qemu-system-x86_64").arg("--version"))?),
            ("libvirt".into(), first_line(Command::new("virsh").arg("--version"))?),
        ],
        figures: Vec::new(),
    };
    let mut add = |how: &str, ms: &[f64], goal: Option<Goal>| {
        let mut ms = ms.to_vec();
        ms.sort_by(f64::total_cmp);
        let (Some(median), Some(worst)) = (ms.get(ms.len() / 2), ms.last()) else { return };
        for (what, value, goal) in [("reset", median, goal), ("slowest reset", worst, None)] {
            report.figures.push(Figure {
                what: format!("{what}, {machines} machines {how}"),
                who: "toci".into(),
                value: *value,
                unit: "ms",
                goal,
            });
        }
    };
    add("off", &times.off_ms, Some(Goal::AtMost(GOAL_OFF_MS)));
    add("running", &times.on_ms, None);
    Ok(report)
}

fn first_line(command: &mut Command) -> Result<String> {
    Ok(shell::read(command)?.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_has_the_goal() {
        let text = r#"{"machines":5,"off_ms":[1.0,3000.0,2600.0],"on_ms":[10.0]}"#;
        let report = report(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(report.figures.len(), 4);
        assert_eq!(
            report.missed(),
            ["te: reset, 5 machines off, toci: 2600.00 ms, goal <= 2500.00"]
        );
    }
}
