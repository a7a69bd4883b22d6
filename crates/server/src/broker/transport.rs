//! A connection's bytes, plain or through TLS. Nothing here blocks.

use mio::net::TcpStream;
use rustls::ServerConnection;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

/// Plaintext that may wait for encryption, in bytes: one write's worth.
const TLS_BUFFER_BYTES: usize = 64 * 1024;

/// How bytes get in and out.
pub(super) enum Transport {
    /// As they are.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream>),
}

/// A socket and its TLS session.
pub(super) struct TlsStream {
    stream: TcpStream,
    session: ServerConnection,
}

/// How far a handshake is.
pub(super) enum Handshake {
    /// It waits for the peer.
    Waiting,
    /// It is done.
    Done,
}

impl Transport {
    pub(super) fn tls(stream: TcpStream, mut session: ServerConnection) -> Transport {
        session.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        Transport::Tls(Box::new(TlsStream { stream, session }))
    }

    pub(super) fn socket(&mut self) -> &mut TcpStream {
        match self {
            Transport::Plain(stream) => stream,
            Transport::Tls(tls) => &mut tls.stream,
        }
    }

    /// Whether a read that fills less than its buffer has emptied the socket.
    pub(super) fn short_read_is_all(&self) -> bool {
        match self {
            Transport::Plain(_) => true,
            Transport::Tls(_) => false,
        }
    }

    /// `Ok(0)` is the end; `WouldBlock` means later.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Transport::Plain(stream) => again(|| stream.read(buffer)),
            Transport::Tls(tls) => tls.read(buffer),
        }
    }

    /// Write some of `bytes`; `WouldBlock` means later. A TLS session takes bytes before they can
    /// be sent: see [`Transport::flush`].
    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Transport::Plain(stream) => again(|| stream.write(bytes)),
            Transport::Tls(tls) => {
                tls.push()?;
                match tls.session.writer().write(bytes)? {
                    0 if !bytes.is_empty() => Err(ErrorKind::WouldBlock.into()),
                    taken => Ok(taken),
                }
            }
        }
    }

    /// Send what the session holds; `WouldBlock` means later.
    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Transport::Plain(_) => Ok(()),
            Transport::Tls(tls) => match tls.push() {
                Ok(()) if tls.session.wants_write() => Err(ErrorKind::WouldBlock.into()),
                other => other,
            },
        }
    }

    /// Whether the peer must be told that nothing more comes, beyond the end of the stream.
    pub(super) fn has_a_last_word(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(_) => true,
        }
    }

    /// Say that nothing more comes.
    pub(super) fn end(&mut self) {
        if let Transport::Tls(tls) = self {
            tls.session.send_close_notify();
            // The peer may have gone already; that is no news.
            let _ = tls.push();
        }
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    /// Go on with a handshake.
    pub(super) fn handshake(&mut self) -> std::io::Result<Handshake> {
        let Transport::Tls(tls) = self else { return Ok(Handshake::Done) };
        loop {
            tls.push()?;
            if !tls.session.is_handshaking() {
                return Ok(Handshake::Done);
            }
            match tls.pull() {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Handshake::Waiting),
                Err(e) => {
                    // The alert that tells the peer why.
                    let _ = tls.push();
                    return Err(e);
                }
            }
        }
    }

    /// The peer's certificate, after the handshake.
    pub(super) fn certificate(&self) -> Option<&[u8]> {
        match self {
            Transport::Plain(_) => None,
            Transport::Tls(tls) => {
                tls.session.peer_certificates().and_then(|c| c.first()).map(AsRef::as_ref)
            }
        }
    }
}

impl TlsStream {
    /// Send all that the session wants to send and the socket takes.
    fn push(&mut self) -> std::io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Take what the socket has.
    fn pull(&mut self) -> std::io::Result<usize> {
        let taken = again(|| self.session.read_tls(&mut self.stream))?;
        self.session
            .process_new_packets()
            .map_err(|e| std::io::Error::new(ErrorKind::InvalidData, e))?;
        Ok(taken)
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Ok(taken) => return Ok(taken),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                // A peer that goes without saying so: python's ssl, mostly.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(e) => return Err(e),
            }
            let taken = self.pull()?;
            self.push()?;
            if taken == 0 {
                return Ok(self.session.reader().read(buffer).unwrap_or(0));
            }
        }
    }
}

fn again(mut operation: impl FnMut() -> std::io::Result<usize>) -> std::io::Result<usize> {
    loop {
        match operation() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
