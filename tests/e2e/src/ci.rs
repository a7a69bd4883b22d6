//! A small CI in a lab: a server, one sandboxed TE host, clients.

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use toci_client::api::{ApiClient, Endpoint, Token};
use toci_wire::api::{EnrolTokenRequest, Role, TeState, TestEnv, TokenRequest};
use tokio::runtime::Runtime;

use crate::{Lab, Process, TeHost, binary, wait_for};

/// How long the server may take until it answers (it should be within 1 s; the machine may be busy).
const SERVER_LIMIT: Duration = Duration::from_secs(10);
/// From the start of a TE host until its TEs are ready for leases.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// Runs its arguments on the gateway of the TE in `$TE_DATAFILE`, with OpenSSH, as devtest does.
const GATE_SCRIPT: &str = r#"#!/bin/sh
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
(umask 077; jq -r '.["ssh-key"]' "$TE_DATAFILE" >"$folder/key")
jq -r '.["host-ip"] + " " + .toci.gateway.host_key' "$TE_DATAFILE" >"$folder/known_hosts"
ssh -F none -i "$folder/key" -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=10 \
    -o StrictHostKeyChecking=yes -o UserKnownHostsFile="$folder/known_hosts" \
    "$(jq -r '.["ssh-user"] + "@" + .["host-ip"]' "$TE_DATAFILE")" "$@"
"#;

/// See the module.
#[derive(Debug)]
pub struct Ci {
    runtime: Runtime,
    api: ApiClient,
    /// Its TE host.
    pub host: TeHost,
    /// The server; `None` while it is down.
    pub server: Option<Process>,
    /// Where all of it runs. Last, so that it is dropped after what runs in it.
    pub lab: Lab,
}

impl Ci {
    /// Everything up, and so many TEs ready.
    ///
    /// # Errors
    /// What did not come up, with its log.
    pub fn start(testenvs: u32) -> Result<Ci> {
        Ci::start_in(Lab::start()?, testenvs)
    }

    /// As [`Ci::start`], in a lab that was made ready for it.
    ///
    /// # Errors
    /// What did not come up, with its log.
    pub fn start_in(lab: Lab, testenvs: u32) -> Result<Ci> {
        let mut ci = Ci::serve(lab, testenvs)?;
        ci.host.start(&ci.lab, &[])?;
        ci.wait_for_testenvs("all to be ready", READY_LIMIT, |all| {
            all.len() == testenvs as usize && all.iter().all(|te| te.state == TeState::Ready)
        })?;
        Ok(ci)
    }

    /// The server alone; its TE host is not started.
    ///
    /// # Errors
    /// What did not come up, with its log.
    pub fn start_without_host() -> Result<Ci> {
        Ci::serve(Lab::start()?, 0)
    }

    fn serve(lab: Lab, testenvs: u32) -> Result<Ci> {
        let gate = lab.folder().join("gate");
        fs::write(&gate, GATE_SCRIPT)?;
        fs::set_permissions(&gate, fs::Permissions::from_mode(0o755))?;

        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let server = start_server(&lab)?;
        let admin = wait_for("the server's first token", SERVER_LIMIT, || {
            // Read inside: the state folder may be a file system that only the lab has mounted.
            let file = lab.folder().join("server/admin.token").display().to_string();
            let token = lab.read("cat", &[file]).with_context(|| server.log_tail())?;
            Token::new(&token).context("the first token")
        })?;
        // A unix socket is reached through the file system, which the lab shares with the machine.
        let endpoint: Endpoint = format!("unix:{}", socket(&lab).display()).parse()?;
        let api = ApiClient::new(endpoint, Some(admin), None)?;
        let block = |limit: &str| runtime.block_on(api.health()).with_context(|| limit.to_owned());
        wait_for("the server to answer", SERVER_LIMIT, || block("health"))?;

        let client = runtime.block_on(api.create_token(&TokenRequest {
            role: Role::Client,
            subject: "e2e".to_owned(),
            ttl_s: None,
        }))?;
        fs::write(lab.folder().join("client.token"), client.token)?;
        let enrol = runtime
            .block_on(api.create_enrol_token(&EnrolTokenRequest { host: None, ttl_s: None }))?;
        let host = TeHost::new(&lab, 1, testenvs, Some(&enrol.token))?;
        Ok(Ci { runtime, api, host, server: Some(server), lab })
    }

    /// The API, as operator.
    #[must_use]
    pub fn api(&self) -> &ApiClient {
        &self.api
    }

    /// Waits for an answer of the API.
    ///
    /// # Errors
    /// The API's.
    pub fn ask<T, E: std::error::Error + Send + Sync + 'static>(
        &self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        Ok(self.runtime.block_on(question)?)
    }

    /// As [`Ci::ask`], with the answer as it came.
    ///
    /// # Errors
    /// The API's.
    pub fn wait<T, E>(&self, question: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.runtime.block_on(question)
    }

    /// Waits until `condition` holds for the TEs, and returns them.
    ///
    /// # Errors
    /// Their last state and the ends of both logs.
    pub fn wait_for_testenvs(
        &self,
        what: &str,
        limit: Duration,
        condition: impl Fn(&[TestEnv]) -> bool,
    ) -> Result<Vec<TestEnv>> {
        wait_for(&format!("TEs: {what}"), limit, || {
            let all = self.ask(self.api.testenvs())?;
            ensure!(condition(&all), "{all:#?}\n{}", self.logs());
            Ok(all)
        })
    }

    /// The ends of the logs of server and host.
    #[must_use]
    pub fn logs(&self) -> String {
        let tail = |process: &Option<Process>| {
            process.as_ref().map_or_else(|| "(not running)".to_owned(), Process::log_tail)
        };
        format!("server: {}\nhost: {}", tail(&self.server), tail(&self.host.agent))
    }

    /// `kill -9` on the server.
    ///
    /// # Errors
    /// It was not running.
    pub fn kill_server(&mut self) -> Result<()> {
        self.server.take().context("the server runs")?.kill()
    }

    /// Starts the server without waiting for anything.
    ///
    /// # Errors
    /// It could not be started at all.
    pub fn spawn_server(&self) -> Result<Process> {
        start_server(&self.lab)
    }

    /// Starts the server on the state that is there, and returns how long it took until it answered.
    ///
    /// # Errors
    /// It does not answer.
    pub fn start_server(&mut self) -> Result<Duration> {
        let start = std::time::Instant::now();
        self.server = Some(start_server(&self.lab)?);
        wait_for("the server to answer again", SERVER_LIMIT, || {
            self.ask(self.api.health()).with_context(|| self.logs())
        })?;
        Ok(start.elapsed())
    }

    /// Starts `toci lease run OPTIONS -- sh -c SCRIPT` as a client. `$GATE` in the script is a command that runs its
    /// arguments on the TE's gateway.
    ///
    /// # Errors
    /// It could not be started.
    pub fn lease_run(&self, name: &str, options: &[&str], script: &str) -> Result<Process> {
        let toci = binary("toci")?.display().to_string();
        let mut command = vec![toci.as_str(), "lease", "run"];
        command.extend(options);
        command.extend(["--", "sh", "-c", script]);
        self.spawn_client(name, &command)
    }

    /// A bash in the lab's folder as an operator would have it: `toci` is found, server and token are known.
    ///
    /// # Errors
    /// `toci` was not built.
    pub fn operator_shell(&self) -> Result<Command> {
        let toci = binary("toci")?;
        let folder = toci.parent().context("a binary is in a folder")?;
        let path = std::env::var("PATH").unwrap_or_default();
        // Entering a mount namespace leaves one in its root folder.
        let mut bash = self.lab.command("env");
        bash.arg("-C")
            .arg(self.lab.folder())
            .arg("bash")
            .env("PATH", format!("{}:{path}", folder.display()))
            .env("TOCI_SERVER", format!("unix:{}", socket(&self.lab).display()))
            .env("TOCI_TOKEN_FILE", self.lab.folder().join("server/admin.token"));
        Ok(bash)
    }

    /// Starts any command with a client's environment.
    ///
    /// # Errors
    /// It could not be started.
    pub fn spawn_client(&self, name: &str, command: &[&str]) -> Result<Process> {
        let path = |name: &str| self.lab.folder().join(name).display().to_string();
        self.lab.spawn(
            name,
            command,
            &[
                ("TOCI_SERVER", "http://127.0.0.1:8080"),
                ("TOCI_TOKEN_FILE", &path("client.token")),
                ("GATE", &path("gate")),
            ],
        )
    }
}

fn socket(lab: &Lab) -> PathBuf {
    lab.folder().join("toci.sock")
}

fn start_server(lab: &Lab) -> Result<Process> {
    let toci = binary("toci")?.display().to_string();
    let state = lab.folder().join("server").display().to_string();
    let socket = socket(lab).display().to_string();
    lab.spawn(
        "server",
        &[
            &toci,
            "server",
            "--state",
            &state,
            "--listen",
            "0.0.0.0:8080",
            "--socket",
            &socket,
            "--gearman",
            "0.0.0.0:4730",
        ],
        &[],
    )
}
