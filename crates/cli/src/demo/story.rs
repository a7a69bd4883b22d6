//! Inside the lab: starts the parts, leases a TE, runs the deployment, tells what happens.

use super::folder::Folder;
use super::forge::Forge;
use super::init::{STAY_FAILED, STAY_WELL};
use super::ready::wait_until_ready;
use crate::args::DemoRun;
use crate::beside::find;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::interrupt::Interrupts;
use crate::output;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use toci_client::api::{ApiClient, Endpoint, Token};
use toci_demo::{CHANGES, Gate, LAYOUT, Process, Proposed, Times};
use toci_wire::api::{EnrolTokenRequest, Role, TokenRequest};

/// Test environments of the demo.
const TES: usize = 2;
/// The control plane must serve within this.
const SERVER_LIMIT: Duration = Duration::from_secs(20);
/// Both TEs must be ready within this: daemons, the KVM probe, disks.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// The TE must be clean again within this.
const CLEAN_LIMIT: Duration = Duration::from_secs(60);
/// The gate must have come to its end within this: three deployments on two cores without KVM.
const GATE_LIMIT: Duration = Duration::from_secs(600);
/// How long the parts may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How often a starting server is asked whether it serves.
const HEALTH_PERIOD: Duration = Duration::from_millis(50);
/// How often the pipelines are looked at.
const GATE_PERIOD: Duration = Duration::from_millis(200);

/// One TE host in the network of design decision 6, as TOML.
const HOST_CONFIG: &str = include_str!("toci-host.toml.in");
/// The control plane's settings.
const SERVER_CONFIG: &str = include_str!("toci.toml.in");

/// The parts that run.
struct Parts {
    server: Process,
    host: Option<Process>,
    forge: Option<Process>,
}

impl Parts {
    async fn stop(self) {
        // First the jobs, then what they run on.
        self.server.stop(STOP_LIMIT).await;
        if let Some(host) = self.host {
            host.stop(STOP_LIMIT).await;
        }
        if let Some(forge) = self.forge {
            forge.stop(STOP_LIMIT).await;
        }
    }

    fn watched(&mut self) -> Vec<&mut Process> {
        let others = self.host.as_mut().into_iter().chain(self.forge.as_mut());
        [&mut self.server].into_iter().chain(others).collect()
    }
}

/// The whole story.
pub(super) async fn run(args: &DemoRun) -> Result<ExitCode> {
    let mut interrupts =
        Interrupts::listen().map_err(|e| CliError::failed("listen for signals", &e))?;
    let folder = Folder::open(&args.state)?;
    let images = ("images".to_owned(), Duration::from_millis(args.prepared_ms));
    let mut times = Times::start((!images.1.is_zero()).then_some(images).into_iter().collect());
    times.say(&format!("toci demo; state, images and logs in {}", folder.root().display()));
    if args.gerrit {
        times.say("starting a real Gerrit: users, keys, labels, projects");
    }
    let (host, forge) = Forge::start(&folder, &examples(args)?, args.gerrit)?;
    let mut parts = Parts { server: start_server(&folder, args.gerrit)?, host: None, forge };
    let outcome = tokio::select! {
        outcome = tell(&host, &folder, &mut times, &mut parts) => outcome,
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

async fn tell(host: &Forge, folder: &Folder, times: &mut Times, parts: &mut Parts) -> Result<u8> {
    let began = Instant::now();
    let operator = connect(folder, &mut parts.server).await?;
    times.done("control plane", began);

    let began = Instant::now();
    times.say("starting a sandboxed TE host: own libvirt and Open vSwitch, two test environments");
    parts.host = Some(start_host(folder, &operator).await?);
    wait_until_ready(&operator, TES, READY_LIMIT, times, &mut parts.watched()).await?;
    make_client(folder, &operator).await?;
    times.done("test environments ready", began);

    let began = Instant::now();
    times.say("two developers push a change each; a reviewer approves one after the other");
    let bad = host.propose(1, &CHANGES[0])?;
    let good = host.propose(2, &CHANGES[1])?;
    let merged = gate_ends(&operator, host, [bad, good], times, parts).await?;
    times.done("gate: both changes decided", began);

    let began = Instant::now();
    times.say("the test environments come back");
    wait_until_ready(&operator, TES, CLEAN_LIMIT, times, &mut parts.watched()).await?;
    times.done("test environments clean again", began);
    Ok(u8::from(merged != [false, true]))
}

/// Tells what the gate does until both changes have left it. Which of them are merged.
async fn gate_ends(
    operator: &ApiClient,
    host: &Forge,
    changes: [Proposed; 2],
    times: &Times,
    parts: &mut Parts,
) -> Result<[bool; 2]> {
    host.approve(&changes[0])?;
    let mut gate = Gate::new(changes.clone(), GATE_LIMIT);
    loop {
        for process in parts.watched() {
            process.check()?;
        }
        if gate.look(operator, times, |change| host.approve(change)).await? {
            return Ok([host.has_merged(&changes[0])?, host.has_merged(&changes[1])?]);
        }
        tokio::time::sleep(GATE_PERIOD).await;
    }
}

/// The token with which `toci demo enter` acts.
async fn make_client(folder: &Folder, operator: &ApiClient) -> Result<()> {
    let wish = TokenRequest { role: Role::Client, subject: "demo".into(), ttl_s: None };
    let token = operator.create_token(&wish).await?;
    Folder::write_secret(&folder.client_token(), &token.token)
}

/// The folder that holds `devtest`.
fn examples(args: &DemoRun) -> Result<PathBuf> {
    let script = args.script.as_deref().unwrap_or(Path::new("examples/devtest/devtest.sh"));
    let folder = script.parent().and_then(Path::parent).map(Path::to_owned);
    folder.ok_or_else(|| CliError::usage(format!("{} is no deployment", script.display()), ""))
}

fn ourselves() -> Result<PathBuf> {
    std::env::current_exe().map_err(|e| CliError::failed("find this program", &e))
}

fn start_server(folder: &Folder, gerrit: bool) -> Result<Process> {
    let write = |path: PathBuf, text: &str| {
        std::fs::write(&path, text)
            .map_err(|e| CliError::failed(format!("write {}", path.display()), &e))
    };
    write(folder.layout(), &Forge::layout(LAYOUT, gerrit))?;
    write(folder.server_config(), &server_config(folder, gerrit))?;
    let mut command = Command::new(ourselves()?);
    command.arg("server").arg("--config").arg(folder.server_config());
    Ok(Process::start("the control plane", command, folder.logs().join("server.log"))?)
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
    Ok(Process::start("the TE host", command, folder.logs().join("host.log"))?)
}

fn server_config(folder: &Folder, gerrit: bool) -> String {
    let places = [
        ("@STATE@", folder.server().display().to_string()),
        ("@SOCKET@", folder.socket().display().to_string()),
        ("@LAYOUT@", folder.layout().display().to_string()),
        ("@STORE@", format!("folder:{}", folder.archive().display())),
    ];
    let text = SERVER_CONFIG.replace("@SOURCE@", &Forge::source(folder, gerrit));
    places.into_iter().fold(text, |text, (name, value)| {
        text.replace(name, &toml::Value::String(value).to_string())
    })
}

fn host_config(state: &Path, enrol_token: &Path) -> String {
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    HOST_CONFIG.replace("@STATE@", &quoted(state)).replace("@ENROL_TOKEN@", &quoted(enrol_token))
}

fn verdict(code: u8, folder: &Folder) -> String {
    let archive = folder.archive();
    match code {
        0 => format!(
            "The demo worked: the gate tried both changes at once, threw the bad one out, tried the \
             good one without it and merged it.\nLogs and consoles of every run: {}",
            archive.display()
        ),
        _ => format!(
            "The demo FAILED: the gate merged the wrong changes. Logs: {} and {}",
            archive.display(),
            folder.logs().display()
        ),
    }
}

fn how_to_go_on(folder: &Folder) -> String {
    let toci = ourselves().map_or_else(|_| "toci".to_owned(), |p| p.display().to_string());
    let state = folder.root().display();
    let admin = folder.server().join("admin.token");
    format!(
        "\nEverything stays up. `enter` runs a command inside the lab, as the client `demo`:\n\
         \n  lease:   {toci} demo enter --state {state} -- toci lease run --label devtest -- bash\
         \n  look:    {toci} demo enter --state {state} -- toci pipeline show\
         \n           {toci} demo enter --state {state} -- toci te list\
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
