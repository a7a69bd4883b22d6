//! `geard` as a process: flags, daemon, pid file, log, signals. Without the test harness, as a
//! daemon must fork before any thread is started: this program runs itself as geard.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test: it fails by panicking")]

mod gearman_support;

use gearman_support::{Peer, Process, wait_for};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

/// Set for the copy of this program that is geard.
const AS_GEARD: &str = "TOCI_TEST_AS_GEARD";

fn main() -> ExitCode {
    if std::env::var_os(AS_GEARD).is_some() {
        return toci_server::broker::geard_main(std::env::args_os());
    }
    let tests: [(&str, fn()); 3] = [
        ("wrong_arguments_are_told", wrong_arguments_are_told),
        ("in_the_foreground_it_ends_by_signal_and_shutdown", foreground),
        ("a_daemon_has_a_pid_file_and_a_log", daemon),
    ];
    println!("\nrunning {} tests", tests.len());
    for (name, test) in tests {
        println!("test {name} ...");
        test();
    }
    println!(
        "\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        tests.len()
    );
    ExitCode::SUCCESS
}

fn geard(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(AS_GEARD, "1").env_remove("STATSD_HOST").args(arguments);
    command.stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn wait_listening(address: SocketAddr) {
    wait_for("geard to listen", || TcpStream::connect(address).is_ok(), |up| *up);
}

fn wrong_arguments_are_told() {
    let run = |arguments: &[&str]| geard(arguments).output().unwrap();
    let version = run(&["--version"]);
    assert!(version.status.success() && said(&version).starts_with("Gear version: "));
    for (arguments, code, text) in [
        (&["-p", "x"][..], 2, "-p"),
        (&["-d", "--acl", "/nonexistent/acl"], 1, "/nonexistent/acl"),
        (&["-d", "--ssl-ca", "ca.pem"], 1, "--ssl-cert"),
        (&["-d", "--set", "cancel=maybe"], 1, "queued, any"),
        (&["-d", "--log-config", "/nonexistent/log"], 1, "Unable to read logging config file"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(text), "{arguments:?}: {}", said(&output));
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(&["--listen-address", "127.0.0.1", "-p", &port]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("listening for Gearman at 127.0.0.1"), "{}", said(&output));
}

fn foreground() {
    for end in ["-TERM", "-INT", "-USR1", "shutdown"] {
        let address = free_address();
        let port = address.port().to_string();
        let quiet = ["-d", "--listen-address", "127.0.0.1", "-p", &port];
        let mut running = Process(geard(&quiet).stderr(Stdio::null()).spawn().unwrap());
        wait_listening(address);
        let pid = running.0.id().to_string();
        let mut peer = Peer::connect(address);
        assert_eq!(peer.line("getpid"), format!("OK {pid}"));
        if end == "shutdown" {
            assert_eq!(peer.line("shutdown"), "OK");
        } else {
            assert!(Command::new("kill").args([end, &pid]).status().unwrap().success());
        }
        let status = wait_for("the end", || running.0.try_wait().unwrap(), Option::is_some);
        assert_eq!(status.and_then(|s| s.code()), Some(0), "{end}");
    }
}

fn read_pid(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|t| !t.is_empty())
}

fn daemon() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { directory.path().join(name) };
    let (pid_file, log) = (path("geard.pid"), path("geard.log"));
    let config = format!("[handler_f]\nclass=FileHandler\nargs=('{}',)\n", log.display());
    std::fs::write(path("log.ini"), config).unwrap();
    // A file that a killed geard has left hinders nobody.
    std::fs::write(&pid_file, "4194304\n").unwrap();
    let address = free_address();
    let port = address.port().to_string();
    let log_config = path("log.ini").display().to_string();
    let pid_path = pid_file.display().to_string();
    let status = geard(&["--listen-address", "127.0.0.1", "-p", &port, "--pidfile", &pid_path])
        .args(["--log-config", &log_config])
        .status()
        .unwrap();
    assert!(status.success(), "the foreground process ends at once");
    wait_listening(address);
    let pid = wait_for(
        "the pid file",
        || read_pid(&pid_file),
        |p| p.as_deref() != Some("4194304") && p.is_some(),
    );
    let pid = pid.unwrap();
    assert_eq!(Peer::connect(address).line("getpid"), format!("OK {pid}"));
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    wait_for("the pid file to go", || pid_file.exists(), |there| !there);
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("listening for Gearman"), "{logged}");
}
