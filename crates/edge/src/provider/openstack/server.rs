//! Servers: how one is made and found. How one is deleted: [`super::delete`].

use super::config::{HostKeySource, OpenStackConfig, Shape};
use super::host_key;
use super::marks::Marks;
use super::seen::Seen;
use super::things::Finder;
use crate::http::Secret;
use crate::node::Session;
use crate::openstack::{BootDisk, Cloud, CloudError, NewServer, Nic, Port, Server, Volume};
use crate::provider::boot::{Given, Look, console_told, look, user_data};
use crate::provider::keys::{key_pair, private_folder, public_of, random_hex, user_key};
use crate::provider::roster::Roster;
use crate::provider::{Machine, ProviderError};
use serde_json::json;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at a server that comes up or goes. One list tells of all of them.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at a console: each is a call to the server's host.
const CONSOLE_AGAIN: Duration = Duration::from_secs(2);
/// So many of a console's last lines are looked at.
const CONSOLE_LINES: u32 = 1_000;
/// Port of SSH.
const SSH_PORT: u16 = 22;
/// Why a server is waited for at first.
const UNTOLD: &str = "its console has not told its host key yet";

/// Nova on Ironic says so.
const NO_CONSOLE: &str = "a server of this flavor has no console to tell its host key on, as on bare metal: `host_key = \"user-data\"` gives it one";

/// All servers of a provider.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) config: OpenStackConfig,
    pub(super) cloud: Arc<Cloud>,
    pub(super) finder: Finder,
    marks: Mutex<Option<Arc<Marks>>>,
    seen: Seen<Server>,
    pub(super) seen_volumes: Seen<Volume>,
    pub(super) roster: Roster,
    /// Counts servers, to go through the zones.
    made: AtomicUsize,
}

/// What a server is to be booted from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot<'a> {
    pub(super) node: &'a str,
    pub(super) shape: &'a Shape,
    /// Glance's id.
    pub(super) image: &'a str,
    /// Ours, if it is one of ours.
    pub(super) ours: &'a str,
}

/// What a server is given, and what it is to be known by.
struct Identity {
    key: PathBuf,
    key_pair: String,
    user_data: Option<Secret>,
    /// Host key and marker, where we made them.
    ours: Option<(String, String)>,
}

impl Servers {
    pub(super) fn new(config: OpenStackConfig) -> Servers {
        let (cloud, roster) = (Arc::clone(&config.cloud), Roster::new(&config.state));
        Servers {
            config,
            finder: Finder::new(Arc::clone(&cloud)),
            cloud,
            marks: Mutex::default(),
            seen: Seen::default(),
            seen_volumes: Seen::default(),
            roster,
            made: AtomicUsize::new(0),
        }
    }

    /// Our marks; whose we are is in the settings, or kept in a file.
    pub(super) fn marks(&self) -> Result<Arc<Marks>, ProviderError> {
        let mut kept = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(marks) = kept.as_ref() {
            return Ok(Arc::clone(marks));
        }
        let owner = match &self.config.owner {
            Some(owner) => owner.clone(),
            None => kept_owner(&self.config.state.join("owner"))?,
        };
        let marks = Arc::new(Marks { owner, provider: self.config.name.clone() });
        *kept = Some(Arc::clone(&marks));
        Ok(marks)
    }

    /// All servers of the project, as they were not longer ago than this.
    pub(super) async fn all(&self, age: Duration) -> Result<Arc<Vec<Server>>, CloudError> {
        self.seen.within(age, self.cloud.servers(&[])).await
    }

    /// Makes a server and waits until it has come up.
    pub(super) async fn boot(&self, boot: &Boot<'_>) -> Result<Machine, ProviderError> {
        let made = self.try_boot(boot).await;
        if made.is_err() {
            // Perhaps what was believed of the cloud is not so any more.
            self.finder.forget().await;
        }
        made
    }

    async fn try_boot(&self, boot: &Boot<'_>) -> Result<Machine, ProviderError> {
        let node = boot.node;
        self.roster.enter(node, boot.ours)?;
        let identity = self.identity(node).await?;
        let (asked, zone) = (Instant::now(), self.zone());
        // The image is brought onto it while the rest is asked for.
        let volume = match boot.shape.volume_gib {
            Some(gib) => Some(self.ask_for_volume(boot, gib, zone).await?),
            None => None,
        };
        let ports = self.ports(boot).await?;
        let address = self.address(node, &ports).await?;
        let disk = match volume {
            Some(volume) => {
                self.until_available(node, &volume, asked).await?;
                BootDisk::Volume(volume)
            }
            None => BootDisk::Image(boot.image.to_owned()),
        };
        let id = self.ask_for(boot, disk, zone, &ports, &identity).await?;
        self.become_active(node, &id, asked).await?;
        match self.come_up(node, &id, address, &identity).await {
            Ok(machine) => Ok(machine),
            Err(error) => Err(self.with_console(&id, error).await),
        }
    }

    async fn identity(&self, node: &str) -> Result<Identity, ProviderError> {
        let key = self.user_key().await?;
        let public = public_of(&key).await?;
        let key_pair_name = self.finder.key_pair(self.marks()?.as_ref(), &public).await;
        let key_pair_name = key_pair_name.map_err(|e| failed("make the key pair known", e))?;
        let (user_data, ours) = match self.config.host_key {
            HostKeySource::Console => (self.config.user_data.clone().map(Secret::new), None),
            HostKeySource::UserData => {
                let (host_key, marker) =
                    (key_pair(&self.roster.folder(node)).await?, random_hex()?);
                let given = Given {
                    node,
                    user: &self.config.user,
                    authorized_key: &public,
                    host_key: &host_key,
                    marker: &marker,
                };
                (Some(Secret::new(user_data(&given))), Some((host_key.public, marker)))
            }
        };
        Ok(Identity { key, key_pair: key_pair_name, user_data, ours })
    }

    /// Makes the node's ports.
    async fn ports(&self, boot: &Boot<'_>) -> Result<Vec<Port>, ProviderError> {
        let what = || format!("make the ports of {}", boot.node);
        let things = self.finder.things().await.map_err(|e| failed(what(), e))?;
        let groups = things.groups(&self.config.security_groups)?;
        let mark = self.marks()?.description(boot.node);
        let mut ports = Vec::new();
        for network in things.networks(&boot.shape.networks)? {
            let mut port = json!({
                "network_id": network.id,
                "name": boot.node,
                "description": mark,
            });
            if network.port_security_enabled && !groups.is_empty() {
                port["security_groups"] = json!(groups);
            }
            let port = self.cloud.create_port(port).await.map_err(|e| failed(what(), e))?;
            if port.fixed_ips.is_empty() {
                let why = format!(
                    "the network {} gave it no address: it has no subnet that we can see",
                    network.name
                );
                return Err(ProviderError::said(what(), why));
            }
            ports.push(port);
        }
        Ok(ports)
    }

    /// The address that the node is reached by: a floating IP, or the one of its first port.
    async fn address(&self, node: &str, ports: &[Port]) -> Result<IpAddr, ProviderError> {
        let what = || format!("get an address for {node}");
        let first = ports.first().ok_or_else(|| ProviderError::said(what(), "it has no port"))?;
        let Some(outer) = &self.config.floating_network else {
            let mut addresses = first.fixed_ips.iter().map(|ip| ip.ip_address).collect::<Vec<_>>();
            addresses.sort_by_key(|address| !address.is_ipv4());
            let address = addresses.first().copied();
            return address.ok_or_else(|| ProviderError::said(what(), "its port has none"));
        };
        let things = self.finder.things().await.map_err(|e| failed(what(), e))?;
        let outer = things.network(outer)?;
        let mark = self.marks()?.description(node);
        let made = self.cloud.create_floating_ip(&outer.id, &first.id, &mark).await;
        made.map(|ip| ip.floating_ip_address).map_err(|e| failed(what(), e))
    }

    /// Asks for the server; its id.
    async fn ask_for(
        &self,
        boot: &Boot<'_>,
        disk: BootDisk,
        zone: Option<&str>,
        ports: &[Port],
        identity: &Identity,
    ) -> Result<String, ProviderError> {
        let what = || format!("make the server {}", boot.node);
        let things = self.finder.things().await.map_err(|e| failed(what(), e))?;
        let flavor = things.flavor(&boot.shape.flavor)?;
        let nics: Vec<Nic> = ports.iter().map(|port| Nic::Port(port.id.clone())).collect();
        let new = NewServer {
            name: boot.node,
            flavor: &flavor.id,
            boot: disk,
            nics: &nics,
            security_groups: &[],
            zone,
            key: Some(&identity.key_pair),
            config_drive: self.config.config_drive,
            user_data: identity.user_data.as_ref(),
            metadata: self.marks()?.metadata(boot.node),
        };
        self.cloud.create_server(&new).await.map_err(|e| failed(what(), e))
    }

    fn zone(&self) -> Option<&str> {
        let zones = &self.config.zones;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        zones.get(number % zones.len().max(1)).map(String::as_str)
    }

    async fn become_active(
        &self,
        node: &str,
        id: &str,
        asked: Instant,
    ) -> Result<(), ProviderError> {
        let what = || format!("wait for the server {node} to become active");
        let limit = self.config.launch_limit;
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let all = self.all(LOOK_AGAIN).await.map_err(|e| failed(what(), e))?;
            let mut server = all.iter().find(|server| server.id == id).cloned();
            // A list does not tell faults, and may be older than the server.
            if server.as_ref().is_none_or(|server| server.status == "ERROR") {
                server = self.cloud.server(id).await.map_err(|e| failed(what(), e))?;
            }
            let Some(server) = server else {
                return Err(ProviderError::said(what(), "somebody has deleted it"));
            };
            match server.status.as_str() {
                "ACTIVE" => return Ok(()),
                "ERROR" => {
                    let fault = server.fault.map(|fault| fault.message).unwrap_or_default();
                    let fault = if fault.is_empty() { "no reason is told" } else { &fault };
                    let why = format!("the cloud failed to make it: {fault}");
                    return Err(ProviderError::said(what(), why));
                }
                status if asked.elapsed() >= limit => {
                    let task = server.task.as_deref().unwrap_or("nothing");
                    let s = limit.as_secs();
                    let why = format!(
                        "after {s} s it is {status} (being done: {task}): see whether nova-compute and the scheduler of the cloud work"
                    );
                    return Err(ProviderError::said(what(), why));
                }
                _ => {}
            }
        }
    }

    /// Waits for the server's answer over SSH with a host key that is known otherwise.
    async fn come_up(
        &self,
        node: &str,
        id: &str,
        address: IpAddr,
        identity: &Identity,
    ) -> Result<Machine, ProviderError> {
        let what = || format!("wait for {node} to answer over SSH");
        let end = Instant::now() + self.config.boot_limit;
        let marker = identity.ours.as_ref().map(|(_, marker)| marker.as_str());
        let mut host_key = identity.ours.as_ref().map(|(key, _)| key.clone());
        let mut last = UNTOLD.to_owned();
        loop {
            if Instant::now() >= end {
                let s = self.config.boot_limit.as_secs();
                return Err(ProviderError::said(what(), format!("after {s} s: {last}")));
            }
            if let Some(host_key) = &host_key {
                let token = Token { id: id.to_owned(), address, host_key: host_key.clone() };
                let machine = self.machine(node, &token, &identity.key)?;
                match look(&machine.session, marker).await {
                    Ok(Look::Up) => return Ok(machine),
                    Ok(Look::NotYet(why)) => last = why,
                    Err(why) => return Err(ProviderError::said(what(), why)),
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            } else {
                match self.cloud.console(id, CONSOLE_LINES).await {
                    Ok(console) => {
                        host_key = host_key::told(&console);
                        last = UNTOLD.to_owned();
                    }
                    // It has none yet, or its host is busy with it.
                    Err(error) if error.may_pass() => last = ProviderError::new("", &error).why,
                    Err(error @ CloudError::NotFound { .. }) => {
                        last = ProviderError::new("", &error).why;
                    }
                    Err(CloudError::Refused { status: 501, .. }) => {
                        return Err(ProviderError::said(what(), NO_CONSOLE));
                    }
                    Err(error) => return Err(failed(what(), error)),
                }
                if host_key.is_none() {
                    tokio::time::sleep(CONSOLE_AGAIN).await;
                }
            }
        }
    }

    /// The way to a server; its host key is written where only it is looked for.
    fn machine(&self, node: &str, token: &Token, key: &Path) -> Result<Machine, ProviderError> {
        let known_hosts = self.roster.folder(node).join("known_hosts");
        std::fs::write(&known_hosts, format!("{} {}\n", token.address, token.host_key))
            .map_err(|e| ProviderError::new(format!("write {}", known_hosts.display()), &e))?;
        Ok(Machine {
            session: Session::Ssh {
                target: format!("{}@{}", self.config.user, token.address),
                port: SSH_PORT,
                key: key.to_owned(),
                known_hosts,
            },
            address: Some(token.address),
            token: token.text(),
        })
    }

    /// The machine of a node that was made before; none when it does not run any more.
    pub(super) async fn find(
        &self,
        node: &str,
        token: &str,
    ) -> Result<Option<Machine>, ProviderError> {
        let Some(token) = Token::parse(token) else { return Ok(None) };
        let all = self.all(LOOK_AGAIN).await;
        let all = all.map_err(|e| failed(format!("look for {node}"), e))?;
        let marks = self.marks()?;
        let is_it = |server: &&Server| {
            server.id == token.id && marks.node_of_server(server) == Some(node) && is_there(server)
        };
        if !all.iter().any(|server| is_it(&server)) {
            return Ok(None);
        }
        let key = self.user_key().await?;
        private_folder(&self.roster.folder(node))
            .map_err(|e| ProviderError::new("remember a machine", &e))?;
        self.machine(node, &token, &key).map(Some)
    }

    async fn user_key(&self) -> Result<PathBuf, ProviderError> {
        private_folder(&self.config.state).map_err(|e| ProviderError::new("keep keys", &e))?;
        user_key(self.config.key.as_deref(), &self.config.state).await
    }

    /// An error with the end of what the server said.
    async fn with_console(&self, id: &str, error: ProviderError) -> ProviderError {
        let said = match self.cloud.console(id, CONSOLE_LINES).await {
            Ok(console) => console_told(&console),
            Err(error) => {
                format!("its console cannot be read: {}", ProviderError::new("", &error).why)
            }
        };
        ProviderError { why: format!("{}; {said}", error.why), ..error }
    }
}

/// Whether a server can still be somebody's node. One that was stopped is not started again.
pub(super) fn is_there(server: &Server) -> bool {
    !matches!(server.status.as_str(), "ERROR" | "SHUTOFF" | "DELETED" | "SOFT_DELETED")
}

/// What a cloud refused, for whoever waits. Want of room is told apart.
pub(super) fn failed(what: impl Into<String>, error: CloudError) -> ProviderError {
    match error {
        CloudError::OverQuota { .. } => ProviderError::no_room(what, &error),
        CloudError::Unauthorised { .. }
        | CloudError::NotFound { .. }
        | CloudError::Conflict { .. }
        | CloudError::Refused { .. }
        | CloudError::Busy { .. }
        | CloudError::Failed { .. }
        | CloudError::Unreachable { .. }
        | CloudError::NoEndpoint { .. }
        | CloudError::Unexpected { .. } => ProviderError::new(what, &error),
    }
}

/// Whose we are: written once, then the same for ever.
fn kept_owner(file: &Path) -> Result<String, ProviderError> {
    let here = |e: std::io::Error| ProviderError::new(format!("use {}", file.display()), &e);
    if let Ok(text) = std::fs::read_to_string(file) {
        return Ok(text.trim().to_owned());
    }
    file.parent().map_or(Ok(()), private_folder).map_err(here)?;
    let owner = random_hex()?[..16].to_owned();
    std::fs::write(file, format!("{owner}\n")).map_err(here)?;
    Ok(owner)
}

/// How a server is found again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    id: String,
    address: IpAddr,
    host_key: String,
}

impl Token {
    fn text(&self) -> String {
        format!("{} {} {}", self.id, self.address, self.host_key)
    }

    fn parse(text: &str) -> Option<Token> {
        let mut words = text.splitn(3, ' ');
        let (id, address) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        Some(Token { id, address, host_key: words.next()?.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_finds_a_server_again() {
        let (id, host_key) = ("0b-1c".to_owned(), "ssh-ed25519 AA".to_owned());
        let token = Token { id, address: [203, 0, 113, 7].into(), host_key };
        assert_eq!(Token::parse(&token.text()), Some(token));
        assert_eq!(Token::parse("0b-1c 203.0.113.7"), None);
        assert_eq!(Token::parse(""), None);
    }

    #[test]
    fn an_owner_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p/owner");
        let owner = kept_owner(&file).unwrap();
        assert_eq!((owner.len(), kept_owner(&file).unwrap()), (16, owner));
    }
}
