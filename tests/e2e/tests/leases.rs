//! Leases with everything real: server, TE host with libvirt and Open vSwitch, `toci lease run`, OpenSSH through the gateway.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::{Ci, wait_for};
use toci_wire::api::TeState;

/// A command through the gateway, on a busy machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// A dead client is noticed within 15 s (issue A); then its TE is reset.
const LOST_LIMIT: Duration = Duration::from_secs(15);
/// Cutting off and resetting a TE of two machines that are off, on a busy machine.
const RESET_LIMIT: Duration = Duration::from_secs(30);

/// A command that says `up` and holds an SSH session of the gateway open, which says `cut` when it ends. The session is
/// not in the command's process group, so that only the gateway can end it.
const HOLD_A_SESSION_OPEN: &str = "
    fifo=$(mktemp -u); mkfifo $fifo; export fifo
    setsid sh -c 'sleep 1000 >$fifo & echo up; $GATE copyseed 1 <$fifo; rm $fifo; echo cut' &
    sleep 2000";

fn all_ready(ci: &Ci, limit: Duration) -> Result<Vec<toci_wire::api::TestEnv>> {
    ci.wait_for_testenvs("ready", limit, |all| all.iter().all(|te| te.state == TeState::Ready))
}

#[test]
fn a_command_gets_a_te_and_gives_it_back() {
    let ci = Ci::start(1).unwrap();
    let script = "
        echo file=$TE_DATAFILE
        stat -c mode=%a $TE_DATAFILE
        $GATE virsh list --all
        $GATE virsh start baremetalbrbm1_0
        $GATE virsh list
        $GATE 'rm -rf /' || echo refused
        $GATE virsh start seed_2 || echo not mine
        exit 42";
    let mut client = ci.lease_run("client", &["--label", "e2e"], script).unwrap();
    let status = client.wait(COMMAND_LIMIT).unwrap();
    let output = client.output();
    assert_eq!(status.code(), Some(42), "the command's own code\n{output}\n{}", client.log_tail());
    assert!(output.contains("mode=600"), "{output}");
    assert!(output.contains("seed_1") && output.contains("baremetalbrbm1_0"), "{output}");
    assert!(output.contains("refused") && output.contains("not mine"), "{output}");
    assert!(
        output.lines().any(|l| l.contains("baremetalbrbm1_0") && l.contains("running")),
        "{output}"
    );

    let file = output.lines().find_map(|line| line.strip_prefix("file=")).unwrap();
    let gone = ci.lab.read("sh", &["-c", &format!("test -e {file} && echo there || echo gone")]);
    assert_eq!(gone.unwrap().trim(), "gone", "the data file goes with the lease");
    let after = all_ready(&ci, RESET_LIMIT).unwrap();
    assert!(after[0].machines.iter().all(|machine| !machine.on), "clean means off: {after:?}");
    assert_eq!(after[0].generation, 1);
}

#[test]
fn two_leases_run_side_by_side_and_a_third_waits_for_its_turn() {
    let ci = Ci::start(2).unwrap();
    let folder = ci.lab.folder().display().to_string();
    let script =
        format!("echo up; while ! test -e {folder}/go; do sleep 0.1; done; $GATE virsh list --all");
    let mut first = ci.lease_run("first", &[], &script).unwrap();
    let mut second = ci.lease_run("second", &[], &script).unwrap();
    first.wait_for_line("up").unwrap();
    second.wait_for_line("up").unwrap();
    let mut third = ci.lease_run("third", &[], "echo up").unwrap();
    let waiting = wait_for("the third to wait", COMMAND_LIMIT, || {
        let leases = ci.ask(ci.api().leases(false))?;
        let waiting = leases.iter().find_map(|lease| lease.waiting.clone());
        waiting.ok_or_else(|| anyhow::anyhow!("{leases:#?}"))
    })
    .unwrap();
    assert_eq!(waiting.position, 1);
    assert!(!waiting.reason.is_empty());

    std::fs::write(format!("{folder}/go"), "").unwrap();
    for client in [&mut first, &mut second, &mut third] {
        let status = client.wait(COMMAND_LIMIT).unwrap();
        assert!(status.success(), "{status}\n{}\n{}", client.log_tail(), ci.logs());
    }
    let (one, two) = (first.output(), second.output());
    assert_ne!(
        one.contains("seed_1"),
        two.contains("seed_1"),
        "each saw its own TE:\n{one}\n{two}"
    );
    assert_ne!(
        one.contains("seed_2"),
        two.contains("seed_2"),
        "each saw its own TE:\n{one}\n{two}"
    );
}

#[test]
fn a_killed_client_is_cut_off_and_its_te_is_granted_again() {
    let ci = Ci::start(1).unwrap();
    // The killed client's command lives on and holds an SSH session open.
    let mut client = ci.lease_run("victim", &[], HOLD_A_SESSION_OPEN).unwrap();
    client.wait_for_line("up").unwrap();
    let mut next = ci.lease_run("next", &[], "$GATE virsh list --all").unwrap();
    client.kill().unwrap();
    let killed = Instant::now();
    let status = next.wait(LOST_LIMIT + RESET_LIMIT).unwrap();
    let took = killed.elapsed();
    assert!(status.success(), "{status}\n{}\n{}", next.log_tail(), ci.logs());
    assert!(next.output().contains("seed_1"), "{}", next.output());
    client.wait_for_line("cut").unwrap();
    let processes = ci.lab.read("ps", &["-e", "-o", "args="]).unwrap();
    assert!(!processes.contains("sleep 2000"), "the command ends with its toci:\n{processes}");
    eprintln!("granted again {:.1} s after kill -9 of the holder", took.as_secs_f64());
    assert_eq!(all_ready(&ci, RESET_LIMIT).unwrap()[0].generation, 2);
}

#[test]
fn holders_go_on_while_the_server_is_killed_and_started_again() {
    let mut ci = Ci::start(2).unwrap();
    let folder = ci.lab.folder().display().to_string();
    let script =
        format!("echo up; while ! test -e {folder}/go; do $GATE virsh list --all; done; exit 7");
    let mut holder = ci.lease_run("holder", &[], &script).unwrap();
    holder.wait_for_line("up").unwrap();
    let before = ci.ask(ci.api().testenvs()).unwrap();

    ci.kill_server().unwrap();
    let seen = holder.output().len();
    wait_for("the holder to go on without a server", COMMAND_LIMIT, || {
        ensure!(holder.output().len() > seen + 200, "{}", holder.log_tail());
        Ok(())
    })
    .unwrap();
    let took = ci.start_server().unwrap();
    eprintln!("serving again {:.3} s after its start", took.as_secs_f64());

    let after = ci.ask(ci.api().testenvs()).unwrap();
    let held = |all: &[toci_wire::api::TestEnv]| {
        all.iter().map(|te| (te.id.clone(), te.generation, te.lease.clone())).collect::<Vec<_>>()
    };
    assert_eq!(held(&before), held(&after), "nothing granted is lost or granted twice");
    // The other TE can be granted to somebody else, the held one cannot.
    let mut other = ci.lease_run("other", &[], "$GATE virsh list --all").unwrap();
    let status = other.wait(COMMAND_LIMIT).unwrap();
    assert!(status.success(), "{status}\n{}\n{}", other.log_tail(), ci.logs());

    std::fs::write(format!("{folder}/go"), "").unwrap();
    let status = holder.wait(COMMAND_LIMIT).unwrap();
    assert_eq!(status.code(), Some(7), "{}\n{}", holder.log_tail(), ci.logs());
    all_ready(&ci, RESET_LIMIT).unwrap();
}

#[test]
fn expiry_cuts_open_sessions_and_ends_the_command() {
    let ci = Ci::start(1).unwrap();
    let mut client = ci.lease_run("client", &["--timeout", "5s"], HOLD_A_SESSION_OPEN).unwrap();
    let status = client.wait(COMMAND_LIMIT).unwrap();
    assert_eq!(status.code(), Some(112), "docs/exit-codes.md\n{}", client.log_tail());
    client.wait_for_line("cut").unwrap();
    all_ready(&ci, RESET_LIMIT).unwrap();
}

#[test]
fn a_killed_host_comes_back_with_clean_test_environments() {
    let mut ci = Ci::start(1).unwrap();
    let mut client = ci.lease_run("client", &["--timeout", "60s"], "echo up; sleep 1000").unwrap();
    client.wait_for_line("up").unwrap();
    ci.host.agent.take().unwrap().kill().unwrap();
    ci.host.start(&ci.lab, &[]).unwrap();
    client.signal("INT").unwrap();
    client.wait(COMMAND_LIMIT).unwrap();
    all_ready(&ci, COMMAND_LIMIT).unwrap();
    let mut next = ci.lease_run("next", &[], "$GATE virsh list --all").unwrap();
    let status = next.wait(COMMAND_LIMIT).unwrap();
    assert!(status.success(), "{status}\n{}\n{}", next.log_tail(), ci.logs());
}
