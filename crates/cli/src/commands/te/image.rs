//! `toci te push-image`: a stream with a progress bar, and a checksum compared at the end.

use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use toci_client::api::{ApiClient, ClientError, Upload};
use toci_core::hex::hex;
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};

/// Counts and hashes what is read.
struct Watched {
    file: File,
    bar: ProgressBar,
    hash: Arc<Mutex<Sha256>>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.file).poll_read(cx, buffer);
        let new = &buffer.filled()[before..];
        if !new.is_empty() {
            self.bar.inc(u64::try_from(new.len()).unwrap_or(0));
            self.hash.lock().unwrap_or_else(PoisonError::into_inner).update(new);
        }
        polled
    }
}

/// Sends the image and compares what arrived with what was read.
pub(super) async fn push(
    client: &ApiClient,
    json: bool,
    te: &str,
    machine: &str,
    image: &Path,
) -> Result<()> {
    let failed = |e: std::io::Error| {
        CliError::new(
            Exit::Failed,
            format!("read {}: {e}", image.display()),
            "give the path of a qcow2 or raw image",
        )
    };
    let file = File::open(image).await.map_err(failed)?;
    let about = file.metadata().await.map_err(failed)?;
    // How much comes out of a pipe, nobody knows before.
    let length = about.is_file().then_some(about.len());
    let bar = match length {
        Some(length) if !json => progress_bar(length, machine),
        Some(_) | None => ProgressBar::hidden(),
    };
    let hash = Arc::new(Mutex::new(Sha256::new()));
    let watched = Watched { file, bar: bar.clone(), hash: Arc::clone(&hash) };
    let answer = client.push_image(te, machine, Upload::from_reader(watched, length)).await;
    bar.finish_and_clear();
    let pushed = answer.map_err(|error| match error {
        ClientError::Source(error) => failed(error),
        other => other.into(),
    })?;
    let hash = hash.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize();
    let sent = hex(&hash);
    if pushed.sha256 != sent {
        return Err(CliError::new(
            Exit::Failed,
            format!(
                "{machine} got {} bytes with SHA-256 {}, not {sent}",
                pushed.bytes, pushed.sha256
            ),
            "the file changed while it was sent, or it was damaged on its way: push it again",
        ));
    }
    if json {
        return output::json(&pushed);
    }
    output::text_line(&format!(
        "{machine}: {} bytes, {}, sha256 {} (compared)",
        pushed.bytes, pushed.format, pushed.sha256
    ))
}

fn progress_bar(length: u64, machine: &str) -> ProgressBar {
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(template);
    let bar = ProgressBar::new(length).with_message(machine.to_owned());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
