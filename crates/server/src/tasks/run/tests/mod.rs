//! Runs on real sandboxes with real git; the gate, the archive and the TE host are played. Needs root.

mod collecting;
mod infrastructure;
mod limits;
mod scripts;
mod testenvs;
mod world;
