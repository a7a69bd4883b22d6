//! Examples in Markdown that are run: fenced blocks that begin with ```` ```console tested ````.
//!
//! In such a block a line `$ command` is run by bash; lines that end with a backslash go on. Other lines are what it
//! prints: each must be found in the output, in order, where `…` stands for anything. A command must end well, or as
//! a comment at its end says: `# exits 3`.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// One command of a document and what it must print.
#[derive(Debug, PartialEq, Eq)]
pub struct Example {
    /// Line in the document, from 1.
    pub line: usize,
    /// For bash.
    pub command: String,
    /// Lines of output, in order; `…` stands for anything.
    pub output: Vec<String>,
    /// How it must end.
    pub exit_code: i32,
}

/// The tested examples of a document, in order.
#[must_use]
pub fn examples(markdown: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut inside = false;
    let mut goes_on = false;
    for (number, line) in markdown.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            inside = line.trim() == "```console tested";
            goes_on = false;
        } else if inside && goes_on {
            if let Some(example) = found.last_mut() {
                example.command.push('\n');
                example.command.push_str(line);
            }
            goes_on = line.ends_with('\\');
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            let exit_code = command
                .rsplit_once("# exits ")
                .and_then(|(_, code)| code.trim().parse().ok())
                .unwrap_or(0);
            let command = command.to_owned();
            goes_on = command.ends_with('\\');
            found.push(Example { line: number + 1, command, output: Vec::new(), exit_code });
        } else if inside && let Some(example) = found.last_mut() {
            example.output.push(line.to_owned());
        }
    }
    found
}

impl Example {
    /// Runs it with `shell`, a command that starts bash where the example belongs, and compares.
    ///
    /// # Errors
    /// It ended otherwise or printed something else.
    pub fn check(&self, shell: &mut Command) -> Result<()> {
        let output = shell.arg("-c").arg(&self.command).output().context("starting bash")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let place = format!("line {}: `{}`", self.line, self.command);
        ensure!(
            output.status.code() == Some(self.exit_code),
            "{place}: {}, expected code {}\n{said}",
            output.status,
            self.exit_code
        );
        let mut lines = said.lines();
        for expected in &self.output {
            if !lines.any(|line| matches(expected, line)) {
                bail!("{place}: `{expected}` is not in its output, or not in this order:\n{said}");
            }
        }
        Ok(())
    }
}

/// Whether `line` is `pattern`, in which `…` stands for anything and runs of blanks are one blank.
fn matches(pattern: &str, line: &str) -> bool {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (pattern, line) = (squeeze(pattern), squeeze(line));
    let mut parts = pattern.split('…').map(str::trim);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut ends_open = false;
    let mut only_part = true;
    for part in parts {
        only_part = false;
        ends_open = part.is_empty();
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || (ends_open && !only_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
```console
$ not run
```
```console tested
$ printf 'one  two\\nthree\\n' \\
    | cat
one two
th…ee
$ exit 3 # exits 3
```
";

    #[test]
    fn only_marked_blocks_are_examples() {
        let found = examples(DOCUMENT);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].output, ["one two", "th…ee"]);
        assert_eq!((found[1].line, found[1].exit_code), (9, 3));
    }

    #[test]
    fn an_example_must_print_and_end_as_written() {
        for example in examples(DOCUMENT) {
            example.check(&mut Command::new("bash")).unwrap();
        }
        let wrong = "```console tested\n$ echo one\ntwo\n```\n";
        assert!(examples(wrong)[0].check(&mut Command::new("bash")).is_err());
        let wrong = "```console tested\n$ false\n```\n";
        assert!(examples(wrong)[0].check(&mut Command::new("bash")).is_err());
    }

    #[test]
    fn dots_stand_for_anything() {
        assert!(matches("L1 … active", "L1  seed-2   active"));
        assert!(matches("…", "anything"));
        assert!(matches("a …", "a b c"));
        assert!(!matches("a … c", "a b d"));
        assert!(!matches("a", "a b"));
    }
}
