//! `toci host upgrade` and `toci host rollback`: another version, in place.

use super::deploy::Target;
use super::inventory;
use super::story::Story;
use super::{apply, deploy, settle};
use crate::args::{ApplyArgs, RollbackArgs, UpgradeArgs};
use crate::error::Result;
use crate::exit::Exit;
use crate::output;
use std::process::ExitCode;
use toci_client::api::ApiClient;
use toci_core::deploy::{ConfigState, Found, Standing};
use toci_core::refused::Refused;

pub(super) async fn upgrade(client: &ApiClient, json: bool, args: UpgradeArgs) -> Result<ExitCode> {
    inventory::one_machine_for(&args.hosts, &args.ssh)?;
    for host in &args.hosts {
        let way = inventory::way(host, &args.ssh)?;
        let target = Target::new(client, host, &way, &args.apply, None)?;
        is_deployed(&target.look().await?.0, host)?;
        if args.plan {
            target.show_plan(json).await?;
        } else {
            target.bring(json, &args.apply, &mut Story::new(host)).await?;
            inventory::remember(host, &args.ssh, &way)?;
        }
    }
    Ok(Exit::Ok.into())
}

fn is_deployed(found: &Found, host: &str) -> Result<()> {
    if found.config != ConfigState::Missing && found.current.is_some() {
        return Ok(());
    }
    let message = format!("{host} was not set up there by `toci host deploy`");
    Err(deploy::refused(Refused::new("not_deployed", message, "do that first")))
}

pub(super) async fn rollback(
    client: &ApiClient,
    json: bool,
    args: RollbackArgs,
) -> Result<ExitCode> {
    let way = inventory::way(&args.host, &args.ssh)?;
    let no_changes = ApplyArgs {
        drain: false,
        now: false,
        well_within: args.well_within,
        ready_within: args.ready_within,
        binary: None,
    };
    let target = Target::new(client, &args.host, &way, &no_changes, None)?;
    let (found, _) = target.look().await?;
    is_deployed(&found, &args.host)?;
    let Some(previous) = found.previous else {
        let message = format!("{} has no version before this one", args.host);
        return Err(deploy::refused(Refused::new("no_previous", message, "")));
    };
    let mut story = Story::new(&args.host);
    let how = match &found.standing {
        Standing::Stopped | Standing::Foreign => "start",
        Standing::Unwell | Standing::Well(_) => "hand_over",
    };
    let from = found.current.map(|v| v.to_string()).unwrap_or_default();
    story.tell(&format!("> {how}  from {from} back to {previous}"));
    apply::switch(&target.machine, previous.as_str(), how, "same", args.well_within).await?;
    settle::ready(client, &args.host, args.ready_within, &mut story).await?;
    if json {
        let done = serde_json::json!({ "host": args.host, "from": from, "version": previous });
        output::json(&done)?;
    } else {
        output::text_line(&format!("{}: {previous} serves again", args.host))?;
    }
    Ok(Exit::Ok.into())
}
