//! An archive in a folder: `<root>/<path of the run>/…`, made in `<root>/.staging/` and put in place by one rename.

use super::{ArchiveError, Entry, Found, LISTED_MAX, Object};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::unistd::syncfs;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use toci_core::log::LogPath;
use toci_core::log::arrange::seen_as;
use toci_core::log::path::plain_name;

/// Where runs are packed; no path of the archive begins with a dot.
const STAGING: &str = ".staging";
/// Files and folders of a run that are written to the disk one by one at most.
const SYNCED_MAX: usize = 30;
/// Attempts to put a run in place while empty folders are being removed.
const ATTEMPTS_MAX: u32 = 5;

/// An archive in a folder.
#[derive(Clone, Debug)]
pub struct FolderArchive {
    root: PathBuf,
    stages: Arc<AtomicU64>,
}

/// A folder of its own; it goes with this value.
#[derive(Debug)]
pub struct Stage {
    path: PathBuf,
}

impl Stage {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new one below `staging`.
    pub(super) fn new(staging: &Path, name: &str) -> Result<Stage, ArchiveError> {
        let path = staging.join(plain_name(name));
        fs::create_dir_all(&path).map_err(ArchiveError::io("make", &path))?;
        Ok(Stage { path })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What remains is removed when the archive is opened the next time.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl FolderArchive {
    /// Opens it. What a server that was killed was packing is removed.
    pub fn open(root: &Path) -> Result<FolderArchive, ArchiveError> {
        fs::create_dir_all(root).map_err(ArchiveError::io("make", root))?;
        let staging = root.join(STAGING);
        match fs::remove_dir_all(&staging) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ArchiveError::io("clear", &staging)(error)),
        }
        Ok(FolderArchive { root: root.to_owned(), stages: Arc::default() })
    }

    pub(super) fn stage(&self, name: &str) -> Result<Stage, ArchiveError> {
        let number = self.stages.fetch_add(1, Ordering::Relaxed);
        Stage::new(&self.root.join(STAGING), &format!("{number}-{name}"))
    }

    /// When this returns, it is on the disk: whoever archives forgets the run's folder then.
    pub(super) fn commit(&self, stage: Stage, at: &LogPath) -> Result<(), ArchiveError> {
        settle(&stage.path).map_err(ArchiveError::io("write", &stage.path))?;
        let place = self.root.join(at.as_str());
        let parent = place.parent().unwrap_or(&self.root).to_owned();
        let failed = || ArchiveError::io("write", &place);
        for attempt in 1.. {
            fs::create_dir_all(&parent).map_err(failed())?;
            // An older archive of the same run changes places with the new one and goes with the stage.
            let flags = if place.exists() {
                RenameFlags::RENAME_EXCHANGE
            } else {
                RenameFlags::RENAME_NOREPLACE
            };
            match renameat2(AT_FDCWD, &stage.path, AT_FDCWD, &place, flags) {
                Ok(()) => break,
                Err(nix::Error::ENOENT | nix::Error::EEXIST) if attempt < ATTEMPTS_MAX => {}
                Err(error) => return Err(failed()(error.into())),
            }
        }
        let mut above = Some(at.clone());
        while let Some(folder) = above.and_then(|folder| folder.parent()) {
            sync(&self.root.join(folder.as_str())).map_err(failed())?;
            above = Some(folder);
        }
        Ok(())
    }

    pub(super) fn find(&self, at: &LogPath) -> Result<Option<Found>, ArchiveError> {
        let place = self.root.join(at.as_str());
        match fs::symlink_metadata(&place) {
            Ok(facts) if facts.is_dir() => return list(&place).map(Some),
            Ok(facts) if facts.is_file() => return open(&place, false),
            Ok(_) => return Ok(None),
            Err(error) if is_nothing(&error) => {}
            Err(error) => return Err(ArchiveError::io("read", &place)(error)),
        }
        if at.is_root() || seen_as(at.as_str()) != at.as_str() {
            return Ok(None);
        }
        open(&self.root.join(format!("{at}.gz")), true)
    }

    pub(super) fn remove(&self, at: &LogPath) -> Result<(), ArchiveError> {
        let place = self.root.join(at.as_str());
        if at.is_root() || !place.exists() {
            return Ok(());
        }
        // Out of sight at once, then out of existence.
        let stage = self.stage("gone")?;
        let failed = || ArchiveError::io("remove", &place);
        fs::rename(&place, stage.path.join("run")).map_err(failed())?;
        fs::remove_dir_all(&stage.path).map_err(failed())?;
        let mut parent = at.parent();
        while let Some(folder) = parent.filter(|folder| !folder.is_root()) {
            // One that is not empty stays, and so do those above.
            if fs::remove_dir(self.root.join(folder.as_str())).is_err() {
                break;
            }
            parent = folder.parent();
        }
        Ok(())
    }
}

/// Writes a folder with everything in it to the disk: file by file, or of many all that the file system has.
fn settle(folder: &Path) -> io::Result<()> {
    let (mut all, mut at) = (vec![folder.to_owned()], 0);
    while let Some(place) = all.get(at).cloned() {
        at += 1;
        if place.is_dir() {
            for entry in fs::read_dir(&place)? {
                all.push(entry?.path());
            }
        }
        if all.len() > SYNCED_MAX {
            return syncfs(fs::File::open(folder)?).map_err(io::Error::from);
        }
    }
    // The innermost first.
    all.iter().rev().try_for_each(|place| sync(place))
}

fn sync(place: &Path) -> io::Result<()> {
    fs::File::open(place)?.sync_all()
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn open(place: &Path, is_text: bool) -> Result<Option<Found>, ArchiveError> {
    let opened = fs::File::open(place).and_then(|file| file.metadata().map(|facts| (file, facts)));
    match opened {
        Ok((file, facts)) if facts.is_file() => {
            let body = Box::pin(tokio::fs::File::from_std(file));
            Ok(Some(Found::File(Object { is_text, bytes: facts.len(), body })))
        }
        Ok(_) => Ok(None),
        Err(error) if is_nothing(&error) => Ok(None),
        Err(error) => Err(ArchiveError::io("read", place)(error)),
    }
}

fn list(place: &Path) -> Result<Found, ArchiveError> {
    let failed = || ArchiveError::io("read", place);
    let mut entries = Vec::new();
    for entry in fs::read_dir(place).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // One that was removed this moment.
        let Ok(facts) = entry.metadata() else { continue };
        if name == STAGING || !(facts.is_dir() || facts.is_file()) {
            continue;
        }
        if entries.len() == LISTED_MAX {
            entries.sort();
            return Ok(Found::Folder(entries, true));
        }
        let is_file = facts.is_file();
        let bytes = if is_file { facts.len() } else { 0 };
        entries.push(Entry { is_file, name: seen_as(&name).to_owned(), bytes });
    }
    entries.sort();
    Ok(Found::Folder(entries, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> LogPath {
        LogPath::new(text).unwrap()
    }

    fn committed(archive: &FolderArchive, at: &str, text: &str) {
        let stage = archive.stage("run").unwrap();
        fs::write(stage.path().join("a.txt.gz"), text).unwrap();
        fs::create_dir(stage.path().join("sub")).unwrap();
        archive.commit(stage, &path(at)).unwrap();
    }

    fn stored(root: &Path) -> Vec<String> {
        let mut out = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let place = entry.unwrap().path();
                out.push(place.strip_prefix(root).unwrap().display().to_string());
                if place.is_dir() {
                    folders.push(place);
                }
            }
        }
        out.sort();
        out
    }

    #[test]
    fn a_run_comes_whole_is_replaced_whole_and_goes_with_its_empty_folders() {
        let root = tempfile::tempdir().unwrap();
        let archive = FolderArchive::open(root.path()).unwrap();
        committed(&archive, "01/1/1/check/job/aaa", "old");
        committed(&archive, "01/1/1/check/job/aaa", "new");
        committed(&archive, "01/1/1/check/job/bbb", "other");
        let place = root.path().join("01/1/1/check/job");
        assert_eq!(fs::read_to_string(place.join("aaa/a.txt.gz")).unwrap(), "new");
        assert!(fs::read_dir(root.path().join(STAGING)).unwrap().next().is_none());
        archive.remove(&path("01/1/1/check/job/aaa")).unwrap();
        archive.remove(&path("01/1/1/check/job/aaa")).unwrap();
        assert!(place.join("bbb").exists());
        archive.remove(&path("01/1/1/check/job/bbb")).unwrap();
        assert_eq!(stored(root.path()), [STAGING]);
    }

    #[test]
    fn a_run_of_many_files_comes_whole_too() {
        let root = tempfile::tempdir().unwrap();
        let archive = FolderArchive::open(root.path()).unwrap();
        let stage = archive.stage("run").unwrap();
        for n in 0..2 * SYNCED_MAX {
            fs::write(stage.path().join(n.to_string()), "x").unwrap();
        }
        archive.commit(stage, &path("a/b")).unwrap();
        assert_eq!(stored(&root.path().join("a/b")).len(), 2 * SYNCED_MAX);
    }

    #[test]
    fn what_was_being_packed_is_no_part_of_it_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let archive = FolderArchive::open(root.path()).unwrap();
        let stage = archive.stage("a/../b").unwrap();
        assert_eq!(stage.path().parent().unwrap(), root.path().join(STAGING));
        std::mem::forget(stage);
        assert!(
            matches!(archive.find(&path("")).unwrap(), Some(Found::Folder(e, false)) if e.is_empty())
        );
        FolderArchive::open(root.path()).unwrap();
        assert_eq!(stored(root.path()), [""; 0]);
        let stage = archive.stage("dropped").unwrap();
        drop(stage);
        assert_eq!(stored(root.path()), [STAGING]);
    }

    #[test]
    fn files_folders_and_nothing_are_told_apart_and_links_are_nothing() {
        let root = tempfile::tempdir().unwrap();
        let archive = FolderArchive::open(root.path()).unwrap();
        committed(&archive, "r", "text");
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("r/link")).unwrap();
        let is_text = |at: &str| match archive.find(&path(at)).unwrap() {
            Some(Found::File(object)) => Some(object.is_text),
            Some(Found::Folder(..)) | None => None,
        };
        assert_eq!(is_text("r/a.txt"), Some(true));
        assert_eq!(is_text("r/a.txt.gz"), Some(false));
        assert_eq!(is_text("r/link"), None);
        assert!(archive.find(&path("r/a.txt/x")).unwrap().is_none());
        assert!(archive.find(&path("r/none")).unwrap().is_none());
        let Some(Found::Folder(entries, false)) = archive.find(&path("r")).unwrap() else {
            panic!()
        };
        let names: Vec<(&str, bool)> =
            entries.iter().map(|e| (e.name.as_str(), e.is_file)).collect();
        assert_eq!(names, [("sub", false), ("a.txt", true)]);
    }
}
