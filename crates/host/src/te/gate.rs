//! Who may touch the machines now. Every command passes the gate, whoever brought it, and a reset
//! waits until those that have passed are through.

use std::sync::{Mutex, PoisonError};
use toci_core::id::Generation;
use toci_core::lease::fence::{Fence, Standing};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, Semaphore, SemaphorePermit};

use super::clock::boot_now;

/// Commands on one TE at a time.
const COMMANDS_MAX: u32 = 64;

/// By what right a command comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The holder of this generation, while it is served.
    Holder(Generation),
    /// An operator who has seen the TE at this generation.
    Operator(Generation),
}

/// The lease is over, or another one has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease is over: generation {asked} is cut off")]
pub struct CutOff {
    /// The generation of the command.
    pub asked: Generation,
}

/// Held by a command while it runs.
#[derive(Debug)]
pub struct Pass<'a>(#[expect(dead_code, reason = "held until it is dropped")] SemaphorePermit<'a>);

/// The gate of one TE.
#[derive(Debug)]
pub struct Gate {
    fence: Mutex<Fence>,
    running: Semaphore,
    seed: AsyncMutex<()>,
}

impl Gate {
    /// Around this fence.
    #[must_use]
    pub fn new(fence: Fence) -> Gate {
        let (fence, running) = (Mutex::new(fence), Semaphore::new(COMMANDS_MAX as usize));
        Gate { fence, running, seed: AsyncMutex::new(()) }
    }

    /// Looks at the fence, or feeds it.
    pub fn with_fence<R>(&self, f: impl FnOnce(&mut Fence) -> R) -> R {
        f(&mut self.fence.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a command may run now; [`Gate::pass`] makes sure that it stays so while it runs.
    #[must_use]
    pub fn allows(&self, rule: Rule) -> bool {
        self.with_fence(|f| match rule {
            Rule::Holder(g) => f.allows(g, boot_now()),
            Rule::Operator(g) => f.generation() == g,
        })
    }

    /// Whether what a command changes would not be found by the next holder: a TE that is clean, or being
    /// made clean, belongs to nobody, and is granted as it is.
    #[must_use]
    pub fn may_change(&self) -> bool {
        match self.with_fence(|f| f.report()) {
            Standing::Serving | Standing::Broken(_) => true,
            Standing::Resetting | Standing::Clean => false,
        }
    }

    /// Lets a command through or refuses it.
    pub async fn pass(&self, rule: Rule) -> Result<Pass<'_>, CutOff> {
        let (Rule::Holder(asked) | Rule::Operator(asked)) = rule;
        let permit = self.running.acquire().await.map_err(|_| CutOff { asked })?;
        // Asked after the permit is held: a reset that comes now waits for it.
        if self.allows(rule) { Ok(Pass(permit)) } else { Err(CutOff { asked }) }
    }

    /// Starting the seed and exchanging its disk take turns, whoever does it. For those who have passed.
    pub async fn seed_turn(&self) -> AsyncMutexGuard<'_, ()> {
        self.seed.lock().await
    }

    /// Waits until no command is running. Called when the fence refuses those to come.
    pub async fn drained(&self) {
        let _ = self.running.acquire_many(COMMANDS_MAX).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use toci_core::id::LeaseId;
    use toci_core::lease::fence::{FenceEvent, Task};

    #[tokio::test]
    async fn a_cut_off_waits_for_those_inside_and_refuses_those_to_come() {
        let (fence, _) = Fence::new();
        let gate = Gate::new(fence);
        let feed = |e| gate.with_fence(|f| f.on(e, boot_now())).unwrap();
        feed(FenceEvent::ResetDone { generation: Generation(0) });
        let task = Task::Serve { lease: LeaseId(1), left: Duration::from_secs(60) };
        feed(FenceEvent::Desired { generation: Generation(1), task });
        let holder = Rule::Holder(Generation(1));
        assert!(gate.pass(Rule::Holder(Generation(0))).await.is_err());
        let inside = gate.pass(holder).await.unwrap();
        feed(FenceEvent::Desired { generation: Generation(1), task: Task::Vacate });
        assert!(gate.pass(holder).await.is_err());
        let drained = gate.drained();
        tokio::pin!(drained);
        assert!(futures_util::poll!(&mut drained).is_pending());
        drop(inside);
        drained.await;
        assert!(gate.allows(Rule::Operator(Generation(1))));
    }
}
