//! What can be asked of a TE's gateway.

use core::fmt;
use core::net::Ipv4Addr;

/// Longest machine name, bytes.
pub const MACHINE_NAME_MAX_BYTES: usize = 64;

/// A word that may name a machine: 1 to 64 of `[a-zA-Z0-9_-]`, as `ci_commands` demanded, and no
/// `-` in front, so that it is never an option. Whether the lease has it is not known here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineName(String);

impl MachineName {
    /// The name, checked.
    #[must_use]
    pub fn new(s: &str) -> Option<MachineName> {
        let ok = !s.is_empty()
            && s.len() <= MACHINE_NAME_MAX_BYTES
            && !s.starts_with('-')
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        ok.then(|| MachineName(s.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What to do with a machine's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerVerb {
    /// `virsh start`.
    Start,
    /// `virsh destroy`: pull the plug.
    Destroy,
    /// `virsh reset`.
    Reset,
}

impl PowerVerb {
    /// virsh's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PowerVerb::Start => "start",
            PowerVerb::Destroy => "destroy",
            PowerVerb::Reset => "reset",
        }
    }
}

/// What a machine boots from; the three that Ironic's ssh driver knows for virsh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootDevice {
    /// Its disk.
    Hd,
    /// PXE.
    Network,
    /// A CD.
    Cdrom,
}

impl BootDevice {
    /// Every one.
    pub const ALL: [BootDevice; 3] = [BootDevice::Hd, BootDevice::Network, BootDevice::Cdrom];

    /// libvirt's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BootDevice::Hd => "hd",
            BootDevice::Network => "network",
            BootDevice::Cdrom => "cdrom",
        }
    }

    /// From libvirt's word.
    #[must_use]
    pub fn parse(s: &str) -> Option<BootDevice> {
        BootDevice::ALL.into_iter().find(|d| d.as_str() == s)
    }
}

/// A command, understood. Variants that end in a pipeline print what the pipeline prints and, like
/// it, succeed whatever virsh said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `virsh start|destroy|reset NAME` (power-driver line 5).
    Power {
        /// What to do.
        verb: PowerVerb,
        /// With which machine.
        machine: MachineName,
    },
    /// `admit ADDRESS`, ours: this one may speak with the seed too.
    Admit {
        /// The address.
        address: Ipv4Addr,
    },
    /// `virsh list [--all]`.
    List {
        /// Those that are off too.
        all: bool,
    },
    /// `virsh list [--all] --name`: Ironic since 2015.
    ListNames {
        /// Those that are off too.
        all: bool,
    },
    /// `virsh list --all | tail -n +2 | awk -F" " '{print $2}'` (line 1).
    ListNamesByAwk,
    /// `virsh list --all | grep running | awk -v qc='"' -F" " '{print qc$2qc}'` (line 4).
    ListRunningQuoted,
    /// `virsh dumpxml [--inactive] NAME`.
    DumpXml {
        /// Which machine.
        machine: MachineName,
        /// As it will be at the next start.
        inactive: bool,
    },
    /// `virsh domstate NAME`.
    DomState {
        /// Which machine.
        machine: MachineName,
    },
    /// `virsh dumpxml NAME | grep … | awk … | tr -d ':'` and `… | awk '/mac address/…' | tr -d ':'`
    /// (lines 2 and 3, which print the same).
    Macs {
        /// Which machine.
        machine: MachineName,
    },
    /// `virsh dumpxml NAME | awk '/boot dev=/ …' | head -1` (line 6).
    GetBootDevice {
        /// Which machine.
        machine: MachineName,
    },
    /// `EDITOR="sed -i '…'" virsh edit NAME` (line 7).
    SetBootDevice {
        /// Which machine.
        machine: MachineName,
        /// What it shall boot from.
        device: BootDevice,
    },
    /// `copyseed N`: the seed's image comes on standard input.
    CopySeed {
        /// Number of the TE on its host.
        number: u32,
    },
}

/// Why a command line was not understood. What came from the caller is shown escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing, or only blanks.
    #[error("the command is empty")]
    Empty,
    /// Longer than any of the commands.
    #[error("the command is longer than {max} bytes", max = super::COMMAND_MAX_BYTES)]
    TooLong,
    /// Not printable ASCII.
    #[error("the command has characters that are not printable ASCII")]
    NotPrintable,
    /// None of ours.
    #[error("unknown command `{0}`")]
    Unknown(String),
    /// One of virsh's, but not one of ours.
    #[error("virsh command `{0}` is not allowed here")]
    VirshCommand(String),
    /// Too few, too many or wrong arguments.
    #[error("wrong arguments for `{command}`: expected {expected}")]
    Arguments {
        /// Of what.
        command: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// What stands where an address should.
    #[error("`{0}` is no IPv4 address")]
    NoAddress(String),
    /// What stands where a machine's name should.
    #[error("`{0}` is not the name of a machine")]
    BadName(String),
    /// The first command is ours, what it is piped into is not.
    #[error("`{0}` may only be piped as the power drivers of Nova and Ironic do it")]
    Pipeline(String),
    /// Not a device that can be booted from.
    #[error("`{0}` is not a boot device: use hd, network or cdrom")]
    BadDevice(String),
}
