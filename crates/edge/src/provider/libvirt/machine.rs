//! Machines: how one is made, found, and removed with all that belongs to it.

use super::config::{LibvirtConfig, Network, Shape};
use super::names::{self, Found, Part};
use super::seed;
use super::virsh::{self, Virsh};
use super::volume::Volumes;
use super::xml::{MachineXml, machine_xml, owner_in};
use crate::node::Session;
use crate::provider::boot::{Given, Look, console_told, look};
use crate::provider::keys::{key_pair, private_folder, public_of, random_hex, user_key};
use crate::provider::roster::Roster;
use crate::provider::{Machine, ProviderError};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks at a machine that comes up.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A new port of this machine is tried so often when somebody else was quicker.
const PORT_ATTEMPTS_MAX: u32 = 3;
/// Port of SSH.
const SSH_PORT: u16 = 22;

/// All machines of a provider.
#[derive(Debug)]
pub(super) struct Machines {
    config: LibvirtConfig,
    virsh: Virsh,
    pub(super) volumes: Volumes,
    pub(super) roster: Roster,
}

/// What a machine is to be booted from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot<'a> {
    pub(super) node: &'a str,
    pub(super) shape: &'a Shape,
    pub(super) image: &'a str,
    pub(super) kvm: bool,
    pub(super) limit: Duration,
}

impl Machines {
    pub(super) fn new(config: &LibvirtConfig) -> Machines {
        let virsh = Virsh::new(&config.uri);
        Machines {
            volumes: Volumes::new(virsh.clone(), &config.folder, &config.state),
            virsh,
            config: config.clone(),
            roster: Roster::new(&config.state),
        }
    }

    /// Whether libvirt's host can run KVM guests at all; whether they boot is another question.
    pub(super) async fn offers_kvm(&self) -> bool {
        self.virsh.ask(&["domcapabilities", "--virttype", "kvm"]).await.is_ok()
    }

    /// Makes a machine and waits until it has come up.
    pub(super) async fn boot(&self, boot: &Boot<'_>) -> Result<Machine, ProviderError> {
        let owner = self.volumes.open().await?;
        let found = self.found(boot.node).await?;
        if found.ours.contains(&names::domain(boot.node)) || found.volumes_of(boot.node).count() > 0
        {
            let what = format!("make the machine {}", boot.node);
            return Err(ProviderError::said(what, "there are remains of one of this name"));
        }
        let folder = self.roster.enter(boot.node, boot.image)?;

        let key = self.user_key().await?;
        let (host_key, marker) = (key_pair(&folder).await?, random_hex()?);
        let authorized_key = public_of(&key).await?;
        let files = seed::files(&Given {
            node: boot.node,
            user: &self.config.user,
            authorized_key: &authorized_key,
            host_key: &host_key,
            marker: &marker,
        });
        let image = seed::write(&files, &folder).await?;
        self.volumes.put(&names::volume(boot.node, Part::Seed), &image).await?;
        std::fs::remove_file(&image)
            .map_err(|e| ProviderError::new(format!("use {}", folder.display()), &e))?;
        let disk = names::volume(boot.node, Part::Disk);
        let below = names::image_volume(boot.image);
        self.volumes.layer(&disk, &below, boot.shape.disk_gib).await?;
        let port = self.start(boot, owner).await?;
        match self.come_up(boot, port, &key, &host_key.public, &marker).await {
            Ok(machine) => Ok(machine),
            Err(error) => Err(self.with_console(boot.node, error).await),
        }
    }

    async fn start(&self, boot: &Boot<'_>, owner: &str) -> Result<u16, ProviderError> {
        let domain = names::domain(boot.node);
        let path = |part| self.volumes.path(&names::volume(boot.node, part));
        let (disk, seed, console) = (path(Part::Disk), path(Part::Seed), path(Part::Console));
        let mut attempt = 1;
        loop {
            let port = if self.config.network == Network::User { free_port()? } else { SSH_PORT };
            let xml = machine_xml(&MachineXml {
                domain: &domain,
                node: boot.node,
                owner,
                kvm: boot.kvm,
                cpus: boot.shape.cpus,
                memory_mib: boot.shape.memory_mib,
                disk: &disk,
                seed: &seed,
                console: &console,
                network: &self.config.network,
                port,
            })
            .map_err(|e| ProviderError::new("describe a machine", &e))?;
            let create = ["create", "/dev/stdin"];
            let made = self.virsh.ask_in(&create, xml.as_bytes(), virsh::VIRSH_LIMIT).await;
            match made {
                Ok(_) => return Ok(port),
                // Between our look and QEMU's start somebody took the port.
                Err(error)
                    if error.why.contains("host forwarding") && attempt < PORT_ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the machine's answer over SSH with its own host key and its marker.
    async fn come_up(
        &self,
        boot: &Boot<'_>,
        port: u16,
        key: &Path,
        host_key: &str,
        marker: &str,
    ) -> Result<Machine, ProviderError> {
        let what = || format!("wait for the machine {}", boot.node);
        let end = Instant::now() + boot.limit;
        let mut last = "it was started".to_owned();
        loop {
            if Instant::now() >= end {
                let s = boot.limit.as_secs();
                return Err(ProviderError::said(what(), format!("after {s} s: {last}")));
            }
            if !self.virsh.machines(true).await?.contains(&names::domain(boot.node)) {
                return Err(ProviderError::said(what(), format!("it ended by itself ({last})")));
            }
            match self.address(boot.node).await? {
                None => last = "it has no address yet".to_owned(),
                Some(address) => {
                    let token = Token { address, port, host_key: host_key.to_owned() };
                    let machine = self.machine(boot.node, &token, key)?;
                    match look(&machine.session, Some(marker)).await {
                        Ok(Look::Up) => return Ok(machine),
                        Ok(Look::NotYet(why)) => last = why,
                        Err(why) => return Err(ProviderError::said(what(), why)),
                    }
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn address(&self, node: &str) -> Result<Option<IpAddr>, ProviderError> {
        let domain = names::domain(node);
        match &self.config.network {
            Network::User => Ok(Some(IpAddr::V4(Ipv4Addr::LOCALHOST))),
            Network::Libvirt(_) => {
                let said = self.virsh.ask(&["domifaddr", &domain, "--source", "lease"]).await?;
                Ok(virsh::leased(&said))
            }
            Network::Bridge(_) => {
                let console = names::volume(node, Part::Console);
                Ok(virsh::announced(&self.volumes.read(&console).await?))
            }
        }
    }

    /// The way to a machine; its host key is written where only it is looked for.
    fn machine(&self, node: &str, token: &Token, key: &Path) -> Result<Machine, ProviderError> {
        let known_hosts = self.roster.folder(node).join("known_hosts");
        std::fs::write(&known_hosts, token.known_hosts())
            .map_err(|e| ProviderError::new(format!("write {}", known_hosts.display()), &e))?;
        Ok(Machine {
            session: Session::Ssh {
                target: format!("{}@{}", self.config.user, token.address),
                port: token.port,
                key: key.to_owned(),
                known_hosts,
            },
            address: (self.config.network != Network::User).then_some(token.address),
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
        if !self.virsh.machines(true).await?.contains(&names::domain(node)) {
            return Ok(None);
        }
        let key = self.user_key().await?;
        private_folder(&self.roster.folder(node))
            .map_err(|e| ProviderError::new("remember a machine", &e))?;
        self.machine(node, &token, &key).map(Some)
    }

    /// All nodes that are there, also what is left of some.
    pub(super) async fn list(&self) -> Result<BTreeSet<String>, ProviderError> {
        let owner = self.volumes.open().await?;
        let volumes = self.volumes.list().await?;
        let running = self.virsh.machines(true).await?.into_iter().collect();
        let mut ours = BTreeSet::new();
        for domain in self.virsh.machines(false).await? {
            let Some(node) = names::node(&domain) else { continue };
            let has_volumes = volumes.iter().any(|v| names::node_of_volume(v) == Some(node));
            if has_volumes || self.is_ours(&domain, owner).await? {
                ours.insert(domain);
            }
        }
        Ok(Found { running, ours, volumes }.nodes(&self.roster.known(), &self.roster.tests()))
    }

    async fn is_ours(&self, domain: &str, owner: &str) -> Result<bool, ProviderError> {
        match self.virsh.ask(&["dumpxml", domain]).await {
            Ok(xml) => Ok(owner_in(&xml).as_deref() == Some(owner)),
            // It ended meanwhile.
            Err(error) if error.why.contains("failed to get domain") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What there is of one node.
    async fn found(&self, node: &str) -> Result<Found, ProviderError> {
        let owner = self.volumes.open().await?;
        let domain = names::domain(node);
        let mut found = Found { volumes: self.volumes.list().await?, ..Found::default() };
        if self.virsh.machines(false).await?.contains(&domain) {
            if !self.is_ours(&domain, owner).await? {
                let what = format!("use the machine {domain}");
                return Err(ProviderError::said(what, "it is not ours: its metadata says so"));
            }
            found.ours.insert(domain);
        }
        Ok(found)
    }

    /// Removes a machine and all that belongs to it; what is not there any more is no error.
    pub(super) async fn delete(&self, node: &str) -> Result<(), ProviderError> {
        let domain = names::domain(node);
        if self.found(node).await?.ours.contains(&domain) {
            let destroyed = self.virsh.ask(&["destroy", &domain]).await;
            if self.virsh.machines(true).await?.contains(&domain) {
                destroyed?;
            }
            if self.virsh.machines(false).await?.contains(&domain) {
                self.virsh.ask(&["undefine", &domain]).await?;
            }
        }
        // Its console may have come to be only now.
        let found = self.found(node).await?;
        for volume in found.volumes_of(node) {
            self.volumes.remove(volume).await?;
        }
        self.roster.forget(node)
    }

    async fn user_key(&self) -> Result<PathBuf, ProviderError> {
        user_key(self.config.key.as_deref(), &self.config.state).await
    }

    /// An error with the end of what the machine said.
    async fn with_console(&self, node: &str, error: ProviderError) -> ProviderError {
        let console = self.volumes.read(&names::volume(node, Part::Console)).await;
        let said = console_told(&console.unwrap_or_default());
        ProviderError::said(error.what, format!("{}; {said}", error.why))
    }
}

/// How a machine is found again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    address: IpAddr,
    port: u16,
    host_key: String,
}

impl Token {
    fn text(&self) -> String {
        format!("{} {} {}", self.address, self.port, self.host_key)
    }

    fn parse(text: &str) -> Option<Token> {
        let mut words = text.splitn(3, ' ');
        let (address, port) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Token { address, port, host_key: words.next()?.to_owned() })
    }

    fn known_hosts(&self) -> String {
        let host = match self.port {
            SSH_PORT => self.address.to_string(),
            port => format!("[{}]:{port}", self.address),
        };
        format!("{host} {}\n", self.host_key)
    }
}

/// A port of this machine that is free now.
fn free_port() -> Result<u16, ProviderError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.map(|a| a.port()).map_err(|e| ProviderError::new("find a free port", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_finds_a_machine_again() {
        let token =
            Token { address: [10, 0, 0, 3].into(), port: 22, host_key: "ssh-ed25519 AA".into() };
        assert_eq!(Token::parse(&token.text()), Some(token.clone()));
        assert_eq!(token.known_hosts(), "10.0.0.3 ssh-ed25519 AA\n");
        let far = Token { port: 2200, ..token };
        assert_eq!(far.known_hosts(), "[10.0.0.3]:2200 ssh-ed25519 AA\n");
        assert_eq!(Token::parse("10.0.0.3 22"), None);
        assert_eq!(Token::parse(""), None);
    }
}
