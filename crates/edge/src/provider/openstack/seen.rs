//! What one list tells of all: asked for by one of many who wait for theirs.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// All things of a kind as they were seen last.
#[derive(Debug)]
pub(super) struct Seen<T>(Mutex<Option<(Instant, Arc<Vec<T>>)>>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Seen(Mutex::default())
    }
}

impl<T> Seen<T> {
    /// As they were not longer ago than this; `ask` is only done when that is not known.
    pub(super) async fn within<E>(
        &self,
        age: Duration,
        ask: impl Future<Output = Result<Vec<T>, E>>,
    ) -> Result<Arc<Vec<T>>, E> {
        // Held, so that of many who ask one does.
        let mut seen = self.0.lock().await;
        if let Some((since, all)) = seen.as_ref()
            && since.elapsed() <= age
        {
            return Ok(Arc::clone(all));
        }
        let asked = Instant::now();
        let all = Arc::new(ask.await?);
        *seen = Some((asked, Arc::clone(&all)));
        Ok(all)
    }
}
