//! `toci host`: what there is, and what the server does with it.

use super::super::secret_file::SecretFile;
use super::{deploy, image, remove, upgrade};
use crate::args::{HostCommand, HostImageCommand};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{self, ago, facts, moment, or_dash, word};
use std::process::ExitCode;
use toci_client::api::ApiClient;
use toci_wire::api::{EnrolTokenRequest, Host};

pub(in super::super) async fn dispatch(
    client: &ApiClient,
    json: bool,
    command: HostCommand,
) -> Result<ExitCode> {
    match command {
        HostCommand::List => {
            let hosts = client.hosts().await?;
            if json { output::json(&hosts)? } else { output::text_line(&table(&hosts))? }
        }
        HostCommand::Show { host } => show(&client.host(&host).await?, json)?,
        HostCommand::Enrol { host, ttl, output: path } => {
            let file = SecretFile::open(path.as_deref())?;
            let request = EnrolTokenRequest { host, ttl_s: ttl.map(|d| d.as_secs()) };
            let made = match client.create_enrol_token(&request).await {
                Ok(made) => made,
                Err(e) => {
                    file.abandon();
                    return Err(e.into());
                }
            };
            if json && path.is_none() {
                output::json(&made)?;
            } else {
                let story = format!("one-time token, good until {}", moment(made.expires_us));
                file.write(&made.token, &story)?;
            }
        }
        HostCommand::Drain { host } => show(&client.drain_host(&host).await?, json)?,
        HostCommand::Undrain { host } => show(&client.undrain_host(&host).await?, json)?,
        HostCommand::Deploy(args) => return deploy::deploy(client, json, *args).await,
        HostCommand::Upgrade(args) => return upgrade::upgrade(client, json, *args).await,
        HostCommand::Rollback(args) => return upgrade::rollback(client, json, *args).await,
        HostCommand::Image(HostImageCommand::Build(args)) => return image::build(json, args).await,
        HostCommand::Remove(args) => return remove::remove(client, json, *args).await,
    }
    Ok(Exit::Ok.into())
}

fn state(host: &Host) -> String {
    let connection = word(&host.connection);
    if host.draining { format!("{connection}, draining") } else { connection }
}

fn table(hosts: &[Host]) -> String {
    let rows: Vec<_> = hosts
        .iter()
        .map(|h| {
            let status = h.status.clone().unwrap_or_default();
            vec![
                h.id.clone(),
                state(h),
                h.testenvs.len().to_string(),
                or_dash(&status.mode),
                or_dash(&status.accelerator),
                h.seen_us.map_or_else(|| "never".to_owned(), ago),
                or_dash(&status.problems.join("; ")),
            ]
        })
        .collect();
    output::table(&["HOST", "STATE", "TES", "MODE", "ACCELERATOR", "HEARD", "PROBLEMS"], &rows)
}

fn show(host: &Host, json: bool) -> Result<()> {
    if json {
        return output::json(host);
    }
    let status = host.status.clone().unwrap_or_default();
    let known = host.status.is_some();
    output::text_line(&facts(&[
        ("host", host.id.clone()),
        ("state", state(host)),
        ("test environments", host.testenvs.join(", ")),
        ("version", status.version),
        ("mode", status.mode),
        ("accelerator", status.accelerator),
        ("datapath", status.datapath),
        ("memory", if known { format!("{} MiB", status.memory_mib) } else { String::new() }),
        ("cpus", if known { status.cpus.to_string() } else { String::new() }),
        ("free disk", if known { format!("{} MiB", status.disk_free_mib) } else { String::new() }),
        ("problems", status.problems.join("; ")),
        ("heard", host.seen_us.map_or_else(|| "never".to_owned(), ago)),
        ("enrolled", moment(host.enrolled_us)),
    ]))
}
