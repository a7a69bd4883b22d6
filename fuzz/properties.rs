//! What must hold for any bytes from outside. The fuzz targets try to break it for hours; `crates/wire/tests/corpus.rs`
//! tries every file of `fuzz/corpus` in every test run, on the stable toolchain.
use toci_core::broker::AdminCommand;
use toci_core::event::{ProjectKey, ProjectName, SourceName};
use toci_wire::gearman;
use toci_wire::layout;
use toci_wire::ssh_command::{self, Command};
use toci_wire::te_json::TeJson;

/// A stream of Gearman packets and lines: cut, decoded, encoded again, decoded to the same.
pub(crate) fn gearman_frame(bytes: &[u8]) {
    let _ = gearman::fuzz_stream(bytes);
    let Ok(gearman::Frame::Packet { packet, .. }) =
        gearman::frame(bytes, gearman::PACKET_MAX_BYTES)
    else {
        return;
    };
    if let Ok((_, request)) = gearman::decode_request(packet) {
        let mut again = Vec::new();
        gearman::encode_request(&mut again, &request).expect("it came in a packet");
        let packet = whole_packet(&again);
        let (_, second) = gearman::decode_request(packet).expect("we encoded it ourselves");
        assert_eq!(second, request);
    }
    if let Ok(message) = gearman::decode_message(packet) {
        let mut again = Vec::new();
        gearman::encode_message(&mut again, &message).expect("it came in a packet");
        let second =
            gearman::decode_message(whole_packet(&again)).expect("we encoded it ourselves");
        assert_eq!(second, message);
    }
}

fn whole_packet(bytes: &[u8]) -> gearman::RawPacket<'_> {
    match gearman::frame(bytes, usize::MAX) {
        Ok(gearman::Frame::Packet { packet, length }) if length == bytes.len() => packet,
        other => panic!("an encoded packet was cut as {other:?}"),
    }
}

/// An admin line: understood, or answered with one line that is safe to show.
pub(crate) fn gearman_admin(line: &[u8]) {
    if let AdminCommand::Wrong(answer) = gearman::parse_admin(line) {
        assert!(answer.starts_with("ERR "), "{answer}");
        assert!(!answer.chars().any(char::is_control), "{answer:?}");
    }
}

/// A command line at the gateway: only machines' plain names get through, and what is refused is safe to show.
pub(crate) fn ssh_command(line: &[u8]) {
    ssh_command::fuzz_command(line);
    let machine = match ssh_command::parse(line) {
        Ok(
            Command::Power { machine, .. }
            | Command::DumpXml { machine, .. }
            | Command::DomState { machine }
            | Command::Macs { machine }
            | Command::GetBootDevice { machine }
            | Command::SetBootDevice { machine, .. },
        ) => machine,
        Ok(
            Command::Admit { .. }
            | Command::List { .. }
            | Command::ListNames { .. }
            | Command::ListNamesByAwk
            | Command::ListRunningQuoted
            | Command::CopySeed { .. },
        )
        | Err(_) => return,
    };
    let name = machine.as_str();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    assert!(!name.is_empty() && !name.starts_with('-') && name.bytes().all(is_plain), "{name:?}");
}

/// A TE JSON: what is read is written again, and reads the same.
pub(crate) fn te_json(text: &[u8]) {
    let Ok(first) = TeJson::parse(text) else { return };
    let written = first.to_value().to_string();
    let second = TeJson::parse(written.as_bytes()).expect("we wrote it ourselves");
    assert!(first == second, "reads differently after it was written");
}

fn gerrit() -> SourceName {
    SourceName::new("gerrit").expect("a name")
}

/// A layout: read, or told what is wrong and where; never both, and what is read resolves.
pub(crate) fn layout(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = layout::read("fuzz.yaml", text, &gerrit());
    assert!(read.layout.is_some() == read.errors.is_empty());
    for error in &read.errors {
        assert!(error.mark.line <= text.lines().count() + 1, "{error}");
    }
    let Some(layout) = read.layout else { return };
    for project in layout.projects.values() {
        for (name, _) in project.pipelines.values().flat_map(|tree| &tree.jobs) {
            assert!(layout.jobs.iter().any(|job| job.name == *name), "{name}");
        }
    }
}

const BASE: &str = "
pipelines: [{name: check, manager: independent}, {name: gate, manager: dependent, post-review: true}]
jobs: [{name: lint}, {name: publish, secrets: [key]}]
semaphores: [{name: door}]
projects: [{name: org/app, in-repository: true, own-secrets: {sign: gate}, check: [lint], gate: [lint, publish]}]
";

/// A project's own configuration: whatever it says, the layout's part stands as it was, and secrets stay where they
/// were granted.
pub(crate) fn own_layout(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let base = layout::read("base.yaml", BASE, &gerrit()).layout.expect("a good layout");
    let name = ProjectName::new("org/app").expect("a name");
    let key = ProjectKey { source: gerrit(), name };
    let files = [(".toci.yaml".to_owned(), text.to_owned())];
    let Ok(own) = layout::read_own(&base, &key, &files) else { return };
    assert!(own.pipelines == base.pipelines && own.semaphores == base.semaphores);
    for (pipeline, tree) in &own.projects[&key].pipelines {
        let before = base.projects[&key].pipelines.get(pipeline);
        let before = before.map(|tree| tree.jobs.as_slice()).unwrap_or_default();
        assert!(tree.jobs.starts_with(before));
        for (name, _) in &tree.jobs[before.len()..] {
            let job = own.jobs.iter().find(|job| job.name == *name).expect("it resolves");
            let layouts = base.jobs.iter().find(|known| known.name == *name);
            assert!(layouts.is_none_or(|known| known == job), "{name} was changed");
            let granted = pipeline.0 == "gate"
                && (name.0 == "publish" || job.run.secrets.iter().all(|s| s.0 == "sign"));
            assert!(job.run.secrets.is_empty() || granted, "{name} in {pipeline}");
        }
    }
}
