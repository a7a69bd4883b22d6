//! Changes that another queue keeps out are looked at now and then: what they need may have merged, or have a newer
//! patchset, without an event that names them.

use super::gather::{Sources, gather};
use crate::tasks::pipeline::GateHandle;
use std::time::Duration;
use toci_core::event::ChangeKey;
use toci_core::pipeline::Input;

/// How often some of them are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Changes that are looked at in one go.
const LOOKED_AT_MAX: usize = 20;

/// Looks until the gate stops.
pub(crate) async fn follow_waiting(gate: GateHandle, sources: Sources) {
    let mut last = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Ok(waiting) = gate.waiting().await else { return };
        for key in next(waiting, last.as_ref()) {
            match gather(&sources, &key).await {
                Ok(changes) => {
                    if gate.deliver(Input::Changes(changes), None).await.is_none() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%key, %error, "a waiting change cannot be looked at"),
            }
            last = Some(key);
        }
    }
}

/// The next ones after the last, round and round.
fn next(mut waiting: Vec<ChangeKey>, last: Option<&ChangeKey>) -> Vec<ChangeKey> {
    waiting.sort();
    let begin = last.map_or(0, |last| waiting.partition_point(|key| key <= last));
    waiting.rotate_left(begin);
    waiting.truncate(LOOKED_AT_MAX);
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_their_turn() {
        let key = |number| ChangeKey {
            source: "local".parse().unwrap(),
            number,
            patchset: "1".to_owned(),
        };
        let all: Vec<ChangeKey> = (1..=50).map(key).collect();
        let numbers = |keys: Vec<ChangeKey>| keys.iter().map(|k| k.number).collect::<Vec<_>>();
        assert_eq!(numbers(next(all.clone(), None)), (1..=20).collect::<Vec<_>>());
        let second = numbers(next(all.clone(), Some(&key(40))));
        assert_eq!(second, (41..=50).chain(1..=10).collect::<Vec<_>>());
        assert_eq!(numbers(next(vec![key(3)], Some(&key(50)))), [3]);
    }
}
