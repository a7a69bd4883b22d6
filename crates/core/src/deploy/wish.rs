//! What should be.

use core::fmt;
use serde::Serialize;

/// Debian packages that a TE host needs: those of `xtask/packages.txt` under "A TE host".
pub const PACKAGES: [&str; 11] = [
    "libvirt-daemon-system",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    "qemu-system-x86",
    "qemu-utils",
    "ipxe-qemu",
    "openvswitch-switch",
    "dnsmasq-base",
    "iproute2",
    "ethtool",
    "procps",
];

/// Hexadecimal digits of a program's SHA-256 that tell builds of one version apart.
const BUILD_DIGITS: usize = 12;

/// A build of `toci-host`: `<version>-<begin of its SHA-256>`, also the name of its folder on the TE host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Version(String);

impl Version {
    /// Of a program with this version and SHA-256 in hexadecimal.
    #[must_use]
    pub fn of(version: &str, sha256: &str) -> Version {
        let build: String = sha256.chars().take(BUILD_DIGITS).collect();
        Version(format!("{version}-{build}"))
    }

    /// As a TE host names it; `None` when it cannot be one.
    #[must_use]
    pub fn named(name: &str) -> Option<Version> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-+.".contains(c);
        let is_one = name.contains('-') && !name.starts_with(['-', '.']) && name.chars().all(fits);
        is_one.then(|| Version(name.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A TE host as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The program.
    pub version: Version,
    /// Its size.
    pub program_bytes: u64,
    /// The machine that it runs on, in the words of `uname -m`.
    pub arch: String,
    /// What keeps it running, by what the machine has: a unit for systemd …
    pub unit: String,
    /// … or a script of ours.
    pub keeper: String,
}
