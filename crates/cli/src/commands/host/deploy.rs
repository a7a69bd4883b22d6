//! `toci host deploy`: looks, plans, and does what is planned.

use super::inventory::{self, CloudPlace, Way};
use super::machine::{Input, Machine};
use super::program::Program;
use super::story::Story;
use super::template::{HostConfig, Template};
use super::{apply, cloud, settle};
use crate::args::{ApplyArgs, DeployArgs};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::output;
use serde::Serialize;
use std::process::ExitCode;
use std::time::Duration;
use toci_client::api::ApiClient;
use toci_core::deploy::{AtServer, Describe, Disturb, Found, PACKAGES, Services, Step, Wish, plan};
use toci_core::refused::Refused;
use toci_wire::te_host;

/// How long a machine may take to say what it is.
const FACTS_LIMIT: Duration = Duration::from_secs(180);
/// What keeps the host running where systemd does …
const UNIT: &str = include_str!("toci-host.service");
/// … and where nothing does.
const KEEPER: &str = include_str!("keep.sh");

/// A host that is set up.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) client: &'a ApiClient,
    pub(super) host: String,
    pub(super) machine: Machine,
    pub(super) program: Program,
    /// As it should be; `None`: as it is.
    pub(super) config: Option<HostConfig>,
}

/// A plan as JSON.
#[derive(Debug, Serialize)]
struct Planned<'a> {
    host: &'a str,
    machine: String,
    found: &'a Found,
    at_server: &'a AtServer,
    steps: &'a [Step],
}

/// What was done, as JSON.
#[derive(Debug, Serialize)]
struct Done<'a> {
    host: &'a str,
    steps: &'a [Step],
    testenvs: usize,
    seconds: f64,
}

pub(super) async fn deploy(client: &ApiClient, json: bool, args: DeployArgs) -> Result<ExitCode> {
    let template = Template::read(&args.config, &args.set)?;
    if let Some(place) = CloudPlace::said(&args.cloud) {
        return cloud::deploy(client, json, &args, &template, &place).await;
    }
    inventory::one_machine_for(&args.hosts, &args.ssh)?;
    for host in &args.hosts {
        let config = template.fill_in(host, None)?;
        let way = inventory::way(host, &args.ssh)?;
        let target = Target::new(client, host, &way, &args.apply, Some(config))?;
        if args.plan {
            target.show_plan(json).await?;
            continue;
        }
        target.bring(json, &args.apply, &mut Story::new(host)).await?;
        inventory::remember(host, &args.ssh, &way)?;
    }
    Ok(Exit::Ok.into())
}

/// The unit, for this state folder.
pub(super) fn unit(state: &str) -> String {
    UNIT.replace("@STATE@", state)
}

pub(super) fn refused(refused: Refused) -> CliError {
    let Refused { code, message, hint } = refused;
    CliError { exit: Exit::Refused, message, hint, code: code.to_owned() }
}

impl<'a> Target<'a> {
    pub(super) fn new(
        client: &'a ApiClient,
        host: &str,
        way: &Way,
        args: &ApplyArgs,
        config: Option<HostConfig>,
    ) -> Result<Target<'a>> {
        let machine = Machine::new(way)?;
        let program = Program::open(args.binary.as_deref())?;
        Ok(Target { client, host: host.to_owned(), machine, program, config })
    }

    /// The machine, and what the server knows of the host.
    pub(super) async fn look(&self) -> Result<(Found, AtServer)> {
        let state = self.config.as_ref().map_or("/", |config| config.state.as_str());
        let arguments: Vec<&str> = std::iter::once(state).chain(PACKAGES).collect();
        let said = self.machine.run("facts", &arguments, Input::Nothing, FACTS_LIMIT).await?;
        let config = self.config.as_ref().map(|config| config.text.as_str());
        let found = te_host::found(&said, config)
            .map_err(|e| CliError::failed(format!("look at {}", self.machine.destination), &e))?;
        Ok((found, settle::at_server(self.client, &self.host).await?))
    }

    fn wish(&self, found: &Found) -> Wish {
        let state = self.config.as_ref().map_or(&found.state, |config| &config.state);
        Wish {
            version: self.program.version.clone(),
            program_bytes: self.program.bytes,
            arch: self.program.arch.to_owned(),
            unit: unit(state),
            keeper: KEEPER.to_owned(),
        }
    }

    fn plan(&self, found: &Found, server: &AtServer, disturb: Disturb) -> Result<Vec<Step>> {
        plan(&self.wish(found), found, server, disturb).map_err(refused)
    }

    pub(super) async fn show_plan(&self, json: bool) -> Result<ExitCode> {
        let (found, server) = self.look().await?;
        let steps = self.plan(&found, &server, Disturb::Leases)?;
        if json {
            let machine = self.machine.destination.to_string();
            let (found, at_server) = (&found, &server);
            output::json(&Planned { host: &self.host, machine, found, at_server, steps: &steps })?;
        } else {
            let Found { distribution, release, arch, memory_mib, cpus, disk_free_mib, .. } = &found;
            output::text_line(&format!(
                "{} on {}: {distribution} {release}, {arch}, {memory_mib} MiB memory, {cpus} CPUs, {disk_free_mib} MiB disk free\n{}",
                self.host,
                self.machine.destination,
                Describe(&steps)
            ))?;
        }
        Ok(Exit::Ok.into())
    }

    /// Does what is planned, and waits until the host serves.
    pub(super) async fn bring(
        &self,
        json: bool,
        args: &ApplyArgs,
        story: &mut Story,
    ) -> Result<ExitCode> {
        let (found, mut server) = self.look().await?;
        let may = if args.now || args.drain { Disturb::Leases } else { Disturb::Never };
        let steps = self.plan(&found, &server, may)?;
        let drained = args.drain && server.is_enrolled && !steps.is_empty();
        let undrain = drained && settle::drain(self.client, &self.host, story).await?;
        if drained {
            server = settle::at_server(self.client, &self.host).await?;
            story.tell(&format!("drained; {} TEs in use", server.in_use.len()));
        }
        let wish = self.wish(&found);
        let service = match found.services {
            Services::Systemd => &wish.unit,
            Services::None => &wish.keeper,
        };
        let applied = apply::apply(self, &steps, service, args.well_within, story).await;
        if undrain {
            self.client.undrain_host(&self.host).await?;
        }
        applied?;
        let testenvs = settle::ready(self.client, &self.host, args.ready_within, story).await?;
        if json {
            let seconds = story.seconds();
            output::json(&Done { host: &self.host, steps: &steps, testenvs, seconds })?;
        } else {
            let what = if steps.is_empty() { "as it should be" } else { "done" };
            output::text_line(&format!("{}: {what}, {testenvs} test environments", self.host))?;
        }
        Ok(Exit::Ok.into())
    }
}
