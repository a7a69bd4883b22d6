//! Packets to the server: bytes to [`Request`] for the broker, and back for clients and workers.

use super::packet::{Magic, PacketType, RawPacket, TooLargeToSend, arguments, write};
use toci_core::broker::{GrabStyle, Precedence, Request, Submit, When, WorkKind};

/// Why a packet is no request. The connection goes on: the next packet may be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// It has the magic of a response.
    #[error("request magic expected")]
    ResponseMagic,
    /// The protocol knows no such type, or only servers send it.
    #[error("invalid command")]
    UnknownType,
    /// It has fewer arguments than its type demands.
    #[error("too few arguments")]
    TooFewArguments,
    /// The timeout of a `CAN_DO_TIMEOUT` is no number of milliseconds.
    #[error("timeout is not a number of milliseconds")]
    BadTimeout,
}

impl BadRequest {
    /// The code of the `ERROR` packet that answers it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            BadRequest::ResponseMagic => "INVALID_MAGIC",
            BadRequest::UnknownType => "INVALID_COMMAND",
            BadRequest::TooFewArguments | BadRequest::BadTimeout => "INVALID_PACKET",
        }
    }

    /// The text of the `ERROR` packet that answers it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            BadRequest::ResponseMagic => "Request magic expected",
            BadRequest::UnknownType => "Command not expected",
            BadRequest::TooFewArguments => "The packet has too few arguments",
            BadRequest::BadTimeout => "The timeout is not a number of milliseconds",
        }
    }
}

/// What a packet asks for.
pub fn decode_request(packet: RawPacket<'_>) -> Result<(PacketType, Request<'_>), BadRequest> {
    match packet.magic {
        Magic::Request => {}
        Magic::Response => return Err(BadRequest::ResponseMagic),
    }
    let kind = PacketType::from_number(packet.kind).ok_or(BadRequest::UnknownType)?;
    Ok((kind, decode_kind(kind, packet.body)?))
}

fn decode_kind(kind: PacketType, body: &[u8]) -> Result<Request<'_>, BadRequest> {
    use Precedence::{High, Low, Normal};
    let request = match kind {
        PacketType::CanDo => Request::CanDo { function: without_nul(body), timeout_ms: 0 },
        PacketType::CanDoTimeout => {
            let [function, timeout] = split(body)?;
            Request::CanDo { function, timeout_ms: milliseconds(timeout)? }
        }
        PacketType::CantDo => Request::CantDo { function: without_nul(body) },
        PacketType::ResetAbilities => Request::ResetAbilities,
        PacketType::PreSleep => Request::PreSleep,
        PacketType::GrabJob => Request::Grab(GrabStyle::Plain),
        PacketType::GrabJobUniq => Request::Grab(GrabStyle::Unique),
        PacketType::GrabJobAll => Request::Grab(GrabStyle::All),
        PacketType::AllYours => Request::AllYours,
        PacketType::SubmitJob => submit(body, Normal, false)?,
        PacketType::SubmitJobBg => submit(body, Normal, true)?,
        PacketType::SubmitJobHigh => submit(body, High, false)?,
        PacketType::SubmitJobHighBg => submit(body, High, true)?,
        PacketType::SubmitJobLow => submit(body, Low, false)?,
        PacketType::SubmitJobLowBg => submit(body, Low, true)?,
        PacketType::SubmitReduceJob => submit_reduce(body, false)?,
        PacketType::SubmitReduceJobBackground => submit_reduce(body, true)?,
        PacketType::SubmitJobEpoch => {
            let [function, unique, epoch, payload] = split(body)?;
            scheduled(function, unique, payload, When::Epoch(epoch))
        }
        PacketType::SubmitJobSched => {
            let [function, unique, minute, hour, day, month, weekday, payload] = split(body)?;
            let when = When::Calendar([minute, hour, day, month, weekday]);
            scheduled(function, unique, payload, when)
        }
        PacketType::WorkStatus => {
            let [handle, numerator, denominator] = split(body)?;
            Request::WorkStatus { handle, numerator, denominator }
        }
        PacketType::WorkData => work(body, WorkKind::Data),
        PacketType::WorkWarning => work(body, WorkKind::Warning),
        PacketType::WorkComplete => work(body, WorkKind::Complete),
        PacketType::WorkException => work(body, WorkKind::Exception),
        PacketType::WorkFail => {
            Request::Work { kind: WorkKind::Fail, handle: without_nul(body), data: b"" }
        }
        PacketType::GetStatus => Request::GetStatus { handle: without_nul(body) },
        PacketType::GetStatusUnique => Request::GetStatusUnique { unique: without_nul(body) },
        PacketType::EchoReq => Request::Echo { data: body },
        PacketType::OptionReq => Request::Option { name: without_nul(body) },
        PacketType::SetClientId => Request::SetClientId { id: body },
        PacketType::Noop
        | PacketType::JobCreated
        | PacketType::NoJob
        | PacketType::JobAssign
        | PacketType::EchoRes
        | PacketType::Error
        | PacketType::StatusRes
        | PacketType::OptionRes
        | PacketType::JobAssignUniq
        | PacketType::JobAssignAll
        | PacketType::StatusResUnique => return Err(BadRequest::UnknownType),
    };
    Ok(request)
}

fn split<const N: usize>(body: &[u8]) -> Result<[&[u8]; N], BadRequest> {
    arguments(body).ok_or(BadRequest::TooFewArguments)
}

/// Some peers end a lone argument with a NUL, as if another came; no name or handle holds one.
pub(super) fn without_nul(argument: &[u8]) -> &[u8] {
    argument.split(|b| *b == 0).next().unwrap_or_default()
}

fn milliseconds(text: &[u8]) -> Result<u64, BadRequest> {
    let text = std::str::from_utf8(without_nul(text)).map_err(|_| BadRequest::BadTimeout)?;
    text.trim().parse().map_err(|_| BadRequest::BadTimeout)
}

fn submit(
    body: &[u8],
    precedence: Precedence,
    background: bool,
) -> Result<Request<'_>, BadRequest> {
    let [function, unique, payload] = split(body)?;
    let (reducer, when) = (None, When::Now);
    Ok(Request::Submit(Submit { function, unique, payload, precedence, background, reducer, when }))
}

fn submit_reduce(body: &[u8], background: bool) -> Result<Request<'_>, BadRequest> {
    let [function, unique, reducer, payload] = split(body)?;
    let (precedence, reducer, when) = (Precedence::Normal, Some(reducer), When::Now);
    Ok(Request::Submit(Submit { function, unique, payload, precedence, background, reducer, when }))
}

fn scheduled<'a>(
    function: &'a [u8],
    unique: &'a [u8],
    payload: &'a [u8],
    when: When<'a>,
) -> Request<'a> {
    let (precedence, background, reducer) = (Precedence::Normal, true, None);
    Request::Submit(Submit { function, unique, payload, precedence, background, reducer, when })
}

/// Without a NUL, all is handle: some workers leave it out when there is no data.
fn work(body: &[u8], kind: WorkKind) -> Request<'_> {
    match arguments(body) {
        Some([handle, data]) => Request::Work { kind, handle, data },
        None => Request::Work { kind, handle: body, data: b"" },
    }
}

/// Append a request. A submission that the protocol has no packet for (a reducer with a
/// precedence, say) is sent as the nearest one that it has.
pub fn encode_request(to: &mut Vec<u8>, request: &Request<'_>) -> Result<(), TooLargeToSend> {
    use PacketType as P;
    let mut packet = |kind, arguments: &[&[u8]]| write(to, Magic::Request, kind, arguments);
    match *request {
        Request::CanDo { function, timeout_ms: 0 } => packet(P::CanDo, &[function]),
        Request::CanDo { function, timeout_ms } => {
            packet(P::CanDoTimeout, &[function, timeout_ms.to_string().as_bytes()])
        }
        Request::CantDo { function } => packet(P::CantDo, &[function]),
        Request::ResetAbilities => packet(P::ResetAbilities, &[]),
        Request::PreSleep => packet(P::PreSleep, &[]),
        Request::Grab(GrabStyle::Plain) => packet(P::GrabJob, &[]),
        Request::Grab(GrabStyle::Unique) => packet(P::GrabJobUniq, &[]),
        Request::Grab(GrabStyle::All) => packet(P::GrabJobAll, &[]),
        Request::AllYours => packet(P::AllYours, &[]),
        Request::Submit(submit) => encode_submit(to, &submit),
        Request::WorkStatus { handle, numerator, denominator } => {
            packet(P::WorkStatus, &[handle, numerator, denominator])
        }
        Request::Work { kind, handle, data } => match kind {
            WorkKind::Data => packet(P::WorkData, &[handle, data]),
            WorkKind::Warning => packet(P::WorkWarning, &[handle, data]),
            WorkKind::Complete => packet(P::WorkComplete, &[handle, data]),
            WorkKind::Exception => packet(P::WorkException, &[handle, data]),
            WorkKind::Fail => packet(P::WorkFail, &[handle]),
        },
        Request::GetStatus { handle } => packet(P::GetStatus, &[handle]),
        Request::GetStatusUnique { unique } => packet(P::GetStatusUnique, &[unique]),
        Request::Echo { data } => packet(P::EchoReq, &[data]),
        Request::Option { name } => packet(P::OptionReq, &[name]),
        Request::SetClientId { id } => packet(P::SetClientId, &[id]),
    }
}

fn encode_submit(to: &mut Vec<u8>, submit: &Submit<'_>) -> Result<(), TooLargeToSend> {
    use PacketType as P;
    let Submit { function, unique, payload, precedence, background, reducer, when } = *submit;
    let mut packet = |kind, arguments: &[&[u8]]| write(to, Magic::Request, kind, arguments);
    match when {
        When::Now => {}
        When::Epoch(epoch) => {
            return packet(P::SubmitJobEpoch, &[function, unique, epoch, payload]);
        }
        When::Calendar([minute, hour, day, month, weekday]) => {
            let all = [function, unique, minute, hour, day, month, weekday, payload];
            return packet(P::SubmitJobSched, &all);
        }
    }
    if let Some(reducer) = reducer {
        let kind = if background { P::SubmitReduceJobBackground } else { P::SubmitReduceJob };
        return packet(kind, &[function, unique, reducer, payload]);
    }
    let kind = match (precedence, background) {
        (Precedence::High, false) => P::SubmitJobHigh,
        (Precedence::High, true) => P::SubmitJobHighBg,
        (Precedence::Normal, false) => P::SubmitJob,
        (Precedence::Normal, true) => P::SubmitJobBg,
        (Precedence::Low, false) => P::SubmitJobLow,
        (Precedence::Low, true) => P::SubmitJobLowBg,
    };
    packet(kind, &[function, unique, payload])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gearman::{Frame, PACKET_MAX_BYTES, frame};
    use proptest::prelude::*;

    fn packet_of(bytes: &[u8]) -> RawPacket<'_> {
        match frame(bytes, PACKET_MAX_BYTES) {
            Ok(Frame::Packet { packet, length }) if length == bytes.len() => packet,
            other => panic!("not one packet: {other:?}"),
        }
    }

    /// Bytes recorded from python's gear and from libgearman, and what they mean.
    #[test]
    fn recorded_packets_are_understood() {
        let cases: [(&[u8], Request<'_>); 6] = [
            (
                b"\0REQ\0\0\0\x01\0\0\0\x07lockenv",
                Request::CanDo { function: b"lockenv", timeout_ms: 0 },
            ),
            (
                b"\0REQ\0\0\0\x17\0\0\0\x09reverse\x003",
                Request::CanDo { function: b"reverse", timeout_ms: 3 },
            ),
            (b"\0REQ\0\0\0\x1e\0\0\0\0", Request::Grab(GrabStyle::Unique)),
            (
                b"\0REQ\0\0\0\x07\0\0\0\x0dreverse\0\0test",
                Request::Submit(Submit {
                    function: b"reverse",
                    unique: b"",
                    payload: b"test",
                    precedence: Precedence::Normal,
                    background: false,
                    reducer: None,
                    when: When::Now,
                }),
            ),
            (
                b"\0REQ\0\0\0\x0d\0\0\0\x0cH:lap:1\0tset",
                Request::Work { kind: WorkKind::Complete, handle: b"H:lap:1", data: b"tset" },
            ),
            (b"\0REQ\0\0\0\x0f\0\0\0\x08H:lap:1\0", Request::GetStatus { handle: b"H:lap:1" }),
        ];
        for (bytes, request) in cases {
            assert_eq!(decode_request(packet_of(bytes)).map(|(_, r)| r), Ok(request));
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let refused = |bytes: &[u8]| decode_request(packet_of(bytes)).unwrap_err();
        assert_eq!(refused(b"\0RES\0\0\0\x01\0\0\0\0"), BadRequest::ResponseMagic);
        assert_eq!(refused(b"\0REQ\xff\xff\xff\xff\0\0\0\0"), BadRequest::UnknownType);
        assert_eq!(refused(b"\0REQ\0\0\0\x06\0\0\0\0"), BadRequest::UnknownType);
        assert_eq!(refused(b"\0REQ\0\0\0\x07\0\0\0\x01f"), BadRequest::TooFewArguments);
        assert_eq!(refused(b"\0REQ\0\0\0\x17\0\0\0\x04f\0-1"), BadRequest::BadTimeout);
    }

    proptest! {
        #[test]
        fn any_body_of_any_type_is_decoded_without_panic_and_back(
            number in 0..45u32,
            body in proptest::collection::vec(prop_oneof![3 => 97..100u8, 1 => Just(0u8)], 0..24),
        ) {
            let packet = RawPacket { magic: Magic::Request, kind: number, body: &body };
            if let Ok((kind, request)) = decode_request(packet) {
                prop_assert_eq!(kind.number(), number);
                let mut bytes = Vec::new();
                encode_request(&mut bytes, &request).unwrap();
                let (_, again) = decode_request(packet_of(&bytes)).unwrap();
                prop_assert_eq!(again, request);
            }
        }
    }
}
