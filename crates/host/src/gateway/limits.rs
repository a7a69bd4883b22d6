//! Every limit of the gateway, in one place.

use std::time::Duration;

/// Connections at once, authenticated or not.
pub const CONNECTIONS_MAX: usize = 1024;
/// Connections that have not proved a key yet; the oldest makes room for one more.
pub const STRANGERS_MAX: usize = 256;
/// Authenticated connections of one lease at once.
pub const CONNECTIONS_OF_LEASE_MAX: usize = 64;
/// Channels of one connection at once, as OpenSSH's `MaxSessions`.
pub const CHANNELS_MAX: usize = 10;
/// Channels of one connection, one after the other; then the client must connect anew. russh keeps a
/// few KiB for each channel that we closed until the connection ends.
pub const CHANNELS_EVER_MAX: usize = 5_000;
/// Commands of one lease that run at once; more wait.
pub const COMMANDS_OF_LEASE_MAX: usize = 32;
/// Keys that a client may try: an agent often offers several before the right one.
pub const AUTH_ATTEMPTS_MAX: usize = 10;
/// From the first byte to a proved key.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(20);
/// An authenticated connection without a channel is closed after this.
pub const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// A client that is silent for so long is asked whether it is there.
pub const KEEPALIVE: Duration = Duration::from_secs(15);
/// Unanswered questions until it is gone.
pub const KEEPALIVES_MAX: usize = 4;
/// Bytes that a client may send ahead on a channel.
pub const WINDOW_BYTES: u32 = 4 << 20;
/// Largest data packet we ask for, bytes.
pub const PACKET_BYTES: u32 = 32 << 10;
/// Data packets of a channel that wait for the writer.
pub const PACKETS_QUEUED_MAX: usize = 64;
/// Longest wait for a client to read what it asked for.
pub const OUTPUT_MAX: Duration = Duration::from_secs(60);
/// `copyseed` without a byte for so long is given up.
pub const UPLOAD_SILENCE_MAX: Duration = Duration::from_secs(120);
/// Time between two lines of progress.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// How often an image that comes in is brought to the disk, bytes received.
pub const FLUSH_EVERY_BYTES: u64 = 32 << 20;
