//! Loads on the pure gate, for `cargo xtask bench gate`: a long dependent queue, and a day of a large CI. Prints one line of
//! JSON.
#![expect(clippy::print_stdout, reason = "its only result")]

mod day;
mod layout;
mod queue;

/// What to run.
struct Sizes {
    /// Changes in the dependent queue.
    changes: u64,
    /// Projects that share the queue.
    projects: u64,
    /// Jobs of the day.
    jobs: u64,
    /// Nodes of the day.
    nodes: usize,
}

fn main() -> Result<(), String> {
    let sizes = sizes(std::env::args().skip(1))?;
    let queue = queue::run(sizes.changes, sizes.projects);
    let day = day::run(sizes.jobs, sizes.nodes);
    println!("{}", serde_json::json!({ "queue": queue, "day": day }));
    Ok(())
}

/// `--changes N`, `--projects N`, `--jobs N`, `--nodes N`.
fn sizes(mut words: impl Iterator<Item = String>) -> Result<Sizes, String> {
    let mut sizes = Sizes { changes: 1000, projects: 50, jobs: 20_000, nodes: 600 };
    while let Some(name) = words.next() {
        let number = words.next().and_then(|text| text.parse::<u32>().ok());
        let number = number.ok_or_else(|| format!("{name} wants a number"))?;
        match name.as_str() {
            "--changes" => sizes.changes = number.into(),
            "--projects" => sizes.projects = number.into(),
            "--jobs" => sizes.jobs = number.into(),
            "--nodes" => sizes.nodes = number.try_into().map_err(|_| "too many nodes")?,
            _ => return Err(format!("{name}: there are --changes, --projects, --jobs, --nodes")),
        }
    }
    Ok(sizes)
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
