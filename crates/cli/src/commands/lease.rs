//! `toci lease`.

use crate::args::{GlobalArgs, LeaseCommand};
use crate::duration::show as show_duration;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{self, ago, facts, moment, or_dash, word};
use crate::run;
use std::process::ExitCode;
use toci_client::api::ApiClient;
use toci_wire::api::{Extend, Hold, Lease, Release, Revoke};

pub(super) async fn dispatch(
    client: &ApiClient,
    global: &GlobalArgs,
    command: LeaseCommand,
) -> Result<ExitCode> {
    let json = global.json;
    match command {
        LeaseCommand::Run(args) => return run::run(client, &args, json).await,
        LeaseCommand::List { all } => {
            let leases = client.leases(all).await?;
            if json { output::json(&leases)? } else { output::text_line(&table(&leases))? }
        }
        LeaseCommand::Show { lease } => show(&client.lease(&lease).await?, json)?,
        LeaseCommand::Extend { lease, duration } => {
            let extend = Extend { for_s: duration.as_secs() };
            show(&client.extend(&lease, &extend).await?, json)?;
        }
        LeaseCommand::Release { lease, reason } => {
            show(&client.release(&lease, &Release { reason }).await?, json)?;
        }
        LeaseCommand::Hold { lease, duration, reason } => {
            let hold = Hold { for_s: duration.as_secs(), reason };
            show(&client.hold(&lease, &hold).await?, json)?;
        }
        LeaseCommand::Revoke { lease, reason } => {
            show(&client.revoke(&lease, &Revoke { reason }).await?, json)?;
        }
    }
    Ok(Exit::Ok.into())
}

fn testenvs(lease: &Lease) -> String {
    lease.testenvs.iter().map(|te| te.testenv.as_str()).collect::<Vec<_>>().join(",")
}

/// What matters most about a lease now: why it waits, or how long it has left, or why it ended.
fn remark(lease: &Lease) -> String {
    match (&lease.waiting, lease.left_s) {
        (Some(waiting), _) => format!("#{}: {}", waiting.position, waiting.reason),
        (None, Some(left)) => format!("{} left", show_duration(left)),
        (None, None) => lease.reason.clone(),
    }
}

fn table(leases: &[Lease]) -> String {
    let rows: Vec<_> = leases
        .iter()
        .map(|l| {
            vec![
                l.id.clone(),
                word(&l.state),
                or_dash(&testenvs(l)),
                l.owner.clone(),
                l.project.clone(),
                ago(l.requested_us),
                or_dash(&remark(l)),
                or_dash(&l.purpose),
            ]
        })
        .collect();
    let headings = ["LEASE", "STATE", "TE", "OWNER", "PROJECT", "ASKED", "REMARK", "PURPOSE"];
    output::table(&headings, &rows)
}

fn show(lease: &Lease, json: bool) -> Result<()> {
    if json {
        return output::json(lease);
    }
    let waiting = lease.waiting.as_ref();
    let tes =
        lease.testenvs.iter().map(|te| format!("{} (generation {})", te.testenv, te.generation));
    output::text_line(&facts(&[
        ("lease", lease.id.clone()),
        ("state", word(&lease.state)),
        ("test environments", tes.collect::<Vec<_>>().join(", ")),
        ("owner", lease.owner.clone()),
        ("project", lease.project.clone()),
        ("purpose", lease.purpose.clone()),
        ("label", lease.label.clone().unwrap_or_default()),
        ("shape", lease.shape.clone().unwrap_or_default()),
        ("count", lease.count.to_string()),
        ("priority", lease.priority.to_string()),
        ("position", waiting.map(|w| w.position.to_string()).unwrap_or_default()),
        ("waits because", waiting.map(|w| w.reason.clone()).unwrap_or_default()),
        ("estimate", waiting.and_then(|w| w.estimate_s).map(show_duration).unwrap_or_default()),
        ("asked for", moment(lease.requested_us)),
        ("active since", lease.active_us.map(moment).unwrap_or_default()),
        ("ends", lease.expires_us.map(moment).unwrap_or_default()),
        ("left", lease.left_s.map(show_duration).unwrap_or_default()),
        ("ended", lease.ended_us.map(moment).unwrap_or_default()),
        ("reason", lease.reason.clone()),
    ]))
}
