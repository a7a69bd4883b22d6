//! DRIVES. The control plane: the API, the Gearman broker, and the tasks that keep everything going.
//!
//! [`run`] is the whole server; `toci server` calls it.

pub mod api;
mod auth;
pub mod broker;
mod clock;
pub mod cloud;
mod config;
mod gate;
mod listen;
mod lockenv;
mod metrics;
mod relay;
mod run;
pub mod tasks;
pub mod te_cloud;
pub mod te_image;
mod testnet;

/// Of every program that has the server in it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub use config::{
    ApiConfig, ConfigError, GateConfig, GearmanConfig, LayoutSettings, LogsConfig, LogsStore,
    MergerConfig, NodeConfig, Overrides, ProviderKind, RunConfig, S3Config, SecretConfig,
    ServerConfig, SourceConfig, TlsPair,
};
pub use gate::{GateParts, GateStartError, Neighbours};
pub use lockenv::{JOBS_MAX as LOCKENV_JOBS_MAX, LockenvOptions};
pub use run::{Running, SHUTDOWN_LIMIT, ServerError, run, start};
pub use testnet::{TESTNET_LOOK_PERIOD, TestnetConfig, TestnetError};
