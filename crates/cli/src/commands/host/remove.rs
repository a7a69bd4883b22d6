//! `toci host remove`: out of service, off its machine, forgotten.

use super::inventory;
use super::machine::{Input, Machine};
use super::story::Story;
use super::{cloud, settle};
use crate::args::RemoveArgs;
use crate::error::Result;
use crate::exit::Exit;
use crate::output;
use std::process::ExitCode;
use std::time::Duration;
use toci_client::api::ApiClient;
use toci_server::te_cloud::TeCloud;
use toci_wire::api::Revoke;

/// How long the service may take to end and its files to go.
const REMOVE_LIMIT: Duration = Duration::from_secs(600);
/// How long the host may take to cut revoked leases off.
const REVOKED_LIMIT: Duration = Duration::from_secs(120);

pub(super) async fn remove(client: &ApiClient, json: bool, args: RemoveArgs) -> Result<ExitCode> {
    let host = args.host.as_str();
    if args.forget {
        client.delete_host(host).await?;
        return tell(json, host, "is forgotten");
    }
    let place = match inventory::server_of(host, &args.ssh, &args.cloud)? {
        Some(place) => Place::Server(Box::new(cloud::open(&place)?)),
        None => Place::Machine(Machine::new(&inventory::way(host, &args.ssh)?)?),
    };
    let mut story = Story::new(host);
    let is_known = settle::host(client, host).await?.is_some();
    if is_known && args.now {
        client.drain_host(host).await?;
        for lease in settle::leases(client, host).await? {
            story.tell(&format!("revoking {lease}"));
            let reason = format!("host {host} is removed");
            client.revoke(&lease, &Revoke { reason }).await?;
        }
        settle::free(client, host, REVOKED_LIMIT, &mut story).await?;
    } else if is_known {
        settle::drain(client, host, &mut story).await?;
    }
    match &place {
        Place::Machine(machine) => {
            story.tell(&format!("removing it from {}", machine.destination));
            let said = machine.run("remove", &[], Input::Nothing, REMOVE_LIMIT).await?;
            said.lines().for_each(|line| story.tell(line));
        }
        Place::Server(cloud) => {
            story.tell("deleting its server");
            let gone = cloud.delete(host).await.map_err(|e| cloud::failed(&e))?;
            gone.iter().for_each(|thing| story.tell(&format!("deleted: {thing}")));
        }
    }
    if is_known {
        client.delete_host(host).await?;
    }
    inventory::forget(host, &args.ssh)?;
    let what = match place {
        Place::Machine(_) => "is removed; packages that it needed are left",
        Place::Server(_) => "is removed, and nothing of it is left in the cloud",
    };
    tell(json, host, what)
}

/// Where a host is.
enum Place {
    Machine(Machine),
    Server(Box<TeCloud>),
}

fn tell(json: bool, host: &str, what: &str) -> Result<ExitCode> {
    if !json {
        output::text_line(&format!("host {host} {what}"))?;
    }
    Ok(Exit::Ok.into())
}
