//! What is collected when a run is over, besides what its job left in `logs/`: the origin's list (origin.md 5.3) as rules,
//! and a plan made of them. Whoever carries the plan out makes no choices.
//!
//! ```text
//! Rules + Scene ──plan──▶ Plan ──▶ the TE's host: te/<test environment>/…   first, and then the TE is given back
//!                              └─▶ the nodes: node/…                       a shell text, a tar archive comes back
//! ```
//!
//! What the origin suffered from is gone: every command, file, machine and step has a limit, names do not collide, keys
//! and passwords are neither sent nor kept, a command or file that is missing is said where its output would stand, and
//! the test environment is held for its own part alone. Of the machines that a job deploys inside its test environment
//! the server takes the serial consoles and screens, which need no help of theirs; it has no keys to them. What only
//! they know (their `/var/log`) the job fetches itself into `logs/`, as the origin's did.

use crate::pipeline::RunResult;
use crate::shell::quoted;
use core::fmt::Write as _;
use core::time::Duration;

/// Longest look at one node.
pub const NODE_LIMIT: Duration = Duration::from_secs(120);
/// Longest look at the test environments of a run, which are held meanwhile.
pub const TESTENV_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of one node at most, before they are compressed: what comes after that is not whole.
pub const NODE_MAX_BYTES: u64 = 512 << 20;
/// Nodes of one run that are looked at at most.
pub const NODES_MAX: usize = 16;
/// Commands, folders and left out paths that may be added to the usual ones, each.
pub const ADDED_MAX: usize = 100;
/// Longest of them, in bytes.
pub const ADDED_MAX_BYTES: usize = 1000;
/// Largest file that is taken from a node, in KiB.
const FILE_MAX_KIB: u64 = 64 << 10;
/// Longest time of one command, in seconds.
const COMMAND_LIMIT_S: u64 = 20;
/// Longest time of all commands, in seconds: files are still to come.
const COMMANDS_LIMIT_S: u64 = 60;
/// Bytes of one command's output at most.
const COMMAND_MAX_BYTES: u64 = 16 << 20;
/// Files that are named as left out, per folder and reason, at most.
const TOLD_MAX: usize = 100;

/// A command and the file that its output goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Which file, a plain name.
    pub file: String,
    /// Shell text.
    pub text: String,
    /// It tells of the whole machine. In a sandbox that is the server's own machine: not asked there.
    pub of_machine: bool,
}

/// What is collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether nodes are looked at.
    pub nodes: bool,
    /// Whether hosts of test environments are.
    pub testenvs: bool,
    /// What nodes are asked.
    pub commands: Vec<Command>,
    /// Folders of nodes that are machines of their own, without the slash before them.
    pub folders: Vec<String>,
    /// Paths in them that are left out, as `find -path` has them.
    pub left_out: Vec<String>,
}

/// Where most answers go (origin.md 5.3).
pub const INFO_FILE: &str = "host_info.txt";

impl Default for Rules {
    fn default() -> Rules {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let command = |file: &str, text: &str, of_machine| Command {
            file: file.to_owned(),
            text: text.to_owned(),
            of_machine,
        };
        let info = |text: &&str| command(INFO_FILE, text, false);
        let of_machine = |text: &&str| command(INFO_FILE, text, true);
        let own = ["ps -efZ || ps -ef", "df -h", "ip addr", "ip route", "ss -anp || netstat -anp"];
        let machines = [
            "uptime",
            "uname -a",
            "free -h",
            "ls -lZ /var/run",
            "iptables-save",
            "ovs-vsctl show",
            "os-collect-config --print",
            "systemctl --no-pager --failed",
            "dpkg -l || rpm -qa",
        ];
        let mut commands: Vec<Command> = own.iter().map(info).collect();
        commands.extend(machines.iter().map(of_machine));
        commands.push(command("dmesg.txt", "dmesg", true));
        let journal = "journalctl --no-pager -b -o short-iso -n 50000";
        commands.push(command("journal.txt", journal, true));
        Rules {
            nodes: true,
            testenvs: true,
            commands,
            folders: list(&["var/log", "etc", "mnt/state/var/log"]),
            left_out: list(&[
                "etc/udev/hwdb.bin",
                "etc/selinux/targeted",
                "etc/services",
                "etc/pki",
                "etc/ssl",
                "etc/ssh/*_key",
                "etc/shadow*",
                "etc/gshadow*",
                "etc/sudoers*",
                "etc/keystone/fernet-keys",
                "var/log/journal",
                "var/log/lastlog",
                "var/log/faillog",
                "*/.ssh",
                "*.key",
                "*.pem",
                "*passwords",
            ]),
        }
    }
}

/// What is known of a run when it is collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// What the run came to.
    pub verdict: RunResult,
    /// Its nodes: whether each is a machine of its own, or a sandbox on the server's.
    pub nodes: Vec<bool>,
    /// Whether it still holds a test environment.
    pub holds_testenv: bool,
}

/// What to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The test environments, if any: before everything else.
    pub testenvs: Option<TestenvView>,
    /// One a node, in their order.
    pub nodes: Vec<NodeView>,
    /// What is not looked at, for people.
    pub notes: Vec<String>,
}

/// A look at what the host sees of every machine of a test environment: power, definition, switch, console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestenvView {
    /// Also what stands on the screens of machines that run.
    pub screens: bool,
}

/// A look at one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Where it goes, relative to the run's folder; no two are the same.
    pub folder: String,
    /// Shell text (bash) that writes a tar archive to its output.
    pub script: String,
}

/// Whether anybody will want to know: a run that its item does not need any more is not looked at.
#[must_use]
pub fn is_wanted(verdict: RunResult) -> bool {
    verdict != RunResult::Canceled
}

/// What to look at.
#[must_use]
pub fn plan(rules: &Rules, scene: &Scene) -> Plan {
    let mut plan = Plan::default();
    if !is_wanted(scene.verdict) {
        return plan;
    }
    if rules.testenvs && scene.holds_testenv {
        plan.testenvs = Some(TestenvView { screens: scene.verdict != RunResult::Success });
    }
    if !rules.nodes {
        return plan;
    }
    for (at, is_machine) in scene.nodes.iter().take(NODES_MAX).enumerate() {
        let folder = if at == 0 { "node".to_owned() } else { format!("node-{}", at + 1) };
        plan.nodes.push(NodeView { folder, script: script(rules, *is_machine) });
    }
    if scene.nodes.len() > NODES_MAX {
        plan.notes.push(format!("only the first {NODES_MAX} nodes are looked at"));
    }
    plan
}

/// As root where that is to be had without a question; else what may be seen without, which is said on top.
fn script(rules: &Rules, is_machine: bool) -> String {
    // It is longer than an argument may be when much is added.
    let text = quoted(&collecting(rules, is_machine));
    format!(
        "run=bash; [ \"$(id -u)\" = 0 ] || ! timeout 5 sudo -n true </dev/null 2>/dev/null || run='sudo -n bash'\n\
         printf '%s' {text} | $run -s\n"
    )
}

/// Shell text that writes what there is to its output, as a tar archive.
fn collecting(rules: &Rules, is_machine: bool) -> String {
    let mut out = String::from(
        "umask 077; d=$(mktemp -d) || exit 9; trap 'rm -rf \"$d\"' EXIT; mkdir \"$d/o\"; cd \"$d/o\" || exit 9\n",
    );
    let _ = writeln!(
        out,
        r#"[ "$(id -u)" = 0 ] || printf '===== without root\nsudo -n is refused to %s: what only root may see is missing\n' "$(id -un)" >{INFO_FILE}"#
    );
    let _ = write!(
        out,
        r#"end=$(($(date +%s) + {COMMANDS_LIMIT_S}))
ask() {{
    printf '\n===== %s\n' "$2" >>"$1"
    left=$((end - $(date +%s))); [ "$left" -gt {COMMAND_LIMIT_S} ] && left={COMMAND_LIMIT_S}
    [ "$left" -gt 0 ] || {{ echo '(not asked: no time is left)' >>"$1"; return; }}
    timeout -k 2 "$left" bash -c "$2" </dev/null 2>&1 | head -c {COMMAND_MAX_BYTES} >>"$1"
    c=${{PIPESTATUS[0]}}
    case $c in 0) ;; 124 | 137) echo "(stopped after $left s)" >>"$1" ;; *) echo "(exit code $c)" >>"$1" ;; esac
}}
"#
    );
    for command in rules.commands.iter().filter(|c| is_machine || !c.of_machine) {
        let _ = writeln!(out, "ask {} {}", quoted(&command.file), quoted(&command.text));
    }
    out.push_str("list=$d/list; : >\"$list\"; cd / || exit 9\n");
    if is_machine {
        out.push_str(&finding(rules));
    }
    let _ = writeln!(
        out,
        "tar -c --format=gnu --ignore-failed-read --warning=none -f - -C \"$d/o\" . -C / --null -T \"$list\" 2>/dev/null | head -c {NODE_MAX_BYTES}"
    );
    out
}

/// Writes the names of the files to take into a list, and what is not taken into the info file.
fn finding(rules: &Rules) -> String {
    let paths: Vec<String> =
        rules.left_out.iter().map(|path| format!("-path {}", quoted(path))).collect();
    let prune = if paths.is_empty() {
        String::new()
    } else {
        format!("\\( {} \\) -prune -o ", paths.join(" -o "))
    };
    let mut out = String::new();
    for folder in &rules.folders {
        let _ = write!(
            out,
            r#"f={folder}; i="$d/o/{INFO_FILE}"
printf '\n===== files in /%s that are left out\n' "$f" >>"$i"
if [ -d "$f" ]; then
    timeout -k 2 {COMMAND_LIMIT_S} find "$f" -xdev {prune}-type f -readable -size -{FILE_MAX_KIB}k -print0 >>"$list" 2>/dev/null
    timeout -k 2 {COMMAND_LIMIT_S} find "$f" -xdev {prune}-type d \( ! -readable -o ! -executable \) -printf '%p/: may not be read\n' -prune -o -type f \( -size +{more}k -printf '%p: %s bytes are too many\n' -o ! -readable -printf '%p: may not be read\n' \) 2>/dev/null | head -n {TOLD_MAX} >>"$i"
else
    echo '(there is no such folder)' >>"$i"
fi
"#,
            folder = quoted(folder),
            more = FILE_MAX_KIB - 1,
        );
    }
    out
}

/// What is wrong with a folder or a path to be left out that somebody wants to add, if anything is.
#[must_use]
pub fn wrong_path(path: &str) -> Option<&'static str> {
    if path.is_empty() || path.len() > ADDED_MAX_BYTES {
        return Some("is empty or longer than 1,000 bytes");
    }
    if path.starts_with('/') || path.starts_with('-') || path.chars().any(char::is_control) {
        return Some("begins with a slash or a dash, or holds a control character");
    }
    path.split('/').any(|part| part == "..").then_some("leads upwards")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(verdict: RunResult) -> Scene {
        Scene { verdict, nodes: vec![true, false], holds_testenv: true }
    }

    #[test]
    fn a_sandbox_does_not_tell_of_the_servers_machine() {
        let plan = plan(&Rules::default(), &scene(RunResult::Failure));
        let folders: Vec<&str> = plan.nodes.iter().map(|n| n.folder.as_str()).collect();
        assert_eq!(folders, ["node", "node-2"]);
        let (machine, sandbox) = (&plan.nodes[0].script, &plan.nodes[1].script);
        for words in ["journalctl", "dpkg -l", "dmesg", "find \"$f\"", "mnt/state/var/log"] {
            assert!(machine.contains(words), "{words}");
            assert!(!sandbox.contains(words), "{words}");
        }
        assert!(machine.contains("ps -ef") && sandbox.contains("ps -ef"));
    }

    #[test]
    fn screens_are_looked_at_when_something_went_wrong_and_nothing_of_a_run_that_nobody_needs() {
        let rules = Rules::default();
        let screens = |verdict| plan(&rules, &scene(verdict)).testenvs.map(|view| view.screens);
        assert_eq!(screens(RunResult::Success), Some(false));
        for bad in [RunResult::Failure, RunResult::TimedOut, RunResult::Aborted] {
            assert_eq!(screens(bad), Some(true), "{bad:?}");
        }
        assert_eq!(plan(&rules, &scene(RunResult::Canceled)), Plan::default());
        let gone = Scene { holds_testenv: false, ..scene(RunResult::Failure) };
        assert_eq!(plan(&rules, &gone).testenvs, None);
    }

    #[test]
    fn what_is_switched_off_is_not_looked_at_and_what_is_too_much_is_told() {
        let off = Rules { nodes: false, testenvs: false, ..Rules::default() };
        assert_eq!(plan(&off, &scene(RunResult::Failure)), Plan::default());
        let many = Scene { nodes: vec![true; NODES_MAX + 1], ..scene(RunResult::Failure) };
        let plan = plan(&Rules::default(), &many);
        assert_eq!((plan.nodes.len(), plan.notes.len()), (NODES_MAX, 1));
    }

    #[test]
    fn added_paths_stay_below_the_root() {
        for bad in ["", "/etc", "-delete", "a/../..", "a\nb", &"x".repeat(1001)] {
            assert!(wrong_path(bad).is_some(), "{bad:?}");
        }
        assert_eq!(wrong_path("var/lib/mine"), None);
    }
}
