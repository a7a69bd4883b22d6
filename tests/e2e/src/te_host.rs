//! A sandboxed TE host in a lab.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{Lab, Process, binary};

/// Host number K of a lab: 198.18.K.0/24 is between it and the lab (design 0001, decision 6).
#[derive(Debug)]
pub struct TeHost {
    number: u8,
    config: PathBuf,
    /// The agent; `None` while it is down.
    pub agent: Option<Process>,
}

impl TeHost {
    /// Writes its configuration: `testenvs` TEs of a seed and one blank node each, labelled `e2e`.
    /// `enrol_token` is what the server gave for it; without one it is only good for `run --standalone`.
    ///
    /// # Errors
    /// The lab's folder cannot be written to.
    pub fn new(lab: &Lab, number: u8, testenvs: u32, enrol_token: Option<&str>) -> Result<TeHost> {
        let folder = lab.folder().join(format!("tehost{number}"));
        fs::create_dir_all(&folder)?;
        let server = match enrol_token {
            None => String::new(),
            Some(token) => {
                let file = folder.join("enrol.token");
                fs::write(&file, token)?;
                format!(
                    "[server]\nurl = \"http://198.18.{number}.1:8080\"\nenrol_token_file = {file:?}\n"
                )
            }
        };
        let state = folder.join("state");
        let text = format!(
            r#"name = "tehost{number}"
state = {state:?}
mode = "sandbox"
{server}
[network]
address = "198.18.{number}.2/24"
seed_addresses = "198.18.{number}.101-198.18.{number}.199"
[sandbox]
outside_address = "198.18.{number}.1/24"
[reserve]
memory_mib = 1024
disk_mib = 1024
[[testenv]]
shape = "small"
labels = ["e2e"]
count = {testenvs}
[shape.small]
cpu_overcommit = 8.0
seed = {{ cpus = 1, memory_mib = 192, disk_gb = 1 }}
nodes = {{ count = 1, cpus = 1, memory_mib = 192, disk_gb = 1 }}
"#
        );
        let config = folder.join("toci-host.toml");
        fs::write(&config, text)?;
        Ok(TeHost { number, config, agent: None })
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// It does not start at all; what it says later is in its log.
    pub fn start(&mut self, lab: &Lab, more: &[&str]) -> Result<()> {
        let program = binary("toci-host")?.display().to_string();
        let config = self.config.display().to_string();
        let mut command = vec![program.as_str(), "run", "--config", config.as_str()];
        command.extend(more);
        let name = format!("tehost{}-agent", self.number);
        self.agent = Some(lab.spawn(&name, &command, &[]).context("starting toci-host")?);
        Ok(())
    }

    /// Output of another command of toci-host with the same configuration, such as `plan`.
    ///
    /// # Errors
    /// The command failed.
    pub fn toci_host(&self, lab: &Lab, command: &str, arguments: &[&str]) -> Result<String> {
        let config = self.config.display().to_string();
        let mut all = vec![command, "--config", config.as_str()];
        all.extend(arguments);
        lab.read(binary("toci-host")?, &all)
    }
}
