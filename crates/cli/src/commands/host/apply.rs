//! Carries a plan out, step by step.

use super::deploy::Target;
use super::machine::{Input, Machine};
use super::story::Story;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use std::time::Duration;
use toci_core::deploy::Step;
use toci_wire::api::EnrolTokenRequest;

/// How long apt may take.
const PACKAGES_LIMIT: Duration = Duration::from_secs(1800);
/// How long the program may take to be there.
const PROGRAM_LIMIT: Duration = Duration::from_secs(1200);
/// How long the small steps may take.
const STEP_LIMIT: Duration = Duration::from_secs(120);
/// How long a one-time token is good for.
const TOKEN_TTL: Duration = Duration::from_secs(600);
/// What a switch of versions may take beside the proofs that they serve well: the old agent makes way, twice.
const SWITCH_EXTRA: Duration = Duration::from_secs(240);
/// Exit codes of the script's `switch`.
const WENT_BACK: i32 = 10;
/// See [`WENT_BACK`].
const NOT_WELL: i32 = 11;

/// Does all of it.
pub(super) async fn apply(
    target: &Target<'_>,
    steps: &[Step],
    service: &str,
    well_within: Duration,
    story: &mut Story,
) -> Result<()> {
    let is_new = steps.iter().any(|step| matches!(step, Step::Configure { .. }));
    let config = if is_new { "new" } else { "same" };
    for step in steps {
        story.tell(&step.to_string());
        one(target, step, config, service, well_within).await?;
    }
    Ok(())
}

async fn one(
    target: &Target<'_>,
    step: &Step,
    config: &str,
    service: &str,
    well_within: Duration,
) -> Result<()> {
    let machine = &target.machine;
    let version = target.program.version.as_str();
    match step {
        Step::Packages { names } => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            machine.run("packages", &names, Input::Nothing, PACKAGES_LIMIT).await?;
        }
        Step::Program { .. } => {
            let arguments = [version, &target.program.sha256, env!("CARGO_PKG_VERSION")];
            let program = Input::File(&target.program.path);
            machine.run("program", &arguments, program, PROGRAM_LIMIT).await?;
        }
        Step::Configure { .. } => {
            let text = target.config.as_ref().map_or("", |config| config.text.as_str());
            machine.run("configure", &[version], Input::Text(text), STEP_LIMIT).await?;
        }
        Step::Enrol { .. } => {
            let ttl_s = Some(TOKEN_TTL.as_secs());
            let request = EnrolTokenRequest { host: Some(target.host.clone()), ttl_s };
            let made = target.client.create_enrol_token(&request).await?;
            let token = Input::Text(&made.token);
            machine.run("enrol", &[version, config], token, STEP_LIMIT).await?;
        }
        Step::Service { .. } => {
            machine.run("service", &[], Input::Text(service), STEP_LIMIT).await?;
        }
        Step::Start { .. } => switch(machine, version, "start", config, well_within).await?,
        Step::HandOver { .. } => switch(machine, version, "hand_over", config, well_within).await?,
        Step::Restart { .. } => switch(machine, version, "restart", config, well_within).await?,
    }
    Ok(())
}

/// Has a version run that is there.
pub(super) async fn switch(
    machine: &Machine,
    version: &str,
    how: &str,
    config: &str,
    well_within: Duration,
) -> Result<()> {
    let seconds = well_within.as_secs().max(1).to_string();
    let limit = well_within * 2 + SWITCH_EXTRA;
    let arguments = [version, how, &seconds, config];
    let said = machine.call("switch", &arguments, Input::Nothing, limit).await?;
    let (code, message, hint) = match said.code {
        0 => return Ok(()),
        WENT_BACK => (
            "went_back",
            "the new version does not serve well; the one before it serves again",
            "the host is as it was; leases went on",
        ),
        NOT_WELL => (
            "not_well",
            "the host does not serve well",
            "on the machine: journalctl -u toci-host, or /var/log/toci-host.log",
        ),
        _ => ("failed", "the version could not be switched", ""),
    };
    let message = format!("{message} ({}):\n  {}", machine.destination, said.tail());
    Err(CliError { code: code.to_owned(), ..CliError::new(Exit::Failed, message, hint) })
}
