//! `toci node`, `toci provider`.

use crate::args::{AutoholdCommand, NodeCommand, ProviderCommand};
use crate::duration;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{self, ago, facts, moment, or_dash, word};
use std::process::ExitCode;
use toci_client::api::ApiClient;
use toci_wire::api::{Autohold, AutoholdRequest, ImageState, Node, NodeHold, NodeImage, Provider};

pub(super) async fn dispatch(
    client: &ApiClient,
    json: bool,
    command: NodeCommand,
) -> Result<ExitCode> {
    match command {
        NodeCommand::List => {
            let nodes = client.nodes().await?;
            if json { output::json(&nodes)? } else { output::text_line(&table(&nodes))? }
        }
        NodeCommand::Show { node } => show(&client.node(&node).await?, json)?,
        NodeCommand::Hold { node, length, reason } => {
            let hold = NodeHold { for_s: length.as_secs(), reason };
            show(&client.hold_node(&node, &hold).await?, json)?;
        }
        NodeCommand::Autohold(command) => autohold(client, json, command).await?,
        NodeCommand::Delete { node } => {
            client.delete_node(&node).await?;
            if !json {
                output::text_line(&format!("node {node} is being deleted"))?;
            }
        }
        NodeCommand::Images => {
            let images = client.node_images().await?;
            if json { output::json(&images)? } else { output::text_line(&image_table(&images))? }
        }
        NodeCommand::Rebuild { image } => {
            client.rebuild_node_image(&image).await?;
            if !json {
                output::text_line(&format!("image {image} is being made anew"))?;
            }
        }
        NodeCommand::Withdraw { image } => {
            client.withdraw_node_image(&image).await?;
            if !json {
                let done = format!(
                    "no node is made of {image} any more; it is deleted when no node lies on it"
                );
                output::text_line(&done)?;
            }
        }
    }
    Ok(Exit::Ok.into())
}

async fn autohold(client: &ApiClient, json: bool, command: AutoholdCommand) -> Result<()> {
    match command {
        AutoholdCommand::List => {
            let wishes = client.autoholds().await?;
            if json { output::json(&wishes) } else { output::text_line(&autohold_table(&wishes)) }
        }
        AutoholdCommand::Add { job, project, change, reference, count, length, reason } => {
            let wish = AutoholdRequest {
                job,
                project,
                subject: change.or(reference),
                count,
                for_s: length.as_secs(),
                reason,
            };
            let made = client.autohold(&wish).await?;
            if json { output::json(&made) } else { output::text_line(&autohold_table(&[made])) }
        }
        AutoholdCommand::Delete { autohold } => {
            client.delete_autohold(&autohold).await?;
            if json { Ok(()) } else { output::text_line(&format!("{autohold} is deleted")) }
        }
    }
}

fn autohold_table(wishes: &[Autohold]) -> String {
    let row = |wish: &Autohold| {
        vec![
            wish.id.clone(),
            wish.job.clone(),
            or_dash(wish.project.as_deref().unwrap_or_default()),
            or_dash(wish.subject.as_deref().unwrap_or_default()),
            wish.left.to_string(),
            duration::show(wish.for_s),
            moment(wish.until_us),
            wish.reason.clone(),
        ]
    };
    let headings =
        ["AUTOHOLD", "JOB", "PROJECT", "CHANGE OR REF", "LEFT", "FOR", "STANDS UNTIL", "REASON"];
    output::table(&headings, &wishes.iter().map(row).collect::<Vec<_>>())
}

pub(super) async fn providers(
    client: &ApiClient,
    json: bool,
    command: ProviderCommand,
) -> Result<ExitCode> {
    match command {
        ProviderCommand::List => {
            let providers = client.providers().await?;
            if json {
                output::json(&providers)?;
            } else {
                output::text_line(&provider_table(&providers))?;
            }
        }
        ProviderCommand::Pause { provider, reason } => {
            client.pause_provider(&provider, &reason).await?;
        }
        ProviderCommand::Resume { provider } => client.resume_provider(&provider).await?,
    }
    Ok(Exit::Ok.into())
}

fn table(nodes: &[Node]) -> String {
    let row = |node: &Node| {
        vec![
            node.id.clone(),
            word(&node.state),
            ago(node.since_us),
            node.label.clone(),
            node.provider.clone(),
            node.address.clone().unwrap_or_else(|| "-".to_owned()),
            or_dash(&node.job),
            node.hold_until_us.map_or_else(|| "-".to_owned(), moment),
            or_dash(&node.reason),
        ]
    };
    let headings =
        ["NODE", "STATE", "SINCE", "LABEL", "PROVIDER", "ADDRESS", "JOB", "HELD UNTIL", "REASON"];
    output::table(&headings, &nodes.iter().map(row).collect::<Vec<_>>())
}

fn show(node: &Node, json: bool) -> Result<()> {
    if json {
        return output::json(node);
    }
    output::text_line(&facts(&[
        ("node", node.id.clone()),
        ("name", node.name.clone()),
        ("state", format!("{}, {}", word(&node.state), ago(node.since_us))),
        ("label", node.label.clone()),
        ("provider", node.provider.clone()),
        ("address", node.address.clone().unwrap_or_default()),
        ("run", node.run.clone().unwrap_or_default()),
        ("job", node.job.clone()),
        ("held until", node.hold_until_us.map(moment).unwrap_or_default()),
        ("reason", node.reason.clone()),
    ]))
}

fn image_table(images: &[NodeImage]) -> String {
    let row = |image: &NodeImage| {
        // A build's last lines are many; the last one is the reason, and the rest is in the log.
        let told = image.told.lines().next_back().unwrap_or_default();
        let state = match image.state {
            ImageState::Ready if !image.serves => "kept".to_owned(),
            ImageState::Building
            | ImageState::Testing
            | ImageState::Ready
            | ImageState::Failed
            | ImageState::Withdrawn
            | ImageState::Deleting => word(&image.state),
        };
        vec![
            image.id.clone(),
            image.name.clone(),
            image.provider.clone(),
            state,
            ago(image.since_us),
            ago(image.made_us),
            if image.kvm { "kvm" } else { "tcg" }.to_owned(),
            or_dash(told),
            image.log.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let headings =
        ["IMAGE", "NAME", "PROVIDER", "STATE", "SINCE", "BUILT", "BOOTS", "LAST SAID", "LOG"];
    output::table(&headings, &images.iter().map(row).collect::<Vec<_>>())
}

fn provider_table(providers: &[Provider]) -> String {
    let row = |p: &Provider| {
        let nodes: Vec<String> = p.nodes.iter().map(|(state, n)| format!("{n} {state}")).collect();
        let mut state = if p.reachable { "reachable" } else { "not reachable" }.to_owned();
        if let Some(pause) = &p.paused {
            let (since, why) = (ago(pause.since_us), &pause.reason);
            state.push_str(&format!(", paused by {} {since}: {why}", pause.by));
        } else if let Some(until) = p.paused_until_us {
            state.push_str(&format!(", paused until {}", moment(until)));
        }
        vec![
            p.name.clone(),
            p.kind.clone(),
            state,
            p.max_servers.to_string(),
            or_dash(&nodes.join(", ")),
            p.labels.join(","),
            or_dash(&p.problems.join("; ")),
        ]
    };
    let headings = ["PROVIDER", "KIND", "STATE", "MAX", "NODES", "LABELS", "PROBLEMS"];
    output::table(&headings, &providers.iter().map(row).collect::<Vec<_>>())
}
