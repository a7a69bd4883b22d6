//! Starting the broker's thread.

use super::driver::{Driver, WAKER};
use super::face::{BrokerHandle, COMMANDS_MAX};
use super::options::{BrokerError, BrokerOptions};
use super::sockets;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

/// A running broker. Dropping it leaves it running; [`BrokerServer::stop`] ends it.
#[derive(Debug)]
pub struct BrokerServer {
    handle: BrokerHandle,
    addresses: Vec<SocketAddr>,
    thread: JoinHandle<Result<(), BrokerError>>,
}

/// Bind all addresses and start the thread. When this returns, connections are accepted.
pub fn start(options: BrokerOptions) -> Result<BrokerServer, BrokerError> {
    let system = |operation| move |source| BrokerError::System { operation, source };
    sockets::raise_descriptor_limit();
    let poll = mio::Poll::new().map_err(system("epoll"))?;
    let waker = mio::Waker::new(poll.registry(), WAKER).map_err(system("eventfd"))?;
    let (commands, receiver) = tokio::sync::mpsc::channel(COMMANDS_MAX);
    let stop = Arc::new(AtomicBool::new(false));
    let driver = Driver::new(options, poll, receiver, Arc::clone(&stop))?;
    let addresses = driver.addresses();
    let thread = std::thread::Builder::new()
        .name("gearman".to_owned())
        .spawn(move || driver.run())
        .map_err(system("starting the thread"))?;
    let handle = BrokerHandle { commands, waker: Arc::new(waker), stop };
    Ok(BrokerServer { handle, addresses, thread })
}

impl BrokerServer {
    /// The way in for other parts of this process.
    #[must_use]
    pub fn handle(&self) -> BrokerHandle {
        self.handle.clone()
    }

    /// Where it listens, in the order of the options.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Wait until it ends by itself: an admin said `shutdown`, or the system failed.
    pub fn join(self) -> Result<(), BrokerError> {
        self.thread.join().map_err(|_| BrokerError::Panicked)?
    }

    /// End it: its connections are closed. It waits for the thread, which ends within one round.
    pub fn stop(self) -> Result<(), BrokerError> {
        self.handle.stop();
        self.join()
    }
}
