//! The broker with the peers that people have: PyPI's gear, Debian's gearman, gearadmin and Perl.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gearman_support;

use gearman_support::{Process, Served, output, program, python_with_gear, wait_for};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use toci_core::broker::Settings;
use toci_server::broker::{BrokerOptions, TlsFiles, parse_acl, start};

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

#[test]
fn gear_of_pypi_is_content() {
    let served = Served::start(|_| {});
    let mut python = Command::new(python_with_gear());
    let said = output(python.arg(script("gear_peer.py")).arg(served.port()), "");
    assert_eq!(said, "gear is content\n");
}

#[test]
fn perl_is_content_with_both_dialects() {
    for settings in [Settings::geard(), Settings::gearmand("h")] {
        let served = Served::start(|o| o.settings = settings);
        let found = program("perl", "perl").args(["-e", "use Gearman::Client"]).status().unwrap();
        assert!(
            found.success(),
            "Gearman::Client is missing: apt-get install libgearman-client-perl"
        );
        let mut perl = program("perl", "perl");
        let said = output(perl.arg(script("perl_peer.pl")).arg(served.port()), "");
        assert_eq!(said, "perl is content\n");
    }
}

/// Debian's `gearman` as worker: every job is a line to `rev`.
fn gearman_worker(served: &Served, function: &str) -> Process {
    let mut command = program("gearman", "gearman-tools");
    let child = command
        .args(["-h", "127.0.0.1", "-p", &served.port(), "-w", "-f", function, "--", "rev"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let worker = Process(child);
    let registered = format!("{function}\t0\t0\t1");
    let mut peer = served.peer();
    wait_for("the worker", || peer.list("status"), |s| s.contains(&registered));
    worker
}

fn gearman(served: &Served, arguments: &[&str], input: &str) -> String {
    let mut command = program("gearman", "gearman-tools");
    output(command.args(["-h", "127.0.0.1", "-p", &served.port()]).args(arguments), input)
}

fn gearadmin(served: &Served, arguments: &[&str]) -> String {
    let mut command = program("gearadmin", "gearman-tools");
    output(command.args(["-h", "127.0.0.1", "-p", &served.port()]).args(arguments), "")
}

#[test]
fn debians_gearman_is_content_with_both_dialects() {
    for settings in [Settings::geard(), Settings::gearmand("h")] {
        let served = Served::start(|o| o.settings = settings);
        let worker = gearman_worker(&served, "reverse");
        assert_eq!(gearman(&served, &["-f", "reverse"], "olleh\n"), "hello\n");
        assert_eq!(gearman(&served, &["-f", "reverse", "-I"], "hgih\n"), "high\n");
        assert_eq!(gearman(&served, &["-f", "reverse", "-L", "-u", "x"], "wol\n"), "low\n");
        gearman(&served, &["-f", "reverse", "-b"], "dnuorgkcab\n");
        drop(worker);
    }
}

#[test]
fn debians_gearadmin_understands_every_answer() {
    let served = Served::start(|_| {});
    let mut client = served.peer();
    let handle = client.submit("queued", b"x");
    assert_eq!(gearadmin(&served, &["--status"]), "queued\t1\t0\t0\n.\n");
    assert_eq!(gearadmin(&served, &["--priority-status"]), "queued\t0\t1\t0\t0\n.\n");
    assert!(gearadmin(&served, &["--workers"]).contains(" 127.0.0.1 - :\n"));
    assert_eq!(gearadmin(&served, &["--show-jobs"]), format!("{handle}\t0\t0\t1\n.\n"));
    assert_eq!(gearadmin(&served, &["--show-unique-jobs"]), ".\n");
    let version = format!("{}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(gearadmin(&served, &["--server-version"]), version);
    assert_eq!(gearadmin(&served, &["--server-verbose"]), "NOTICE\n");
    assert!(gearadmin(&served, &["--getpid"]).trim().parse::<u32>().is_ok());
    assert_eq!(gearadmin(&served, &["--create-function=new"]), "OK\n");
    assert_eq!(gearadmin(&served, &["--drop-function=new"]), "OK\n");
    assert_eq!(gearadmin(&served, &[&format!("--cancel-job={handle}")]), "OK\n");
    assert_eq!(gearadmin(&served, &["--status"]), "queued\t0\t0\t0\n.\n");
    assert_eq!(served.peer().line("shutdown"), "OK");
    served.join();
}

/// A CA, and certificates of it by common name, as PEM files.
struct Authority {
    directory: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { directory, issuer }
    }

    fn issue(&self, name: &str) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |suffix: &str| self.directory.path().join(format!("{name}.{suffix}"));
        std::fs::write(path("pem"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        TlsFiles { ca: self.ca(), certificate: path("pem"), key: path("key") }
    }

    fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }
}

fn gear_through_tls(served: &Served, files: &TlsFiles) -> Command {
    let mut python = Command::new(python_with_gear());
    python.arg(script("gear_peer.py")).arg(served.port());
    python.args([&files.ca, &files.certificate, &files.key]);
    python
}

#[test]
fn gear_of_pypi_is_content_through_tls_with_rights_by_name() {
    let authority = Authority::new();
    let (server, client) = (authority.issue("server"), authority.issue("worker one"));
    let acl = parse_acl("[worker one]\nregister=lock\ninvoke=lockenv\n").unwrap();
    let served = Served::start(|o| {
        o.tls = Some(server);
        o.acl = Some(acl);
    });
    // A silent connection and one that speaks no TLS keep nobody out.
    let _silent = served.peer();
    let mut plain = served.peer();
    plain.bytes(b"status\n");
    let said = output(&mut gear_through_tls(&served, &client), "");
    assert_eq!(said, "gear is content\n");
}

/// `openssl s_client` as an admin: what it printed after the handshake.
fn openssl(served: &Served, files: Option<&TlsFiles>, ca: &Path, lines: &str) -> String {
    openssl_with(served, "-tls1_3", files, ca, lines)
}

fn openssl_with(
    served: &Served,
    version: &str,
    files: Option<&TlsFiles>,
    ca: &Path,
    lines: &str,
) -> String {
    let mut command = program("openssl", "openssl");
    command.args(["s_client", "-quiet", "-no_ign_eof", "-connect", &served.address.to_string()]);
    command.arg(version);
    command.arg("-CAfile").arg(ca);
    if let Some(files) = files {
        command.arg("-cert").arg(&files.certificate).arg("-key").arg(&files.key);
    }
    let mut child = Process(
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap(),
    );
    // Its end of input would close the connection before the answer; it is kept open until the
    // answers have come, and a connection that is refused ends by itself.
    let mut input = child.0.stdin.take().unwrap();
    let _ = std::io::Write::write_all(&mut input, lines.as_bytes());
    let mut reader = std::io::BufReader::new(child.0.stdout.take().unwrap());
    let mut all = String::new();
    while std::io::BufRead::read_line(&mut reader, &mut all).unwrap() > 0 {
        if all.lines().count() >= lines.lines().count() {
            break;
        }
    }
    all
}

#[test]
fn certificates_decide_who_is_who() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.issue("server");
    let acl = parse_acl("[boss]\ngrant=true\n[worker]\nregister=f\n").unwrap();
    let served = Served::start(|o| {
        o.tls = Some(server);
        o.acl = Some(acl);
    });
    let ca = authority.ca();
    let (boss, worker) = (authority.issue("boss"), authority.issue("worker"));
    assert_eq!(openssl(&served, Some(&boss), &ca, "acl grant invoke worker f\n"), "OK\n");
    let denied = "ERR PERMISSION_DENIED\n";
    assert_eq!(openssl(&served, Some(&worker), &ca, "acl grant invoke worker f\n"), denied);
    assert_eq!(openssl(&served, Some(&worker), &ca, "shutdown\n"), denied);
    assert_eq!(openssl(&served, Some(&worker), &ca, "acl self-revoke register\n"), "OK\n");
    assert_eq!(openssl(&served, None, &ca, "version\n"), "", "without a certificate");
    let other = stranger.issue("boss");
    assert_eq!(openssl(&served, Some(&other), &ca, "version\n"), "", "of another authority");
    let list = openssl(&served, Some(&boss), &ca, "acl list\n\n\n");
    assert!(list.starts_with("boss\tregister=None\tinvoke=None\tgrant=True\nworker\t"), "{list}");
}

/// Certificates as `openssl` makes them by default: those that a CA signs are of version 1.
struct OpensslAuthority(tempfile::TempDir);

impl OpensslAuthority {
    fn new() -> OpensslAuthority {
        let authority = OpensslAuthority(tempfile::tempdir().unwrap());
        authority.self_signed("ca");
        authority
    }

    fn run(&self, arguments: &str) -> String {
        let mut openssl = program("openssl", "openssl");
        openssl.current_dir(self.0.path()).stderr(Stdio::null());
        output(openssl.args(arguments.split(' ')), "")
    }

    fn files(&self, name: &str) -> TlsFiles {
        let path = |name: &str| self.0.path().join(name);
        let (certificate, key) = (path(&format!("{name}.pem")), path(&format!("{name}.key")));
        TlsFiles { ca: path("ca.pem"), certificate, key }
    }

    fn self_signed(&self, name: &str) -> TlsFiles {
        self.run(&format!(
            "req -x509 -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.pem"
        ));
        self.files(name)
    }

    /// `days` may be negative, for one that is no longer good.
    fn issue(&self, name: &str, days: i32) -> TlsFiles {
        self.run(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        self.run(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -set_serial 7 -days {days} -out {name}.pem"
        ));
        let text = self.run(&format!("x509 -noout -text -in {name}.pem"));
        assert!(text.contains("Version: 1 "), "not what this is about: {text}");
        self.files(name)
    }
}

#[test]
fn certificates_that_openssl_makes_by_default_are_as_good_as_others() {
    let (authority, stranger) = (OpensslAuthority::new(), OpensslAuthority::new());
    let (server, boss) = (authority.issue("server", 9), authority.issue("boss", 9));
    let alone = authority.self_signed("alone");
    let ca = authority.files("ca").certificate;
    let both = authority.0.path().join("both.pem");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    std::fs::write(&both, read(&ca) + &read(&alone.certificate)).unwrap();
    let acl = parse_acl("[boss]\ngrant=true\n[alone]\ngrant=true\n").unwrap();
    let served = Served::start(|o| {
        o.tls = Some(TlsFiles { ca: both, ..server });
        o.acl = Some(acl);
    });
    for version in ["-tls1_2", "-tls1_3"] {
        let ask = |files: &TlsFiles| {
            openssl_with(&served, version, Some(files), &ca, "create function f\n")
        };
        assert_eq!(ask(&boss), "OK\n", "{version}");
        assert_eq!(ask(&alone), "OK\n", "{version}: it stands in the CA file itself");
        assert_eq!(ask(&authority.issue("boss", -1)), "", "{version}: expired");
        assert_eq!(ask(&stranger.issue("boss", 9)), "", "{version}: of another CA of that name");
        assert_eq!(ask(&stranger.self_signed("alone")), "", "{version}: not in the CA file");
        authority.issue("boss", 9);
    }
}

#[test]
fn a_server_key_that_does_not_fit_its_certificate_is_told() {
    let authority = OpensslAuthority::new();
    let (one, other) = (authority.issue("one", 9), authority.issue("other", 9));
    let mut options = BrokerOptions::new("127.0.0.1:0".parse().unwrap());
    options.tls = Some(TlsFiles { key: other.key, ..one });
    let error = start(options).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("server certificate cannot be used"), "{source}");
}

/// Python's `unwrap` says that nothing more comes, and waits to hear the same.
#[test]
fn a_tls_connection_ends_with_a_word() {
    let authority = Authority::new();
    let client = authority.issue("client");
    let served = Served::start(|o| o.tls = Some(authority.issue("server")));
    let mut python = Command::new(python_with_gear());
    python.arg(script("tls_goodbye.py")).arg(served.port());
    python.args([&client.ca, &client.certificate, &client.key]);
    assert_eq!(output(&mut python, ""), "a clean end\n");
}
