//! Packets from the server: [`Message`] to bytes for the broker, and back for clients and workers.

use super::packet::{Magic, PacketType, RawPacket, TooLargeToSend, arguments, write};
use super::request::without_nul;
use toci_core::broker::{Assignment, GrabStyle, Message, StatusAnswer, WorkKind};

/// Why a packet is no message of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// The protocol knows no such type, or only clients and workers send it.
    #[error("server sent a packet of type {0}, which servers do not send")]
    UnknownType(u32),
    /// It has fewer arguments than its type demands.
    #[error("server sent a packet of type {0} with too few arguments")]
    TooFewArguments(u32),
}

/// Append a message. [`Message::JobAbandoned`] has no packet, so nothing is appended: the broker
/// says it only within the process.
pub fn encode_message(to: &mut Vec<u8>, message: &Message<'_>) -> Result<(), TooLargeToSend> {
    use PacketType as P;
    let mut packet = |kind, arguments: &[&[u8]]| write(to, Magic::Response, kind, arguments);
    match *message {
        Message::Noop => packet(P::Noop, &[]),
        Message::NoJob => packet(P::NoJob, &[]),
        Message::JobCreated { handle } => packet(P::JobCreated, &[handle]),
        Message::JobAssign(a) => match (a.style, a.reducer) {
            (GrabStyle::Plain, _) => packet(P::JobAssign, &[a.handle, a.function, a.payload]),
            (GrabStyle::All, Some(reducer)) => {
                packet(P::JobAssignAll, &[a.handle, a.function, a.unique, reducer, a.payload])
            }
            (GrabStyle::Unique, _) | (GrabStyle::All, None) => {
                packet(P::JobAssignUniq, &[a.handle, a.function, a.unique, a.payload])
            }
        },
        Message::WorkStatus { handle, numerator, denominator } => {
            packet(P::WorkStatus, &[handle, numerator, denominator])
        }
        Message::Work { kind, handle, data } => match kind {
            WorkKind::Data => packet(P::WorkData, &[handle, data]),
            WorkKind::Warning => packet(P::WorkWarning, &[handle, data]),
            WorkKind::Complete => packet(P::WorkComplete, &[handle, data]),
            WorkKind::Exception => packet(P::WorkException, &[handle, data]),
            WorkKind::Fail => packet(P::WorkFail, &[handle]),
        },
        Message::Status(s) => {
            let (known, running) = (flag(s.known), flag(s.running));
            let (numerator, denominator) = (s.numerator, s.denominator);
            match s.clients {
                None => packet(P::StatusRes, &[s.name, known, running, numerator, denominator]),
                Some(clients) => {
                    let clients = clients.to_string();
                    let all = [s.name, known, running, numerator, denominator, clients.as_bytes()];
                    packet(P::StatusResUnique, &all)
                }
            }
        }
        Message::Echo { data } => packet(P::EchoRes, &[data]),
        Message::Option { name } => packet(P::OptionRes, &[name]),
        Message::Error { code, text } => packet(P::Error, &[code.as_bytes(), text.as_bytes()]),
        Message::Text(text) => {
            to.extend_from_slice(text);
            Ok(())
        }
        Message::JobAbandoned { .. } => Ok(()),
    }
}

fn flag(set: bool) -> &'static [u8] {
    if set { b"1" } else { b"0" }
}

/// What a server said. The magic is not looked at: geard sends `WORK_FAIL` with the magic of a
/// request when a worker is lost.
pub fn decode_message(packet: RawPacket<'_>) -> Result<Message<'_>, BadMessage> {
    let kind = PacketType::from_number(packet.kind).ok_or(BadMessage::UnknownType(packet.kind))?;
    let body = packet.body;
    let message = match kind {
        PacketType::Noop => Message::Noop,
        PacketType::NoJob => Message::NoJob,
        PacketType::JobCreated => Message::JobCreated { handle: body },
        PacketType::JobAssign => {
            let [handle, function, payload] = split(kind, body)?;
            assignment(GrabStyle::Plain, handle, function, b"", None, payload)
        }
        PacketType::JobAssignUniq => {
            let [handle, function, unique, payload] = split(kind, body)?;
            assignment(GrabStyle::Unique, handle, function, unique, None, payload)
        }
        PacketType::JobAssignAll => {
            let [handle, function, unique, reducer, payload] = split(kind, body)?;
            assignment(GrabStyle::All, handle, function, unique, Some(reducer), payload)
        }
        PacketType::WorkStatus => {
            let [handle, numerator, denominator] = split(kind, body)?;
            Message::WorkStatus { handle, numerator, denominator }
        }
        PacketType::WorkData => work(body, WorkKind::Data),
        PacketType::WorkWarning => work(body, WorkKind::Warning),
        PacketType::WorkComplete => work(body, WorkKind::Complete),
        PacketType::WorkException => work(body, WorkKind::Exception),
        PacketType::WorkFail => {
            // gearmand's has a stray NUL at its end.
            Message::Work { kind: WorkKind::Fail, handle: without_nul(body), data: b"" }
        }
        PacketType::StatusRes => {
            let [name, known, running, numerator, denominator] = split(kind, body)?;
            status(name, known, running, numerator, denominator, None)
        }
        PacketType::StatusResUnique => {
            let [name, known, running, numerator, denominator, clients] = split(kind, body)?;
            status(name, known, running, numerator, denominator, Some(count(clients)))
        }
        PacketType::EchoRes => Message::Echo { data: body },
        PacketType::OptionRes => Message::Option { name: body },
        PacketType::Error => {
            let [code, text] = split(kind, body)?;
            error(code, text)
        }
        PacketType::CanDo
        | PacketType::CantDo
        | PacketType::ResetAbilities
        | PacketType::PreSleep
        | PacketType::SubmitJob
        | PacketType::GrabJob
        | PacketType::GetStatus
        | PacketType::EchoReq
        | PacketType::SubmitJobBg
        | PacketType::SubmitJobHigh
        | PacketType::SetClientId
        | PacketType::CanDoTimeout
        | PacketType::AllYours
        | PacketType::OptionReq
        | PacketType::GrabJobUniq
        | PacketType::SubmitJobHighBg
        | PacketType::SubmitJobLow
        | PacketType::SubmitJobLowBg
        | PacketType::SubmitJobSched
        | PacketType::SubmitJobEpoch
        | PacketType::SubmitReduceJob
        | PacketType::SubmitReduceJobBackground
        | PacketType::GrabJobAll
        | PacketType::GetStatusUnique => return Err(BadMessage::UnknownType(packet.kind)),
    };
    Ok(message)
}

fn split<const N: usize>(kind: PacketType, body: &[u8]) -> Result<[&[u8]; N], BadMessage> {
    arguments(body).ok_or(BadMessage::TooFewArguments(kind.number()))
}

fn assignment<'a>(
    style: GrabStyle,
    handle: &'a [u8],
    function: &'a [u8],
    unique: &'a [u8],
    reducer: Option<&'a [u8]>,
    payload: &'a [u8],
) -> Message<'a> {
    Message::JobAssign(Assignment { style, handle, function, unique, reducer, payload })
}

fn error<'a>(code: &'a [u8], text: &'a [u8]) -> Message<'a> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let words = |bytes| std::str::from_utf8(bytes).unwrap_or("(not UTF-8)");
    Message::Error { code: words(code), text: words(text) }
}

/// geard leaves the numbers empty until the worker has said something.
fn status<'a>(
    name: &'a [u8],
    known: &[u8],
    running: &[u8],
    numerator: &'a [u8],
    denominator: &'a [u8],
    clients: Option<usize>,
) -> Message<'a> {
    let or_zero = |n: &'a [u8]| if n.is_empty() { &b"0"[..] } else { n };
    Message::Status(StatusAnswer {
        name,
        known: known == b"1",
        running: running == b"1",
        numerator: or_zero(numerator),
        denominator: or_zero(denominator),
        clients,
    })
}

fn count(text: &[u8]) -> usize {
    std::str::from_utf8(text).ok().and_then(|c| c.parse().ok()).unwrap_or(0)
}

fn work(body: &[u8], kind: WorkKind) -> Message<'_> {
    match arguments(body) {
        Some([handle, data]) => Message::Work { kind, handle, data },
        None => Message::Work { kind, handle: body, data: b"" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gearman::{Frame, PACKET_MAX_BYTES, frame};
    use proptest::prelude::*;

    fn written(message: &Message<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_message(&mut bytes, message).unwrap();
        bytes
    }

    #[test]
    fn answers_have_the_recorded_bytes() {
        let status = StatusAnswer {
            name: b"H:lap:1",
            known: true,
            running: false,
            numerator: b"0",
            denominator: b"0",
            clients: None,
        };
        let assign = Assignment {
            style: GrabStyle::Unique,
            handle: b"H:lap:1",
            function: b"reverse",
            unique: b"",
            reducer: None,
            payload: b"test",
        };
        let cases: [(Message<'_>, &[u8]); 7] = [
            (Message::Noop, b"\0RES\0\0\0\x06\0\0\0\0"),
            (Message::JobCreated { handle: b"H:lap:1" }, b"\0RES\0\0\0\x08\0\0\0\x07H:lap:1"),
            (Message::Status(status), b"\0RES\0\0\0\x14\0\0\0\x0fH:lap:1\x001\x000\x000\x000"),
            (
                Message::Status(StatusAnswer { clients: Some(3), ..status }),
                b"\0RES\0\0\0\x2a\0\0\0\x11H:lap:1\x001\x000\x000\x000\x003",
            ),
            (Message::JobAssign(assign), b"\0RES\0\0\0\x1f\0\0\0\x15H:lap:1\0reverse\0\0test"),
            (
                Message::JobAssign(Assignment { style: GrabStyle::Plain, ..assign }),
                b"\0RES\0\0\0\x0b\0\0\0\x14H:lap:1\0reverse\0test",
            ),
            (Message::Error { code: "X", text: "why" }, b"\0RES\0\0\0\x13\0\0\0\x05X\0why"),
        ];
        for (message, bytes) in cases {
            assert_eq!(written(&message), bytes, "{message:?}");
        }
        assert!(written(&Message::JobAbandoned { handle: b"H:lap:1" }).is_empty());
        assert_eq!(written(&Message::Text(b"OK\n")), b"OK\n");
    }

    #[test]
    fn defects_of_other_servers_are_understood() {
        let packet = |kind, body| RawPacket { magic: Magic::Request, kind, body };
        let fail = Message::Work { kind: WorkKind::Fail, handle: b"H:x:1", data: b"" };
        assert_eq!(decode_message(packet(14, b"H:x:1\0")), Ok(fail));
        let Ok(Message::Status(status)) = decode_message(packet(20, b"H:x:1\x001\x000\0\0")) else {
            panic!("no status")
        };
        assert_eq!((status.numerator, status.denominator), (&b"0"[..], &b"0"[..]));
        let denied = Message::Error { code: "0", text: "Permission denied by ACL" };
        let body = b"0\0Permission denied by ACL\0";
        assert_eq!(decode_message(packet(19, body)), Ok(denied));
    }

    proptest! {
        #[test]
        fn any_body_of_any_type_is_decoded_without_panic_and_back(
            kind in 0..45u32,
            body in proptest::collection::vec(prop_oneof![3 => 48..51u8, 1 => Just(0u8)], 0..24),
        ) {
            if let Ok(message) = decode_message(RawPacket { magic: Magic::Response, kind, body: &body }) {
                let bytes = written(&message);
                let Ok(Frame::Packet { packet, .. }) = frame(&bytes, PACKET_MAX_BYTES) else {
                    return Err(TestCaseError::fail("no packet"));
                };
                prop_assert_eq!(decode_message(packet), Ok(message));
            }
        }
    }
}
