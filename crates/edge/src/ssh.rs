//! How OpenSSH's client is called: see [`toci_wire::openssh`].

pub use toci_wire::openssh::{git_environment, options};
