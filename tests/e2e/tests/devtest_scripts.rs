//! The parts of examples/devtest that need no virtual machine: images, repositories, refusals.

use std::path::Path;
use std::process::Command;

#[test]
fn images_are_reproducible_and_wrong_use_is_refused() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/devtest/tests/run");
    let output = Command::new(&script).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{text}\n{errors}", script.display());
}
