//! Connections that are over but for their last bytes: what they were told before their end is
//! still sent, for a while and within limits.

use super::outlets::Output;
use super::transport::Transport;
use slab::Slab;
use std::io::ErrorKind;
use toci_core::time::Time;

/// Bytes of a closing connection that are read and thrown away, so that its last answer is not
/// lost to a reset.
const DISCARD_MAX_BYTES: usize = 1 << 20;

struct Last {
    transport: Transport,
    output: Output,
    discarded: usize,
    ended: bool,
    until: Time,
}

/// All of them.
pub(super) struct Lingering {
    all: Slab<Last>,
    /// Bytes that they still want to send.
    bytes: usize,
    max_bytes: usize,
}

impl Lingering {
    /// Of more than `max_bytes` that wait to be sent, the largest part is given up.
    pub(super) fn new(max_bytes: usize) -> Lingering {
        Lingering { all: Slab::new(), bytes: 0, max_bytes }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The index that the next one gets.
    pub(super) fn next(&self) -> usize {
        self.all.vacant_key()
    }

    pub(super) fn add(&mut self, transport: Transport, output: Output, until: Time) {
        self.bytes += output.len();
        self.all.insert(Last { transport, output, discarded: 0, ended: false, until });
        while self.bytes > self.max_bytes {
            let largest = self.all.iter().max_by_key(|(_, last)| last.output.len());
            let Some((index, _)) = largest else { return };
            self.remove(index);
        }
    }

    fn remove(&mut self, index: usize) {
        if let Some(last) = self.all.try_remove(index) {
            self.bytes -= last.output.len();
        }
    }

    /// Send last bytes, say that they were the last, and read until the peer ends too.
    pub(super) fn go_on(&mut self, index: usize, scratch: &mut [u8]) {
        let Some(last) = self.all.get_mut(index) else { return };
        if !last.ended {
            let before = last.output.len();
            let flushed = last.output.flush(&mut last.transport);
            self.bytes -= before - last.output.len();
            match flushed {
                Ok(()) => {
                    last.transport.end();
                    last.ended = true;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.remove(index),
            }
        }
        loop {
            match last.transport.read(scratch) {
                Ok(taken) if taken > 0 && last.discarded < DISCARD_MAX_BYTES => {
                    last.discarded += taken;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => return self.remove(index),
            }
        }
    }

    /// Give those up whose time is over.
    pub(super) fn expire(&mut self, now: Time) {
        let bytes = &mut self.bytes;
        self.all.retain(|_, last| {
            let stays = last.until > now;
            if !stays {
                *bytes -= last.output.len();
            }
            stays
        });
    }
}
