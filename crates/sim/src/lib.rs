//! PRETENDS. Leases in simulated time: the real core and the real store, with hosts, clients, a
//! network and clocks that are made up, from a seed.
//!
//! A run is single-threaded and draws every choice from one generator, so a seed replays exactly.
//! Faults: the server crashes (also between a commit and its telling), its commits fail, its
//! machine reboots with a wrong wall clock; host agents crash and come back, hosts reboot, resets
//! fail; links are cut and heal; messages are delayed, doubled, lost and overtake each other;
//! clients die and go on using every key they ever had.
//!
//! After each step ([`check`]): no TE has two holders whose credentials work; no command of an old
//! generation is accepted, and none after the host's own limit; nothing is granted before its host
//! has cut off the last holder, and no generation twice; nobody meets what another one left on a
//! TE; no grant and no request that was told is lost; no lease expires before its time, and none is taken for lost
//! before its holder was silent for long enough. When the faults are over: every request is
//! served or refused, and every TE returns.
//!
//! [`Mutation`] breaks one rule on purpose; tests require that the checks above notice.
#![forbid(unsafe_code)]

mod check;
mod client;
mod disk;
mod host;
mod message;
mod random;
mod runs;
mod server;
mod world;

pub use runs::{FAULTS, Failure, Mutation, Options, Summary, one_seed, run, trace};
