//! `geard` by its 2014 name: the flags of origin.md 1.8 and later ones, and the broker on its own.
//! What is new has a long flag that geard did not know.

use super::daemon::{PidFile, daemonise};
use super::{
    AclFileError, BrokerError, BrokerOptions, GEARMAN_PORT, Keepalive, StatsdTarget, TlsFiles,
    read_acl_file, start,
};
use super::{geard_log, sockets};
use clap::{Parser, ValueEnum};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use toci_core::broker::Settings;
use toci_core::chain::Chain;
use toci_core::refused::Refused;
use tokio::signal::unix::{SignalKind, signal};

/// Which of the two servers is followed where they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dialect {
    /// As geard, without its defects.
    Geard,
    /// As gearmand 1.1.20, without its defects.
    Gearmand,
}

/// Gearman server.
///
/// Set the environment variables STATSD_HOST, STATSD_PORT (8125) and STATSD_PREFIX to have figures
/// sent to statsd.
#[derive(Debug, Parser)]
#[command(name = "geard", disable_version_flag = true, infer_long_args = true)]
struct Arguments {
    /// do not run as a daemon
    #[arg(short = 'd')]
    nodaemon: bool,
    /// port on which to listen
    #[arg(short = 'p', default_value_t = GEARMAN_PORT)]
    port: u16,
    /// IP address or domain name to listen on [default: all]
    #[arg(long)]
    listen_address: Option<String>,
    /// logging config file
    #[arg(long)]
    log_config: Option<PathBuf>,
    /// PID file
    #[arg(long, default_value = "/var/run/geard/geard.pid")]
    pidfile: PathBuf,
    /// path to CA certificate
    #[arg(long, value_name = "PATH")]
    ssl_ca: Option<PathBuf>,
    /// path to SSL public certificate
    #[arg(long, value_name = "PATH")]
    ssl_cert: Option<PathBuf>,
    /// path to SSL private key
    #[arg(long, value_name = "PATH")]
    ssl_key: Option<PathBuf>,
    /// path to ACL file
    #[arg(long, value_name = "PATH")]
    acl: Option<PathBuf>,
    /// enable TCP keepalives in socket (they are always on)
    #[arg(long)]
    keepalive: bool,
    /// TCP keepalive idle time, in seconds
    #[arg(long, default_value_t = 7200)]
    keepalive_idle: u64,
    /// TCP keepalive probe interval, in seconds
    #[arg(long, default_value_t = 75)]
    keepalive_interval: u64,
    /// TCP keepalive probes count
    #[arg(long, default_value_t = 9)]
    keepalive_count: u32,
    /// show version
    #[arg(long)]
    version: bool,
    /// whose behaviour to follow where geard and gearmand differ
    #[arg(long, value_enum, default_value = "geard")]
    dialect: Dialect,
    /// one behaviour or limit, e.g. worker-loss=requeue; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// connections at most
    #[arg(long, default_value_t = super::CONNECTIONS_MAX)]
    max_connections: usize,
    /// largest packet, in bytes
    #[arg(long, default_value_t = toci_wire::gearman::PACKET_MAX_BYTES)]
    max_packet: usize,
}

/// Why geard did not start.
#[derive(Debug, thiserror::Error)]
enum GeardError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Acl(#[from] AclFileError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Daemon(#[from] super::daemon::DaemonError),
    #[error(transparent)]
    Log(#[from] geard_log::LogError),
    #[error("resolving the listen address {address} failed")]
    Resolve {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("waiting for signals failed")]
    Signals(#[source] std::io::Error),
}

/// Run as `geard` with these arguments, the program's name first. Call it before any thread is
/// started, as it may fork. Exit code 0 after a signal or `shutdown`, 1 when it cannot start or
/// fails, 2 for wrong arguments.
pub fn geard_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nowhere is left to complain when this fails.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if arguments.version {
        say(std::io::stdout(), &format!("Gear version: {}", env!("CARGO_PKG_VERSION")));
        return ExitCode::SUCCESS;
    }
    match serve(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("geard: {}", Chain(&error));
            tracing::error!("{text}");
            say(std::io::stderr(), &text);
            ExitCode::FAILURE
        }
    }
}

fn say(mut to: impl std::io::Write, text: &str) {
    // Nowhere is left to complain when this fails.
    let _ = writeln!(to, "{text}");
}

fn serve(arguments: &Arguments) -> Result<(), GeardError> {
    let mut options = options(arguments)?;
    // A daemon cannot complain any more, so what can be known now is tried now.
    for address in &options.listen {
        drop(sockets::listen(*address)?);
    }
    if let Some(tls) = &options.tls {
        super::tls::server_config(tls).map_err(BrokerError::Tls)?;
    }
    let log = geard_log::destination(arguments.log_config.as_deref(), arguments.nodaemon)?;
    let pid_file = if arguments.nodaemon {
        None
    } else {
        let pid_file = PidFile::lock(&arguments.pidfile)?;
        daemonise()?;
        pid_file.write_pid()?;
        Some(pid_file)
    };
    geard_log::start(log);
    options.settings.pid = std::process::id();
    let served = run(options);
    drop(pid_file);
    served
}

fn options(arguments: &Arguments) -> Result<BrokerOptions, GeardError> {
    let mut settings = match arguments.dialect {
        Dialect::Geard => Settings::geard(),
        Dialect::Gearmand => Settings::gearmand(&host_name()),
    };
    for choice in &arguments.set {
        let (key, value) = choice.split_once('=').unwrap_or((choice, ""));
        settings.choose(key, value)?;
    }
    settings.first_job = first_job(SystemTime::now());
    let mut options = BrokerOptions::new(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0));
    options.listen = vec![listen_address(arguments.listen_address.as_deref(), arguments.port)?];
    options.settings = settings;
    options.acl = arguments.acl.as_deref().map(read_acl_file).transpose()?;
    options.tls = tls_files(arguments)?;
    options.keepalive = Some(Keepalive {
        idle: Duration::from_secs(arguments.keepalive_idle),
        interval: Duration::from_secs(arguments.keepalive_interval),
        count: arguments.keepalive_count,
    });
    options.statsd = statsd(|name| std::env::var(name).ok());
    options.connections_max = arguments.max_connections;
    options.packet_max_bytes = arguments.max_packet;
    Ok(options)
}

/// Numbers of jobs begin at the second of the start times 2^20, so that no handle of an earlier
/// run is given again: a worker that outlived a restart cannot end another's job.
pub(crate) fn first_job(now: SystemTime) -> u64 {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    (seconds << 20) + 1
}

pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}

/// All three files or none: geard started without TLS when one was missing, which nobody wants.
fn tls_files(arguments: &Arguments) -> Result<Option<TlsFiles>, Refused> {
    match (&arguments.ssl_ca, &arguments.ssl_cert, &arguments.ssl_key) {
        (None, None, None) => Ok(None),
        (Some(ca), Some(certificate), Some(key)) => Ok(Some(TlsFiles {
            ca: ca.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
        })),
        _ => Err(Refused::new(
            "incomplete_tls",
            "TLS needs a CA, a certificate and a key",
            "give all of --ssl-ca, --ssl-cert and --ssl-key, or none",
        )),
    }
}

/// Without an address: all, IPv4 and IPv6, or only IPv4 where the system has no IPv6.
fn listen_address(name: Option<&str>, port: u16) -> Result<SocketAddr, GeardError> {
    let Some(name) = name else {
        let six = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
        return Ok(if sockets::listen(any).is_ok() {
            six
        } else {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
        });
    };
    let failed = |source| GeardError::Resolve { address: name.to_owned(), source };
    (name, port)
        .to_socket_addrs()
        .map_err(failed)?
        .next()
        .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))
}

fn statsd(variable: impl Fn(&str) -> Option<String>) -> Option<StatsdTarget> {
    let host = variable("STATSD_HOST").filter(|h| !h.is_empty())?;
    let port = variable("STATSD_PORT").unwrap_or_else(|| "8125".to_owned());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let prefix = variable("STATSD_PREFIX").unwrap_or_default();
    Some(StatsdTarget { address: format!("{host}:{port}"), prefix })
}

/// Serve until SIGTERM, SIGINT, SIGUSR1 or `shutdown`.
fn run(options: BrokerOptions) -> Result<(), GeardError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(GeardError::Signals)?;
    runtime.block_on(async {
        let mut signals = Vec::new();
        for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::user_defined1()]
        {
            signals.push(signal(kind).map_err(GeardError::Signals)?);
        }
        let server = start(options)?;
        for address in server.addresses() {
            tracing::info!(%address, "listening for Gearman");
        }
        let handle = server.handle();
        let any = futures_util::future::select_all(signals.iter_mut().map(|s| Box::pin(s.recv())));
        let stopper = async {
            any.await;
            handle.stop();
            std::future::pending::<BrokerError>().await
        };
        let joined = tokio::task::spawn_blocking(move || server.join());
        tokio::select! {
            ended = joined => Ok(ended.map_err(|_| BrokerError::Panicked)??),
            never = stopper => Err(never.into()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Arguments {
        Arguments::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn geards_flags_are_understood() {
        let a = parse(
            "geard -d -p 4731 --listen-address 127.0.0.1 --keepalive --keepalive-idle 1200 \
             --keepalive-interval 60 --keepalive-count 10 --set worker-loss=requeue",
        );
        assert!(a.nodaemon && a.keepalive && a.port == 4731);
        let options = options(&a).unwrap();
        assert_eq!(options.listen, ["127.0.0.1:4731".parse().unwrap()]);
        let keepalive = options.keepalive.unwrap();
        assert_eq!((keepalive.idle.as_secs(), keepalive.interval.as_secs()), (1200, 60));
        assert_eq!(keepalive.count, 10);
        assert_eq!(parse("geard").pidfile, PathBuf::from("/var/run/geard/geard.pid"));
        assert_eq!(parse("geard -p4000").port, 4000);
        assert_eq!(parse("geard --listen 127.0.0.2").listen_address.as_deref(), Some("127.0.0.2"));
    }

    #[test]
    fn half_a_tls_configuration_is_refused() {
        assert!(options(&parse("geard --ssl-ca x")).is_err());
        assert!(options(&parse("geard --set colour=red")).is_err());
    }

    #[test]
    fn statsd_comes_from_the_environment() {
        let some = |name: &str| match name {
            "STATSD_HOST" => Some("127.0.0.1".to_owned()),
            "STATSD_PREFIX" => Some("zuul.geard".to_owned()),
            _ => None,
        };
        let target = statsd(some).unwrap();
        assert_eq!(target.address, "127.0.0.1:8125");
        assert_eq!(target.prefix, "zuul.geard");
        assert_eq!(statsd(|_| None), None);
    }

    #[test]
    fn handles_of_two_runs_differ() {
        let first = first_job(SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
        let second = first_job(SystemTime::UNIX_EPOCH + Duration::from_secs(1001));
        assert!(second - first > 1_000_000, "a million jobs a second before numbers meet");
    }
}
