//! Loads on the pure gate, for `cargo xtask bench gate`: a long dependent queue, and a day of a large CI. Prints one line of
//! JSON.
#![expect(clippy::print_stdout, reason = "its only result")]

mod day;
mod layout;
mod queue;

use clap::Parser;

/// What to run.
#[derive(Debug, Parser)]
struct Options {
    /// Changes in the dependent queue.
    #[arg(long, default_value_t = 1000)]
    changes: u64,
    /// Projects that share the queue.
    #[arg(long, default_value_t = 50)]
    projects: u64,
    /// Jobs of the day.
    #[arg(long, default_value_t = 20_000)]
    jobs: u64,
    /// Nodes of the day.
    #[arg(long, default_value_t = 600)]
    nodes: usize,
}

fn main() {
    let options = Options::parse();
    let queue = queue::run(options.changes, options.projects);
    let day = day::run(options.jobs, options.nodes);
    println!("{}", serde_json::json!({ "queue": queue, "day": day }));
}

/// The value at this share of sorted figures.
fn at(sorted: &[f64], share: f64) -> f64 {
    if sorted.is_empty() {
        return 0.0;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index within the list"
    )]
    let index = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[index]
}
