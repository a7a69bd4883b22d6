//! One connection to one broker: made, kept, made again. A task reads and writes; callers talk to
//! it through [`LinkState`] and a bounded channel of bytes.

use super::options::{BrokerAddress, LinkOptions};
use super::state::{JobStatus, LinkState, append};
use super::task::{NoStatus, STATUS_LIMIT};
use rustls::pki_types::ServerName;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use toci_core::broker::Request;
use toci_wire::gearman::{Frame, PACKET_MAX_BYTES, decode_message, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// How long to wait before connecting again, as gear does.
pub const RECONNECT_PAUSE: Duration = Duration::from_secs(2);
/// How long connecting and shaking hands may take.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Requests that may wait to be written.
const REQUESTS_MAX: usize = 256;
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// Silence after which a broker is probed, time between probes, and probes until it is lost.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 3);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection as its users see it.
pub(super) struct Link {
    pub(super) broker: BrokerAddress,
    state: Mutex<LinkState>,
    requests: mpsc::Sender<(u64, Vec<u8>)>,
    /// A sleeping worker should look for a job, or the connection came or went.
    pub(super) news: Arc<Notify>,
    up: watch::Sender<bool>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.broker)
    }
}

/// The connection is down.
pub(super) struct Down;

impl Link {
    /// Start connecting; the returned task ends when aborted.
    pub(super) fn start(
        broker: BrokerAddress,
        options: &LinkOptions,
        news: Arc<Notify>,
    ) -> (Arc<Link>, tokio::task::JoinHandle<()>) {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let state = Mutex::new(LinkState::default());
        let up = watch::Sender::new(false);
        let link = Arc::new(Link { broker, state, requests, news, up });
        let task = tokio::spawn(keep(Arc::clone(&link), options.clone(), receiver));
        (link, task)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, LinkState> {
        // A panic elsewhere leaves plain values, which are as good as before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_up(&self) -> bool {
        self.state().up
    }

    /// Wait until the connection stands.
    pub(super) async fn wait_up(&self) {
        // The sender lives as long as the link, so that this cannot fail.
        let _ = self.up.subscribe().wait_for(|up| *up).await;
    }

    /// Say something on the connection that stands now. `prepare` runs under the lock first, so
    /// that an answer cannot come before somebody waits for it.
    pub(super) async fn say(
        &self,
        request: &Request<'_>,
        prepare: impl FnOnce(&mut LinkState),
    ) -> Result<(), Down> {
        let mut bytes = Vec::new();
        append(&mut bytes, request);
        // Room first: what is promised under the lock is then sent in the same order.
        let room = self.requests.reserve().await.map_err(|_| Down)?;
        let mut state = self.state();
        if !state.up {
            return Err(Down);
        }
        prepare(&mut state);
        room.send((state.connections, bytes));
        Ok(())
    }

    /// How a job stands: the answer comes when the broker has read all that was said here before.
    pub(super) async fn job_status(&self, handle: &[u8]) -> Result<JobStatus, NoStatus> {
        let (reply, answer) = oneshot::channel();
        let request = Request::GetStatus { handle };
        let said = self.say(&request, |state| state.ask_status(handle, reply)).await;
        said.map_err(|Down| NoStatus)?;
        let answered = tokio::time::timeout(STATUS_LIMIT, answer).await.map_err(|_| NoStatus)?;
        answered.map_err(|_| NoStatus)
    }

    /// Change what is said on every new connection, and say it on the one that stands now, if one
    /// does: once, whether the connection comes before or after.
    pub(super) async fn announce(
        &self,
        request: &Request<'_>,
        change: impl FnOnce(&mut LinkState),
    ) {
        let mut bytes = Vec::new();
        append(&mut bytes, request);
        let room = self.requests.reserve().await;
        let mut state = self.state();
        change(&mut state);
        if let Ok(room) = room
            && state.up
        {
            room.send((state.connections, bytes));
        }
    }

    fn set_up(&self, up: bool) {
        self.up.send_replace(up);
        self.news.notify_waiters();
        self.news.notify_one();
    }
}

async fn keep(link: Arc<Link>, options: LinkOptions, mut requests: mpsc::Receiver<(u64, Vec<u8>)>) {
    loop {
        match connect(&link.broker, &options).await {
            Ok(stream) => {
                tracing::debug!(broker = %link.broker, "connected to the Gearman broker");
                let error = talk(&link, &options.client_id, stream, &mut requests).await;
                link.state().lost();
                link.set_up(false);
                tracing::info!(broker = %link.broker, %error, "lost the Gearman broker");
            }
            Err(error) => {
                tracing::debug!(broker = %link.broker, %error, "no Gearman broker");
            }
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn connect(broker: &BrokerAddress, options: &LinkOptions) -> Result<Box<dyn Stream>, Error> {
    let connecting = async {
        let tcp = TcpStream::connect((broker.host.as_str(), broker.port)).await?;
        tcp.set_nodelay(true)?;
        let (idle, interval, count) = KEEPALIVE;
        let probes = socket2::TcpKeepalive::new()
            .with_time(idle)
            .with_interval(interval)
            .with_retries(count);
        socket2::SockRef::from(&tcp).set_tcp_keepalive(&probes)?;
        let Some(config) = &options.tls else { return Ok(Box::new(tcp) as Box<dyn Stream>) };
        let name = ServerName::try_from(broker.host.clone()).map_err(Error::other)?;
        let tls = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
        Ok(Box::new(tls) as Box<dyn Stream>)
    };
    tokio::time::timeout(CONNECT_LIMIT, connecting)
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Until the connection is lost; says why.
async fn talk(
    link: &Link,
    client_id: &str,
    stream: Box<dyn Stream>,
    requests: &mut mpsc::Receiver<(u64, Vec<u8>)>,
) -> Error {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (greeting, connection) = {
        let mut state = link.state();
        (state.greeting(client_id), state.connections)
    };
    link.set_up(true);
    let write = async {
        writer.write_all(&greeting).await?;
        writer.flush().await?;
        while let Some((meant_for, bytes)) = requests.recv().await {
            // What was meant for an earlier connection has been given up by its sender.
            if meant_for == connection {
                writer.write_all(&bytes).await?;
                writer.flush().await?;
            }
        }
        Err::<(), Error>(ErrorKind::BrokenPipe.into())
    };
    let read = async {
        let mut input = Vec::new();
        let mut chunk = vec![0; READ_BYTES];
        loop {
            match reader.read(&mut chunk).await? {
                0 => return Err::<(), Error>(ErrorKind::UnexpectedEof.into()),
                taken => input.extend_from_slice(&chunk[..taken]),
            }
            let used = hear_all(link, &input)?;
            input.drain(..used);
        }
    };
    tokio::select! {
        Err(error) = write => error,
        Err(error) = read => error,
        else => ErrorKind::BrokenPipe.into(),
    }
}

fn hear_all(link: &Link, input: &[u8]) -> Result<usize, Error> {
    let mut used = 0;
    let mut news = false;
    loop {
        match frame(&input[used..], PACKET_MAX_BYTES).map_err(Error::other)? {
            Frame::Partial { .. } => break,
            Frame::Line { length, .. } => used += length,
            Frame::Packet { packet, length } => {
                used += length;
                match decode_message(packet) {
                    Ok(message) => news |= link.state().hear(message),
                    Err(error) => tracing::warn!(broker = %link.broker, %error, "ignored"),
                }
            }
        }
    }
    if news {
        link.news.notify_one();
    }
    Ok(used)
}
