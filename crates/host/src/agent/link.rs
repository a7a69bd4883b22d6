//! The connection to the server: its wishes come in here. The host dials, and dials again for ever.

use super::operations::Operations;
use super::reporter::Reporter;
use crate::te::Wish;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use toci_client::api::{Backoff, HostMessage};
use toci_core::chain::Chain;
use toci_wire::api::HostDesired;

/// Listens for ever.
pub(super) async fn listen(reporter: Arc<Reporter>, operations: Arc<Operations>) {
    let mut backoff = Backoff::new();
    loop {
        match reporter.client.host_stream(reporter.host.config.name.as_str()).await {
            Ok(mut stream) => {
                tracing::info!(server = %reporter.client.server(), "connected");
                // The server may have been away and know nothing of what happened since.
                reporter.news.notify_one();
                loop {
                    match stream.next().await {
                        Ok(Some(HostMessage::Desired(desired))) => {
                            backoff.reset();
                            take_up(&reporter, &desired);
                        }
                        Ok(Some(HostMessage::Operation(operation))) => {
                            Operations::start(&operations, operation);
                        }
                        Ok(None) => break,
                        Err(e) => {
                            tracing::warn!(error = %Chain(&e), "lost the server");
                            break;
                        }
                    }
                }
            }
            Err(e) => tracing::warn!(error = %Chain(&e), "cannot reach the server"),
        }
        // TEs go on meanwhile, each to its own limit.
        backoff.wait().await;
    }
}

fn take_up(reporter: &Reporter, desired: &HostDesired) {
    reporter.every_s.store(desired.report_every_s, Ordering::Relaxed);
    for d in &desired.testenvs {
        let te = reporter.tes.iter().find(|t| t.te.id.as_str() == d.testenv);
        match (te, Wish::new(d)) {
            (Some(te), Some(wish)) => te.wish(wish),
            // It was carved away; the reports do not name it either.
            (None, _) => tracing::debug!(te = %d.testenv, "not one of ours"),
            (Some(_), None) => tracing::warn!(wish = ?d, "cannot understand the server"),
        }
    }
}
