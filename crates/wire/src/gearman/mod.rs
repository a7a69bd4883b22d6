//! The Gearman protocol: packets and admin lines, both ways. [`frame`] cuts a stream; the rest
//! turns packets and lines into the broker's vocabulary (`toci_core::broker`) and back. Nothing
//! here keeps state or copies a payload on the way in.
//!
//! For fuzzing: [`fuzz_stream`] takes any bytes.

mod admin;
mod message;
mod packet;
mod request;

pub use admin::parse_admin;
pub use message::{BadMessage, decode_message, encode_message};
pub use packet::{
    Frame, FrameError, HEADER_BYTES, LINE_MAX_BYTES, Magic, PACKET_MAX_BYTES, PacketType,
    RawPacket, TooLargeToSend, frame,
};
pub use request::{BadRequest, decode_request, encode_request};

/// Cut any bytes into frames and decode each in every way. Must not panic; ends after at most as
/// many frames as there are bytes. The number of frames is returned.
#[must_use]
pub fn fuzz_stream(mut bytes: &[u8]) -> usize {
    let mut frames = 0;
    while let Ok(next) = frame(bytes, PACKET_MAX_BYTES) {
        let length = match next {
            Frame::Partial { needs } => {
                assert!(needs > bytes.len(), "a whole frame was called partial");
                break;
            }
            Frame::Packet { packet, length } => {
                let _ = decode_request(packet);
                let _ = decode_message(packet);
                length
            }
            Frame::Line { line, length } => {
                let _ = parse_admin(line);
                length
            }
        };
        bytes = &bytes[length..];
        frames += 1;
    }
    frames
}
