//! What must hold for any bytes from outside. The fuzz targets try to break it for hours; `crates/wire/tests/corpus.rs`
//! tries every file of `fuzz/corpus` in every test run, on the stable toolchain.
use toci_core::broker::AdminCommand;
use toci_wire::gearman;
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
            Command::List { .. }
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
