//! `toci run`.

use crate::args::RunCommand;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::output::{self, ago, facts, moment, or_dash, word};
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use toci_client::api::{ApiClient, ConsoleNews};
use toci_wire::api::Run;

/// Digits of a run's id.
const ID_DIGITS: usize = 32;
/// Digits that are shown in lists.
const SHOWN_DIGITS: usize = 7;
/// Runs among which a beginning of an id is looked for.
const LOOKED_AT: u32 = 1000;

pub(super) async fn dispatch(
    client: &ApiClient,
    json: bool,
    command: RunCommand,
) -> Result<ExitCode> {
    match command {
        RunCommand::List { ended } => {
            let runs = client.runs(ended).await?;
            if json {
                output::json(&runs)?;
            } else {
                output::text_line(&table(&runs))?;
                for trouble in client.run_troubles().await? {
                    output::complain(&format!(
                        "toci: {} failed {} times in a row by the infrastructure: {}",
                        trouble.of, trouble.failures, trouble.last
                    ));
                }
            }
        }
        RunCommand::Show { run } => show(&client.run(&whole(client, run).await?).await?, json)?,
        RunCommand::Console { run } => {
            return console(client, &whole(client, run).await?, json).await;
        }
        RunCommand::Pause { job, reason } => client.pause_job(&job, &reason).await?,
        RunCommand::Resume { job } => client.resume_job(&job).await?,
        RunCommand::Cancel { run } => {
            show(&client.cancel_run(&whole(client, run).await?).await?, json)?;
        }
    }
    Ok(Exit::Ok.into())
}

/// The id that begins so.
async fn whole(client: &ApiClient, given: String) -> Result<String> {
    if given.len() >= ID_DIGITS {
        return Ok(given);
    }
    let runs = client.runs(LOOKED_AT).await?;
    let mut found = runs.into_iter().map(|r| r.id).filter(|id| id.starts_with(&given));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(CliError::new(
            Exit::Usage,
            format!("several runs begin with {given}"),
            "give more digits",
        )),
        (None, _) => Err(CliError::new(
            Exit::Failed,
            format!("there is no run that begins with {given}"),
            "see `toci run list`",
        )),
    }
}

async fn console(client: &ApiClient, id: &str, json: bool) -> Result<ExitCode> {
    let mut stream = client.run_console(id).await?;
    let terminal = io::stdout().is_terminal();
    while let Some(news) = stream.next().await? {
        let text = match news {
            ConsoleNews::Text(text) => text,
            ConsoleNews::Over(run) => {
                if json {
                    output::json(&run)?;
                }
                let well = run.result.as_deref() == Some("SUCCESS");
                return Ok(if well { Exit::Ok } else { Exit::Failed }.into());
            }
        };
        if json {
            continue;
        }
        let text = if terminal { harmless(&text) } else { text };
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Ok.into()),
            Err(e) => return Err(CliError::failed("write to standard output", &e)),
        }
    }
    Err(CliError::new(
        Exit::Unreachable,
        "the server ended the stream before the run was over",
        "call it again: the console begins at its start",
    ))
}

/// What a job writes must not drive the terminal of who looks at it: only line feeds, tabs and colours are passed on.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' | '\t' => out.push(c),
            '\u{1b}' if rest.peek() == Some(&'[') => {
                let mut sequence = String::from("\u{1b}");
                while let Some(next) = rest.next_if(|n| matches!(n, '[' | '0'..='9' | ';' | 'm')) {
                    sequence.push(next);
                    if next == 'm' {
                        break;
                    }
                }
                if sequence.ends_with('m') {
                    out.push_str(&sequence);
                }
            }
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

fn show(run: &Run, json: bool) -> Result<()> {
    if json {
        return output::json(run);
    }
    let at = |t: Option<i64>| t.map_or_else(|| "-".to_owned(), moment);
    output::text_line(&facts(&[
        ("run", run.id.clone()),
        ("job", format!("{} (attempt {})", run.job, run.attempt)),
        ("pipeline", run.pipeline.clone()),
        ("project", or_dash(&run.project)),
        ("subject", run.subject.clone()),
        ("state", state(run)),
        ("waits for", or_dash(&run.waits_for)),
        ("nodes", or_dash(&run.nodes.join(", "))),
        ("lease", or_dash(run.lease.as_deref().unwrap_or_default())),
        ("queued", moment(run.queued_us)),
        ("started", at(run.started_us)),
        ("ended", at(run.ended_us)),
        ("logs", or_dash(&run.url)),
        ("note", or_dash(&run.note)),
    ]))
}

fn state(run: &Run) -> String {
    run.result.clone().unwrap_or_else(|| word(&run.state))
}

fn table(runs: &[Run]) -> String {
    let rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            let more = if run.result.is_none() { &run.waits_for } else { &run.note };
            vec![
                run.id.chars().take(SHOWN_DIGITS).collect(),
                run.job.clone(),
                run.pipeline.clone(),
                or_dash(&run.project),
                run.subject.clone(),
                state(run),
                ago(run.ended_us.or(run.started_us).unwrap_or(run.queued_us)),
                or_dash(more),
            ]
        })
        .collect();
    let headings = ["RUN", "JOB", "PIPELINE", "PROJECT", "SUBJECT", "STATE", "SINCE", "NOTE"];
    output::table(&headings, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_does_not_drive_the_terminal() {
        let text = "a\tb\u{1b}[31;1mred\u{1b}[0m\u{1b}]0;title\u{7}\u{1b}[2Jx\r\u{8}\u{9b}y\n";
        assert_eq!(harmless(text), "a\tb\u{1b}[31;1mred\u{1b}[0m]0;titleJxy\n");
    }
}
