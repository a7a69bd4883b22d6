//! The demo's folder, and the processes that it starts.
//!
//! ```text
//! .demo-cloud/cloud/               the cloud's state; its logs stay until the next one comes up
//! .demo-cloud/devtest-node.qcow2   the nodes' image
//! .demo-cloud/zone.yaml            the zone, a copy of examples/zones/demo.yaml
//! .demo-cloud/password clouds.yaml of the project's user; the cloud as the control plane knows it; 0600
//! .demo-cloud/server/ tehost1/ …   state of the control plane and of the TE hosts
//! .demo-cloud/logs/ archive/       of these processes; what was archived of every run
//! .demo-cloud/git/ work/           the git host's repositories and the developers' copies
//! ```

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use toci_client::api::{ApiClient, Endpoint, Token};
use toci_demo::{GitHost, LAYOUT, Process, Times};

use crate::project::PROJECT;

/// The control plane must serve within this.
const SERVER_LIMIT: Duration = Duration::from_secs(60);
/// How often a starting server is asked whether it serves.
const HEALTH_PERIOD: Duration = Duration::from_millis(100);
/// The bridge of the test network, and the control plane's address on it, where TE hosts reach it.
const TEST_BRIDGE: (&str, &str) = ("br-lab", "198.18.1.1/24");

/// The control plane's settings.
const SERVER_CONFIG: &str = include_str!("toci.toml.in");
/// Settings of a TE host.
const HOST_CONFIG: &str = include_str!("toci-host.toml.in");

/// The demo's folder, and where its programs and the source tree are.
#[derive(Debug)]
pub(crate) struct Lab {
    /// The folder.
    pub(crate) root: PathBuf,
    programs: PathBuf,
    examples: PathBuf,
}

impl Lab {
    /// Removes what an earlier run left, but for the cloud, its image and what the caches hold.
    pub(crate) fn open(root: &Path) -> Result<Lab> {
        let root = root.canonicalize().with_context(|| root.display().to_string())?;
        let program = std::env::current_exe().context("finding this program")?;
        let programs = program.parent().context("a program lies in a folder")?.to_owned();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let lab = Lab { root, programs, examples: examples.canonicalize()? };
        for gone in ["server", "tehost1", "tehost2", "logs", "archive", "git", "work"] {
            match fs::remove_dir_all(lab.path(gone)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {gone}"));
                }
                _ => {}
            }
        }
        for made in ["server", "logs", "archive"] {
            fs::create_dir_all(lab.path(made))?;
        }
        Ok(lab)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The git host, with its repositories.
    pub(crate) fn git_host(&self) -> Result<GitHost> {
        Ok(GitHost::make(&self.path("git"), &self.path("work"), &self.examples)?)
    }

    /// The zone file, beside the image and the password that it names.
    pub(crate) fn write_zone(&self) -> Result<()> {
        fs::copy(self.examples.join("zones/demo.yaml"), self.path("zone.yaml"))?;
        Ok(())
    }

    /// The password of the project's user, and the cloud as the control plane may use it: as that user. Both stay until the
    /// folder is removed.
    pub(crate) fn write_secrets(&self) -> Result<String> {
        let file = self.path("password");
        if !file.exists() {
            write_private(&file, &fs::read_to_string("/proc/sys/kernel/random/uuid")?)?;
        }
        let password = fs::read_to_string(&file)?.trim().to_owned();
        let text = format!(
            "clouds:\n  {PROJECT}:\n    auth: {{auth_url: \"http://127.0.0.1:5000/v3\", username: {PROJECT}, password: {password}, \
             project_name: {PROJECT}, user_domain_name: Default, project_domain_name: Default}}\n    region_name: RegionOne\n"
        );
        write_private(&self.path("clouds.yaml"), &text)?;
        Ok(password)
    }

    /// Runs a command of `toci` as an operator types it; tells it, and those lines of what it says that begin with `told`.
    pub(crate) fn toci(&self, times: &Times, words: &[&str], told: &str) -> Result<()> {
        times.say(&format!("$ toci {}", words.join(" ")));
        let mut child = self
            .command("toci")
            .args(words)
            .env("TOCI_SERVER", format!("unix:{}", self.path("toci.sock").display()))
            .env("TOCI_TOKEN_FILE", self.path("server/admin.token"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting toci")?;
        let output = child.stdout.take().context("standard output was piped")?;
        for line in BufReader::new(output).lines() {
            let line = line?;
            if line.starts_with(told) {
                times.say(&format!("    {line}"));
            }
        }
        let ended = child.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "toci {}: {}: {complaint}", words.join(" "), ended.status);
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.root);
        command
    }

    /// Starts the control plane.
    pub(crate) fn start_server(&self) -> Result<Process> {
        // Its nodes are ten times as slow as processes of this machine.
        let layout = LAYOUT.replace("local-node", "devtest-node");
        fs::write(self.path("layout.yaml"), layout.replace("timeout: 15m", "timeout: 40m"))?;
        let store = toml_text(&format!("folder:{}", self.path("archive").display()));
        let mut text = SERVER_CONFIG.replace("@STORE@", &store);
        for (mark, name) in [
            ("@STATE@", "server"),
            ("@SOCKET@", "toci.sock"),
            ("@LAYOUT@", "layout.yaml"),
            ("@GIT@", "git"),
            ("@CLOUDS@", "clouds.yaml"),
        ] {
            text = text.replace(mark, &self.quoted(name));
        }
        fs::write(self.path("toci.toml"), text)?;
        let mut command = self.command("toci");
        command.args(["server", "--config", "toci.toml"]).env_remove("OS_CLOUD");
        command.env("OS_CLIENT_CONFIG_FILE", self.path("clouds.yaml"));
        Ok(Process::start("the control plane", command, self.path("logs/server.log"))?)
    }

    /// A client with the operator's token, once the server serves.
    pub(crate) async fn connect(&self, server: &mut Process) -> Result<ApiClient> {
        let until = Instant::now() + SERVER_LIMIT;
        loop {
            server.check()?;
            let state = match Token::from_file(&self.path("server/admin.token")) {
                Ok(token) => {
                    let socket = Endpoint::Unix(self.path("toci.sock"));
                    let client = ApiClient::new(socket, Some(token), None)?;
                    match client.health().await {
                        Ok(()) => return Ok(client),
                        Err(error) => error.to_string(),
                    }
                }
                Err(_) => "it has written no token".to_owned(),
            };
            if Instant::now() > until {
                bail!("the control plane does not serve after {SERVER_LIMIT:?}: {state}");
            }
            tokio::time::sleep(HEALTH_PERIOD).await;
        }
    }

    /// The control plane's own leg on the test network.
    pub(crate) fn plug_in(&self) -> Result<()> {
        let (bridge, address) = TEST_BRIDGE;
        let output =
            Command::new("ip").args(["address", "replace", address, "dev", bridge]).output();
        let output = output.context("starting ip (package iproute2)")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "giving {address} to {bridge}: {}", said.trim());
        Ok(())
    }

    /// Enrols a TE host and starts it.
    pub(crate) fn start_host(&self, number: usize, times: &Times) -> Result<Process> {
        let name = format!("tehost{number}");
        fs::create_dir_all(self.path(&name))?;
        let token = format!("{name}/enrol.token");
        self.toci(times, &["host", "enrol", "--host", &name, "--output", &token], "")?;
        let text = HOST_CONFIG
            .replace("@NUMBER@", &number.to_string())
            .replace("@STATE@", &self.quoted(&format!("{name}/state")))
            .replace("@ENROL_TOKEN@", &self.quoted(&token));
        let config = format!("{name}/toci-host.toml");
        fs::write(self.path(&config), text)?;
        times.say(&format!("$ toci-host run --config {config} &"));
        let mut command = self.command("toci-host");
        command.args(["run", "--config", &config]);
        let log = self.path(&format!("logs/{name}.log"));
        let what = if number == 1 { "the first TE host" } else { "the second TE host" };
        Ok(Process::start(what, command, log)?)
    }

    fn quoted(&self, name: &str) -> String {
        toml_text(&self.path(name).display().to_string())
    }
}

/// Writes a file that only we can read.
fn write_private(file: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(file);
    Ok(opened.with_context(|| file.display().to_string())?.write_all(text.as_bytes())?)
}

/// A text as TOML.
fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
