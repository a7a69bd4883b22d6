//! A control plane and TE hosts beside the real cloud: `toci server` in the cloud's sandbox with an address on the test
//! network, and `toci-host`s in sandboxes of their own whose public bridges are cabled to the network's bridge.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::binary;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Api, wait_for};

/// The bridge of the test network.
pub const TEST_BRIDGE: &str = "br-test";
/// The server on the test network: outside of what Neutron's DHCP gives out.
pub const BROKER: &str = "198.18.0.1";
/// Whose mark the ports carry.
pub const SITE_OWNER: &str = "site";
/// Until the server answers.
const SERVER_LIMIT: Duration = Duration::from_secs(60);
/// From the start of TE hosts until their TEs are ready; the machine may be busy.
const READY_LIMIT: Duration = Duration::from_secs(240);
/// Until the server has made or deleted ports; it tries every 10 s.
const PORTS_LIMIT: Duration = Duration::from_secs(60);
/// Until a process has ended that was told to.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A process that is told to end when this is dropped, and killed when the test is.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(name: &str, mut command: Command, log: PathBuf) -> Result<Process> {
        let out = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Process { name: name.to_owned(), child, log })
    }

    /// The last lines that it said.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("{}:\n{}", self.name, lines[lines.len().saturating_sub(25)..].join("\n"))
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// How, and what it said.
    pub fn runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("it ended: {status}; {}", self.tail()),
        }
    }

    /// Waits for its good end.
    ///
    /// # Errors
    /// It runs still, or its end was no good one.
    pub fn ends(&mut self, limit: Duration) -> Result<()> {
        let (child, name) = (&mut self.child, &self.name);
        let status = wait_for(&format!("the end of {name}"), limit, || {
            child.try_wait()?.context("it runs")
        })?;
        ensure!(status.success(), "{status}; {}", self.tail());
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let told = Command::new("kill").arg(self.child.id().to_string()).status();
        let child = &mut self.child;
        let ended = told.map_err(anyhow::Error::from).and_then(|_| {
            wait_for("its end", STOP_LIMIT, || child.try_wait()?.context("it runs").map(drop))
        });
        if ended.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A TE host: number K has the address 198.18.0.(10 K), its seeds the nine that follow.
#[derive(Debug)]
pub struct TeHost {
    /// `tehost<K>`; also a label of its TEs.
    pub name: String,
    /// Of its gateway.
    pub address: String,
    config: PathBuf,
    process: Process,
}

impl TeHost {
    /// Runs a command in its sandbox.
    ///
    /// # Errors
    /// It does not end well.
    pub fn enter(&self, command: &[&str]) -> Result<String> {
        let config = self.config.display().to_string();
        let mut toci_host = Command::new(binary("toci-host")?);
        read(toci_host.args(["enter", "-c", &config]).args(command))
    }

    /// The port of the test network's bridge that its cable ends in.
    ///
    /// # Errors
    /// It is not there.
    pub fn cable(&self) -> Result<String> {
        let index = self.enter(&["cat", "/sys/class/net/uplink/iflink"])?;
        for port in run("ovs-vsctl", &["list-ports", TEST_BRIDGE])?.lines() {
            let known = fs::read_to_string(format!("/sys/class/net/{port}/ifindex"));
            if known.is_ok_and(|known| known == index) {
                return Ok(port.to_owned());
            }
        }
        bail!("no port of {TEST_BRIDGE} has the index {}", index.trim())
    }
}

/// See the module. Dropped, everything of it is gone, its ports in Neutron too.
#[derive(Debug)]
pub struct Site {
    hosts: Vec<TeHost>,
    server: Option<Process>,
    folder: TempDir,
}

impl Site {
    /// A server that serves, with `settings` as further lines of its `toci.toml`; it has no host yet.
    ///
    /// # Errors
    /// What did not come up, with what it said.
    pub fn start(settings: &str) -> Result<Site> {
        let folder = tempfile::Builder::new().prefix("site-").tempdir()?;
        run("ip", &["address", "replace", &format!("{BROKER}/24"), "dev", TEST_BRIDGE])?;
        forget_cables()?;
        let mut site = Site { hosts: Vec::new(), server: None, folder };
        let (state, config) = (site.path("server"), site.path("toci.toml"));
        fs::write(
            &config,
            format!(
                r#"state = {state:?}
[api]
listen = ["{BROKER}:8080", "127.0.0.1:8080"]
socket = {:?}
[gearman]
listen = ["{BROKER}:4730"]
[testnet]
cloud = "ci"
network = "test"
owner = "{SITE_OWNER}"
look_every_s = 3
{settings}
"#,
                site.path("toci.sock")
            ),
        )?;
        let config = config.display().to_string();
        site.server = Some(site.spawn("server", &["toci", "server", "--config", &config])?);
        wait_for("the server to answer", SERVER_LIMIT, || {
            site.toci(&["host", "list"]).map(drop).with_context(|| site.logs())
        })?;
        Ok(site)
    }

    /// Starts TE host number `number` with so many TEs of a seed and one blank machine, enrolled with a one-time token. It is
    /// not waited for.
    ///
    /// # Errors
    /// It does not start.
    pub fn add_host(&mut self, number: u8, testenvs: u32) -> Result<()> {
        let name = format!("tehost{number}");
        let token_file = self.path(&format!("{name}.token")).display().to_string();
        self.toci(&["host", "enrol", "--host", &name, "--output", &token_file])?;
        self.start_host(number, testenvs)
    }

    /// Starts a host anew, with so many TEs.
    ///
    /// # Errors
    /// It does not start.
    pub fn change_host(&mut self, number: u8, testenvs: u32) -> Result<()> {
        self.end_host(number);
        self.start_host(number, testenvs)
    }

    fn start_host(&mut self, number: u8, testenvs: u32) -> Result<()> {
        let name = format!("tehost{number}");
        let (state, token) = (self.path(&name), self.path(&format!("{name}.token")));
        let address = format!("198.18.0.{number}0");
        let config = self.path(&format!("{name}.toml"));
        let text = host_config(&name, &state, &format!("{address}/24"), &number, testenvs);
        fs::write(&config, format!("{text}enrol_token_file = {token:?}\n"))?;
        let path = config.display().to_string();
        let process = self.spawn(&name, &["toci-host", "run", "-c", &path])?;
        self.hosts.push(TeHost { name, address, config, process });
        Ok(())
    }

    /// Waits until so many TEs, which are all, are ready; they are listed.
    ///
    /// # Errors
    /// Their last state, and what server and hosts said.
    pub fn ready(&self, testenvs: usize) -> Result<Vec<Value>> {
        wait_for("the TEs to be ready", READY_LIMIT, || {
            let list = self.toci(&["te", "list"])?;
            let all = list.as_array().cloned().unwrap_or_default();
            let ready = all.iter().filter(|te| te["state"] == "ready").count();
            ensure!(all.len() == testenvs && ready == testenvs, "{list}\n{}", self.logs());
            Ok(all)
        })
    }

    /// Host number `number`.
    ///
    /// # Errors
    /// It is not here.
    pub fn host(&self, number: u8) -> Result<&TeHost> {
        let name = format!("tehost{number}");
        self.hosts.iter().find(|host| host.name == name).with_context(|| format!("no {name}"))
    }

    /// Ends a host with all that is on it, without a word to the server.
    pub fn end_host(&mut self, number: u8) {
        let name = format!("tehost{number}");
        self.hosts.retain(|host| host.name != name);
    }

    /// Has the server forget a host.
    ///
    /// # Errors
    /// It does not.
    pub fn forget_host(&self, name: &str) -> Result<()> {
        let script = r#"curl -sS --fail-with-body --unix-socket "${TOCI_SERVER#unix:}" -X DELETE \
            -H "Authorization: Bearer $(cat "$TOCI_TOKEN_FILE")" "http://toci/api/v1/hosts/$0""#;
        read(self.command("sh")?.args(["-c", script, name])).map(drop)
    }

    /// Waits until the server has made the port of a host's first seed.
    ///
    /// # Errors
    /// What ports it has made for the host.
    pub fn has_ports(&self, host: &str) -> Result<()> {
        wait_for("the port of the seed", PORTS_LIMIT, || {
            let found = ports_of(host)?;
            ensure!(found.contains(&format!("te_{host}_1")), "{found:?}");
            Ok(())
        })
    }

    /// Waits until the server has taken the ports of a host away that it does not know any more. Before this the port that it
    /// was making as the host went may come after everything else.
    ///
    /// # Errors
    /// What is left.
    pub fn has_no_ports(&self, host: &str) -> Result<()> {
        wait_for("the ports of a removed host to be gone", PORTS_LIMIT, || {
            let found = ports_of(host)?;
            ensure!(found.is_empty(), "{found:?}\n{}", self.logs());
            Ok(())
        })
    }

    /// A command as an operator would run it: `toci` is found, and knows server and token.
    ///
    /// # Errors
    /// `toci` was not built.
    pub fn command(&self, program: &str) -> Result<Command> {
        let toci = binary("toci")?;
        let folder = toci.parent().context("a binary is in a folder")?.display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .env("PATH", format!("{folder}:{path}"))
            .env("TOCI_SERVER", format!("unix:{}", self.path("toci.sock").display()))
            .env("TOCI_TOKEN_FILE", self.path("server/admin.token"));
        Ok(command)
    }

    /// Starts what [`Site::command`] would run; what it says goes to `<name>.log` in the site's folder.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, name: &str, command: &[&str]) -> Result<Process> {
        let mut setpriv = self.command("setpriv")?;
        setpriv.args(["--pdeathsig", "KILL", "--"]).args(command);
        Process::start(name, setpriv, self.path(&format!("{name}.log")))
    }

    /// Does beside the cloud what an image of `toci host image build` does when a server boots: with the user data that it was
    /// given it becomes a TE host, enrols, and serves until this is dropped.
    ///
    /// # Errors
    /// It does not enrol, or not start.
    pub fn first_boot(&self, name: &str, user_data: &str) -> Result<Process> {
        let file = self.path(&format!("{name}.data"));
        fs::write(&file, user_data)?;
        let file = file.display().to_string();
        let config = self.path(&format!("{name}.toml")).display().to_string();
        let first_boot = ["toci-host", "first-boot", "--user-data", &file, "--config", &config];
        self.spawn(&format!("{name}-first-boot"), &first_boot)?.ends(READY_LIMIT)?;
        self.spawn(name, &["toci-host", "run", "--config", &config])
    }

    /// What `toci --json` answers.
    ///
    /// # Errors
    /// It does not end well.
    pub fn toci(&self, arguments: &[&str]) -> Result<Value> {
        let said = read(self.command("toci")?.arg("--json").args(arguments))?;
        if said.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&said).with_context(|| said.clone())
    }

    /// A file in the folder of this site, which goes with it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of this site.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The ends of the logs of server and hosts.
    #[must_use]
    pub fn logs(&self) -> String {
        let hosts = self.hosts.iter().map(|host| &host.process);
        let tails: Vec<String> = self.server.iter().chain(hosts).map(Process::tail).collect();
        tails.join("\n")
    }
}

/// `toci-host.toml` of a host in a sandbox of its own on the test network; it ends in the section `[server]`.
#[must_use]
pub fn host_config(
    name: &str,
    state: &Path,
    address: &str,
    number: &dyn fmt::Display,
    testenvs: u32,
) -> String {
    format!(
        r#"name = "{name}"
state = {state:?}
[network]
address = "{address}"
seed_addresses = "198.18.0.{number}1-198.18.0.{number}9"
dhcp = false
[sandbox]
outside_bridge = "{TEST_BRIDGE}"
[reserve]
memory_mib = 512
disk_mib = 512
[accelerator]
never_kvm = true
[[testenv]]
shape = "small"
labels = ["te", "{name}"]
count = {testenvs}
[shape.small]
cpu_overcommit = 16.0
disk_overcommit = 8.0
seed = {{ cpus = 1, memory_mib = 256, disk_gb = 1 }}
nodes = {{ count = 1, cpus = 1, memory_mib = 256, disk_gb = 1 }}
[server]
url = "http://{BROKER}:8080"
"#
    )
}

impl Drop for Site {
    fn drop(&mut self) {
        self.hosts.clear();
        self.server = None;
        let _ = run("ip", &["address", "delete", &format!("{BROKER}/24"), "dev", TEST_BRIDGE]);
        if let Err(why) = forget_ports() {
            eprintln!("ports of the test network are left behind: {why:#}");
        }
    }
}

/// Takes ports of hosts that were killed off the bridge.
fn forget_cables() -> Result<()> {
    for port in run("ovs-vsctl", &["list-ports", TEST_BRIDGE])?.lines() {
        if port.starts_with("toci") && !Path::new("/sys/class/net").join(port).exists() {
            run("ovs-vsctl", &["--if-exists", "del-port", port])?;
        }
    }
    Ok(())
}

/// Names of the ports that the server has made for a host.
fn ports_of(host: &str) -> Result<Vec<String>> {
    let mark = format!("toci-testnet:{SITE_OWNER}:{host}");
    let all = Api::ci()?.get("network", "/ports?fields=name&fields=description")?;
    let all = all["ports"].as_array().cloned().unwrap_or_default();
    let ours = all.iter().filter(|port| port["description"] == mark.as_str());
    Ok(ours.map(|port| port["name"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Deletes the ports that the server has made.
fn forget_ports() -> Result<()> {
    let ci = Api::ci()?;
    let ports = ci.get("network", "/ports?fields=id&fields=description")?;
    for port in ports["ports"].as_array().into_iter().flatten() {
        let mark = port["description"].as_str().unwrap_or_default();
        if mark.starts_with(&format!("toci-testnet:{SITE_OWNER}:")) {
            ci.delete("network", &format!("/ports/{}", port["id"].as_str().unwrap_or_default()))?;
        }
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    read(Command::new(program).args(arguments))
}

/// Standard output of a command that ends well.
fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
