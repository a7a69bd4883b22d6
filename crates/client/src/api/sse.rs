//! Server-sent events: bytes to typed events. A line and an event have a longest length, and silence an end.

use super::body::Download;
use super::error::ClientError;
use bytes::BytesMut;
use core::time::Duration;
use serde::de::DeserializeOwned;
use toci_wire::api::{
    ConsoleText, EVENT_ALERT, EVENT_CONSOLE, EVENT_DESIRED, EVENT_GONE, EVENT_HOST, EVENT_ITEM,
    EVENT_ITEM_ENDED, EVENT_JOB_PAUSED, EVENT_LAGGED, EVENT_LEASE, EVENT_NODE, EVENT_OPERATION,
    EVENT_PROVIDER, EVENT_REPORT, EVENT_RUN, EVENT_TESTENV, EndedItem, Gone, Host, HostDesired,
    JobPause, Lagged, Lease, Node, Operation, PipelineItem, Provider, Report, Run, RunTrouble,
    STREAM_EVENT_MAX_BYTES, STREAM_SILENCE_S, TestEnv,
};

/// Media type of a stream.
pub(super) const SSE: &str = "text/event-stream";

/// One event as it was sent.
#[derive(Debug, PartialEq, Eq)]
struct RawEvent {
    name: String,
    data: String,
}

/// Bytes to events. Holds at most one event and one piece of the body.
#[derive(Debug, Default)]
struct Parser {
    bytes: BytesMut,
    name: String,
    data: String,
    has_data: bool,
}

/// An event longer than `STREAM_EVENT_MAX_BYTES`.
#[derive(Debug, PartialEq, Eq)]
struct TooLong;

impl Parser {
    fn feed(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    fn next(&mut self) -> Result<Option<RawEvent>, TooLong> {
        while let Some(end) = self.bytes.iter().position(|b| *b == b'\n') {
            let line = self.bytes.split_to(end + 1);
            let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
            if let Some(event) = self.line(line)? {
                return Ok(Some(event));
            }
        }
        if self.bytes.len() > STREAM_EVENT_MAX_BYTES { Err(TooLong) } else { Ok(None) }
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<RawEvent>, TooLong> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let data = std::mem::take(&mut self.data);
            let complete = std::mem::take(&mut self.has_data);
            return Ok(complete.then_some(RawEvent { name, data }));
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((line.as_ref(), ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.data.len() + value.len() > STREAM_EVENT_MAX_BYTES {
                    return Err(TooLong);
                }
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            // Comments (no field name), `id`, `retry` and what the standard may add: of no use here.
            _ => {}
        }
        Ok(None)
    }
}

/// The stream below the typed ones.
#[derive(Debug)]
struct RawStream {
    download: Download,
    parser: Parser,
}

impl RawStream {
    fn new(download: Download) -> RawStream {
        RawStream { download, parser: Parser::default() }
    }

    /// The next event; `None` when the server ended the stream. Cancel-safe.
    async fn next(&mut self) -> Result<Option<RawEvent>, ClientError> {
        let silence = Duration::from_secs(STREAM_SILENCE_S);
        loop {
            match self.parser.next() {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(TooLong) => {
                    return Err(self.protocol(format!(
                        "an event is longer than {STREAM_EVENT_MAX_BYTES} bytes"
                    )));
                }
            }
            match tokio::time::timeout(silence, self.download.chunk()).await {
                Ok(Ok(Some(piece))) => self.parser.feed(&piece),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    return Err(ClientError::TooSlow {
                        server: self.download.server.clone(),
                        what: self.download.what.clone(),
                        limit: silence,
                    });
                }
            }
        }
    }

    fn typed<T: DeserializeOwned>(&self, event: &RawEvent) -> Result<T, ClientError> {
        serde_json::from_str(&event.data)
            .map_err(|e| self.protocol(format!("bad `{}` event: {e}", event.name)))
    }

    fn protocol(&self, reason: String) -> ClientError {
        ClientError::Protocol {
            server: self.download.server.clone(),
            what: self.download.what.clone(),
            reason,
        }
    }
}

/// A lease and its changes. `next` is cancel-safe.
#[derive(Debug)]
pub struct LeaseStream(RawStream);

impl LeaseStream {
    pub(super) fn new(download: Download) -> LeaseStream {
        LeaseStream(RawStream::new(download))
    }

    /// The lease after its next change, first as it is now. `None`: the server ended the stream, because the
    /// lease is over, or because it stops or this reader was too slow; then open it again.
    pub async fn next(&mut self) -> Result<Option<Lease>, ClientError> {
        while let Some(event) = self.0.next().await? {
            match event.name.as_str() {
                EVENT_LEASE => return self.0.typed(&event).map(Some),
                EVENT_LAGGED => return Ok(None),
                // A newer server may tell more; what this client does not know it does not need.
                _ => {}
            }
        }
        Ok(None)
    }
}

/// What a console's stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleNews {
    /// Whole lines, with their line feeds.
    Text(String),
    /// The run is over; nothing follows.
    Over(Box<Run>),
}

/// A run's console. `next` is cancel-safe.
#[derive(Debug)]
pub struct ConsoleStream(RawStream);

impl ConsoleStream {
    pub(super) fn new(download: Download) -> ConsoleStream {
        ConsoleStream(RawStream::new(download))
    }

    /// What comes next. `None`: the server ended the stream; open it again, it begins at the start.
    pub async fn next(&mut self) -> Result<Option<ConsoleNews>, ClientError> {
        while let Some(event) = self.0.next().await? {
            match event.name.as_str() {
                EVENT_CONSOLE => {
                    let text: ConsoleText = self.0.typed(&event)?;
                    return Ok(Some(ConsoleNews::Text(text.text)));
                }
                EVENT_RUN => return self.0.typed(&event).map(|run| Some(ConsoleNews::Over(run))),
                // A newer server may tell more; what this client does not know it does not need.
                _ => {}
            }
        }
        Ok(None)
    }
}

/// A change somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A lease after its change.
    Lease(Box<Lease>),
    /// A TE after its change.
    Testenv(Box<TestEnv>),
    /// A host after its change.
    Host(Box<Host>),
    /// An item that entered a pipeline.
    Item(Box<PipelineItem>),
    /// An item that left.
    ItemEnded(Box<EndedItem>),
    /// A report that was delivered.
    Report(Box<Report>),
    /// A run after a step.
    Run(Box<Run>),
    /// A job or a provider that fails by the infrastructure again and again.
    Alert(Box<RunTrouble>),
    /// A job of which nothing begins any more.
    JobPaused(Box<JobPause>),
    /// A node in a new state.
    Node(Box<Node>),
    /// A provider that was paused or goes on, or whose builds fail or work again.
    Provider(Box<Provider>),
    /// A host, a TE or a node that is gone, or the pause of a job.
    Gone(Gone),
    /// This reader was too slow and missed some; the stream ends: read everything anew.
    Lagged(Lagged),
}

/// All changes. `next` is cancel-safe.
#[derive(Debug)]
pub struct ChangeStream(RawStream);

impl ChangeStream {
    pub(super) fn new(download: Download) -> ChangeStream {
        ChangeStream(RawStream::new(download))
    }

    /// The next change; `None` when the server ended the stream.
    pub async fn next(&mut self) -> Result<Option<Change>, ClientError> {
        while let Some(event) = self.0.next().await? {
            let change = match event.name.as_str() {
                EVENT_LEASE => Change::Lease(self.0.typed(&event)?),
                EVENT_TESTENV => Change::Testenv(self.0.typed(&event)?),
                EVENT_HOST => Change::Host(self.0.typed(&event)?),
                EVENT_ITEM => Change::Item(self.0.typed(&event)?),
                EVENT_ITEM_ENDED => Change::ItemEnded(self.0.typed(&event)?),
                EVENT_REPORT => Change::Report(self.0.typed(&event)?),
                EVENT_RUN => Change::Run(self.0.typed(&event)?),
                EVENT_ALERT => Change::Alert(self.0.typed(&event)?),
                EVENT_JOB_PAUSED => Change::JobPaused(self.0.typed(&event)?),
                EVENT_NODE => Change::Node(self.0.typed(&event)?),
                EVENT_PROVIDER => Change::Provider(self.0.typed(&event)?),
                EVENT_GONE => Change::Gone(self.0.typed(&event)?),
                EVENT_LAGGED => Change::Lagged(self.0.typed(&event)?),
                _ => continue,
            };
            return Ok(Some(change));
        }
        Ok(None)
    }
}

/// What the server says to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMessage {
    /// The whole wish; replaces the one before.
    Desired(HostDesired),
    /// Something to do once.
    Operation(Operation),
}

/// A host's orders. `next` is cancel-safe.
#[derive(Debug)]
pub struct HostStream(RawStream);

impl HostStream {
    pub(super) fn new(download: Download) -> HostStream {
        HostStream(RawStream::new(download))
    }

    /// The next message; `None` when the server ended the stream: open it again.
    pub async fn next(&mut self) -> Result<Option<HostMessage>, ClientError> {
        while let Some(event) = self.0.next().await? {
            match event.name.as_str() {
                EVENT_DESIRED => return self.0.typed(&event).map(HostMessage::Desired).map(Some),
                EVENT_OPERATION => {
                    return self.0.typed(&event).map(HostMessage::Operation).map(Some);
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str, piece: usize) -> Vec<(String, String)> {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            parser.feed(piece);
            while let Some(event) = parser.next().unwrap() {
                found.push((event.name, event.data));
            }
        }
        found
    }

    #[test]
    fn events_are_cut_the_same_however_they_arrive() {
        let text = ": hello\n\nevent: lease\ndata: {\"a\":1}\n\nevent:x\r\ndata:1\r\ndata: 2\r\nid: 7\r\n\r\ndata\n\nevent: lonely\n\n";
        let expected: Vec<(String, String)> = [("lease", "{\"a\":1}"), ("x", "1\n2"), ("", "")]
            .map(|(name, data)| (name.to_owned(), data.to_owned()))
            .to_vec();
        for piece in 1..text.len() {
            assert_eq!(events(text, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn an_endless_line_or_event_is_an_error() {
        let mut parser = Parser::default();
        parser.feed(&vec![b'x'; STREAM_EVENT_MAX_BYTES + 1]);
        assert_eq!(parser.next(), Err(TooLong));
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "y".repeat(STREAM_EVENT_MAX_BYTES / 2));
        for _ in 0..3 {
            parser.feed(line.as_bytes());
        }
        assert_eq!(parser.next(), Err(TooLong));
    }
}
