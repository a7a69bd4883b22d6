//! Running somebody's command while a TE is held: in a process group of its own, with the terminal when there is
//! one, ended as a group, and never outliving us. Used by `toci lease run` and by `testenv-client`.

mod datafile;
mod group;
mod guard;
mod members;
mod terminal;

pub use datafile::{DataFile, WriteDataFile};
pub use group::{CommandSpec, Ended, Running, StartCommand};
