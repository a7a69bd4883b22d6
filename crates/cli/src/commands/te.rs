//! `toci te`.

mod image;

use crate::args::TeCommand;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::output::{self, ago, facts, or_dash, word};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use toci_client::api::{ApiClient, Download};
use toci_wire::api::{Connection, MachineState, PowerRequest, Quarantine, TestEnv};

/// Largest screenshot that is accepted, in bytes.
const SCREENSHOT_MAX_BYTES: usize = 64 << 20;

pub(super) async fn dispatch(
    client: &ApiClient,
    json: bool,
    command: TeCommand,
) -> Result<ExitCode> {
    match command {
        TeCommand::List => {
            let tes = client.testenvs().await?;
            if json { output::json(&tes)? } else { output::text_line(&table(&tes))? }
        }
        TeCommand::Show { te } => show(&client.testenv(&te).await?, json)?,
        TeCommand::Power { te, action, machine } => {
            let request = PowerRequest { machine, action: action.into() };
            let machines = client.power(&te, &request).await?;
            if json {
                output::json(&machines)?
            } else {
                output::text_line(&machine_table(&machines))?
            }
        }
        TeCommand::Console { te, machine, follow } => {
            let machine = or_seed(client, &te, machine).await?;
            copy_to_stdout(client.console(&te, &machine, follow).await?).await?;
        }
        TeCommand::View { te } => copy_to_stdout(client.view(&te).await?).await?,
        TeCommand::Screenshot { te, machine, output: path } => {
            let machine = or_seed(client, &te, machine).await?;
            let png = client.screenshot(&te, &machine).await?.collect(SCREENSHOT_MAX_BYTES).await?;
            let path = path.unwrap_or_else(|| format!("{machine}.png").into());
            write_screenshot(&path, &png, json)?;
        }
        TeCommand::PushImage { te, image, machine } => {
            let machine = or_seed(client, &te, machine).await?;
            image::push(client, json, &te, &machine, &image).await?;
        }
        TeCommand::Reset { te } => show(&client.reset_testenv(&te).await?, json)?,
        TeCommand::Drain { te } => show(&client.drain_testenv(&te).await?, json)?,
        TeCommand::Undrain { te } => show(&client.undrain_testenv(&te).await?, json)?,
        TeCommand::Quarantine { te, reason } => {
            show(&client.quarantine_testenv(&te, &Quarantine { reason }).await?, json)?;
        }
    }
    Ok(Exit::Ok.into())
}

/// The machine named, or the TE's seed, which is always the first.
async fn or_seed(client: &ApiClient, te: &str, machine: Option<String>) -> Result<String> {
    if let Some(machine) = machine {
        return Ok(machine);
    }
    let te = client.testenv(te).await?;
    te.machines.first().map(|m| m.name.clone()).ok_or_else(|| {
        CliError::new(
            Exit::Failed,
            format!("{} has told of no machines yet", te.id),
            "name one, for example seed_1, or wait until its host is connected",
        )
    })
}

async fn copy_to_stdout(mut download: Download) -> Result<()> {
    while let Some(bytes) = download.chunk().await? {
        let mut out = io::stdout().lock();
        match out.write_all(&bytes).and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => return Err(CliError::failed("write to standard output", &e)),
        }
    }
    Ok(())
}

fn write_screenshot(path: &Path, png: &[u8], json: bool) -> Result<()> {
    if path == Path::new("-") {
        let written = io::stdout().write_all(png);
        return written.map_err(|e| CliError::failed("write to standard output", &e));
    }
    std::fs::write(path, png)
        .map_err(|e| CliError::failed(format!("write {}", path.display()), &e))?;
    if json {
        output::json(&serde_json::json!({ "file": path, "bytes": png.len() }))
    } else {
        output::text_line(&format!("{} ({} bytes)", path.display(), png.len()))
    }
}

fn state(te: &TestEnv) -> String {
    let mut text = word(&te.state);
    if te.draining {
        text.push_str(", draining");
    }
    match te.host_connection {
        Connection::Connected => {}
        Connection::CutOff => text.push_str(", host cut off"),
    }
    text
}

fn table(tes: &[TestEnv]) -> String {
    let rows: Vec<_> = tes
        .iter()
        .map(|te| {
            vec![
                te.id.clone(),
                state(te),
                ago(te.since_us),
                te.shape.clone(),
                or_dash(&te.labels.join(",")),
                te.lease.clone().unwrap_or_else(|| "-".to_owned()),
                te.generation.to_string(),
                or_dash(&te.reason),
            ]
        })
        .collect();
    let headings = ["TE", "STATE", "SINCE", "SHAPE", "LABELS", "LEASE", "GENERATION", "REASON"];
    output::table(&headings, &rows)
}

fn machine_table(machines: &[MachineState]) -> String {
    let row = |m: &MachineState| vec![m.name.clone(), if m.on { "on" } else { "off" }.to_owned()];
    output::table(&["MACHINE", "POWER"], &machines.iter().map(row).collect::<Vec<_>>())
}

fn show(te: &TestEnv, json: bool) -> Result<()> {
    if json {
        return output::json(te);
    }
    output::text_line(&facts(&[
        ("test environment", te.id.clone()),
        ("host", te.host.clone()),
        ("state", format!("{}, {}", state(te), ago(te.since_us))),
        ("reason", te.reason.clone()),
        ("shape", te.shape.clone()),
        ("labels", te.labels.join(", ")),
        ("lease", te.lease.clone().unwrap_or_default()),
        ("generation", te.generation.to_string()),
    ]))?;
    output::text_line(&machine_table(&te.machines))
}
