//! One connection: proves a key, opens channels, runs commands, and refuses everything else.

use super::command;
use super::doors::{Inside, Open};
use super::limits::{CHANNELS_EVER_MAX, CHANNELS_MAX};
use super::server::Shared;
use russh::server::VerifiedPublicKey;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session as Ssh};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use toci_wire::ssh_command::ALLOWED;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

/// Data type of standard error (RFC 4254, 5.2).
pub(super) const STDERR: u32 = 1;

/// Where a connection stands, for its supervisor.
#[derive(Clone, Debug)]
pub(super) enum Stand {
    /// No key proved yet.
    Stranger,
    /// A holder without a channel.
    Idle {
        /// Since when.
        since: Instant,
        /// The door it came through.
        open: Arc<Open>,
    },
    /// A holder with channels.
    Busy {
        /// How many; at least one.
        channels: usize,
        /// The door it came through.
        open: Arc<Open>,
    },
}

/// One channel of a connection, until its command is through and it was closed. Not until the client
/// says so: its answer to our closing does not reach the handler.
pub(super) struct Slot(watch::Sender<Stand>);

impl Slot {
    /// `None` for a stranger, and when there are too many.
    fn take(stand: &watch::Sender<Stand>) -> Option<Slot> {
        let taken = stand.send_if_modified(|s| match s {
            Stand::Stranger => false,
            Stand::Idle { open, .. } => {
                *s = Stand::Busy { channels: 1, open: Arc::clone(open) };
                true
            }
            Stand::Busy { channels, .. } => {
                let room = *channels < CHANNELS_MAX;
                *channels += usize::from(room);
                room
            }
        });
        taken.then(|| Slot(stand.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.send_modify(|s| match s {
            Stand::Stranger | Stand::Idle { .. } => {}
            Stand::Busy { channels: 0 | 1, open } => {
                *s = Stand::Idle { since: Instant::now(), open: Arc::clone(open) };
            }
            Stand::Busy { channels, .. } => *channels -= 1,
        });
    }
}

/// A connection that has proved a lease's key.
struct Holder {
    open: Arc<Open>,
    inside: Inside,
    _connection: OwnedSemaphorePermit,
}

/// See the module.
pub(super) struct Session {
    shared: Arc<Shared>,
    peer: SocketAddr,
    tell: watch::Sender<Stand>,
    holder: Option<Holder>,
    /// Channels that were opened so far.
    opened: usize,
    /// Those that have not been told yet what to do.
    fresh: HashMap<ChannelId, (Channel<Msg>, Slot)>,
}

impl Session {
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: SocketAddr,
        tell: watch::Sender<Stand>,
    ) -> Session {
        Session { shared, peer, tell, holder: None, opened: 0, fresh: HashMap::new() }
    }

    /// The door that user and key open. The key decides; the user name must be a known one.
    fn door(&self, user: &str, key: &russh::keys::PublicKey) -> Option<Arc<Open>> {
        if !self.shared.users.iter().any(|u| u == user) {
            return None;
        }
        self.shared.doors.find(key)
    }

    /// Answers on a channel without running anything: a line on standard error, exit 1.
    fn refuse(&mut self, id: ChannelId, why: &str, ssh: &mut Ssh) -> Result<(), russh::Error> {
        let _ends_here = self.fresh.remove(&id);
        ssh.channel_success(id)?;
        ssh.extended_data(id, STDERR, format!("toci: {why}\n").into_bytes())?;
        ssh.exit_status_request(id, 1)?;
        ssh.eof(id)?;
        ssh.close(id)
    }
}

impl Handler for Session {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        let known = self.door(user, offer.public_key).is_some();
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let Some(open) = self.door(user, key.public_key) else { return Ok(Auth::reject()) };
        let (te, lease) = (&open.grant.te, open.grant.lease);
        let Ok(connection) = Arc::clone(&open.connections).try_acquire_owned() else {
            tracing::warn!(%te, %lease, peer = %self.peer, "too many connections of one lease");
            return Ok(Auth::reject());
        };
        let Some(inside) = open.enter() else { return Ok(Auth::reject()) };
        tracing::debug!(%te, %lease, peer = %self.peer, user, "holder connected");
        if let IpAddr::V4(address) = self.peer.ip().to_canonical()
            && let Err(error) = open.grant.machines.admit(address).await
        {
            // The gateway serves all the same: power and images do not need the seed's network.
            tracing::warn!(%te, %lease, peer = %self.peer, %error, "the seed stays shut for a holder");
        }
        let now = Stand::Idle { since: Instant::now(), open: Arc::clone(&open) };
        self.holder = Some(Holder { open, inside, _connection: connection });
        self.tell.send_replace(now);
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        let room = self.opened < CHANNELS_EVER_MAX;
        let Some(slot) = Slot::take(&self.tell).filter(|_| room) else {
            let (peer, opened) = (self.peer, self.opened);
            tracing::info!(%peer, opened, "gateway refused a channel: too many on one connection");
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        self.opened += 1;
        self.fresh.insert(channel.id(), (channel, slot));
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _ssh: &mut Ssh) -> Result<(), Self::Error> {
        self.fresh.remove(&id);
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        let (Some(holder), Some((channel, slot))) = (&self.holder, self.fresh.remove(&id)) else {
            return ssh.channel_failure(id);
        };
        ssh.channel_success(id)?;
        let run = command::Run {
            open: Arc::clone(&holder.open),
            inside: holder.inside.clone(),
            line: line.to_vec(),
        };
        let handle = ssh.handle();
        tokio::spawn(async move {
            command::serve(run, channel, handle).await;
            drop(slot);
        });
        Ok(())
    }

    async fn shell_request(&mut self, id: ChannelId, ssh: &mut Ssh) -> Result<(), Self::Error> {
        if !self.fresh.contains_key(&id) {
            return ssh.channel_failure(id);
        }
        self.refuse(id, &format!("there is no shell here; {ALLOWED}"), ssh)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        // With a failure the client would not show the reason, so it is a success with exit 1.
        if !self.fresh.contains_key(&id) {
            return ssh.channel_failure(id);
        }
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
        self.refuse(id, &format!("subsystem {name} is not offered here; {ALLOWED}"), ssh)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        ssh.channel_failure(id)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        ssh.channel_failure(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        _value: &str,
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        ssh.channel_failure(id)
    }
}
