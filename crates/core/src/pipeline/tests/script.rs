//! Scenarios as transcripts: what is done, and below it what the gate did.

use super::build::layout;
use super::words;
use super::world::World;
use std::fmt::Write as _;

/// Scenarios of a file: each begins with `=== name`, then layouts (separated by `--- other`), `---`, and the transcript:
/// a line that begins with `> ` is done, the lines after it are what has to come of it.
pub(super) fn check(file: &str) {
    let mut wrong = String::new();
    let mut count = 0;
    for scenario in file.split("=== ").skip(1) {
        let (name, text) = scenario.split_once('\n').unwrap();
        let (head, expected) = text.split_once("\n---\n").unwrap();
        let layouts: Vec<String> = head.split("\n--- other\n").map(str::to_owned).collect();
        let expected = expected.trim_end();
        let actual = play(&layouts, expected);
        count += 1;
        if actual != expected {
            let _ = write!(wrong, "=== {name}\n{head}\n---\n{actual}\n\n");
        }
    }
    assert!(count > 0, "no scenario in the file");
    assert!(wrong.is_empty(), "these scenarios go otherwise:\n{wrong}");
}

fn play(layouts: &[String], transcript: &str) -> String {
    let mut world = World::new(layout(&layouts[0]));
    let mut out = Vec::new();
    for line in transcript.lines() {
        let Some(command) = line.strip_prefix("> ") else { continue };
        out.push(line.to_owned());
        words::run(&mut world, layouts, command);
        out.append(&mut world.log);
    }
    out.join("\n")
}
