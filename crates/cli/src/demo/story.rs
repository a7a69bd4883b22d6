//! Inside the lab: starts the parts, leases a TE, runs the deployment, tells what happens.

use super::folder::Folder;
use super::init::{STAY_FAILED, STAY_WELL};
use super::outside::find;
use super::processes::Process;
use super::ready::wait_until_ready;
use super::times::{Times, parse_perf_log};
use crate::args::DemoRun;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::interrupt::Interrupts;
use crate::output;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use toci_client::api::{ApiClient, Endpoint, Token};
use toci_wire::api::{EnrolTokenRequest, Role, TokenRequest};
use tokio::signal::unix::{SignalKind, signal};

/// Test environments of the demo.
const TES: usize = 2;
/// The control plane must serve within this.
const SERVER_LIMIT: Duration = Duration::from_secs(20);
/// Both TEs must be ready within this: daemons, the KVM probe, disks.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// The TE must be clean again within this.
const CLEAN_LIMIT: Duration = Duration::from_secs(60);
/// How long the lease is wanted.
const LEASE_TIMEOUT: &str = "20m";
/// How long the parts may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How long an interrupted deployment has to collect its logs and give its lease back.
const DEPLOYMENT_STOP_LIMIT: Duration = Duration::from_secs(20);
/// How often a starting server is asked whether it serves.
const HEALTH_PERIOD: Duration = Duration::from_millis(50);

/// One TE host in the network of design decision 6, as TOML.
const HOST_CONFIG: &str = include_str!("toci-host.toml.in");

/// The parts that run.
struct Parts {
    server: Process,
    host: Option<Process>,
    deployment: Option<Child>,
}

impl Parts {
    async fn stop(mut self) {
        if let Some(mut deployment) = self.deployment.take() {
            let _ = kill(Pid::from_raw(deployment.id().cast_signed()), Signal::SIGTERM);
            let limit = Instant::now() + DEPLOYMENT_STOP_LIMIT;
            while matches!(deployment.try_wait(), Ok(None)) && Instant::now() < limit {
                tokio::time::sleep(HEALTH_PERIOD).await;
            }
        }
        if let Some(host) = self.host {
            host.stop(STOP_LIMIT).await;
        }
        self.server.stop(STOP_LIMIT).await;
    }

    fn watched(&mut self) -> Vec<&mut Process> {
        [&mut self.server].into_iter().chain(self.host.as_mut()).collect()
    }
}

/// The whole story.
pub(super) async fn run(args: &DemoRun) -> Result<ExitCode> {
    let mut interrupts =
        Interrupts::listen().map_err(|e| CliError::failed("listen for signals", &e))?;
    let folder = Folder::open(&args.state)?;
    let mut times = Times::start(Duration::from_millis(args.prepared_ms));
    times.say(&format!("toci demo; state, images and logs in {}", folder.root().display()));
    let mut parts = Parts { server: start_server(&folder)?, host: None, deployment: None };
    let outcome = tokio::select! {
        outcome = tell(args, &folder, &mut times, &mut parts) => outcome,
        signal = interrupts.next() => Err(interrupted(signal)),
    };
    output::say(&format!("\n{}\n", times.table()));
    let code = match &outcome {
        Ok(code) => {
            output::say(&verdict(*code, &folder));
            *code
        }
        Err(error) => {
            error.print(false);
            let logs = folder.logs();
            output::say(&format!("The demo did not come to its end. Logs: {}", logs.display()));
            error.exit.code()
        }
    };
    if args.keep && outcome.is_ok() {
        output::say(&how_to_go_on(&folder));
        stay_up(code, &folder, &mut interrupts).await?;
        parts.stop().await;
        return Ok(Exit::Ok.into());
    }
    times.say("stopping everything");
    parts.stop().await;
    let cache = folder.cache().display().to_string();
    output::say(&format!("Nothing is left running. Images in {cache} make the next run quick."));
    Ok(ExitCode::from(code))
}

fn interrupted(signal: i32) -> CliError {
    CliError::new(Exit::Signal(u8::try_from(signal).unwrap_or(0)), "interrupted", "")
}

async fn tell(args: &DemoRun, folder: &Folder, times: &mut Times, parts: &mut Parts) -> Result<u8> {
    let began = Instant::now();
    let operator = connect(folder, &mut parts.server).await?;
    times.done("control plane", began);

    let began = Instant::now();
    times.say("starting a sandboxed TE host: own libvirt and Open vSwitch, two test environments");
    parts.host = Some(start_host(folder, &operator).await?);
    wait_until_ready(&operator, TES, READY_LIMIT, times, &mut parts.watched()).await?;
    times.done("test environments ready", began);

    let began = Instant::now();
    times.say("as a client: toci lease run --label devtest -- devtest.sh");
    parts.deployment = Some(start_deployment(args, folder, &operator).await?);
    let code = deployment_code(&mut parts.deployment).await?;
    let perf = folder.logs().join("devtest/devtest_perf.log");
    let stages = parse_perf_log(&std::fs::read_to_string(perf).unwrap_or_default());
    times.done("lease and deployment", began);
    for (stage, seconds) in stages {
        times.part(&stage, seconds);
    }

    let began = Instant::now();
    times.say("the test environment comes back");
    wait_until_ready(&operator, TES, CLEAN_LIMIT, times, &mut parts.watched()).await?;
    times.done("test environment clean again", began);
    Ok(code)
}

fn ourselves() -> Result<PathBuf> {
    std::env::current_exe().map_err(|e| CliError::failed("find this program", &e))
}

fn start_server(folder: &Folder) -> Result<Process> {
    let mut command = Command::new(ourselves()?);
    command
        .arg("server")
        .arg("--state")
        .arg(folder.server())
        .args(["--listen", "0.0.0.0:8080", "--gearman", "0.0.0.0:4730", "--socket"])
        .arg(folder.socket());
    Process::start("the control plane", command, folder.logs().join("server.log"))
}

/// A client with the operator's token, once the server serves.
async fn connect(folder: &Folder, server: &mut Process) -> Result<ApiClient> {
    let until = Instant::now() + SERVER_LIMIT;
    let token_file = folder.server().join("admin.token");
    loop {
        server.check()?;
        if let Ok(token) = Token::from_file(&token_file) {
            let client = ApiClient::new(Endpoint::Unix(folder.socket()), Some(token), None)?;
            match client.health().await {
                Ok(()) => return Ok(client),
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => {}
            }
        } else if Instant::now() > until {
            return Err(CliError::new(
                Exit::Failed,
                format!("the control plane wrote no {}", token_file.display()),
                format!("see {}", folder.logs().join("server.log").display()),
            ));
        }
        tokio::time::sleep(HEALTH_PERIOD).await;
    }
}

async fn start_host(folder: &Folder, operator: &ApiClient) -> Result<Process> {
    let wish = EnrolTokenRequest { host: Some("tehost1".into()), ttl_s: None };
    let enrol = operator.create_enrol_token(&wish).await?;
    Folder::write_secret(&folder.enrol_token(), &enrol.token)?;
    let config = host_config(&folder.host(), &folder.enrol_token());
    let path = folder.host_config();
    std::fs::write(&path, config)
        .map_err(|e| CliError::failed(format!("write {}", path.display()), &e))?;
    let mut command = Command::new(find("toci-host")?);
    command.arg("run").arg("--config").arg(&path);
    Process::start("the TE host", command, folder.logs().join("host.log"))
}

fn host_config(state: &Path, enrol_token: &Path) -> String {
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    HOST_CONFIG.replace("@STATE@", &quoted(state)).replace("@ENROL_TOKEN@", &quoted(enrol_token))
}

/// Leases a TE and runs the deployment in it, as any client would.
async fn start_deployment(args: &DemoRun, folder: &Folder, operator: &ApiClient) -> Result<Child> {
    let wish = TokenRequest { role: Role::Client, subject: "demo".into(), ttl_s: None };
    let token = operator.create_token(&wish).await?;
    Folder::write_secret(&folder.client_token(), &token.token)?;
    let ourselves = ourselves()?;
    Command::new(&ourselves)
        .args(["lease", "run", "--label", "devtest", "--purpose", "toci demo", "--timeout"])
        .args([LEASE_TIMEOUT, "--"])
        .args(args.script.as_ref())
        .env("TOCI_SERVER", "http://198.18.1.1:8080")
        .env("TOCI_TOKEN_FILE", folder.client_token())
        .env("TOCI_DEVTEST_CACHE", folder.cache())
        .env("DEVTEST_LOGS", folder.logs().join("devtest"))
        .env("DEVTEST_TOCI", &ourselves)
        // Not the terminal: Ctrl-C must reach all of the demo.
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| CliError::failed("start toci lease run", &e))
}

/// Waits for the deployment. Safe to cancel: it stays in its place.
async fn deployment_code(deployment: &mut Option<Child>) -> Result<u8> {
    let mut children =
        signal(SignalKind::child()).map_err(|e| CliError::failed("listen for signals", &e))?;
    loop {
        match deployment.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => {}
            Some(Ok(Some(status))) => {
                *deployment = None;
                return Ok(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1));
            }
            Some(Err(e)) => return Err(CliError::failed("wait for toci lease run", &e)),
            None => return Ok(1),
        }
        children.recv().await;
    }
}

fn verdict(code: u8, folder: &Folder) -> String {
    let logs = folder.logs();
    match code {
        0 => format!(
            "The demo worked: a test environment was leased, a deployment ran in it, it came back \
             clean.\nLogs, consoles and the result: {}",
            logs.display()
        ),
        _ => format!("The demo FAILED (exit code {code}). Logs: {}", logs.display()),
    }
}

fn how_to_go_on(folder: &Folder) -> String {
    let toci = ourselves().map_or_else(|_| "toci".to_owned(), |p| p.display().to_string());
    let state = folder.root().display();
    let admin = folder.server().join("admin.token");
    format!(
        "\nEverything stays up. `enter` runs a command inside the lab, as the client `demo`:\n\
         \n  lease:   {toci} demo enter --state {state} -- toci lease run --label devtest -- bash\
         \n  look:    {toci} demo enter --state {state} -- toci te list\
         \n           {toci} demo enter --state {state} -- toci lease list --all\
         \n  release: end the command of the lease, or, for lease L2:\
         \n           {toci} demo enter --state {state} -- toci lease release L2\
         \n  operate: TOCI_SERVER=unix:{socket} TOCI_TOKEN_FILE={admin} {toci} host show tehost1\
         \n  stop:    {toci} demo stop --state {state}\n",
        socket = folder.socket().display(),
        admin = admin.display(),
    )
}

/// Tells the outside that it may go, then waits for `toci demo stop`.
async fn stay_up(code: u8, folder: &Folder, interrupts: &mut Interrupts) -> Result<()> {
    folder.speak_to_log()?;
    let stay = if code == 0 { STAY_WELL } else { STAY_FAILED };
    kill(Pid::from_raw(1), stay).map_err(|e| CliError::failed("stay up", &e))?;
    // The terminal may close, and Ctrl-C is meant for somebody else by now.
    while interrupts.next().await != Signal::SIGTERM as i32 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_configuration_is_toml_whatever_the_folder_is_called() {
        let config = host_config(Path::new("/a \"b\"/host"), Path::new("/t'"));
        let parsed: toml::Table = config.parse().unwrap();
        assert_eq!(parsed["state"].as_str(), Some("/a \"b\"/host"));
        assert_eq!(parsed["server"]["enrol_token_file"].as_str(), Some("/t'"));
        assert_eq!(parsed["testenv"][0]["count"].as_integer(), Some(2));
    }
}
