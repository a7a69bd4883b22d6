//! Lines of the admin protocol (origin.md 1.5). Words are compared without regard to case, as
//! gearmand does. Whatever is not understood becomes [`AdminCommand::Wrong`] with its answer, so
//! that no line is met with silence.

use toci_core::broker::{AclVerb, AdminCommand};

/// How much of an unknown command is repeated in the answer, in bytes.
const REPEATED_MAX_BYTES: usize = 64;
/// What gearmand takes for `maxqueue NAME` without numbers: no limit.
const DEFAULT_MAX_QUEUE: Option<u32> = None;

/// What a line, without its end, asks for.
#[must_use]
pub fn parse_admin(line: &[u8]) -> AdminCommand<'_> {
    let words: Vec<&[u8]> =
        line.split(|b| b.is_ascii_whitespace() || *b == 0).filter(|w| !w.is_empty()).collect();
    let Some((command, arguments)) = words.split_first() else { return unknown(b"") };
    match command.to_ascii_lowercase().as_slice() {
        b"status" => AdminCommand::Status,
        b"prioritystatus" => AdminCommand::PriorityStatus,
        b"workers" => AdminCommand::Workers,
        b"getpid" => AdminCommand::GetPid,
        b"verbose" => AdminCommand::Verbose,
        b"version" => AdminCommand::Version,
        b"cancel" => cancel(command, arguments),
        b"show" => show(arguments),
        b"create" => with_function(command, arguments, AdminCommand::CreateFunction),
        b"drop" => with_function(command, arguments, AdminCommand::DropFunction),
        b"maxqueue" => max_queue(command, arguments),
        b"shutdown" => shutdown(command, arguments),
        b"acl" => acl(arguments),
        _ => unknown(command),
    }
}

/// Only what is safe to show on any terminal.
fn printable(word: &[u8]) -> String {
    let shown = &word[..word.len().min(REPEATED_MAX_BYTES)];
    shown.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '?' }).collect()
}

fn unknown(command: &[u8]) -> AdminCommand<'static> {
    let command = printable(command);
    AdminCommand::Wrong(format!("ERR UNKNOWN_COMMAND Unknown+server+command{command}"))
}

fn incomplete(command: &[u8]) -> AdminCommand<'static> {
    let text = "An+incomplete+set+of+arguments+was+sent+to+this+command";
    AdminCommand::Wrong(format!("ERR INVALID_ARGUMENTS {text}+{}", printable(command)))
}

fn cancel<'a>(command: &[u8], arguments: &[&'a [u8]]) -> AdminCommand<'a> {
    match arguments {
        [job, handle] if job.eq_ignore_ascii_case(b"job") => AdminCommand::CancelJob(handle),
        _ => unknown(command),
    }
}

fn show<'a>(arguments: &[&'a [u8]]) -> AdminCommand<'a> {
    let is = |word: &[u8], expected: &[u8]| word.eq_ignore_ascii_case(expected);
    match arguments {
        [jobs] if is(jobs, b"jobs") => AdminCommand::ShowJobs,
        [unique, jobs] if is(unique, b"unique") && is(jobs, b"jobs") => {
            AdminCommand::ShowUniqueJobs
        }
        [] => unknown(b"show"),
        _ => AdminCommand::Wrong("ERR UNKNOWN_SHOW_ARGUMENTS".to_owned()),
    }
}

fn with_function<'a>(
    command: &[u8],
    arguments: &[&'a [u8]],
    make: impl FnOnce(&'a [u8]) -> AdminCommand<'a>,
) -> AdminCommand<'a> {
    match arguments {
        [function, name] if function.eq_ignore_ascii_case(b"function") => make(name),
        _ => incomplete(command),
    }
}

/// A number as C's `atoi` reads it; zero and less mean no limit.
fn queue_limit(word: &[u8]) -> Option<u32> {
    let digits: Vec<u8> = word.iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok().filter(|n| *n > 0)
}

fn max_queue<'a>(command: &[u8], arguments: &[&'a [u8]]) -> AdminCommand<'a> {
    let Some((function, numbers)) = arguments.split_first() else { return incomplete(command) };
    let limit = |n: usize| numbers.get(n).map_or(DEFAULT_MAX_QUEUE, |w| queue_limit(w));
    let limits = if numbers.len() <= 1 { [limit(0); 3] } else { [limit(0), limit(1), limit(2)] };
    AdminCommand::MaxQueue { function, limits }
}

fn shutdown<'a>(command: &[u8], arguments: &[&'a [u8]]) -> AdminCommand<'a> {
    match arguments {
        [] => AdminCommand::Shutdown { graceful: false },
        [word] if word.eq_ignore_ascii_case(b"graceful") => {
            AdminCommand::Shutdown { graceful: true }
        }
        _ => unknown(command),
    }
}

fn acl<'a>(arguments: &[&'a [u8]]) -> AdminCommand<'a> {
    let Ok(words) =
        arguments.iter().map(|w| std::str::from_utf8(w)).collect::<Result<Vec<&'a str>, _>>()
    else {
        return AdminCommand::Wrong("ERR UNABLE Names and patterns must be UTF-8".to_owned());
    };
    let unknown_verb = || AdminCommand::Wrong("ERR UNKNOWN_ACL_VERB".to_owned());
    let verb_of = |word: &str| match word.to_ascii_lowercase().as_str() {
        "register" => Some(AclVerb::Register),
        "invoke" => Some(AclVerb::Invoke),
        "grant" => Some(AclVerb::Grant),
        "all" => Some(AclVerb::All),
        _ => None,
    };
    let Some((action, rest)) = words.split_first() else { return unknown_verb() };
    let action = action.to_ascii_lowercase();
    let verb = rest.first().and_then(|w| verb_of(w));
    match (action.as_str(), verb, rest) {
        ("list", _, []) => AdminCommand::AclList,
        ("grant", Some(AclVerb::All) | None, [_, ..]) => unknown_verb(),
        ("grant", Some(verb @ AclVerb::Grant), [_, subject]) => {
            AdminCommand::AclGrant { verb, subject, pattern: "" }
        }
        ("grant", Some(verb), [_, subject, pattern]) => {
            AdminCommand::AclGrant { verb, subject, pattern }
        }
        ("revoke" | "self-revoke", None, [_, ..]) => unknown_verb(),
        ("revoke", Some(verb), [_, subject]) => AdminCommand::AclRevoke { verb, subject },
        ("self-revoke", Some(verb), [_]) => AdminCommand::AclSelfRevoke { verb },
        ("list" | "grant" | "revoke" | "self-revoke", _, _) => incomplete(b"acl"),
        _ => unknown_verb(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrong(line: &str) -> String {
        match parse_admin(line.as_bytes()) {
            AdminCommand::Wrong(answer) => answer,
            other => panic!("{line} was understood as {other:?}"),
        }
    }

    #[test]
    fn every_command_of_both_servers_is_understood() {
        let cases = [
            ("status", AdminCommand::Status),
            ("STATUS", AdminCommand::Status),
            ("workers", AdminCommand::Workers),
            ("prioritystatus", AdminCommand::PriorityStatus),
            ("cancel job H:a:1", AdminCommand::CancelJob(b"H:a:1")),
            ("show jobs", AdminCommand::ShowJobs),
            ("show unique jobs", AdminCommand::ShowUniqueJobs),
            ("create function f", AdminCommand::CreateFunction(b"f")),
            ("drop function f", AdminCommand::DropFunction(b"f")),
            ("maxqueue f", AdminCommand::MaxQueue { function: b"f", limits: [None; 3] }),
            ("maxqueue f 7", AdminCommand::MaxQueue { function: b"f", limits: [Some(7); 3] }),
            (
                "maxqueue f 1 0 -3",
                AdminCommand::MaxQueue { function: b"f", limits: [Some(1), None, None] },
            ),
            ("getpid", AdminCommand::GetPid),
            ("verbose", AdminCommand::Verbose),
            ("version", AdminCommand::Version),
            ("shutdown", AdminCommand::Shutdown { graceful: false }),
            ("shutdown graceful", AdminCommand::Shutdown { graceful: true }),
            ("acl list", AdminCommand::AclList),
            (
                "acl grant register w f.*",
                AdminCommand::AclGrant { verb: AclVerb::Register, subject: "w", pattern: "f.*" },
            ),
            (
                "acl grant grant w",
                AdminCommand::AclGrant { verb: AclVerb::Grant, subject: "w", pattern: "" },
            ),
            ("acl revoke all w", AdminCommand::AclRevoke { verb: AclVerb::All, subject: "w" }),
            ("acl self-revoke invoke", AdminCommand::AclSelfRevoke { verb: AclVerb::Invoke }),
        ];
        for (line, command) in cases {
            assert_eq!(parse_admin(line.as_bytes()), command, "{line}");
        }
    }

    #[test]
    fn everything_else_has_an_answer() {
        assert_eq!(wrong("jobs"), "ERR UNKNOWN_COMMAND Unknown+server+commandjobs");
        assert_eq!(wrong(""), "ERR UNKNOWN_COMMAND Unknown+server+command");
        let incomplete = "An+incomplete+set+of+arguments+was+sent+to+this+command";
        assert_eq!(wrong("create"), format!("ERR INVALID_ARGUMENTS {incomplete}+create"));
        for line in ["cancel job", "cancel", "shutdown now", "show"] {
            assert!(wrong(line).starts_with("ERR UNKNOWN_COMMAND"), "{line}");
        }
        for line in ["drop function", "maxqueue", "acl grant register w", "acl revoke all"] {
            assert!(wrong(line).starts_with("ERR INVALID_ARGUMENTS"), "{line}");
        }
        assert_eq!(wrong("show me"), "ERR UNKNOWN_SHOW_ARGUMENTS");
        for line in ["acl", "acl fly", "acl grant all w", "acl grant fly w x", "acl revoke fly w"] {
            assert_eq!(wrong(line), "ERR UNKNOWN_ACL_VERB", "{line}");
        }
        assert!(!wrong("\x1b[2J").contains('\x1b'));
    }

    proptest! {
        #[test]
        fn any_line_is_parsed_without_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let AdminCommand::Wrong(answer) = parse_admin(&line) {
                prop_assert!(answer.starts_with("ERR ") && !answer.contains('\n'));
            }
        }
    }
}
