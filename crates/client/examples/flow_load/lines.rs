//! One change after the other on a ready node: from the event to the lines of its job as a follower of the API sees them.

use crate::world::{LIMIT, SINGLE, admin, ms, now_us, propose, ready, spread};
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use toci_client::api::{ApiClient, ConsoleNews};
use toci_wire::api::Run;

#[derive(Default)]
struct Times {
    queued: Vec<f64>,
    started: Vec<f64>,
    any_line: Vec<f64>,
    job_line: Vec<f64>,
    line: Vec<f64>,
    ended: Vec<f64>,
}

pub(crate) async fn run(address: &str, folder: &Path, times: usize) -> Result<Value> {
    let admin = admin(address, folder).await?;
    let mut all = Times::default();
    // The first one makes the mirror; it does not count.
    for number in 1..=times + 1 {
        ready(&admin, 1).await?;
        propose(folder, SINGLE, &[number])?;
        let begun = now_us();
        admin.poke("local").await?;
        let run = begun_run(&admin, &format!("{number},1")).await?;
        let mut one = Times::default();
        let followed = follow(&admin, &run, begun, &mut one);
        let ended = tokio::time::timeout(LIMIT, followed).await??;
        ensure!(ended.result.as_deref() == Some("SUCCESS"), "{ended:?}");
        if number == 1 {
            continue;
        }
        all.queued.push(ms(begun, ended.queued_us));
        all.started.push(ms(begun, ended.started_us.unwrap_or_default()));
        all.ended.push(ms(begun, ended.ended_us.unwrap_or_default()));
        all.any_line.extend(one.any_line);
        all.job_line.extend(one.job_line);
        all.line.extend(one.line);
    }
    Ok(json!({
        "queued_ms": spread(all.queued),
        "started_ms": spread(all.started),
        "any_line_ms": spread(all.any_line),
        "job_line_ms": spread(all.job_line),
        "line_ms": spread(all.line),
        "ended_ms": spread(all.ended),
    }))
}

/// The run of a change: there is no stream that tells of new ones, so this asks.
async fn begun_run(admin: &ApiClient, subject: &str) -> Result<Run> {
    let begun = std::time::Instant::now();
    loop {
        let runs = admin.runs(0).await?;
        if let Some(run) = runs.iter().find(|run| run.subject == subject) {
            return Ok(run.clone());
        }
        if begun.elapsed() > LIMIT {
            bail!("{subject} did not run in time: {runs:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads its console to its end.
async fn follow(admin: &ApiClient, run: &Run, begun: i64, times: &mut Times) -> Result<Run> {
    let mut console = admin.run_console(&run.id).await?;
    let mut rest = String::new();
    loop {
        let text = match console.next().await? {
            Some(ConsoleNews::Text(text)) => text,
            Some(ConsoleNews::Over(run)) => return Ok(*run),
            None => bail!("the console ended before the run"),
        };
        let now = now_us();
        if times.any_line.is_empty() {
            times.any_line.push(ms(begun, now));
        }
        rest.push_str(&text);
        while let Some((line, after)) = rest.split_once('\n') {
            // `<time> | at <seconds>.<microseconds>`
            if let Some((_, written)) = line.split_once("| at ") {
                if times.job_line.is_empty() {
                    times.job_line.push(ms(begun, now));
                }
                let written: i64 = written.replace('.', "").parse()?;
                times.line.push(ms(written, now));
            }
            rest = after.to_owned();
        }
    }
}
