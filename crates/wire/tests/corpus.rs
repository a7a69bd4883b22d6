//! Every file of `fuzz/corpus` through its fuzz target's property, without a fuzzer.

#[path = "../../../fuzz/properties.rs"]
mod properties;

use std::fs;
use std::path::Path;

/// Fewer files than this in a folder means that the corpus was lost.
const FILES_AT_LEAST: usize = 10;

fn replay(target: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files = 0;
    for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a folder that lists").path();
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if std::panic::catch_unwind(|| property(&bytes)).is_err() {
            panic!("{} breaks {target}", path.display());
        }
        files += 1;
    }
    assert!(files >= FILES_AT_LEAST, "only {files} files in {}", folder.display());
}

#[test]
fn gearman_frame() {
    replay("gearman_frame", properties::gearman_frame);
}

#[test]
fn gearman_admin() {
    replay("gearman_admin", properties::gearman_admin);
}

#[test]
fn ssh_command() {
    replay("ssh_command", properties::ssh_command);
}

#[test]
fn te_json() {
    replay("te_json", properties::te_json);
}

#[test]
fn layout() {
    replay("layout", properties::layout);
}

#[test]
fn own_layout() {
    replay("own_layout", properties::own_layout);
}
