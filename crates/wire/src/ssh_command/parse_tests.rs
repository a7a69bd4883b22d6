//! The gateway's command lines: every one of the origin is understood, and nothing else.

use super::*;
use proptest::prelude::*;

const BASES: [&str; 6] = [
    "/usr/bin/virsh",
    "virsh",
    "LC_ALL=C /usr/bin/virsh",
    "LC_ALL=C virsh",
    "/usr/bin/virsh --connect qemu:///system",
    "LC_ALL=C /usr/bin/virsh --connect qemu:///system",
];

fn machine() -> MachineName {
    MachineName::new("baremetalbrbm1_0").unwrap()
}

/// Every original line of 2013-2017 after the base command, and what it means.
fn originals() -> Vec<(&'static str, Command)> {
    let power = |verb| Command::Power { verb, machine: machine() };
    let macs = || Command::Macs { machine: machine() };
    vec![
        ("start baremetalbrbm1_0", power(PowerVerb::Start)),
        ("destroy baremetalbrbm1_0", power(PowerVerb::Destroy)),
        ("reset baremetalbrbm1_0", power(PowerVerb::Reset)),
        (r#"list --all | tail -n +2 | awk -F" " '{print $2}'"#, Command::ListNamesByAwk),
        (
            r#"list --all|grep running|awk -v qc='"' -F" " '{print qc$2qc}'"#,
            Command::ListRunningQuoted,
        ),
        (
            r#"list --all|grep running | awk -v qc='"' -F" " '{print qc$2qc}'"#,
            Command::ListRunningQuoted,
        ),
        ("list --all --name", Command::ListNames { all: true }),
        ("list --name", Command::ListNames { all: false }),
        (
            r#"dumpxml baremetalbrbm1_0 | grep "mac address" | awk -F"'" '{print $2}' | tr -d ':'"#,
            macs(),
        ),
        (r#"dumpxml baremetalbrbm1_0 | awk -F "'" '/mac address/{print $2}'| tr -d ':'"#, macs()),
        (
            r#"dumpxml baremetalbrbm1_0 | awk '/boot dev=/ { gsub( ".*dev=" Q, "" ); gsub( Q ".*", "" ); print; }' Q="'" RS="[<>]" | head -1"#,
            Command::GetBootDevice { machine: machine() },
        ),
        ("list", Command::List { all: false }),
        ("list --all", Command::List { all: true }),
        ("dumpxml baremetalbrbm1_0", Command::DumpXml { machine: machine(), inactive: false }),
        ("domstate baremetalbrbm1_0", Command::DomState { machine: machine() }),
    ]
}

/// All texts that are meant to be understood.
fn all_lines() -> Vec<(String, Command)> {
    let mut lines = Vec::new();
    for base in BASES {
        for (rest, command) in originals() {
            lines.push((format!("{base} {rest}"), command));
        }
        for device in BootDevice::ALL {
            let text = format!(
                r#"EDITOR="sed -i '/<boot \(dev\|order\)=*\>/d;/<\/os>/i\<boot dev=\"{}\"/>'" {base} edit baremetalbrbm1_0"#,
                device.as_str()
            );
            lines.push((text, Command::SetBootDevice { machine: machine(), device }));
        }
    }
    let address = std::net::Ipv4Addr::new(198, 18, 0, 7);
    lines.push(("admit 198.18.0.7".into(), Command::Admit { address }));
    lines.push(("copyseed 7".into(), Command::CopySeed { number: 7 }));
    lines
}

#[test]
fn every_original_line_is_understood() {
    for (line, command) in all_lines() {
        assert_eq!(parse(line.as_bytes()), Ok(command), "{line}");
    }
}

#[test]
fn what_is_not_ours_is_refused_with_the_reason() {
    let refused = [
        ("", "the command is empty"),
        ("bash -i", "unknown command `bash -i`"),
        ("virsh undefine seed_1", "virsh command `undefine` is not allowed here"),
        ("virsh", "virsh command `` is not allowed here"),
        ("virsh start", "wrong arguments for `virsh start`: expected the name of one machine"),
        ("virsh start a b", "wrong arguments for `virsh start`: expected the name of one machine"),
        ("virsh start $(id)", "`$(id)` is not the name of a machine"),
        ("virsh start --paused", "`--paused` is not the name of a machine"),
        ("virsh start a;reboot", "`a;reboot` is not the name of a machine"),
        ("virsh list --all --all", "wrong arguments for `virsh list`: expected [--all] [--name]"),
        ("virsh -c qemu+ssh://evil/system list", "unknown command"),
        ("LC_ALL=C LD_PRELOAD=/x virsh list", "unknown command"),
        ("/tmp/virsh list", "unknown command"),
        ("virshlist", "unknown command"),
        ("admit", "`` is no IPv4 address"),
        ("admit 198.18.0.0/24", "`198.18.0.0/24` is no IPv4 address"),
        ("copyseed", "wrong arguments for `copyseed`"),
        ("copyseed ../1", "wrong arguments for `copyseed`"),
        ("copyseed 1 2", "wrong arguments for `copyseed`"),
        ("copyseed 99999999999", "wrong arguments for `copyseed`"),
        ("virsh list --all | sh", "may only be piped"),
        ("virsh list --all |", "may only be piped"),
        ("virsh start seed_1 | tr -d ':'", "may only be piped"),
        ("virsh list\nvirsh destroy seed_1", "not printable"),
        ("EDITOR=\"sh -c id\" virsh edit seed_1", "unknown command"),
        (
            r#"EDITOR="sed -i '/<boot \(dev\|order\)=*\>/d;/<\/os>/i\<boot dev=\"x\"/>'" virsh edit a"#,
            "`x` is not a boot device",
        ),
    ];
    for (line, why) in refused {
        let text = parse(line.as_bytes()).expect_err(line).to_string();
        assert!(text.contains(why), "{line}: {text}");
    }
    assert_eq!(parse(&[b'x'; COMMAND_MAX_BYTES + 1]), Err(Refused::TooLong));
    assert_eq!(parse("virsh start sée".as_bytes()), Err(Refused::NotPrintable));
}

/// The recognised texts with everything that may differ taken out.
fn skeleton(line: &str) -> String {
    let words = |s: &str| s.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
    stages(line).into_iter().map(words).collect::<Vec<_>>().join("|")
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(line in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_command(&line);
    }

    /// One character changed or put in anywhere: either refused, or it still means one of the
    /// recognised texts (another name, blanks), and no shell character got in that was not there.
    #[test]
    fn no_shell_character_gets_through(
        which in 0usize..100,
        at in 0usize..300,
        replace in any::<bool>(),
        c in prop::sample::select(b"|;&$`<>(){}[]*?!#~=%\\\"'\n\t a1-_/".to_vec()),
    ) {
        let lines = all_lines();
        let (line, _) = &lines[which % lines.len()];
        let mut bytes = line.clone().into_bytes();
        let at = at % bytes.len();
        if replace { bytes[at] = c } else { bytes.insert(at, c) }
        if parse(&bytes).is_ok() {
            let changed = String::from_utf8(bytes).unwrap();
            let metas = |s: &str| {
                let mut m: Vec<char> = s.chars().filter(|c| "|;&$`<>(){}[]*?!#~%\\\"'".contains(*c)).collect();
                m.sort_unstable();
                m
            };
            let known = all_lines();
            let same = known.iter().any(|(l, _)| {
                metas(l) == metas(&changed) && skeleton(l).len().abs_diff(skeleton(&changed).len()) <= 30
            });
            prop_assert!(same, "accepted: {changed:?}");
        }
    }

    /// A name with anything in it that is not a plain name is refused in every place of a name.
    #[test]
    fn only_plain_names(name in "[ -~]{1,20}") {
        let plain = MachineName::new(&name).is_some();
        for verb in ["start", "destroy", "reset", "domstate", "dumpxml"] {
            let parsed = parse(format!("virsh {verb} {name}").as_bytes());
            if !plain && !name.contains(' ') {
                prop_assert!(parsed.is_err(), "virsh {verb} {name}");
            }
        }
    }
}
