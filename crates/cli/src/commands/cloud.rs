//! `toci cloud`.

use crate::args::{CloudCommand, ZoneArgs};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::finding::{Finding, under_their_lines};
use crate::output;
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use toci_core::chain::Chain;
use toci_core::cloud::{Plan, Refusal, Stale, Step};
use toci_server::cloud::{ApiError, BadZone, Progress, ZoneAtHand, ZoneCloud};
use toci_wire::zone::ZoneError;

pub(super) fn dispatch(json: bool, command: CloudCommand) -> Result<ExitCode> {
    match command {
        CloudCommand::Check { zone } => check(json, &zone),
        CloudCommand::Plan(args) => super::block_on(plan(json, &args)),
        CloudCommand::Apply(args) => super::block_on(apply(json, &args)),
    }
}

fn check(json: bool, path: &Path) -> Result<ExitCode> {
    match ZoneAtHand::check(path) {
        Ok(at_hand) => {
            let (owner, things) = (at_hand.zone.mark.owner(), at_hand.zone.things.len());
            if json {
                let told = serde_json::json!({"errors": [], "owner": owner, "things": things});
                output::json(&told)?;
            } else {
                let path = path.display();
                output::text_line(&format!("{path}: the zone of {owner} with {things} things"))?;
            }
            Ok(Exit::Ok.into())
        }
        Err(BadZone::Wrong { text, errors, .. }) => {
            if json {
                let errors: Vec<Finding> = errors.iter().map(Finding::of).collect();
                output::json(&serde_json::json!({"errors": errors}))?;
            } else {
                output::text_line(&told(&errors, &text))?;
            }
            Ok(Exit::Usage.into())
        }
        Err(other) => Err(bad_zone(&other)),
    }
}

/// Errors with the line that each is about and a caret under it.
fn told(errors: &[ZoneError], text: &str) -> String {
    let mut out = under_their_lines(errors, text);
    out.push(format!("{} errors", errors.len()));
    out.join("\n")
}

fn bad_zone(error: &BadZone) -> CliError {
    let message = match error {
        BadZone::Wrong { errors, text, .. } => format!("{error}:\n{}", told(errors, text)),
        BadZone::Read { .. } | BadZone::Unfit { .. } => Chain(error).to_string(),
    };
    CliError::usage(message, "docs/cloud.md describes zone files")
}

fn refused_by_cloud(error: &ApiError) -> CliError {
    let exit = match error.status() {
        Some(401 | 403) => Exit::NotAllowed,
        Some(_) | None => Exit::Failed,
    };
    CliError::new(exit, Chain(error).to_string(), error.hint())
}

async fn connected(path: &Path) -> Result<ZoneCloud> {
    let at_hand = ZoneAtHand::load(path).map_err(|e| bad_zone(&e))?;
    ZoneCloud::connect(at_hand).await.map_err(|e| refused_by_cloud(&e))
}

fn stale(args: &ZoneArgs) -> Stale {
    if args.prune { Stale::Delete } else { Stale::Tell }
}

async fn plan(json: bool, args: &ZoneArgs) -> Result<ExitCode> {
    let cloud = connected(&args.zone).await?;
    let plan = cloud.plan(stale(args)).await.map_err(|e| refused_by_cloud(&e))?.plan;
    if json {
        output::json(&plan)?;
    } else {
        output::text_line(&shown(&plan))?;
    }
    Ok(if plan.is_empty() { Exit::Ok } else { Exit::Differs }.into())
}

/// The plan, and how much it is.
fn shown(plan: &Plan) -> String {
    if plan.is_empty() {
        return "all is as wished".to_owned();
    }
    let count = |of: fn(&Step) -> bool| plan.steps.iter().filter(|step| of(step)).count();
    let counts = [
        (count(|step| matches!(step, Step::Create { .. })), "to make"),
        (count(|step| matches!(step, Step::Change { .. } | Step::Upload { .. })), "to change"),
        (count(|step| matches!(step, Step::Delete { .. })), "to delete"),
        (plan.refused.len(), "left as they are"),
        (plan.stale.len(), "no longer wished"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
    format!("{plan}{}", counts.join(", "))
}

/// What `apply --json` prints.
#[derive(Debug, Default, Serialize)]
struct Applied {
    done: Vec<DoneStep>,
    refused: Vec<Refusal>,
    stale: Vec<toci_core::cloud::ThingId>,
}

#[derive(Debug, Serialize)]
struct DoneStep {
    #[serde(flatten)]
    step: Step,
    seconds: f64,
}

async fn apply(json: bool, args: &ZoneArgs) -> Result<ExitCode> {
    let cloud = connected(&args.zone).await?;
    let planned = cloud.plan(stale(args)).await.map_err(|e| refused_by_cloud(&e))?;
    let mut applied = Applied::default();
    let mut whole = Duration::ZERO;
    let mut current: Option<Step> = None;
    let mut tell = |progress: Progress<'_>| match progress {
        Progress::Begins { number, of, step } => {
            if !json {
                output::say(&format!("[{number}/{of}] {step}"));
            }
            current = Some(step.clone());
        }
        Progress::Done { took } => {
            whole += took;
            if !json {
                output::say(&format!("      done in {:.1} s", took.as_secs_f64()));
            }
            let seconds = took.as_secs_f64();
            applied.done.extend(current.take().map(|step| DoneStep { step, seconds }));
        }
    };
    let outcome = cloud.apply(&planned, &mut tell).await;
    applied.refused = planned.plan.refused;
    applied.stale = planned.plan.stale;
    if json {
        output::json(&applied)?;
    } else {
        let rest =
            Plan { steps: Vec::new(), refused: applied.refused.clone(), stale: applied.stale };
        output::say(&format!(
            "{rest}{} steps done in {:.1} s",
            applied.done.len(),
            whole.as_secs_f64()
        ));
    }
    outcome.map_err(|stopped| {
        let hint = format!(
            "{} steps are done and stay; mend the cause and apply again: it goes on from there",
            stopped.done
        );
        CliError::new(Exit::Failed, Chain(&stopped).to_string(), hint)
    })?;
    Ok(if applied.refused.is_empty() { Exit::Ok } else { Exit::Refused }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use toci_core::cloud::{Kind, ThingId};

    #[test]
    fn an_error_is_shown_under_its_line() {
        let text = "owner: o\nnetwork: []\n";
        let errors = toci_wire::zone::read("z.yaml", text).unwrap_err();
        let expected = "z.yaml:2:1: there is no key `network` (did you mean `networks`?)\n    network: []\n    ^\n1 errors";
        assert_eq!(told(&errors, text), expected);
        assert_eq!(Finding::of(&errors[0]).line, 2);
    }

    #[test]
    fn a_plan_is_counted() {
        let thing = || ThingId::global(Kind::Project, "p");
        let create = Step::Create { thing: thing(), fields: std::collections::BTreeMap::new() };
        let plan = Plan { steps: vec![create], refused: vec![], stale: vec![thing()] };
        let text = shown(&plan);
        assert!(text.starts_with("+ project p\n? project p: "), "{text}");
        assert!(text.ends_with("1 to make, 1 no longer wished"), "{text}");
        assert_eq!(shown(&Plan::default()), "all is as wished");
    }

    #[test]
    fn a_zone_is_checked_without_a_cloud() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("z.yaml");
        let code = |json| format!("{:?}", check(json, &file).unwrap());
        std::fs::write(&file, "owner: o\nprojects: [p]\n").unwrap();
        assert_eq!(code(false), format!("{:?}", ExitCode::from(Exit::Ok)));
        std::fs::write(&file, "projects: [p]\n").unwrap();
        assert_eq!(code(true), format!("{:?}", ExitCode::from(Exit::Usage)));
        let missing = check(false, &folder.path().join("none")).unwrap_err();
        assert!(missing.message.starts_with("read ") && missing.exit == Exit::Usage, "{missing:?}");
    }
}
