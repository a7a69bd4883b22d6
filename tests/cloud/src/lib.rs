//! Helpers of the tests that need a cloud. They run inside of the sandbox of `stack/`, where a real OpenStack is up:
//! `cargo xtask cloud test` sees to that. Tests run one at a time, for a fault is there for everybody.

mod api;
mod busy;
mod fault;
mod footprint;
mod metal;
pub mod provider;
mod server;
mod site;
mod volumes;

pub use api::Api;
pub use busy::{Busy, Refusal};
pub use e2e::wait_for;
pub use fault::{
    Paused, Quota, Resettled, Service, Stopped, fake_servers, pause, quota, revoke_tokens, stop,
    token_lifetime,
};
pub use footprint::{Footprint, forget_key_pairs};
pub use metal::{BareMetal, METAL_FLAVOR, METAL_NETWORK};
pub use server::{FloatingAddress, KeyPair, Server, host_keys};
pub use site::{BROKER, Process, SITE_OWNER, Site, TEST_BRIDGE, TeHost, host_config};
pub use volumes::{Volumes, volumes};
