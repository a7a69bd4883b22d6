//! Waiting for test environments, with progress.

use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::output::word;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use toci_client::api::ApiClient;
use toci_demo::{Process, Times};
use toci_wire::api::{TeState, TestEnv};

/// How often the TEs are looked at.
const PERIOD: Duration = Duration::from_millis(250);
/// Without news, a sign of life this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Waits until `count` TEs are ready, telling each change; an error when it takes longer than `limit`, when one is
/// quarantined, or when a process has ended.
pub(super) async fn wait_until_ready(
    client: &ApiClient,
    count: usize,
    limit: Duration,
    times: &Times,
    processes: &mut [&mut Process],
) -> Result<()> {
    let until = Instant::now() + limit;
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let mut last_word = Instant::now();
    loop {
        for process in processes.iter_mut() {
            process.check()?;
        }
        let tes = client.testenvs().await?;
        for te in &tes {
            let state = state_of(te);
            if told.get(&te.id) != Some(&state) {
                times.say(&format!("  {}: {state}", te.id));
                told.insert(te.id.clone(), state);
                last_word = Instant::now();
            }
            if te.state == TeState::Quarantined {
                return Err(CliError::new(
                    Exit::Failed,
                    format!("{} is quarantined: {}", te.id, te.reason),
                    "see the TE host's log",
                ));
            }
        }
        let ready = tes.iter().filter(|te| te.state == TeState::Ready).count();
        if ready >= count {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(CliError::new(
                Exit::Failed,
                format!("{ready} of {count} TEs are ready after {} s", limit.as_secs()),
                "see the TE host's log",
            ));
        }
        if last_word.elapsed() > SIGN_OF_LIFE {
            last_word = Instant::now();
            times.say(&format!("  {ready} of {count} test environments are ready"));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn state_of(te: &TestEnv) -> String {
    let state = word(&te.state);
    match &te.lease {
        Some(lease) => format!("{state} ({lease})"),
        None => state,
    }
}
