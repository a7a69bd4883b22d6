//! What a provider keeps on this machine of machines that it makes elsewhere: a folder each, and which of them somebody
//! knows of.

use super::ProviderError;
use super::keys::private_folder;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The file that says which image of ours a machine was made of; empty: of none.
const IMAGE_FILE: &str = "image";

/// All machines that somebody knows of.
#[derive(Debug)]
pub(super) struct Roster {
    folder: PathBuf,
    /// By node, the image of ours that it was made of.
    known: Mutex<BTreeMap<String, String>>,
    /// Nodes that images are being tried with.
    tests: Mutex<BTreeSet<String>>,
}

impl Roster {
    /// In a provider's folder.
    pub(super) fn new(state: &Path) -> Roster {
        let folder = state.join("machines");
        Roster { folder, known: Mutex::default(), tests: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nodes that images are being tried with: they are nobody's nodes.
    pub(super) fn tests(&self) -> BTreeSet<String> {
        self.tests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nodes that somebody knows of.
    pub(super) fn known(&self) -> BTreeSet<String> {
        self.lock().keys().cloned().collect()
    }

    /// Images of ours that nodes were made of.
    pub(super) fn used_images(&self) -> BTreeSet<String> {
        self.lock().values().filter(|image| !image.is_empty()).cloned().collect()
    }

    /// What belongs to a machine on this side.
    pub(super) fn folder(&self, node: &str) -> PathBuf {
        self.folder.join(node)
    }

    /// A machine is going to be made; its folder is there afterwards.
    pub(super) fn enter(&self, node: &str, image: &str) -> Result<PathBuf, ProviderError> {
        let folder = self.folder(node);
        let here = |e: std::io::Error| ProviderError::new(format!("use {}", folder.display()), &e);
        private_folder(&folder).map_err(here)?;
        std::fs::write(folder.join(IMAGE_FILE), image).map_err(here)?;
        self.lock().insert(node.to_owned(), image.to_owned());
        Ok(folder)
    }

    /// A node that the server knows of from before.
    pub(super) fn remember(&self, node: &str) {
        let image = std::fs::read_to_string(self.folder(node).join(IMAGE_FILE)).unwrap_or_default();
        self.lock().insert(node.to_owned(), image.trim().to_owned());
    }

    /// A machine is gone; so is what belonged to it here.
    pub(super) fn forget(&self, node: &str) -> Result<(), ProviderError> {
        match std::fs::remove_dir_all(self.folder(node)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(ProviderError::new("forget a machine", &e));
            }
            Ok(()) | Err(_) => {}
        }
        self.lock().remove(node);
        Ok(())
    }

    /// While the value lives, the node is an image's test and nobody's node.
    pub(super) fn is_test<'a>(&'a self, node: &str) -> Test<'a> {
        self.tests.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned());
        Test { roster: self, node: node.to_owned() }
    }
}

/// A node that an image is being tried with.
#[derive(Debug)]
pub(super) struct Test<'a> {
    roster: &'a Roster,
    node: String,
}

impl Drop for Test<'_> {
    fn drop(&mut self) {
        self.roster.tests.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.node);
        self.roster.lock().remove(&self.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_entered_is_known_until_it_is_forgotten() {
        let state = tempfile::tempdir().unwrap();
        let roster = Roster::new(state.path());
        roster.enter("a", "debian-1").unwrap();
        roster.enter("b", "").unwrap();
        let again = Roster::new(state.path());
        again.remember("a");
        again.remember("b");
        assert_eq!(again.known(), ["a".to_owned(), "b".to_owned()].into());
        assert_eq!(again.used_images(), ["debian-1".to_owned()].into());
        again.forget("a").unwrap();
        again.forget("a").unwrap();
        assert_eq!(again.known(), ["b".to_owned()].into());
        assert!(!again.folder("a").exists());
    }

    #[test]
    fn a_test_ends_with_its_value() {
        let state = tempfile::tempdir().unwrap();
        let roster = Roster::new(state.path());
        let test = roster.is_test("t");
        roster.enter("t", "debian-1").unwrap();
        assert_eq!(roster.tests(), ["t".to_owned()].into());
        drop(test);
        assert!(roster.tests().is_empty() && roster.known().is_empty());
    }
}
