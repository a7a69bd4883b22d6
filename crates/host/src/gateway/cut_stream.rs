//! A TCP stream that can be cut from outside: both directions fail at once, whatever the peer does.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What is read from the socket at once, bytes: several packets of an upload.
const READ_BYTES: usize = 128 << 10;

/// See the module.
pub(super) struct CutStream {
    stream: BufReader<TcpStream>,
    cut: CancellationToken,
    // One each way: a future remembers only its last waker, and the halves may live in two tasks.
    read_cut: Pin<Box<WaitForCancellationFutureOwned>>,
    write_cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl CutStream {
    pub(super) fn new(stream: TcpStream, cut: CancellationToken) -> CutStream {
        CutStream {
            stream: BufReader::with_capacity(READ_BYTES, stream),
            read_cut: Box::pin(cut.clone().cancelled_owned()),
            write_cut: Box::pin(cut.clone().cancelled_owned()),
            cut,
        }
    }
}

fn is_cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the session was cut")
}

impl AsyncRead for CutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.is_cancelled() {
            return Poll::Ready(Err(is_cut()));
        }
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => self.read_cut.as_mut().poll(cx).map(|()| Err(is_cut())),
            ready @ Poll::Ready(_) => ready,
        }
    }
}

impl AsyncWrite for CutStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.cut.is_cancelled() {
            return Poll::Ready(Err(is_cut()));
        }
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Pending => self.write_cut.as_mut().poll(cx).map(|()| Err(is_cut())),
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
