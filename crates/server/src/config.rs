//! `toci.toml`: the server's settings. Every error names file, line, column, key and what was expected.

mod gate;
mod log;
mod node;
mod node_libvirt;
mod node_openstack;
mod run;
mod source_gerrit;
mod source_github;
mod tell;
mod testnet;

pub use gate::{GateConfig, LayoutSettings, MergerConfig, SourceConfig};
pub use log::{LogsConfig, LogsStore, S3Config};
pub use node::{NodeConfig, ProviderKind};
pub use run::{RunConfig, SecretConfig};

use crate::broker::{
    self, BrokerOptions, CONNECTIONS_MAX, GEARMAN_PORT, Keepalive, StatsdTarget, TlsFiles,
};
use crate::lockenv::LockenvOptions;
use crate::testnet::TestnetConfig;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_core::broker::Settings;
use toci_core::lease::Policy;
use toci_edge::tell::smtp::SmtpConfig;
use toci_edge::tell::webhook::WebhookConfig;
use toci_wire::settings::{SettingsError, SettingsText, Wrong};

/// Largest settings file, in bytes.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// Where state lies when nothing else is said.
const STATE_DEFAULT: &str = "/var/lib/toci";
/// Port of the API.
const API_PORT: u16 = 8080;
/// Probes of silent Gearman connections: a lockenv client whose machine was deleted sends no FIN and must be noticed
/// within 15 s all the same (origin.md 2.1 tells what two hours did).
const GEARMAN_KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(5), interval: Duration::from_secs(3), count: 3 };
/// Connections to the API over TCP at most, unless configured otherwise.
const API_CONNECTIONS_MAX: usize = 10_000;

/// Settings from a command line; they win over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Folder of everything the server keeps.
    pub state: Option<PathBuf>,
    /// Address of the API.
    pub listen: Option<SocketAddr>,
    /// Unix socket of the API.
    pub socket: Option<PathBuf>,
    /// Address of the Gearman broker.
    pub gearman: Option<SocketAddr>,
}

/// All settings, with defaults filled in.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Folder of everything the server keeps.
    pub state: PathBuf,
    /// `sqlite:PATH` or `postgres://…`.
    pub database: String,
    /// The API.
    pub api: ApiConfig,
    /// The Gearman broker.
    pub gearman: GearmanConfig,
    /// What leases are decided by.
    pub lease: Policy,
    /// The `lockenv` face; none: not served from here.
    pub lockenv: Option<LockenvOptions>,
    /// Sources, layout, merger; none: leases only.
    pub gate: Option<GateConfig>,
    /// The log archive.
    pub logs: LogsConfig,
    /// Nodes; none: there are no labels.
    pub nodes: Option<NodeConfig>,
    /// How reports go out by mail.
    pub smtp: SmtpConfig,
    /// How reports go out by webhook.
    pub webhook: WebhookConfig,
    /// The run stage.
    pub run: RunConfig,
    /// The test network's ports; none: nobody looks after them.
    pub testnet: Option<TestnetConfig>,
    /// Where all this was read, to read it again.
    pub origin: Origin,
}

/// Where settings were read.
#[derive(Clone, Default)]
pub struct Origin {
    file: Option<PathBuf>,
    flags: Overrides,
    sections: toml::Table,
}

impl std::fmt::Debug for Origin {
    /// The settings themselves are shown where they are used.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Origin")
    }
}

impl Origin {
    /// Reads the settings again. Answers with them the names of the sections that are not as they were.
    pub fn read_again(&self) -> Result<(ServerConfig, Vec<String>), ConfigError> {
        let config = ServerConfig::load(self.file.as_deref(), self.flags.clone())?;
        let (old, new) = (&self.sections, &config.origin.sections);
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
        let changed = changed.cloned().collect();
        Ok((config, changed))
    }
}

/// Settings of the API.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// TCP addresses.
    pub listen: Vec<SocketAddr>,
    /// Unix socket, made with mode 0600.
    pub socket: PathBuf,
    /// TLS on the TCP addresses; plain HTTP without.
    pub tls: Option<TlsPair>,
    /// TCP connections at most. The unix socket has its own few, so that an operator always gets in.
    pub connections_max: usize,
}

/// The server's certificate, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsPair {
    /// Its certificate chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Settings of the broker.
#[derive(Clone, Debug)]
pub struct GearmanConfig {
    /// What the broker is started with, except the ACL, which is read at the start.
    pub options: BrokerOptions,
    /// ACL file in geard's format.
    pub acl: Option<PathBuf>,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read settings {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error(transparent)]
    Bad(#[from] SettingsError),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    state: Option<PathBuf>,
    database: Option<String>,
    api: ApiFile,
    gearman: GearmanFile,
    lease: LeaseFile,
    lockenv: LockenvFile,
    layout: Option<gate::LayoutFile>,
    /// They are read by [`gate::sources`].
    source: Vec<IgnoredAny>,
    merger: gate::MergerFile,
    logs: log::LogsFile,
    nodes: node::NodesFile,
    label: Vec<node::LabelFile>,
    provider: Vec<node::ProviderFile>,
    image: Vec<node_libvirt::ImageFile>,
    smtp: tell::SmtpFile,
    webhook: tell::WebhookFile,
    run: run::RunFile,
    secret: Vec<run::SecretFile>,
    testnet: Option<testnet::TestnetFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LockenvFile {
    enabled: Option<bool>,
    callback_wait_s: Option<u64>,
    callback_grace_s: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ApiFile {
    listen: Option<Vec<SocketAddr>>,
    socket: Option<PathBuf>,
    tls: Option<TlsPair>,
    connections_max: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GearmanFile {
    listen: Option<Vec<SocketAddr>>,
    tls: Option<GearmanTls>,
    acl: Option<PathBuf>,
    statsd: Option<String>,
    statsd_prefix: Option<String>,
    keepalive: Option<bool>,
    connections_max: Option<usize>,
    dialect: Option<Dialect>,
    choices: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Dialect {
    Geard,
    Gearmand,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GearmanTls {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LeaseFile {
    default_s: Option<u64>,
    max_s: Option<u64>,
    heartbeat_s: Option<u64>,
    lost_after_s: Option<u64>,
    grant_ack_limit_s: Option<u64>,
    reset_limit_s: Option<u64>,
    queue_max: Option<usize>,
    count_max: Option<u32>,
    ageing_per_point_s: Option<u64>,
    fair_step_s: Option<u64>,
    hold_max_s: Option<u64>,
    hold_budget_s: Option<u64>,
    hold_refill_s: Option<u64>,
    strikes_max: Option<u32>,
    impossible_grace_s: Option<u64>,
    report_every_s: Option<u64>,
}

impl ServerConfig {
    /// Reads `file`, if there is one, and lets `flags` win over it.
    pub fn load(file: Option<&Path>, flags: Overrides) -> Result<ServerConfig, ConfigError> {
        let (name, text) = match file {
            Some(path) => (path.display().to_string(), read(path)?),
            None => ("the command line".to_owned(), String::new()),
        };
        let text = SettingsText::new(&name, &text);
        let parsed: File = text.read()?;
        let sources = gate::sources(&text)?;
        let origin =
            Origin { file: file.map(Path::to_owned), flags: flags.clone(), sections: text.read()? };
        let config = filled_in(parsed, sources, flags).map_err(|wrong| text.refuse(&wrong))?;
        Ok(ServerConfig { origin, ..config })
    }
}

impl LayoutSettings {
    /// Reads them from a server's settings, of which nothing else is looked at but its form; none: it has no `[layout]`.
    pub fn load(path: &Path) -> Result<Option<LayoutSettings>, ConfigError> {
        let (name, text) = (path.display().to_string(), read(path)?);
        let text = SettingsText::new(&name, &text);
        let File { layout, .. } = text.read()?;
        let sources = gate::sources(&text)?;
        Ok(gate::layout_settings(layout, &sources).map_err(|wrong| text.refuse(&wrong))?)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read;
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(FILE_MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn filled_in(
    file: File,
    sources: Vec<gate::SourceFile>,
    flags: Overrides,
) -> Result<ServerConfig, Wrong> {
    let state = flags.state.or(file.state).unwrap_or_else(|| PathBuf::from(STATE_DEFAULT));
    let database =
        file.database.unwrap_or_else(|| format!("sqlite:{}", state.join("toci.db").display()));
    let local = |port| vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    let api = ApiConfig {
        listen: flags
            .listen
            .map(|address| vec![address])
            .or(file.api.listen)
            .unwrap_or_else(|| local(API_PORT)),
        socket: flags.socket.or(file.api.socket).unwrap_or_else(|| state.join("toci.sock")),
        tls: file.api.tls,
        connections_max: file.api.connections_max.unwrap_or(API_CONNECTIONS_MAX),
    };
    if api.connections_max == 0 {
        return Err(Wrong::at("api.connections_max", "it is 0: use at least 1"));
    }
    let gearman = gearman(file.gearman, flags.gearman).map_err(|wrong| wrong.below("gearman"))?;
    let lease = policy(&file.lease).map_err(|wrong| wrong.below("lease"))?;
    let gate = gate::filled_in(&state, file.layout, sources, file.merger)?;
    let lockenv = file.lockenv.enabled.unwrap_or(true).then(|| lockenv(&file.lockenv));
    let around = log::Surroundings { state: &state, listen: &api.listen, tls: api.tls.is_some() };
    let logs = log::filled_in(file.logs, &around).map_err(|wrong| wrong.below("logs"))?;
    let nodes = node::NodeFiles {
        nodes: file.nodes,
        labels: file.label,
        providers: file.provider,
        images: file.image,
    };
    let nodes = node::filled_in(nodes, &state)?;
    let smtp = tell::smtp(file.smtp).map_err(|wrong| wrong.below("smtp"))?;
    let webhook = tell::webhook(file.webhook).map_err(|wrong| wrong.below("webhook"))?;
    let run = run::filled_in(&state, &around.base_url(), file.run, file.secret)?;
    let testnet = file.testnet.map(testnet::filled_in).transpose();
    let testnet = testnet.map_err(|wrong| wrong.below("testnet"))?;
    Ok(ServerConfig {
        state,
        database,
        api,
        gearman,
        lease,
        lockenv,
        gate,
        logs,
        nodes,
        smtp,
        webhook,
        run,
        testnet,
        origin: Origin::default(),
    })
}

fn lockenv(file: &LockenvFile) -> LockenvOptions {
    let usual = LockenvOptions::default();
    LockenvOptions {
        callback_wait: file.callback_wait_s.map_or(usual.callback_wait, Duration::from_secs),
        callback_grace: file.callback_grace_s.map_or(usual.callback_grace, Duration::from_secs),
    }
}

fn gearman(file: GearmanFile, flag: Option<SocketAddr>) -> Result<GearmanConfig, Wrong> {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, GEARMAN_PORT));
    let mut settings = match file.dialect.unwrap_or(Dialect::Geard) {
        Dialect::Geard => Settings::geard(),
        Dialect::Gearmand => Settings::gearmand(&broker::host_name()),
    };
    // Inside the server the broker ends with the server, not by an admin's word.
    settings.choose("shutdown", "nobody").map_err(|e| e.to_string())?;
    for (key, value) in &file.choices {
        let wrong = |e: &dyn std::error::Error| Wrong::from(e.to_string()).below(key);
        settings.choose(key, value).map_err(|e| wrong(&e).below("choices"))?;
    }
    let mut options = BrokerOptions::new(local);
    options.listen =
        flag.map(|address| vec![address]).or(file.listen).unwrap_or_else(|| vec![local]);
    options.settings = settings;
    options.tls =
        file.tls.map(|tls| TlsFiles { ca: tls.ca, certificate: tls.certificate, key: tls.key });
    options.keepalive = file.keepalive.unwrap_or(true).then_some(GEARMAN_KEEPALIVE);
    options.statsd = file
        .statsd
        .map(|address| StatsdTarget { address, prefix: file.statsd_prefix.unwrap_or_default() });
    options.connections_max = file.connections_max.unwrap_or(CONNECTIONS_MAX);
    if options.connections_max == 0 {
        return Err(Wrong::at("connections_max", "it is 0: use at least 1"));
    }
    Ok(GearmanConfig { options, acl: file.acl })
}

fn policy(file: &LeaseFile) -> Result<Policy, Wrong> {
    let usual = Policy::default();
    let seconds = |given: Option<u64>, usual: Duration| given.map_or(usual, Duration::from_secs);
    let policy = Policy {
        lease_default: seconds(file.default_s, usual.lease_default),
        lease_max: seconds(file.max_s, usual.lease_max),
        heartbeat: seconds(file.heartbeat_s, usual.heartbeat),
        lost_after: seconds(file.lost_after_s, usual.lost_after),
        grant_ack_limit: seconds(file.grant_ack_limit_s, usual.grant_ack_limit),
        reset_limit: seconds(file.reset_limit_s, usual.reset_limit),
        queue_max: file.queue_max.unwrap_or(usual.queue_max),
        count_max: file.count_max.unwrap_or(usual.count_max),
        ageing_per_point: seconds(file.ageing_per_point_s, usual.ageing_per_point),
        fair_step: seconds(file.fair_step_s, usual.fair_step),
        hold_max: seconds(file.hold_max_s, usual.hold_max),
        hold_budget: seconds(file.hold_budget_s, usual.hold_budget),
        hold_refill: seconds(file.hold_refill_s, usual.hold_refill),
        strikes_max: file.strikes_max.unwrap_or(usual.strikes_max),
        impossible_grace: seconds(file.impossible_grace_s, usual.impossible_grace),
        ended_keep: usual.ended_keep,
        report_every: seconds(file.report_every_s, usual.report_every),
    };
    for (name, value) in [
        ("default_s", policy.lease_default),
        ("heartbeat_s", policy.heartbeat),
        ("grant_ack_limit_s", policy.grant_ack_limit),
        ("reset_limit_s", policy.reset_limit),
        ("hold_refill_s", policy.hold_refill),
        ("report_every_s", policy.report_every),
    ] {
        if value.is_zero() {
            return Err(Wrong::at(name, "it is 0: use at least 1 second"));
        }
    }
    if policy.lease_default > policy.lease_max {
        return Err(Wrong::at("default_s", "it is more than max_s"));
    }
    if policy.lost_after < 2 * policy.heartbeat {
        return Err(Wrong::at(
            "lost_after_s",
            "it is less than twice heartbeat_s: one late heartbeat would end a lease",
        ));
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<ServerConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("toci.toml");
        std::fs::write(&path, text).unwrap();
        ServerConfig::load(Some(&path), Overrides::default())
            .map_err(|e| e.to_string().replace(&path.display().to_string(), "toci.toml"))
    }

    #[test]
    fn defaults_flags_and_file() {
        let config = ServerConfig::load(None, Overrides::default()).unwrap();
        assert_eq!(config.state, Path::new("/var/lib/toci"));
        assert_eq!(config.database, "sqlite:/var/lib/toci/toci.db");
        assert_eq!(config.api.socket, Path::new("/var/lib/toci/toci.sock"));
        let config = load(
            "state = \"/s\"\n[api]\nlisten = [\"[::]:1\"]\n[lease]\nmax_s = 20000\n[gearman.choices]\nexceptions = \"when-asked\"\n",
        )
        .unwrap();
        assert_eq!(config.api.listen, ["[::]:1".parse().unwrap()]);
        assert_eq!(config.lease.lease_max, Duration::from_secs(20000));
        let flags = Overrides { state: Some("/t".into()), ..Overrides::default() };
        assert_eq!(ServerConfig::load(None, flags).unwrap().database, "sqlite:/t/toci.db");
    }

    #[test]
    fn the_documented_settings_are_the_defaults() {
        let page = include_str!("../../../docs/server.md");
        let text = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let documented = load(text).unwrap();
        let usual = ServerConfig::load(None, Overrides::default()).unwrap();
        assert_eq!(format!("{documented:?}"), format!("{usual:?}"));
        // What is only shown as a comment can be used too.
        load(&text.replace("\n# ", "\n")).unwrap();
    }

    #[test]
    fn the_documented_gate_can_be_used() {
        let page = include_str!("../../../docs/server.md");
        let text = page.split("```toml\n").nth(2).unwrap().split("```").next().unwrap();
        let folder = tempfile::tempdir().unwrap();
        for secret in ["gerrit_key", "gerrit_known_hosts", "github-token", "github-hook"] {
            std::fs::write(folder.path().join(secret), "hush\n").unwrap();
        }
        std::fs::write(folder.path().join("webhook-secret"), "hush\n").unwrap();
        let text = text.replace("/etc/toci", &folder.path().display().to_string());
        let config = load(&text).unwrap();
        let gate = config.gate.unwrap();
        let names: Vec<&str> = gate.sources.iter().map(|s| s.name().as_str()).collect();
        assert_eq!(names, ["local", "gerrit", "github"]);
        assert!(config.nodes.is_some());
    }

    #[test]
    fn errors_name_the_place_and_what_was_expected() {
        for (text, expected) in [
            ("[lease]\nmax = 3\n", "toci.toml:2:1: lease.max: unknown field `max`"),
            ("[api]\nlisten = [\"localhost\"]\n", "toci.toml:2:11: api.listen[0]: "),
            (
                "state = 5\n",
                "toci.toml:1:9: state: invalid type: integer `5`, expected path string",
            ),
            ("state\n", "toci.toml:1:6: "),
            ("\n[api]\nconnections_max = 0\n", "toci.toml:3:19: api.connections_max: it is 0"),
            ("[lease]\nheartbeat_s = 0\n", "toci.toml:2:15: lease.heartbeat_s: it is 0"),
            (
                "[lease]\nheartbeat_s = 10\n",
                "toci.toml:1:1: lease.lost_after_s: it is less than twice heartbeat_s",
            ),
            (
                "[gearman.choices]\nx = \"y\"\n",
                "toci.toml:2:5: gearman.choices.x: x=y is no setting",
            ),
            (
                "[gearman]\ndialect = \"x\"\n",
                "toci.toml:2:11: gearman.dialect: unknown variant `x`, expected",
            ),
            ("[logs]\nstore = \"x\"\n", "toci.toml:2:9: logs.store: it is `x`: use folder:PATH"),
            (
                "[nodes]\npause_min_s = \"1\"\n",
                "toci.toml:2:15: nodes.pause_min_s: invalid type: string",
            ),
            (
                "[[label]]\nname = \"a\"\n[nodes]\nrecheck_s = 0\n",
                "toci.toml:1:1: label[a]: no [[provider]]",
            ),
            (
                "[[source]]\nname = \"g\"\nkind = \"git\"\nroot = 1\n",
                "toci.toml:4:8: source[g].root: invalid type",
            ),
            (
                "[[source]]\nname = \"g\"\nkind = \"hg\"\n",
                "toci.toml:3:8: source[g].kind: `kind` is one of",
            ),
            ("[[source]]\nname = \"g\"\nkind = \"git\"\n", "toci.toml: layout: it is missing"),
            ("[run]\nbase = \"x\"\n", "toci.toml:2:8: run.base: `x` must be"),
            ("[smtp]\nuser = \"u\"\n", "toci.toml:1:1: smtp.password_file: "),
        ] {
            let error = load(text).expect_err(text);
            assert!(error.starts_with(expected), "{text:?} gave {error:?}");
        }
        let missing = ServerConfig::load(Some(Path::new("/nonexistent")), Overrides::default());
        assert!(matches!(missing, Err(ConfigError::Read { .. })));
    }
}
