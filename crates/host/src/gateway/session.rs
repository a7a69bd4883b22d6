//! One connection: proves a key, opens channels, runs commands, and refuses everything else.

use super::command;
use super::doors::{Inside, Open};
use super::limits::CHANNELS_MAX;
use super::server::Shared;
use russh::server::VerifiedPublicKey;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session as Ssh};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
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
        /// The door it came through.
        open: Arc<Open>,
    },
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
    /// Open channels.
    open: HashSet<ChannelId>,
    /// Those of them that have not been told yet what to do.
    fresh: HashMap<ChannelId, Channel<Msg>>,
}

impl Session {
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: SocketAddr,
        tell: watch::Sender<Stand>,
    ) -> Session {
        let (open, fresh) = (HashSet::new(), HashMap::new());
        Session { shared, peer, tell, holder: None, open, fresh }
    }

    /// The door that user and key open. The key decides; the user name must be a known one.
    fn door(&self, user: &str, key: &russh::keys::PublicKey) -> Option<Arc<Open>> {
        if !self.shared.users.iter().any(|u| u == user) {
            return None;
        }
        self.shared.doors.find(key)
    }

    fn tell_stand(&self) {
        let Some(holder) = &self.holder else { return };
        let open = Arc::clone(&holder.open);
        let idle = self.open.is_empty();
        let now =
            if idle { Stand::Idle { since: Instant::now(), open } } else { Stand::Busy { open } };
        self.tell.send_replace(now);
    }

    /// Answers on a channel without running anything: a line on standard error, exit 1.
    fn refuse(&mut self, id: ChannelId, why: &str, ssh: &mut Ssh) -> Result<(), russh::Error> {
        self.fresh.remove(&id);
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
        self.holder = Some(Holder { open, inside, _connection: connection });
        self.tell_stand();
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        if self.holder.is_none() || self.open.len() >= CHANNELS_MAX {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.open.insert(channel.id());
        self.fresh.insert(channel.id(), channel);
        self.tell_stand();
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _ssh: &mut Ssh) -> Result<(), Self::Error> {
        self.open.remove(&id);
        self.fresh.remove(&id);
        self.tell_stand();
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        let (Some(holder), Some(channel)) = (&self.holder, self.fresh.remove(&id)) else {
            return ssh.channel_failure(id);
        };
        ssh.channel_success(id)?;
        let run = command::Run {
            open: Arc::clone(&holder.open),
            inside: holder.inside.clone(),
            line: line.to_vec(),
        };
        tokio::spawn(command::serve(run, channel, ssh.handle()));
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
