//! Command line to [`Command`].
//!
//! The texts are those of Nova-baremetal's virtual power driver (2013-2014) and of Ironic's ssh driver
//! (2013-2017). A line is cut at `|` outside quotes; blanks around a stage do not count; every stage must
//! then be one of the recognised texts, byte for byte but for a machine's name or a boot device.

use super::command::{BootDevice, Command, MachineName, PowerVerb, Refused};

/// Longest command line looked at, bytes. The longest of ours has about 250.
pub const COMMAND_MAX_BYTES: usize = 1024;

/// What to tell somebody whose command was refused.
pub const ALLOWED: &str = "allowed are: virsh start|destroy|reset|domstate NAME, \
virsh list [--all] [--name], virsh dumpxml [--inactive] NAME, copyseed N (image on standard input), admit ADDRESS, \
and the command lines of the virtual power drivers of Nova and Ironic";

/// How much of a refused command is shown, characters.
const SHOWN_MAX_CHARS: usize = 60;

const LOCALE: &str = "LC_ALL=C ";
const EDITOR_BEFORE: &str = r#"EDITOR="sed -i '/<boot \(dev\|order\)=*\>/d;/<\/os>/i\<boot dev=\""#;
const EDITOR_AFTER: &str = r#"\"/>'" "#;

const TAIL: &str = "tail -n +2";
const AWK_NAME: &str = r#"awk -F" " '{print $2}'"#;
const GREP_RUNNING: &str = "grep running";
const AWK_QUOTED: &str = r#"awk -v qc='"' -F" " '{print qc$2qc}'"#;
const GREP_MAC: &str = r#"grep "mac address""#;
const AWK_AFTER_GREP: [&str; 2] = [r#"awk -F"'" '{print $2}'"#, r#"awk -F "'" '{print $2}'"#];
const AWK_MAC: [&str; 2] =
    [r#"awk -F "'" '/mac address/{print $2}'"#, r#"awk -F"'" '/mac address/{print $2}'"#];
const TR: &str = "tr -d ':'";
const AWK_BOOT: &str = concat!(
    r#"awk '/boot dev=/ { gsub( ".*dev=" Q, "" ); gsub( Q ".*", "" ); print; }'"#,
    r#" Q="'" RS="[<>]""#
);
const HEAD: &str = "head -1";

/// Understands a command line, or says why not.
pub fn parse(line: &[u8]) -> Result<Command, Refused> {
    if line.len() > COMMAND_MAX_BYTES {
        return Err(Refused::TooLong);
    }
    // A trailing newline is what `ssh host "$(cat file)"` habits leave; inside it is not ours.
    let line = line.trim_ascii();
    if line.is_empty() {
        return Err(Refused::Empty);
    }
    let printable = |b: &u8| b.is_ascii_graphic() || *b == b' ';
    let text = core::str::from_utf8(line).ok().filter(|t| t.as_bytes().iter().all(printable));
    let text = text.ok_or(Refused::NotPrintable)?;
    if text.starts_with("EDITOR=") {
        return set_boot_device(text);
    }
    if let Some(rest) = word(text, "copyseed") {
        return copyseed(rest);
    }
    if let Some(rest) = word(text, "admit") {
        return rest
            .parse()
            .map(|address| Command::Admit { address })
            .map_err(|_| Refused::NoAddress(shown(rest)));
    }
    let stages = stages(text);
    let virsh = after_virsh(stages[0]).ok_or_else(|| Refused::Unknown(shown(text)))?;
    let command = virsh_command(virsh)?;
    if stages.len() == 1 { Ok(command) } else { pipeline(command, &stages[1..], text) }
}

/// Cuts at `|` outside quotes. Never empty.
fn stages(text: &str) -> Vec<&str> {
    let mut cut = Vec::new();
    let (mut start, mut quote) = (0, None);
    for (i, b) in text.bytes().enumerate() {
        match (quote, b) {
            (None, b'|') => {
                cut.push(text[start..i].trim_matches(' '));
                start = i + 1;
            }
            (None, b'\'' | b'"') => quote = Some(b),
            (Some(q), b) if q == b => quote = None,
            (None | Some(_), _) => {}
        }
    }
    cut.push(text[start..].trim_matches(' '));
    cut
}

/// What follows the word `w`, without blanks in front; `None` when `text` does not start with it.
fn word<'a>(text: &'a str, w: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(w)?;
    (rest.is_empty() || rest.starts_with(' ')).then(|| rest.trim_matches(' '))
}

/// What follows `[LC_ALL=C ][/usr/bin/]virsh[ --connect qemu:///system]`.
fn after_virsh(text: &str) -> Option<&str> {
    let text = text.strip_prefix(LOCALE).unwrap_or(text);
    let rest = word(text, "/usr/bin/virsh").or_else(|| word(text, "virsh"))?;
    let connected = word(rest, "--connect").or_else(|| word(rest, "-c"));
    match connected {
        Some(uri) => word(uri, "qemu:///system"),
        None => Some(rest),
    }
}

fn virsh_command(text: &str) -> Result<Command, Refused> {
    let mut words = text.split(' ').filter(|w| !w.is_empty());
    let verb = words.next().unwrap_or_default();
    let arguments: Vec<&str> = words.collect();
    let power =
        |verb, command| Ok(Command::Power { verb, machine: one_machine(&arguments, command)? });
    match verb {
        "start" => power(PowerVerb::Start, "virsh start"),
        "destroy" => power(PowerVerb::Destroy, "virsh destroy"),
        "reset" => power(PowerVerb::Reset, "virsh reset"),
        "domstate" => Ok(Command::DomState { machine: one_machine(&arguments, "virsh domstate")? }),
        "dumpxml" => {
            let (inactive, rest) = without(&arguments, "--inactive");
            Ok(Command::DumpXml { machine: one_machine(&rest, "virsh dumpxml")?, inactive })
        }
        "list" => {
            let (all, rest) = without(&arguments, "--all");
            let (name, rest) = without(&rest, "--name");
            match (name, rest.is_empty()) {
                (true, true) => Ok(Command::ListNames { all }),
                (false, true) => Ok(Command::List { all }),
                (_, false) => {
                    Err(Refused::Arguments { command: "virsh list", expected: "[--all] [--name]" })
                }
            }
        }
        other => Err(Refused::VirshCommand(shown(other))),
    }
}

/// Whether `option` is there, and the rest.
fn without<'a>(arguments: &[&'a str], option: &str) -> (bool, Vec<&'a str>) {
    let at = arguments.iter().position(|a| *a == option);
    let mut rest = arguments.to_vec();
    if let Some(at) = at {
        rest.remove(at);
    }
    (at.is_some(), rest)
}

fn one_machine(arguments: &[&str], command: &'static str) -> Result<MachineName, Refused> {
    match arguments {
        [name] => MachineName::new(name).ok_or_else(|| Refused::BadName(shown(name))),
        _ => Err(Refused::Arguments { command, expected: "the name of one machine" }),
    }
}

fn pipeline(first: Command, rest: &[&str], text: &str) -> Result<Command, Refused> {
    let no = || Err(Refused::Pipeline(shown(text)));
    match first {
        Command::List { all: true } => match rest {
            [TAIL, AWK_NAME] => Ok(Command::ListNamesByAwk),
            [GREP_RUNNING, AWK_QUOTED] => Ok(Command::ListRunningQuoted),
            _ => no(),
        },
        Command::DumpXml { machine, inactive: false } => match rest {
            [GREP_MAC, awk, TR] if AWK_AFTER_GREP.contains(awk) => Ok(Command::Macs { machine }),
            [awk, TR] if AWK_MAC.contains(awk) => Ok(Command::Macs { machine }),
            [AWK_BOOT, HEAD] => Ok(Command::GetBootDevice { machine }),
            _ => no(),
        },
        Command::Admit { .. }
        | Command::List { all: false }
        | Command::DumpXml { inactive: true, .. }
        | Command::Power { .. }
        | Command::ListNames { .. }
        | Command::ListNamesByAwk
        | Command::ListRunningQuoted
        | Command::DomState { .. }
        | Command::Macs { .. }
        | Command::GetBootDevice { .. }
        | Command::SetBootDevice { .. }
        | Command::CopySeed { .. } => no(),
    }
}

fn set_boot_device(text: &str) -> Result<Command, Refused> {
    let unknown = || Refused::Unknown(shown(text));
    let rest = text.strip_prefix(EDITOR_BEFORE).ok_or_else(unknown)?;
    let (device, rest) = rest.split_once(EDITOR_AFTER).ok_or_else(unknown)?;
    let device = BootDevice::parse(device).ok_or_else(|| Refused::BadDevice(shown(device)))?;
    let edit = after_virsh(rest).and_then(|v| word(v, "edit")).ok_or_else(unknown)?;
    let names: Vec<&str> = edit.split(' ').filter(|w| !w.is_empty()).collect();
    Ok(Command::SetBootDevice { machine: one_machine(&names, "virsh edit")?, device })
}

fn copyseed(arguments: &str) -> Result<Command, Refused> {
    let number = Some(arguments)
        .filter(|a| (1..=9).contains(&a.len()) && a.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|a| a.parse().ok());
    number.map(|number| Command::CopySeed { number }).ok_or(Refused::Arguments {
        command: "copyseed",
        expected: "the number of the test environment, e.g. copyseed 1",
    })
}

/// A piece of the caller's text, safe to show: it was checked to be printable ASCII.
fn shown(text: &str) -> String {
    let mut s: String = text.chars().take(SHOWN_MAX_CHARS).collect();
    if s.len() < text.len() {
        s.push_str("...");
    }
    s
}

/// For the fuzzer: any bytes give a command or a refusal whose text is safe to print.
pub fn fuzz_command(line: &[u8]) {
    match parse(line) {
        Ok(_) => {}
        Err(refused) => {
            let text = refused.to_string();
            assert!(text.bytes().all(|b| b.is_ascii_graphic() || b == b' '), "{text:?}");
        }
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
