//! Sandbox mode: a TE host that touches nothing of its machine.
//!
//! ```text
//! toci-host run            the namespace of whoever started it; makes the veth, waits
//!   └ sandbox-enter        unshares mount, network, pid and ipc namespaces
//!       └ sandbox-init     pid 1 inside: private mounts; starts and restarts the daemons:
//!           ├ ovsdb-server, ovs-vswitchd, virtlogd, libvirtd
//!           └ agent        this program again; a crash of it leaves the machines running
//! ```
//!
//! When any of the first three ends, by any means, the kernel ends everything below it; mounts,
//! devices and addresses vanish with the namespaces. There are no cgroups inside (libvirt does
//! without), so nothing is left in the machine's cgroup tree either.

mod daemons;
mod enter;
mod init;
mod outside;

pub use enter::{SandboxHandle, enter_and_run, sandbox_enter};
pub(crate) use init::own_program;
pub use init::{EXIT_REFUSED, Payload, sandbox_init};
pub use outside::{SandboxError, StateLock, outside_device, run_sandbox};
