//! REACHES. Everything outside the control plane, behind ports: forges, git, nodes, log storage.
//!
//! What others do best is done by their programs ([`program`]): git, OpenSSH. Nothing here decides; outcomes are values
//! of `toci-core`.
#![forbid(unsafe_code)]

pub mod archive;
mod clock;
pub mod git;
pub mod http;
pub mod node;
pub mod openstack;
pub mod program;
pub mod provider;
pub mod source;
pub mod ssh;
pub mod tell;
