//! Installs the Debian packages that are missing; a second run only asks dpkg and takes a moment.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// How long apt may wait for another apt or dpkg on this machine, in seconds.
const APT_LOCK_WAIT_SECONDS: u32 = 300;

/// Runs apt-get with the arguments it gets, while no service may start: a TE host of ours has its own
/// daemons, and a package must not start one on the machine. A policy that is already there stays.
const APT_SCRIPT: &str = r#"
set -e
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
DEBIAN_FRONTEND=noninteractive apt-get "$@"
"#;

/// What builds, tests and the demo need.
pub(crate) const PACKAGES: &str = "xtask/packages.txt";
/// What only the tests with a real OpenStack need.
pub(crate) const CLOUD_PACKAGES: &str = "xtask/packages-cloud.txt";
/// What only benchmarks need.
pub(crate) const BENCH_PACKAGES: &str = "xtask/packages-bench.txt";

/// Install what is missing.
pub(crate) fn run() -> Result<()> {
    packages(PACKAGES)?;
    // No Debian package has it: Maven fetches it once, outside of the source tree.
    shell::run(Command::new(shell::root().join("examples/gerrit/gerrit.sh")).arg("fetch"))
        .context("fetching the real Gerrit, which tests and `toci demo --gerrit` run")
}

/// Install what is missing of a list, named from the root of the tree.
pub(crate) fn packages(list: &str) -> Result<()> {
    let list = shell::root().join(list);
    let text = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let wanted = parse(&text);
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {} Debian packages: {}", missing.len(), missing.join(" "));
    install(&missing)?;
    let still = self::missing(&wanted)?;
    if !still.is_empty() {
        bail!("apt-get ended well, but these are still not installed: {}", still.join(" "));
    }
    if Path::new("/run/systemd/system").exists() {
        eprintln!(
            "Some of these packages bring services. None was started now; at the next boot Debian starts them. \
             toci's sandbox needs none of them: `systemctl disable NAME` for those that you do not want."
        );
    }
    Ok(())
}

/// Package names of a list with one name a line and comments after `#`.
pub(crate) fn parse(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Those of `wanted` that dpkg does not call installed.
fn missing(wanted: &[String]) -> Result<Vec<String>> {
    // dpkg-query exits with 1 when it knows nothing of one of them, and still lists the others.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
        .args(wanted)
        .output()
        .context(
            "starting dpkg-query: this is no Debian machine. Install by hand what xtask/packages.txt names",
        )?;
    let report = String::from_utf8_lossy(&output.stdout);
    Ok(not_installed(wanted, &report))
}

fn not_installed(wanted: &[String], report: &str) -> Vec<String> {
    let installed: Vec<&str> =
        report.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    wanted.iter().filter(|name| !installed.contains(&name.as_str())).cloned().collect()
}

fn install(missing: &[String]) -> Result<()> {
    let names: Vec<&str> = missing.iter().map(String::as_str).collect();
    // Without package lists the first attempt can only fail.
    let have_lists = fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with("_Packages"))
    });
    if have_lists && apt("install", &[&["--no-remove"], names.as_slice()].concat()).is_ok() {
        return Ok(());
    }
    apt("update", &[])?;
    if apt("install", &[&["--no-remove"], names.as_slice()].concat()).is_ok() {
        return Ok(());
    }
    // A qemu-utils newer than the release's breaks its qemu-system-common
    // (reference/virtualisation.md): go back to the release's own.
    eprintln!("trying again with the release's own qemu-utils");
    apt("install", &[&["--allow-downgrades", "qemu-utils/bookworm"], names.as_slice()].concat())
        .context("installing Debian packages; what apt-get said is above")
}

fn apt(verb: &str, arguments: &[&str]) -> Result<()> {
    let mut command = as_root();
    command
        .args(["sh", "-c", APT_SCRIPT, "apt-get", "-q", "-y"])
        .args(["-o", &format!("DPkg::Lock::Timeout={APT_LOCK_WAIT_SECONDS}")])
        .args(["-o", "Dpkg::Use-Pty=0"])
        .args(["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"])
        .args(["-o", "Dpkg::Options::=--force-unsafe-io"])
        .arg(verb);
    if verb == "install" {
        command.arg("--no-install-recommends");
    }
    shell::run(command.args(arguments).stdin(Stdio::null()))
}

/// A command that gives root's rights to the program named in its first argument.
fn as_root() -> Command {
    let is_root = shell::read(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if is_root {
        // `env` without settings only starts its argument.
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("--");
        sudo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_are_no_packages() {
        assert_eq!(parse("# head\n\nzstd   # why\nqemu-utils\n"), ["zstd", "qemu-utils"]);
    }

    #[test]
    fn half_installed_and_unknown_packages_are_missing() {
        let wanted = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(not_installed(&wanted, "installed a\nconfig-files b\n"), ["b", "c"]);
    }
}
