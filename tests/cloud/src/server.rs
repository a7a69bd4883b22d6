//! Servers that a test makes by itself: strangers for the code under test, or to see that the cloud works.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::api::text;
use crate::{Api, wait_for};

/// Longest wait for a step of a server's life; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(180);

/// A key pair for a person, known to the cloud until this is dropped.
#[derive(Debug)]
pub struct KeyPair {
    folder: tempfile::TempDir,
    /// What the cloud calls it.
    pub name: String,
}

impl KeyPair {
    /// Makes one.
    ///
    /// # Errors
    /// ssh-keygen or the cloud refuses.
    pub fn new(name: &str) -> Result<KeyPair> {
        let pair = KeyPair { folder: tempfile::tempdir()?, name: name.to_owned() };
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(pair.private())
            .status()
            .context("ssh-keygen: apt-get install openssh-client")?;
        ensure!(made.success(), "ssh-keygen: {made}");
        let public = std::fs::read_to_string(pair.private().with_extension("pub"))?;
        let body = json!({"keypair": {"name": name, "public_key": public.trim(), "type": "ssh"}});
        Api::ci()?.post("compute", "/os-keypairs", &body)?;
        Ok(pair)
    }

    fn private(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    /// Runs a command on a server that must have one of these host keys.
    ///
    /// # Errors
    /// It cannot be reached, has another key, or the command does not work.
    pub fn ssh(&self, address: &str, host_keys: &[String], command: &str) -> Result<String> {
        let output = Command::new("ssh")
            .arg("-n")
            .args(self.options(address, host_keys)?)
            .args([&format!("root@{address}"), command])
            .output()
            .context("ssh: apt-get install openssh-client")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ssh {address}: {}: {}", output.status, complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What `ProxyCommand` has to be for OpenSSH to reach `target` and `port` from that server: it is the one that the other
    /// side sees.
    ///
    /// # Errors
    /// The file of known hosts cannot be written.
    pub fn proxy(
        &self,
        address: &str,
        host_keys: &[String],
        (target, port): (&str, u64),
    ) -> Result<String> {
        let options = self.options(address, host_keys)?.join(" ");
        Ok(format!("ssh {options} root@{address} nc {target} {port}"))
    }

    /// What OpenSSH needs to be told about a server, once for each option.
    fn options(&self, address: &str, host_keys: &[String]) -> Result<Vec<String>> {
        let known = self.folder.path().join("known_hosts");
        let lines: Vec<String> = host_keys.iter().map(|key| format!("{address} {key}\n")).collect();
        std::fs::write(&known, lines.concat())?;
        Ok(vec![
            "-F/dev/null".into(),
            "-oBatchMode=yes".into(),
            "-oConnectTimeout=10".into(),
            "-oStrictHostKeyChecking=yes".into(),
            "-oGlobalKnownHostsFile=/dev/null".into(),
            format!("-oUserKnownHostsFile={}", known.display()),
            format!("-i{}", self.private().display()),
        ])
    }
}

impl Drop for KeyPair {
    fn drop(&mut self) {
        // Footprint tells when this did not work.
        let _ =
            Api::ci().and_then(|ci| ci.delete("compute", &format!("/os-keypairs/{}", self.name)));
    }
}

/// A server; dropped, it is deleted, and gone.
#[derive(Debug)]
pub struct Server {
    /// Its id.
    pub id: String,
}

impl Server {
    /// Asks for a small server on the tenant's network. `more` are further keys of the request.
    ///
    /// # Errors
    /// The cloud refuses.
    pub fn new(name: &str, more: &Value) -> Result<Server> {
        let ci = Api::ci()?;
        let mut server = json!({
            "name": name,
            "imageRef": ci.id_of("image", "/images", "images", "tiny")?,
            "flavorRef": ci.id_of("compute", "/flavors", "flavors", "tiny")?,
            "networks": [{"uuid": ci.id_of("network", "/networks", "networks", "private")?}],
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            server[key] = value.clone();
        }
        let answer = ci.post("compute", "/servers", &json!({"server": server}))?;
        Ok(Server { id: text(&answer["server"]["id"])? })
    }

    /// Waits for a status, such as `ACTIVE`; answers with the server.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn until(&self, status: &str) -> Result<Value> {
        let ci = Api::ci()?;
        wait_for(&format!("server {} to be {status}", self.id), LIMIT, || {
            let server = ci.get("compute", &format!("/servers/{}", self.id))?["server"].clone();
            if server["status"] != status {
                bail!(
                    "{} {} {}",
                    server["status"],
                    server["OS-EXT-STS:task_state"],
                    server["fault"]
                );
            }
            Ok(server)
        })
    }

    /// What it said on its serial console.
    ///
    /// # Errors
    /// The cloud does not answer.
    pub fn console(&self) -> Result<String> {
        let path = format!("/servers/{}/action", self.id);
        let answer = Api::ci()?.post("compute", &path, &json!({"os-getConsoleOutput": {}}))?;
        text(&answer["output"])
    }

    /// Waits for its host keys on its console.
    ///
    /// # Errors
    /// It never tells them.
    pub fn host_keys(&self) -> Result<Vec<String>> {
        wait_for(&format!("host keys on the console of {}", self.id), LIMIT, || {
            let console = self.console()?;
            let keys = host_keys(&console);
            let last: Vec<&str> = console.lines().rev().take(5).collect();
            ensure!(!keys.is_empty(), "its console's end, last line first: {last:?}");
            Ok(keys)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let gone = || -> Result<()> {
            let (ci, path) = (Api::ci()?, format!("/servers/{}", self.id));
            ci.delete("compute", &path)?;
            wait_for("the server to be gone", LIMIT, || match ci.get("compute", &path) {
                Err(error) if error.to_string().contains("404") => Ok(()),
                answer => bail!("{answer:?}"),
            })
        };
        if let Err(why) = gone() {
            eprintln!("server {} is left behind: {why:#}", self.id);
        }
    }
}

/// Keys between cloud-init's lines on a console; none while the last of these lines is still to come. The kernel may write
/// into the same lines.
#[must_use]
pub fn host_keys(console: &str) -> Vec<String> {
    let between = console
        .split_once("-----BEGIN SSH HOST KEY KEYS-----")
        .and_then(|(_, rest)| rest.split_once("-----END SSH HOST KEY KEYS-----"));
    let lines = between.map(|(keys, _)| keys).unwrap_or_default().lines();
    lines.filter_map(|line| Some(line[line.find("ssh-")?..].trim().to_owned())).collect()
}

/// A floating address; dropped, it is given back.
#[derive(Debug)]
pub struct FloatingAddress {
    id: String,
    /// Where the server is reached.
    pub address: String,
}

impl FloatingAddress {
    /// One for a server on the tenant's network.
    ///
    /// # Errors
    /// The cloud refuses.
    pub fn of(server: &Server) -> Result<FloatingAddress> {
        let ci = Api::ci()?;
        let private = ci.id_of("network", "/networks", "networks", "private")?;
        let path = format!("/ports?device_id={}&network_id={private}", server.id);
        let ports = ci.get("network", &path)?;
        let public = ci.id_of("network", "/networks", "networks", "public")?;
        let port = &ports["ports"][0]["id"];
        let body = json!({"floatingip": {"floating_network_id": public, "port_id": port}});
        let made = ci.post("network", "/floatingips", &body)?["floatingip"].clone();
        Ok(FloatingAddress { id: text(&made["id"])?, address: text(&made["floating_ip_address"])? })
    }
}

impl Drop for FloatingAddress {
    fn drop(&mut self) {
        // Footprint tells when this did not work.
        let _ = Api::ci().and_then(|ci| ci.delete("network", &format!("/floatingips/{}", self.id)));
    }
}
