//! Providers: where nodes come from. All are behind one port, and none decides anything: which node is built, tested
//! or deleted when is `toci_core::node`'s business.
//!
//! | kind | what a node is |
//! |---|---|
//! | [`local`] | a sandbox of processes on this machine |
//! | [`fixed`], `static` in settings | an existing machine, cleaned after each use |
//! | [`libvirt`] | a virtual machine on a libvirt daemon |
//! | [`openstack`] | a server of an OpenStack cloud |

mod boot;
mod error;
pub mod fixed;
pub mod image;
mod keys;
pub mod libvirt;
pub mod local;
pub mod openstack;
mod roster;

use crate::node::Session;
use crate::openstack::CallCount;
pub use crate::source::Work;
pub use boot::console_told;
pub use error::ProviderError;
pub use keys::{KeyPair, new_key_pair};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use toci_core::id::Label;
use toci_core::node::{Image, Room};

/// A machine that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The way there.
    pub session: Session,
    /// Its address in its cloud, if it has one.
    pub address: Option<IpAddr>,
    /// What [`Provider::find`] needs to find it again, besides its name; kept by the server.
    pub token: String,
}

/// Where nodes come from. Futures may be dropped at any point; what was begun is then found by its name and deleted.
pub trait Provider: Send + Sync + core::fmt::Debug {
    /// Its kind, for people.
    fn kind(&self) -> &'static str;

    /// How often it is worth asking what it has.
    fn list_every(&self) -> Duration;

    /// Makes a machine of this name, which was never used before. When this returns, the machine can be reached.
    fn create<'a>(
        &'a self,
        name: &'a str,
        label: &'a Label,
    ) -> Work<'a, Result<Machine, ProviderError>>;

    /// The machine of this name, after a restart; none when it is not there any more.
    fn find<'a>(
        &'a self,
        name: &'a str,
        token: &'a str,
    ) -> Work<'a, Result<Option<Machine>, ProviderError>>;

    /// The names of all machines that were made here, also those that nobody remembers.
    fn list(&self) -> Work<'_, Result<BTreeSet<String>, ProviderError>>;

    /// What it has learnt since the last call of the room that there is, where it learns that; listing looks.
    fn room(&self) -> Option<Room> {
        None
    }

    /// Deletes the machine of this name and all that belongs to it. One that is not there is no error.
    fn delete<'a>(&'a self, name: &'a str, token: &'a str) -> Work<'a, Result<(), ProviderError>>;

    /// A machine that the server remembers from before a restart. Called before anything else.
    fn remember(&self, _name: &str, _token: &str) {}

    /// How many calls of its cloud there were, where it is one.
    fn calls(&self) -> Vec<CallCount> {
        Vec::new()
    }

    /// The images that it makes machines of, where it makes them itself.
    fn images(&self) -> Vec<ImageView> {
        Vec::new()
    }

    /// Makes an image anew although it need not be. Whether it has one of this name.
    fn rebuild(&self, _image: &str) -> bool {
        false
    }

    /// Makes no machine of the image with this id any more, and deletes it when no machine lies on it. Whether it has
    /// one that works.
    fn withdraw(&self, _image: &str) -> bool {
        false
    }
}

/// An image, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageView {
    /// It.
    pub image: Image,
    /// Machines are made of it; of the others of its name only when this one is withdrawn.
    pub serves: bool,
    /// Why it failed; while it is built, the last line that its build said.
    pub told: String,
    /// The log of its build, on this machine.
    pub log: Option<PathBuf>,
}
