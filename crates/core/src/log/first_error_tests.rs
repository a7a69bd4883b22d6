//! Consoles as they look, and the line that a person would have pointed at.

use super::*;

fn told(log: &str) -> String {
    first_error(log, RunResult::Failure).map(|found| found.text).unwrap_or_default()
}

/// Name, console, and the line that is told.
const CASES: &[(&str, &str, &str)] = &[
    (
        "python",
        "Collecting pbr\n\
             Traceback (most recent call last):\n\
             \x20 File \"/usr/bin/os-collect-config\", line 9, in <module>\n\
             \x20   load_entry_point('os-collect-config')()\n\
             ImportError: No module named heatclient\n\
             + exit 1\n",
        "ImportError: No module named heatclient",
    ),
    (
        "python, chained: the first of the chain",
        "Traceback (most recent call last):\n  File \"a.py\", line 1\n    x()\nKeyError: 'image'\n\n\
             During handling of the above exception, another exception occurred:\n\n\
             Traceback (most recent call last):\n  File \"a.py\", line 3\nValueError: bad\n",
        "KeyError: 'image'",
    ),
    (
        "python in a daemon's log: every line has a head",
        "2014-11-18 21:03:25.456 12 TRACE nova Traceback (most recent call last):\n\
             2014-11-18 21:03:25.456 12 TRACE nova   File \"x.py\", line 1, in f\n\
             2014-11-18 21:03:25.456 12 TRACE nova DBConnectionError: (OperationalError) gone away\n",
        "2014-11-18 21:03:25.456 12 TRACE nova DBConnectionError: (OperationalError) gone away",
    ),
    (
        "a traceback without a message",
        "Traceback (most recent call last):\n  File \"t.py\", line 1\n    assert False\nAssertionError\nFAILED (failures=1)\n",
        "AssertionError",
    ),
    (
        "pytest",
        "collected 3 items\n>       assert f() == 2\nE       AssertionError: assert 1 == 2\ntest_x.py:3: AssertionError\n=== 1 failed, 2 passed in 0.1s ===\n",
        "E       AssertionError: assert 1 == 2",
    ),
    (
        "gcc and make",
        "gcc -Werror -c a.c\na.c: In function 'main':\na.c:3:5: error: 'x' undeclared\nmake[1]: *** [a.o] Error 1\nmake: *** [all] Error 2\n",
        "a.c:3:5: error: 'x' undeclared",
    ),
    (
        "linker",
        "main.o: In function `main':\nmain.c:(.text+0x5): undefined reference to `f'\ncollect2: error: ld returned 1 exit status\n",
        "main.c:(.text+0x5): undefined reference to `f'",
    ),
    ("only make", "cc -o a a.c\nmake: *** [all] Error 2\n", "make: *** [all] Error 2"),
    (
        "rust",
        "   Compiling a v0.1.0\nerror[E0308]: mismatched types\n --> src/a.rs:1:1\nerror: aborting due to 1 previous error\nerror: could not compile `a` (lib) due to 1 previous error\n",
        "error[E0308]: mismatched types",
    ),
    (
        "git",
        "Cloning into 'tripleo-ci'...\nfatal: unable to access 'https://git.example.org/': Could not resolve host: git.example.org\n+ exit 128\n",
        "fatal: unable to access 'https://git.example.org/': Could not resolve host: git.example.org",
    ),
    (
        "apt",
        "Reading package lists...\nW: Failed to fetch x\nE: Unable to locate package openvswitch\n",
        "E: Unable to locate package openvswitch",
    ),
    (
        "the shell's trace is no error, except its exit",
        "+ set -e\n+ echo 'error: not this'\n+ '[' -z '' ']'\n+ exit 1\n",
        "+ exit 1",
    ),
    ("exit 0 is none", "+ true\ndone\n+ exit 0\n", "+ exit 0"),
    (
        "systemd",
        "Job for libvirtd.service failed because the control process exited with error code.\nSee \"systemctl status libvirtd.service\" for details.\n",
        "Job for libvirtd.service failed because the control process exited with error code.",
    ),
    (
        "out of memory beats what follows from it",
        "building\nerror: worker died\n[ 123.4] Out of memory: Kill process 99 (qemu-system-x86) score 900\nerror: seed is gone\n",
        "[ 123.4] Out of memory: Kill process 99 (qemu-system-x86) score 900",
    ),
    (
        "killed under the shell",
        "toci_devtest.sh: line 88:  4242 Killed                  disk-image-create -o seed\nError: no image\n",
        "toci_devtest.sh: line 88:  4242 Killed                  disk-image-create -o seed",
    ),
    (
        "disk full",
        "dd: writing to 'x': No space left on device\nERROR: disk-image-create failed\n",
        "dd: writing to 'x': No space left on device",
    ),
    (
        "a command that is not there",
        "bash: line 12: virsh: command not found\n",
        "bash: line 12: virsh: command not found",
    ),
    (
        "heat",
        "| overcloud | CREATE_IN_PROGRESS |\n| overcloud | CREATE_FAILED | Resource CREATE failed: Error: No valid host was found. |\n",
        "| overcloud | CREATE_FAILED | Resource CREATE failed: Error: No valid host was found. |",
    ),
    (
        "a wait that ran out",
        "Timing out after 600 seconds:\nCOMMAND=nova list\nerror: timed out after 600 s waiting for ACTIVE\n",
        "error: timed out after 600 s waiting for ACTIVE",
    ),
    (
        "noise is no error",
        "warning: error in nothing\nRan 12 tests, 0 failures\nerror: 0\nInstalling libgpg-error0\nGET /error.html 200\nstep a ended badly\n",
        "step a ended badly",
    ),
    (
        "ansible",
        "TASK [install] ***\nfatal: [seed]: FAILED! => {\"msg\": \"No package\"}\nseed : ok=1 changed=0 unreachable=0 failed=1\n",
        "fatal: [seed]: FAILED! => {\"msg\": \"No package\"}",
    ),
    (
        "java",
        "Exception in thread \"main\" java.lang.NullPointerException\n\tat a.B.c(B.java:1)\n",
        "Exception in thread \"main\" java.lang.NullPointerException",
    ),
    (
        "ssh",
        "ssh: connect to host 192.0.2.1 port 22: No route to host\n+ exit 255\n",
        "ssh: connect to host 192.0.2.1 port 22: No route to host",
    ),
    (
        "times and colours go",
        "2026-11-25T21:00:00.123456Z | \x1b[31mERROR\x1b[0m: it broke\r\n",
        "ERROR: it broke",
    ),
    ("Jenkins' times go too", "2014-11-18 21:03:25.456 | fatal: it broke\n", "fatal: it broke"),
    ("a progress bar", "10%\r20%\rerror: it broke\n", "error: it broke"),
    ("nothing that looks like one: the last line", "hello\nbye\n\n", "bye"),
    ("nothing at all", "", ""),
];

#[test]
fn the_line_that_a_person_would_point_at() {
    for (name, log, expected) in CASES {
        assert_eq!(&told(log), expected, "{name}");
    }
}

#[test]
fn errors_that_were_survived_are_passed_over() {
    let mut log = "error: early and survived\n".to_owned();
    log.push_str(&"working\n".repeat(5000));
    log.push_str("error: the one\nerror: after it\n");
    let found = first_error(&log, RunResult::Failure).unwrap();
    assert_eq!((found.line, found.text.as_str()), (5002, "error: the one"));
    // With nothing but a consequence near the end, the early one is it.
    let mut log = "x.c:1:1: error: no\n".to_owned();
    log.push_str(&"compiling on\n".repeat(5000));
    log.push_str("make: *** [all] Error 2\n");
    assert_eq!(first_error(&log, RunResult::Failure).unwrap().line, 1);
}

/// A console as the runner writes it.
const RUN: &str = "toci: run 0123 of job devtest, attempt 1, on node-1\n\
    toci: pre script 1 of 1\n\
    error: handled\n\
    toci: run script 1 of 1: tripleo-ci/toci_gate_test.sh\n\
    building seed\n\
    E: Unable to locate package seed\n\
    toci: run script 1 of 1 ended with 100\n\
    toci: post script 1 of 1\n\
    tar: x: No space left on device\n\
    toci: post script 1 of 1 ended with 2\n\
    toci: result: FAILURE\n";

#[test]
fn the_runner_tells_which_lines_are_the_failed_script_s() {
    assert_eq!(told(RUN), "E: Unable to locate package seed");
    let quiet = RUN.replace("E: Unable to locate package seed\n", "");
    assert_eq!(told(&quiet), "building seed");
    let silent = quiet.replace("building seed\n", "");
    assert_eq!(told(&silent), "run script 1 of 1 ended with 100");
    let slow = "toci: run script 1 of 1\nwaiting for seed\ntoci: the time limit is reached\nTerminated\ntoci: result: TIMED_OUT\n";
    let found = first_error(slow, RunResult::TimedOut).unwrap();
    assert_eq!((found.line, found.text.as_str()), (2, "timed out; last line: waiting for seed"));
    let lost = "toci: run script 1 of 1\nerror: odd\ntoci: the node was lost during run script 1 of 1\ntoci: result: NODE_FAILURE\n";
    let found = first_error(lost, RunResult::NodeFailure).unwrap();
    assert_eq!(found.text, "the node was lost during run script 1 of 1");
    let never = "toci: no node: the label is unknown\ntoci: result: CONFIG_ERROR\n";
    assert_eq!(
        first_error(never, RunResult::ConfigError).unwrap().text,
        "no node: the label is unknown"
    );
}

#[test]
fn a_result_decides_what_is_told() {
    let log = "error: handled\nstill waiting for seed\n";
    let text = |result| first_error(log, result).map(|found| found.text);
    assert_eq!(text(RunResult::TimedOut).unwrap(), "timed out; last line: still waiting for seed");
    for result in [RunResult::Success, RunResult::Canceled, RunResult::Aborted] {
        assert_eq!(text(result), None);
    }
    let cause = "No space left on device\nwaiting\n";
    assert_eq!(first_error(cause, RunResult::TimedOut).unwrap().line, 1);
}

#[test]
fn hostile_lines_are_cut_and_never_panic() {
    let long = format!("error: {}", "ä".repeat(9000));
    let found = first_error(&long, RunResult::Failure).unwrap();
    assert_eq!(found.text.chars().count(), TOLD_MAX_CHARS);
    for odd in
        ["\u{1b}", "\u{1b}[", " | ", " |", "+", "2026-11-25T21:00:00.123456Z |", "\0\0", "ﬀerror:ſ"]
    {
        let _ = first_error(odd, RunResult::Failure);
    }
}
