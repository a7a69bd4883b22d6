//! Running seeds: what to run, what came of it, and rules that are broken on purpose.

use crate::world::World;

/// One rule broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Nothing is broken.
    None,
    /// The gateway takes every key that it ever made.
    SkipGenerationCheck,
    /// The server takes a TE for clean as soon as a lease ends.
    GrantBeforeClean,
    /// The server tells now and then what it has not written.
    ServerForgetsToPersist,
    /// The host does not note on disk that it cut a lease off.
    HostForgetsToPersist,
    /// The host does not end a lease by its own clock.
    IgnoreHostExpiry,
    /// The host says clean without having reset.
    HostSkipsReset,
    /// A restarted server forgets who waits.
    DropQueue,
    /// The server's timers are ahead of its clock.
    TimersRunAhead,
    /// Wishes reach a host only when it opens its stream.
    WishesNotSent,
}

/// What breaks in a run, by the index in [`Summary::faults`].
pub const FAULTS: [&str; 8] = [
    "server killed",
    "agent crashed",
    "host rebooted",
    "host cut off",
    "client cut off",
    "client died or came back",
    "commits fail",
    "operator",
];

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Steps with faults; the calm after them comes on top.
    pub steps: u64,
    /// Which rule to break.
    pub mutation: Mutation,
    /// Keep the log of events.
    pub trace: bool,
    /// Run on the real store; otherwise one seed in 16 does.
    pub real_store: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { steps: 1_500, mutation: Mutation::None, trace: false, real_store: false }
    }
}

/// A rule did not hold.
#[derive(Clone, Debug, thiserror::Error)]
#[error("seed {seed}, step {step}: {what}")]
pub struct Failure {
    /// Replays it.
    pub seed: u64,
    /// Where.
    pub step: u64,
    /// Which rule, and who broke it.
    pub what: String,
    /// The events up to there, when traced.
    pub log: Vec<String>,
}

/// What all seeds together did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Seeds run.
    pub seeds: u64,
    /// Seeds on the real store.
    pub real_store: u64,
    /// Steps made.
    pub steps: u64,
    /// Leases that became active.
    pub active: u64,
    /// Commands that gateways took.
    pub commands: u64,
    /// Starts of the server.
    pub starts: u64,
    /// How often each of [`FAULTS`] happened.
    pub faults: [u64; FAULTS.len()],
    /// Leases that ended by themselves, in time: expired, lost.
    pub kept: [u64; 2],
}

impl Summary {
    fn add(&mut self, s: Summary) {
        self.seeds += s.seeds;
        self.real_store += s.real_store;
        self.steps += s.steps;
        self.active += s.active;
        self.commands += s.commands;
        self.starts += s.starts;
        let faults = self.faults.iter_mut().zip(s.faults);
        faults.chain(self.kept.iter_mut().zip(s.kept)).for_each(|(all, one)| *all += one);
    }

    /// Faults and rules that never had their turn: a run that is long enough must have none.
    #[must_use]
    pub fn never(&self) -> Vec<&'static str> {
        let rules = [("expiry", self.kept[0]), ("loss", self.kept[1])];
        let faults = FAULTS.into_iter().zip(self.faults);
        faults.chain(rules).filter(|(_, times)| *times == 0).map(|(name, _)| name).collect()
    }
}

/// Runs many seeds on all cores. The first failure (of the lowest seed that failed) is run again
/// with its log.
pub fn run(seeds: core::ops::Range<u64>, options: Options) -> Result<Summary, Box<Failure>> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let worker = || {
        let mut sum = Summary::default();
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(sum);
            }
            match one_seed(seed, options) {
                Ok(s) => sum.add(s),
                Err(f) => {
                    next.store(seeds.end, std::sync::atomic::Ordering::Relaxed);
                    return Err(f);
                }
            }
        }
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        running
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
            .collect()
    });
    let mut sum = Summary::default();
    let mut first: Option<Box<Failure>> = None;
    for result in results {
        match result {
            Ok(s) => sum.add(s),
            Err(f) => match &first {
                Some(known) if known.seed <= f.seed => {}
                Some(_) | None => first = Some(f),
            },
        }
    }
    match first {
        None => Ok(sum),
        Some(f) => match one_seed(f.seed, Options { trace: true, ..options }) {
            Err(traced) => Err(traced),
            Ok(_) => Err(f),
        },
    }
}

/// Runs one seed.
pub fn one_seed(seed: u64, options: Options) -> Result<Summary, Box<Failure>> {
    let mut world = match World::new(seed, options) {
        Ok(w) => w,
        Err(e) => {
            let what = format!("cannot start: {e:#}");
            return Err(Box::new(Failure { seed, step: 0, what, log: vec![] }));
        }
    };
    let result = world.go();
    result.map(|()| world.sum).map_err(|what| {
        Box::new(Failure {
            seed,
            step: world.sum.steps,
            what,
            log: core::mem::take(&mut world.log),
        })
    })
}

/// The log of events of one seed, for a look at what a run is like.
#[must_use]
pub fn trace(seed: u64, options: Options) -> Vec<String> {
    let Ok(mut world) = World::new(seed, Options { trace: true, ..options }) else {
        return vec![];
    };
    // A failure is in the log by being its end.
    if let Err(what) = world.go() {
        world.log.push(what);
    }
    world.log
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few hundred seeds; `make test` runs thousands by `cargo xtask sim`.
    #[test]
    fn the_rules_hold() {
        match run(0..160, Options::default()) {
            Ok(sum) => {
                assert!(sum.active > 160 && sum.commands > 160 && sum.starts > 160, "{sum:?}");
                assert_eq!(sum.real_store, 10);
                assert_eq!(sum.never(), [""; 0], "{sum:?}");
            }
            Err(f) => panic!("{f}\n{}", f.log.join("\n")),
        }
    }

    #[test]
    fn a_seed_replays_exactly() {
        let log = |seed| trace(seed, Options::default());
        assert!(log(3).len() > 1_500);
        assert_eq!(log(3), log(3));
        assert_ne!(log(3), log(4));
    }

    fn is_caught(mutation: Mutation, words: &str) {
        let failure = run(0..400, Options { mutation, ..Options::default() })
            .expect_err("the simulation must notice the mutation");
        assert!(failure.what.contains(words), "{mutation:?} was noticed as: {failure}");
        assert!(!failure.log.is_empty());
    }

    #[test]
    fn a_gateway_without_generation_check_is_caught() {
        is_caught(Mutation::SkipGenerationCheck, "");
    }

    #[test]
    fn a_grant_before_clean_is_caught() {
        is_caught(Mutation::GrantBeforeClean, "while its host served");
    }

    #[test]
    fn a_server_that_tells_what_it_has_not_written_is_caught() {
        is_caught(Mutation::ServerForgetsToPersist, "");
    }

    #[test]
    fn a_host_that_forgets_a_cut_off_is_caught() {
        is_caught(Mutation::HostForgetsToPersist, "which was cut off");
    }

    #[test]
    fn a_host_without_its_own_limit_is_caught() {
        is_caught(Mutation::IgnoreHostExpiry, "after its limit");
    }

    #[test]
    fn a_host_that_does_not_reset_is_caught() {
        is_caught(Mutation::HostSkipsReset, "was not reset");
    }

    #[test]
    fn a_queue_lost_in_a_restart_is_caught() {
        is_caught(Mutation::DropQueue, "");
    }

    #[test]
    fn a_lease_that_ends_too_early_is_caught() {
        is_caught(Mutation::TimersRunAhead, "");
    }

    #[test]
    fn a_server_that_does_not_wake_its_hosts_is_caught() {
        is_caught(Mutation::WishesNotSent, "not served");
    }
}
