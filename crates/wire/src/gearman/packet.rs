//! Packets: the header, the types, and cutting a stream of bytes into packets and admin lines.

/// Bytes of magic, type and size.
pub const HEADER_BYTES: usize = 12;
/// Longest admin line, in bytes: an `acl grant` with the longest pattern fits.
pub const LINE_MAX_BYTES: usize = 4096;
/// Largest packet that a peer may send unless configured otherwise, in bytes after the header.
pub const PACKET_MAX_BYTES: usize = 64 << 20;

const REQ: [u8; 4] = *b"\0REQ";
const RES: [u8; 4] = *b"\0RES";

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magic {
    /// To the server.
    Request,
    /// From the server.
    Response,
}

impl Magic {
    fn bytes(self) -> [u8; 4] {
        match self {
            Magic::Request => REQ,
            Magic::Response => RES,
        }
    }
}

macro_rules! packet_types {
    ($($name:ident = $number:literal $text:literal;)*) => {
        /// The type of a packet (origin.md 1.2). The names are the protocol's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum PacketType {
            $(#[doc = concat!("`", $text, "`")] $name = $number,)*
        }

        impl PacketType {
            /// Every type.
            pub const ALL: &'static [PacketType] = &[$(PacketType::$name,)*];

            /// The type of that number, if there is one.
            #[must_use]
            pub fn from_number(number: u32) -> Option<PacketType> {
                match number {
                    $($number => Some(PacketType::$name),)*
                    _ => None,
                }
            }

            /// The protocol's name, as statsd shows it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(PacketType::$name => $text,)*
                }
            }

            /// The number on the wire.
            #[must_use]
            pub fn number(self) -> u32 {
                match self {
                    $(PacketType::$name => $number,)*
                }
            }
        }
    };
}

packet_types! {
    CanDo = 1 "CAN_DO";
    CantDo = 2 "CANT_DO";
    ResetAbilities = 3 "RESET_ABILITIES";
    PreSleep = 4 "PRE_SLEEP";
    Noop = 6 "NOOP";
    SubmitJob = 7 "SUBMIT_JOB";
    JobCreated = 8 "JOB_CREATED";
    GrabJob = 9 "GRAB_JOB";
    NoJob = 10 "NO_JOB";
    JobAssign = 11 "JOB_ASSIGN";
    WorkStatus = 12 "WORK_STATUS";
    WorkComplete = 13 "WORK_COMPLETE";
    WorkFail = 14 "WORK_FAIL";
    GetStatus = 15 "GET_STATUS";
    EchoReq = 16 "ECHO_REQ";
    EchoRes = 17 "ECHO_RES";
    SubmitJobBg = 18 "SUBMIT_JOB_BG";
    Error = 19 "ERROR";
    StatusRes = 20 "STATUS_RES";
    SubmitJobHigh = 21 "SUBMIT_JOB_HIGH";
    SetClientId = 22 "SET_CLIENT_ID";
    CanDoTimeout = 23 "CAN_DO_TIMEOUT";
    AllYours = 24 "ALL_YOURS";
    WorkException = 25 "WORK_EXCEPTION";
    OptionReq = 26 "OPTION_REQ";
    OptionRes = 27 "OPTION_RES";
    WorkData = 28 "WORK_DATA";
    WorkWarning = 29 "WORK_WARNING";
    GrabJobUniq = 30 "GRAB_JOB_UNIQ";
    JobAssignUniq = 31 "JOB_ASSIGN_UNIQ";
    SubmitJobHighBg = 32 "SUBMIT_JOB_HIGH_BG";
    SubmitJobLow = 33 "SUBMIT_JOB_LOW";
    SubmitJobLowBg = 34 "SUBMIT_JOB_LOW_BG";
    SubmitJobSched = 35 "SUBMIT_JOB_SCHED";
    SubmitJobEpoch = 36 "SUBMIT_JOB_EPOCH";
    SubmitReduceJob = 37 "SUBMIT_REDUCE_JOB";
    SubmitReduceJobBackground = 38 "SUBMIT_REDUCE_JOB_BACKGROUND";
    GrabJobAll = 39 "GRAB_JOB_ALL";
    JobAssignAll = 40 "JOB_ASSIGN_ALL";
    GetStatusUnique = 41 "GET_STATUS_UNIQUE";
    StatusResUnique = 42 "STATUS_RES_UNIQUE";
}

/// A packet whose type and arguments have not been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawPacket<'a> {
    /// Which way it goes.
    pub magic: Magic,
    /// The type as sent; maybe none of [`PacketType`].
    pub kind: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// Why a stream of bytes cannot be cut any further. The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Four bytes that begin with NUL but are no magic.
    #[error("bad magic: expected \\0REQ or \\0RES")]
    BadMagic,
    /// A packet larger than the limit.
    #[error("packet of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its size after the header, in bytes.
        size: u32,
        /// The limit, in bytes.
        limit: usize,
    },
    /// An admin line longer than [`LINE_MAX_BYTES`].
    #[error("line exceeds the limit of {LINE_MAX_BYTES} bytes")]
    LineTooLong,
}

/// What stands at the start of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Not yet a whole one; it takes at least so many bytes in all.
    Partial {
        /// Bytes from the start of the frame, counted on from what is here.
        needs: usize,
    },
    /// A packet of so many bytes.
    Packet {
        /// The packet.
        packet: RawPacket<'a>,
        /// Header and body, in bytes.
        length: usize,
    },
    /// A line of the admin protocol, without its end, of so many bytes.
    Line {
        /// The line without `\n` or `\r\n`.
        line: &'a [u8],
        /// The line with its end, in bytes.
        length: usize,
    },
}

/// Look at the start of `bytes`. Every call looks at a header only, or at most at
/// [`LINE_MAX_BYTES`], so that a packet that arrives in many pieces costs no more than one that
/// arrives whole.
pub fn frame(bytes: &[u8], packet_max_bytes: usize) -> Result<Frame<'_>, FrameError> {
    let Some(first) = bytes.first() else { return Ok(Frame::Partial { needs: 1 }) };
    if *first != 0 {
        return line(bytes);
    }
    let seen = bytes.len().min(4);
    let magic = if bytes[..seen] == REQ[..seen] {
        Magic::Request
    } else if bytes[..seen] == RES[..seen] {
        Magic::Response
    } else {
        return Err(FrameError::BadMagic);
    };
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Ok(Frame::Partial { needs: HEADER_BYTES });
    };
    let kind = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let size = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    let body_bytes = usize::try_from(size).unwrap_or(usize::MAX);
    if body_bytes > packet_max_bytes {
        return Err(FrameError::TooLarge { size, limit: packet_max_bytes });
    }
    let length = HEADER_BYTES + body_bytes;
    match rest.get(..body_bytes) {
        None => Ok(Frame::Partial { needs: length }),
        Some(body) => Ok(Frame::Packet { packet: RawPacket { magic, kind, body }, length }),
    }
}

fn line(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let seen = &bytes[..bytes.len().min(LINE_MAX_BYTES)];
    match seen.iter().position(|b| *b == b'\n') {
        Some(end) => {
            let line = seen[..end].strip_suffix(b"\r").unwrap_or(&seen[..end]);
            Ok(Frame::Line { line, length: end + 1 })
        }
        None if bytes.len() >= LINE_MAX_BYTES => Err(FrameError::LineTooLong),
        None => Ok(Frame::Partial { needs: bytes.len() + 1 }),
    }
}

/// A packet's arguments do not fit into its size field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet of {0} bytes does not fit the size field of the protocol")]
pub struct TooLargeToSend(pub usize);

/// Append a packet: all `arguments` but the last are followed by a NUL.
pub(super) fn write(
    to: &mut Vec<u8>,
    magic: Magic,
    kind: PacketType,
    arguments: &[&[u8]],
) -> Result<(), TooLargeToSend> {
    let separators = arguments.len().saturating_sub(1);
    let size = arguments.iter().map(|a| a.len()).sum::<usize>() + separators;
    let size_field = u32::try_from(size).map_err(|_| TooLargeToSend(size))?;
    to.reserve(HEADER_BYTES + size);
    to.extend_from_slice(&magic.bytes());
    to.extend_from_slice(&kind.number().to_be_bytes());
    to.extend_from_slice(&size_field.to_be_bytes());
    for (n, argument) in arguments.iter().enumerate() {
        if n > 0 {
            to.push(0);
        }
        to.extend_from_slice(argument);
    }
    Ok(())
}

/// Cut `body` into `N` arguments; the last one is all that is left and may hold NULs. `None` when
/// there are too few.
pub(super) fn arguments<const N: usize>(body: &[u8]) -> Option<[&[u8]; N]> {
    let mut parts: [&[u8]; N] = [&[]; N];
    let mut rest = body;
    for (n, part) in parts.iter_mut().enumerate() {
        if n + 1 == N {
            *part = rest;
        } else {
            let end = rest.iter().position(|b| *b == 0)?;
            *part = &rest[..end];
            rest = &rest[end + 1..];
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_and_types_are_one_to_one() {
        for kind in PacketType::ALL {
            assert_eq!(PacketType::from_number(kind.number()), Some(*kind));
        }
        assert_eq!(PacketType::ALL.len(), 41);
        for number in [0, 5, 43, u32::MAX] {
            assert_eq!(PacketType::from_number(number), None);
        }
    }

    #[test]
    fn huge_and_negative_sizes_are_refused_at_the_header() {
        for size in [-12i32, -1, i32::MIN, i32::MAX] {
            let mut bytes = b"\0REQ\0\0\0\x07".to_vec();
            bytes.extend_from_slice(&size.to_be_bytes());
            assert!(matches!(frame(&bytes, PACKET_MAX_BYTES), Err(FrameError::TooLarge { .. })));
        }
    }

    #[test]
    fn bad_magic_is_refused_at_the_first_wrong_byte() {
        assert_eq!(frame(b"\0X", 10), Err(FrameError::BadMagic));
        assert_eq!(frame(b"\0REX", 10), Err(FrameError::BadMagic));
        assert_eq!(frame(b"\0RE", 10), Ok(Frame::Partial { needs: HEADER_BYTES }));
    }

    #[test]
    fn lines_end_with_lf_or_crlf_and_not_too_late() {
        let line = |bytes| frame(bytes, 10);
        assert_eq!(line(b"status\nx"), Ok(Frame::Line { line: b"status", length: 7 }));
        assert_eq!(line(b"status\r\n"), Ok(Frame::Line { line: b"status", length: 8 }));
        assert_eq!(line(b"\n"), Ok(Frame::Line { line: b"", length: 1 }));
        assert_eq!(line(b"stat"), Ok(Frame::Partial { needs: 5 }));
        let long = vec![b'x'; LINE_MAX_BYTES];
        assert_eq!(line(&long), Err(FrameError::LineTooLong));
    }

    #[test]
    fn the_last_argument_keeps_its_nuls() {
        assert_eq!(arguments::<2>(b"a\0b\0c"), Some([&b"a"[..], b"b\0c"]));
        assert_eq!(arguments::<3>(b"a\0b"), None);
        assert_eq!(arguments::<1>(b""), Some([&b""[..]]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_without_panic_and_within_bounds(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            match frame(&bytes, 1024) {
                Ok(Frame::Packet { length, .. } | Frame::Line { length, .. }) => {
                    prop_assert!(length > 0 && length <= bytes.len());
                }
                Ok(Frame::Partial { needs }) => prop_assert!(needs > bytes.len()),
                Err(_) => {}
            }
        }

        #[test]
        fn what_is_written_is_read(parts in proptest::collection::vec("[a-z]{0,9}", 3)) {
            let arguments_in: Vec<&[u8]> = parts.iter().map(|p| p.as_bytes()).collect();
            let mut bytes = Vec::new();
            write(&mut bytes, Magic::Request, PacketType::SubmitJob, &arguments_in).unwrap();
            for end in 0..bytes.len() {
                let cut = frame(&bytes[..end], 1024);
                let partial = matches!(cut, Ok(Frame::Partial { needs }) if needs > end);
                prop_assert!(partial, "cut at {}", end);
            }
            let Ok(Frame::Packet { packet, length }) = frame(&bytes, 1024) else {
                return Err(TestCaseError::fail("no packet"));
            };
            prop_assert_eq!(length, bytes.len());
            prop_assert_eq!(arguments::<3>(packet.body).unwrap().to_vec(), arguments_in);
        }
    }
}
