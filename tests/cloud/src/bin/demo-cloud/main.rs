//! `make demo-cloud`: the whole sequence of the main job on a real OpenStack. Runs inside of the sandbox of a cloud that
//! is up; `cargo xtask demo-cloud` sees to that.
//!
//! A zone file makes a project, its networks and an image. A control plane keeps servers of that project ready as nodes,
//! and has Neutron serve two TE hosts beside the cloud. Two changes go through the gate: each is deployed from a node onto
//! a leased test environment; the one that breaks the deployment is thrown out, the other one is merged.

mod lab;
mod project;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use toci_demo::{DemoError, Times};

/// When the cloud was started, in milliseconds since 1970: from the scripts of tests/cloud/stack.
const CLOUD_STARTED: &str = "CLOUD_STARTED_MS";
/// How long the nodes' image took before that, in milliseconds: from `cargo xtask demo-cloud`.
const IMAGE_TOOK: &str = "TOCI_DEMO_IMAGE_MS";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| ".demo-cloud".into()));
    let keep = arguments.any(|argument| argument == "--keep");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let told = runtime.context("starting").and_then(|runtime| {
        let mut times = Times::start(before());
        let told = runtime.block_on(story::tell(&folder, keep, &mut times));
        println!("\n{}\n", times.table());
        told
    });
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let hint = error.downcast_ref::<DemoError>().map_or("", |error| error.hint.as_str());
            if !hint.is_empty() {
                eprintln!("hint: {hint}");
            }
            let (logs, cloud) = (folder.join("logs"), folder.join("cloud/log"));
            eprintln!(
                "The demo did not come to its end. Logs: {} and {}",
                logs.display(),
                cloud.display()
            );
            ExitCode::FAILURE
        }
    }
}

/// What was done before this program was started, and how long it took.
fn before() -> Vec<(String, Duration)> {
    let milliseconds =
        |name: &str| std::env::var(name).ok()?.parse().ok().map(Duration::from_millis);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let image = milliseconds(IMAGE_TOOK).map(|took| ("image of the nodes".to_owned(), took));
    let cloud = milliseconds(CLOUD_STARTED)
        .map(|started| ("the cloud is up".to_owned(), now.saturating_sub(started)));
    image.into_iter().chain(cloud).collect()
}
