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
    let providers = alerts.providers.iter().flat_map(|provider| {
        let name = &provider.provider;
        let paused = provider.paused.iter().map(move |pause| {
            let (since, why) = (ago(pause.since_us), &pause.reason);
            format!("provider {name} is paused by {} since {since}: {why}", pause.by)
        });
        let unwell = provider.paused.is_none() || !provider.problems.is_empty();
        let why = provider.problems.join("; ");
        paused.chain(unwell.then(|| format!("provider {name} is not well: {why}")))
    });
    let nodes = alerts.nodes.iter().map(|node| {
        let (since, why) = (ago(node.since_us), &node.reason);
        format!(
            "node {} ({}) of {} is being deleted since {since} and is still there: {why}",
            node.node, node.name, node.provider
        )
    });
    let testnet = alerts.testnet.iter().map(|testnet| {
        let (since, why) = (ago(testnet.since_us), testnet.problems.join("; "));
        format!(
            "ports of the network {} are not as they should be since {since}: {why}",
            testnet.network
        )
    });
    let of_nodes = providers.chain(nodes);
    let lines: Vec<String> = troubles.chain(paused).chain(of_nodes).chain(testnet).collect();
    if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toci_wire::api::{
        JobPause, NodeAlert, ProviderAlert, ProviderPause, RunTrouble, TestnetAlert,
    };

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
        let by_bob = ProviderPause { since_us: 0, by: "bob".into(), reason: "it moves".into() };
        let provider = |paused, problems: &[&str]| ProviderAlert {
            provider: "rack".into(),
            problems: problems.iter().map(|text| (*text).to_owned()).collect(),
            paused,
            paused_until_us: None,
        };
        let providers =
            vec![provider(Some(by_bob), &[]), provider(None, &["cannot be reached: no route"])];
        let testnet = TestnetAlert {
            network: "test".into(),
            since_us: 0,
            problems: vec!["te_a: it is `b`'s".into()],
        };
        let (troubles, paused_jobs) = (vec![trouble], vec![pause]);
        let nodes = vec![NodeAlert {
            node: "N7".into(),
            name: "a-hp1-7".into(),
            provider: "hp1".into(),
            since_us: 0,
            reason: "it is ACTIVE".into(),
        }];
        let alerts = Alerts { troubles, paused_jobs, providers, nodes, testnet: Some(testnet) };
        let text = picture(&alerts);
        assert_eq!(text.lines().count(), 6, "{text}");
        assert!(text.contains("\nprovider rack is paused by bob since "), "{text}");
        assert!(
            text.contains("\nprovider rack is not well: cannot be reached: no route\n"),
            "{text}"
        );
        assert!(
            text.contains("\nports of the network test are not as they should be since "),
            "{text}"
        );
        assert!(
            text.contains("\nnode N7 (a-hp1-7) of hp1 is being deleted since ")
                && text.contains(" and is still there: it is ACTIVE\n"),
            "{text}"
        );
        assert!(text.ends_with(": te_a: it is `b`'s"), "{text}");
        assert!(text.contains("job unit failed 3 times in a row by the infrastructure"), "{text}");
        assert!(
            text.contains("job unit is paused by ann") && text.contains(": broken\n"),
            "{text}"
        );
    }
}
