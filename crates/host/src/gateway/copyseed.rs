//! `copyseed N`: the seed's image comes on standard input.
//!
//! It is written beside the seed's image while it comes, by a thread of its own, which also computes the
//! checksum; looked at when it is whole; and renamed over the old one only if it is good. Whatever goes
//! wrong before that leaves the old image as it was.

use super::command::{Said, print};
use super::doors::Open;
use super::limits::{FLUSH_EVERY_BYTES, PACKETS_QUEUED_MAX, PROGRESS_EVERY, UPLOAD_SILENCE_MAX};
use super::machines::{MachineError, SeedImage};
use super::session::STDERR;
use crate::disk_image::{self as image, BadImage, ImageInfo, NoRoom};
use bytes::Bytes;
use russh::server::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use toci_core::hex::hex;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Ending of files that are not whole yet.
const UPLOAD_SUFFIX: &str = "upload";

/// Why no image came of it.
#[derive(Debug, thiserror::Error)]
enum NotCopied {
    #[error("this lease has test environment {own}, not {asked}: use copyseed {own}")]
    OtherTe { own: u32, asked: u32 },
    #[error("another copyseed of this lease is under way; wait for it, or end it")]
    Busy,
    #[error(transparent)]
    Machines(#[from] MachineError),
    #[error("the lease is over")]
    Cut,
    #[error("the client went away after {0} bytes")]
    Aborted(u64),
    #[error("nothing came for {} s", UPLOAD_SILENCE_MAX.as_secs())]
    Silent,
    #[error("more than {0} bytes: no image of the seed's disk is as large")]
    TooLong(u64),
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error(transparent)]
    BadImage(#[from] BadImage),
    #[error("write the image: {0}")]
    Write(#[source] io::Error),
    #[error("{0}")]
    Install(String),
}

impl From<io::Error> for NotCopied {
    fn from(e: io::Error) -> NotCopied {
        if image::is_full(&e) { NoRoom::Full.into() } else { NotCopied::Write(e) }
    }
}

/// An image that has come whole and was found good.
struct Received {
    bytes: u64,
    sha256: String,
    info: ImageInfo,
}

/// A file that is removed unless it was put in place.
struct Upload(PathBuf);

impl Drop for Upload {
    fn drop(&mut self) {
        // After a successful rename there is nothing left to remove.
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_file(image::converted_path(&self.0));
    }
}

/// Runs `copyseed number`.
pub(super) async fn run(
    number: u32,
    open: &Arc<Open>,
    read: ChannelReadHalf,
    write: &ChannelWriteHalf<Msg>,
) -> Said {
    let started = Instant::now();
    match copy(number, open, read, write).await {
        Ok(r) => {
            let seconds = started.elapsed().as_secs_f64();
            let (te, bytes) = (&open.grant.te, r.bytes);
            tracing::info!(%te, bytes, seconds, "seed image in place");
            let out = format!(
                "seed_{number}: {bytes} bytes in {seconds:.3} s, {}, sha256 {}, {} of {} bytes\n",
                rate(bytes, started.elapsed()),
                r.sha256,
                r.info.format.as_str(),
                r.info.virtual_bytes,
            );
            Said { out, err: String::new(), code: 0 }
        }
        Err(e) => {
            tracing::info!(te = %open.grant.te, error = %e, "copyseed did not copy");
            Said::refused(&format!("copyseed: {e}; the old image is untouched"))
        }
    }
}

async fn copy(
    number: u32,
    open: &Arc<Open>,
    read: ChannelReadHalf,
    write: &ChannelWriteHalf<Msg>,
) -> Result<Received, NotCopied> {
    let own = open.grant.machines.number();
    if number != own {
        return Err(NotCopied::OtherTe { own, asked: number });
    }
    let Ok(_upload) = open.upload.try_acquire() else { return Err(NotCopied::Busy) };
    seed_is_off(open).await?;
    let seed = open.grant.machines.seed_image();
    remove_stale(&seed.path);
    let upload = Upload(upload_path(&seed.path));
    let received = Arc::new(AtomicU64::new(0));
    let (packets, queue) = mpsc::channel(PACKETS_QUEUED_MAX);
    let writer = tokio::task::spawn_blocking({
        let (path, seed, received) = (upload.0.clone(), seed.clone(), Arc::clone(&received));
        move || receive(&path, &seed, queue, &received)
    });
    // The reading side never waits for what is printed: a client that does not read its progress
    // would otherwise stop its own upload for ever.
    let came = tokio::select! {
        came = pump(read, packets, open, &received) => came,
        never = progress(write, &received) => match never {},
    };
    // A cut does not wait for the disk: what is still being written is a file that nobody will use.
    let written = tokio::select! {
        biased;
        () = open.shut.cancelled() => return Err(NotCopied::Cut),
        w = writer => w.map_err(|e| NotCopied::Write(io::Error::other(e)))?,
    };
    let good = match (came, written) {
        // The writer only knows that no more came; the pump knows why.
        (Err(why), Ok(_) | Err(NotCopied::Aborted(_))) => return Err(why),
        (Ok(()) | Err(_), Err(why)) => return Err(why),
        (Ok(()), Ok(good)) => good,
    };
    let ready = tokio::select! {
        biased;
        () = open.shut.cancelled() => return Err(NotCopied::Cut),
        r = image::as_qcow2(&upload.0, good.info.format) => {
            r.map_err(|e| NotCopied::Install(chain(&e)))?
        }
    };
    if !open.is_open() {
        return Err(NotCopied::Cut);
    }
    open.grant.machines.exchange_seed(&ready).await?;
    Ok(good)
}

async fn seed_is_off(open: &Open) -> Result<(), NotCopied> {
    let machines = &open.grant.machines;
    let rows = machines.list().await?;
    let runs = |r: &&_| {
        let r: &super::machines::Row = r;
        machines.names().first() == Some(&r.name) && r.state.is_active()
    };
    match rows.iter().find(runs) {
        Some(row) => Err(MachineError::SeedRuns(row.name.clone()).into()),
        None => Ok(()),
    }
}

fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(e) = next {
        text.push_str(": ");
        text.push_str(&e.to_string());
        next = e.source();
    }
    text
}

/// From the channel to the writer, until the client says that this was all.
async fn pump(
    mut read: ChannelReadHalf,
    packets: mpsc::Sender<Bytes>,
    open: &Open,
    received: &AtomicU64,
) -> Result<(), NotCopied> {
    loop {
        let message = tokio::select! {
            biased;
            () = open.shut.cancelled() => return Err(NotCopied::Cut),
            m = timeout(UPLOAD_SILENCE_MAX, read.wait()) => m.map_err(|_| NotCopied::Silent)?,
        };
        match message {
            Some(ChannelMsg::Data { data }) => {
                let sent = tokio::select! {
                    biased;
                    () = open.shut.cancelled() => return Err(NotCopied::Cut),
                    s = packets.send(data) => s,
                };
                if sent.is_err() {
                    // The writer has stopped and knows why.
                    return Ok(());
                }
            }
            Some(ChannelMsg::Eof) => {
                // An empty packet says that this was the end and not a cut.
                let _ = packets.send(Bytes::new()).await;
                return Ok(());
            }
            Some(ChannelMsg::Close) | None => {
                return Err(NotCopied::Aborted(received.load(Ordering::Relaxed)));
            }
            Some(_) => {}
        }
    }
}

/// A line on standard error now and then.
async fn progress(write: &ChannelWriteHalf<Msg>, received: &AtomicU64) -> std::convert::Infallible {
    let started = Instant::now();
    loop {
        tokio::time::sleep(PROGRESS_EVERY).await;
        let bytes = received.load(Ordering::Relaxed);
        let text = format!("copyseed: {} MiB, {}\n", bytes >> 20, rate(bytes, started.elapsed()));
        print(write, STDERR, text).await;
    }
}

fn rate(bytes: u64, time: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let megabytes = bytes as f64 / 1e6;
    format!("{:.1} MB/s", megabytes / time.as_secs_f64().max(1e-6))
}

fn upload_path(target: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    target.with_added_extension(format!("{}-{n}.{UPLOAD_SUFFIX}", std::process::id()))
}

/// Removes what a crash left behind. There is one upload at a time, so all others are stale.
fn remove_stale(target: &Path) {
    let (Some(folder), Some(name)) = (target.parent(), target.file_name()) else { return };
    let begin = format!("{}.", name.to_string_lossy());
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&begin) && name.contains(&format!(".{UPLOAD_SUFFIX}")) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The writer's thread. After a cut nobody may be left to remove the file but itself.
fn receive(
    path: &Path,
    seed: &SeedImage,
    queue: mpsc::Receiver<Bytes>,
    received: &AtomicU64,
) -> Result<Received, NotCopied> {
    let done = write_file(path, seed, queue, received);
    if done.is_err() {
        let _ = std::fs::remove_file(path);
    }
    done
}

fn write_file(
    path: &Path,
    seed: &SeedImage,
    mut queue: mpsc::Receiver<Bytes>,
    received: &AtomicU64,
) -> Result<Received, NotCopied> {
    let mut file =
        File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    let limit = image::upload_max_bytes(seed.disk_bytes);
    let flusher = Flusher::start(&file)?;
    let (mut bytes, mut next_look, mut next_flush) = (0u64, 0u64, FLUSH_EVERY_BYTES);
    let mut head = Vec::with_capacity(image::HEAD_BYTES);
    let mut hash = Sha256::new();
    loop {
        let Some(data) = queue.blocking_recv() else { return Err(NotCopied::Aborted(bytes)) };
        if data.is_empty() {
            break;
        }
        if bytes >= next_look {
            image::look_for_room(path)?;
            next_look = bytes + image::DISK_LOOK_EVERY_BYTES;
        }
        if head.len() < image::HEAD_BYTES {
            let more = data.len().min(image::HEAD_BYTES - head.len());
            head.extend_from_slice(&data[..more]);
            if head.len() == image::HEAD_BYTES {
                // What is no image is refused at once, not after gigabytes.
                image::check_head(&head, seed.disk_bytes)?;
            }
        }
        bytes += data.len() as u64;
        if bytes > limit {
            return Err(NotCopied::TooLong(limit));
        }
        file.write_all(&data)?;
        hash.update(&data);
        received.store(bytes, Ordering::Relaxed);
        if bytes >= next_flush {
            flusher.flush();
            next_flush = bytes + FLUSH_EVERY_BYTES;
        }
    }
    let info = image::check_file(&file, seed.disk_bytes)?;
    file.sync_data()?;
    let sha256 = hex(&hash.finalize());
    Ok(Received { bytes, sha256, info })
}

/// Brings the file to the disk while more of it comes, so that the end need not wait for all of it.
struct Flusher(std::sync::mpsc::SyncSender<()>);

impl Flusher {
    /// The thread ends with the value, or a moment later.
    fn start(file: &File) -> io::Result<Flusher> {
        let file = file.try_clone()?;
        let (ask, asked) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new().name("copyseed-flush".into()).spawn(move || {
            for () in asked {
                // What fails here fails again at the end, where it is told.
                let _ = file.sync_data();
            }
        })?;
        Ok(Flusher(ask))
    }

    /// One that is asked while it is at work does it once more.
    fn flush(&self) {
        let _ = self.0.try_send(());
    }
}
