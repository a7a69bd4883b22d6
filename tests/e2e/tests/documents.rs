//! The examples in the documents do what they say.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use e2e::{Ci, binary, examples};

fn run_examples(document: &str, at_least: usize) -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(document);
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let found = examples(&text);
    anyhow::ensure!(found.len() >= at_least, "only {} tested examples in {document}", found.len());
    let ci = Ci::start(1)?;
    for example in found {
        example
            .check(&mut ci.operator_shell()?)
            .with_context(|| format!("{document}\n{}", ci.logs()))?;
    }
    Ok(())
}

#[test]
fn operators_guide() {
    run_examples("docs/operators.md", 8).unwrap();
}

/// It needs no server: the examples run in the repository itself.
#[test]
fn layouts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join("docs/layout.md")).unwrap();
    let found = examples(&text);
    assert!(found.len() >= 6, "only {} tested examples", found.len());
    let toci = binary("toci").unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", toci.parent().unwrap().display());
    for example in found {
        example.check(Command::new("bash").env("PATH", &path).current_dir(&root)).unwrap();
    }
}
