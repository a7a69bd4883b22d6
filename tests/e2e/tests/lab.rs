//! The lab itself: what starts in it ends with it.

use std::time::Duration;

use e2e::{Lab, Leftovers};

#[test]
fn a_lab_has_no_way_out_and_takes_its_processes_along() {
    let lab = Lab::start().unwrap();
    let leftovers = Leftovers::before(lab.folder());
    let links = lab.read("ip", &["-o", "link"]).unwrap();
    assert_eq!(links.lines().count(), 1, "only loopback: {links}");

    let mut sleeper = lab.spawn("sleeper", &["sleep", "1000"], &[]).unwrap();
    assert!(!sleeper.has_ended().unwrap());
    let processes = lab.read("ps", &["-e", "-o", "args"]).unwrap();
    assert!(processes.contains("sleep 1000"), "{processes}");
    assert!(!leftovers.found().is_empty(), "the sleeper counts as left behind");

    drop(lab);
    sleeper.wait(Duration::from_secs(5)).unwrap();
    leftovers.check().unwrap();
}

#[test]
fn a_killed_process_ends_alone() {
    let lab = Lab::start().unwrap();
    let mut first = lab.spawn("first", &["sleep", "1000"], &[]).unwrap();
    let mut second = lab.spawn("second", &["sh", "-c", "echo up; exec sleep 1000"], &[]).unwrap();
    first.kill().unwrap();
    e2e::wait_for("its output", Duration::from_secs(5), || {
        anyhow::ensure!(second.output() == "up\n", "{:?}", second.output());
        Ok(())
    })
    .unwrap();
    assert!(!second.has_ended().unwrap());
}
