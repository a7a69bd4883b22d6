//! `toci alerts`.

use crate::error::Result;
use crate::exit::Exit;
use crate::output::{self, ago};
use std::process::ExitCode;
use toci_client::api::ApiClient;
use toci_wire::api::Alerts;

pub(super) async fn show(client: &ApiClient, json: bool) -> Result<ExitCode> {
    let alerts = client.alerts().await?;
    if json {
        output::json(&alerts)?
    } else {
        output::text_line(&picture(&alerts))?
    }
    Ok(Exit::Ok.into())
}

fn picture(alerts: &Alerts) -> String {
    let troubles = alerts.troubles.iter().map(|trouble| {
        format!(
            "{} failed {} times in a row by the infrastructure, since {}: {}",
            trouble.of,
            trouble.failures,
            ago(trouble.since_us),
            trouble.last
        )
    });
    let paused = alerts.paused_jobs.iter().map(|pause| {
        format!(
            "job {} is paused by {} since {}: {}",
            pause.job,
            pause.by,
            ago(pause.since_us),
            pause.reason
        )
    });
    let providers = alerts.providers.iter().map(|provider| {
        let why = provider.problems.join("; ");
        format!("provider {} is not well: {why}", provider.provider)
    });
    let lines: Vec<String> = troubles.chain(paused).chain(providers).collect();
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toci_wire::api::{JobPause, RunTrouble};

    #[test]
    fn each_alert_is_a_line() {
        assert_eq!(picture(&Alerts::default()), "nothing");
        let trouble = RunTrouble {
            of: "job unit".into(),
            failures: 3,
            since_us: 0,
            last: "NODE_FAILURE: no node".into(),
        };
        let pause =
            JobPause { job: "unit".into(), since_us: 0, by: "ann".into(), reason: "broken".into() };
        let alerts =
            Alerts { troubles: vec![trouble], paused_jobs: vec![pause], providers: Vec::new() };
        let text = picture(&alerts);
        assert!(text.contains("job unit failed 3 times in a row by the infrastructure"), "{text}");
        assert!(text.contains("job unit is paused by ann") && text.ends_with(": broken"), "{text}");
    }
}
