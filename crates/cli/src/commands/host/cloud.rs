//! `toci host deploy --cloud`: hosts that are servers of a cloud. All are asked for before the first is waited for.

use super::deploy::{Target, refused};
use super::inventory::{self, CloudPlace, Way};
use super::settle;
use super::story::Story;
use super::template::{HostConfig, Template};
use crate::args::DeployArgs;
use crate::beside::find;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::output;
use serde::Serialize;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};
use toci_client::api::ApiClient;
use toci_core::deploy::{OnCloud, ServerStep, ServerWish, plan_server};
use toci_server::te_cloud::{KnownShape, ServerShape, TeCloud, TeCloudError, new_key_pair};
use toci_wire::api::{Connection, EnrolTokenRequest};
use toci_wire::te_host::{Destination, HostData, UserData};
use tokio::io::AsyncWriteExt as _;

/// How often a server that boots is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Who logs in.
const USER: &str = "root";
/// Port of SSH on a server.
const SSH_PORT: u16 = 22;

/// The cloud that hosts are in.
pub(super) fn open(place: &CloudPlace) -> Result<TeCloud> {
    TeCloud::open(&place.name, place.region.as_deref(), &place.owner).map_err(|e| failed(&e))
}

/// What a cloud refused.
pub(super) fn failed(error: &TeCloudError) -> CliError {
    let hint = match error {
        TeCloudError::Open(_) => {
            "clouds.yaml says where the cloud is and who you are there; docs/cloud.md"
        }
        TeCloudError::Stays { .. } => "try again; an administrator of the cloud can say more",
        TeCloudError::Cloud(_) | TeCloudError::NotOne(_) | TeCloudError::Unfit { .. } => "",
    };
    CliError { hint: hint.to_owned(), ..CliError::failed("use the cloud", error) }
}

/// What all hosts of one call share.
struct Site<'a> {
    client: &'a ApiClient,
    args: &'a DeployArgs,
    template: &'a Template,
    place: &'a CloudPlace,
    cloud: TeCloud,
    shape: KnownShape,
    /// Checks configurations.
    program: PathBuf,
}

/// One host, as it was found and what it lacks.
#[derive(Debug)]
struct Planned<'a> {
    host: &'a str,
    found: OnCloud,
    steps: Vec<ServerStep>,
    story: Story,
}

/// A plan, or what was done, as JSON.
#[derive(Debug, Serialize)]
struct Told<'a> {
    host: &'a str,
    found: &'a OnCloud,
    steps: &'a [ServerStep],
    #[serde(skip_serializing_if = "Option::is_none")]
    testenvs: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

pub(super) async fn deploy(
    client: &ApiClient,
    json: bool,
    args: &DeployArgs,
    template: &Template,
    place: &CloudPlace,
) -> Result<ExitCode> {
    let shape = shape(args)?;
    let program = args.apply.binary.clone().map_or_else(|| find("toci-host"), Ok)?;
    let cloud = open(place)?;
    let shape = cloud.know(&shape).await.map_err(|e| failed(&e))?;
    let site = Site { client, args, template, place, cloud, shape, program };
    let mut hosts = Vec::new();
    for host in &args.hosts {
        hosts.push(site.plan(host).await?);
    }
    for planned in &mut hosts {
        if args.plan {
            planned.show(json)?;
        } else {
            site.make(planned).await?;
        }
    }
    if !args.plan {
        for planned in hosts {
            site.settle(json, planned).await?;
        }
    }
    Ok(Exit::Ok.into())
}

/// What servers are made of; all of it has to be said.
fn shape(args: &DeployArgs) -> Result<ServerShape> {
    let server = &args.server;
    let said = |value: &Option<String>, option: &str| {
        let missing = || CliError::usage(format!("--cloud wants {option} too"), "");
        value.clone().ok_or_else(missing)
    };
    Ok(ServerShape {
        image: said(&server.image, "--image")?,
        flavor: said(&server.flavor, "--flavor")?,
        network: said(&server.network, "--network")?,
        access_network: said(&server.access_network, "--access-network")?,
        floating_network: server.floating_network.clone(),
        security_groups: server.security_group.clone(),
        key_pair: server.key_pair.clone(),
        zone: server.availability_zone.clone(),
    })
}

impl Planned<'_> {
    fn show(&self, json: bool) -> Result<()> {
        if json {
            let Planned { host, found, steps, .. } = self;
            return output::json(&Told { host, found, steps, testenvs: None, seconds: None });
        }
        let steps: Vec<String> = self.steps.iter().map(ToString::to_string).collect();
        let steps = if steps.is_empty() { "nothing to make".into() } else { steps.join("\n") };
        output::text_line(&format!("{}\n{steps}", self.host))
    }
}

impl Site<'_> {
    async fn plan<'h>(&self, host: &'h str) -> Result<Planned<'h>> {
        let found = self.cloud.look(host, &self.shape).await.map_err(|e| failed(&e))?;
        let address = match self.template.wants_address() {
            true => None,
            false => Some(asked_address(self.template, &self.template.fill_in(host, None)?)?),
        };
        let floating = self.args.server.floating_network.is_some();
        let wish = ServerWish { host: host.to_owned(), address, floating };
        let is_connected = self.is_connected(host).await?;
        let steps = plan_server(&wish, &found, is_connected).map_err(refused)?;
        Ok(Planned { host, found, steps, story: Story::new(host) })
    }

    async fn is_connected(&self, host: &str) -> Result<bool> {
        let known = settle::host(self.client, host).await?;
        Ok(known.is_some_and(|host| host.connection == Connection::Connected))
    }

    /// Makes what is missing.
    async fn make(&self, planned: &mut Planned<'_>) -> Result<()> {
        let Planned { host, found, steps, story } = planned;
        if !steps.is_empty() {
            inventory::remember_server(host, &self.args.ssh, self.place)?;
        }
        for step in steps.iter() {
            story.tell(&step.to_string());
            let data = match step {
                ServerStep::Server => Some(self.user_data(host, found, story).await?),
                ServerStep::OwnPort | ServerStep::TestPort { .. } | ServerStep::FloatingIp => None,
            };
            let made = self.cloud.make(host, step, &self.shape, found, data).await;
            made.map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    /// What the server finds at its first boot: its configuration, and a token that is good for that boot.
    async fn user_data(&self, host: &str, found: &OnCloud, story: &mut Story) -> Result<String> {
        let config = self.config(host, found)?;
        check(&self.program, self.template, &config).await?;
        let ttl_s = Some(self.args.server.boot_within.as_secs());
        let request = EnrolTokenRequest { host: Some(host.to_owned()), ttl_s };
        let token = self.client.create_enrol_token(&request).await?.token;
        let ssh_host_key = match self.args.server.give_host_key {
            true => Some(self.new_host_key(host, found, story).await?),
            false => None,
        };
        let data = UserData { toci_host: HostData { config: config.text, token, ssh_host_key } };
        serde_json::to_string(&data).map_err(|e| CliError::failed("write user data", &e))
    }

    /// A host key for a server that cannot tell its own one: the private half. The public one is remembered at once, for
    /// who is interrupted asks again.
    async fn new_host_key(&self, host: &str, found: &OnCloud, story: &mut Story) -> Result<String> {
        let pair = new_key_pair().await.map_err(|e| CliError::failed("make a host key", &e))?;
        story.tell(&format!("its host key: {}", pair.public));
        if let Some(way) = self.way(host, found, Some(pair.public)) {
            inventory::remember(host, &self.args.ssh, &way)?;
        }
        Ok(pair.private)
    }

    fn config(&self, host: &str, found: &OnCloud) -> Result<HostConfig> {
        let address = found.test_port.as_ref().and_then(|port| port.address);
        let address = address.map(|address| format!("{address}/{}", self.shape.prefix));
        self.template.fill_in(host, address.as_deref())
    }

    /// Waits until the host serves; one that was there before is brought up to date.
    async fn settle(&self, json: bool, planned: Planned<'_>) -> Result<()> {
        let Planned { host, found, steps, mut story } = planned;
        let way = self.boots(host, &found, &mut story).await?;
        let ready_within = self.args.apply.ready_within;
        if let Some(way) = &way {
            inventory::remember(host, &self.args.ssh, way)?;
            if !steps.contains(&ServerStep::Server) && self.args.server.key_pair.is_some() {
                let config = Some(self.config(host, &found)?);
                let target = Target::new(self.client, host, way, &self.args.apply, config)?;
                return target.bring(json, &self.args.apply, &mut story).await.map(drop);
            }
        } else {
            story.tell("its console has not told its host key: SSH wants --host-key (--give-host-key makes one for a new server)");
        }
        let testenvs = settle::ready(self.client, host, ready_within, &mut story).await?;
        if json {
            let (testenvs, seconds) = (Some(testenvs), Some(story.seconds()));
            return output::json(&Told { host, found: &found, steps: &steps, testenvs, seconds });
        }
        let place = way.map(|way| format!(" at {}", way.destination)).unwrap_or_default();
        output::text_line(&format!("{host}{place}: done, {testenvs} test environments"))
    }

    /// Waits until the server has introduced itself; how it is reached, when its console has told its host key.
    async fn boots(&self, host: &str, found: &OnCloud, story: &mut Story) -> Result<Option<Way>> {
        let Some(server) = found.servers.first() else {
            return Err(CliError::new(Exit::Failed, format!("{host} has no server"), ""));
        };
        let (begun, limit) = (Instant::now(), self.args.server.boot_within);
        let mut key = None;
        loop {
            let seen = self.cloud.seen(&server.id).await.map_err(|e| failed(&e.into()))?;
            let again = format!("`toci host remove {host}`, then deploy again");
            let Some(seen) = seen else {
                let what = format!("the server {} of {host} was deleted by somebody", server.id);
                return Err(CliError::new(Exit::Failed, what, again));
            };
            if seen.status == "ERROR" {
                let what =
                    format!("the server {} of {host} is in ERROR: {}", server.id, seen.fault);
                return Err(CliError::new(Exit::Failed, what, again));
            }
            if seen.status == "ACTIVE" && key.is_none() {
                key = self.cloud.host_key(&server.id).await;
            }
            if self.is_connected(host).await? {
                return Ok(self.way(host, found, key));
            }
            let is_up = if key.is_some() { ", its SSH server is there" } else { "" };
            story.tell(&format!("server {} is {}{is_up}", server.id, seen.status));
            if begun.elapsed() >= limit {
                let said = self.cloud.console_end(&server.id).await;
                let what =
                    format!("{host} has not introduced itself in {} s; {said}", limit.as_secs());
                return Err(CliError::new(Exit::Failed, what, again));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn way(&self, host: &str, found: &OnCloud, host_key: Option<String>) -> Option<Way> {
        let own = || found.own_port.as_ref().and_then(|port| port.address);
        let address = found.floating_ip.or_else(own)?.to_string();
        let destination = Destination { user: USER.to_owned(), host: address, port: SSH_PORT };
        let ssh = &self.args.ssh;
        // What was said before is not forgotten.
        let known = inventory::way(host, ssh).ok();
        let key = known.as_ref().map_or_else(|| ssh.ssh_key.clone(), |way| way.key.clone());
        let known = known.filter(|way| way.destination == destination);
        let known = known.and_then(|way| way.host_key);
        let host_key = host_key.or_else(|| ssh.host_key.clone()).or(known)?;
        Some(Way { destination, key, known_hosts: None, host_key: Some(host_key) })
    }
}

/// The address that a configuration asks for.
fn asked_address(template: &Template, config: &HostConfig) -> Result<IpAddr> {
    let text = config.address.as_deref().unwrap_or_default();
    let (address, _) = text.split_once('/').unwrap_or((text, ""));
    address.parse().map_err(|_| {
        template.wrong("[network] wants an address such as 198.18.0.2/24, or \"@ADDRESS@\"")
    })
}

/// Has the program say what it thinks of the configuration: on the server nobody would hear it.
async fn check(program: &PathBuf, template: &Template, config: &HostConfig) -> Result<()> {
    let failed = |e: std::io::Error| CliError::failed(format!("run {}", program.display()), &e);
    let mut child = tokio::process::Command::new(program)
        .args(["check", "--config", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(config.text.as_bytes()).await.map_err(failed)?;
    }
    let ended = child.wait_with_output().await.map_err(failed)?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let said = said.trim().trim_start_matches("toci-host: ");
    Err(template.wrong(said.trim_start_matches("/dev/stdin:")))
}
