//! The one owner of a provider's images: does what is to be done with them, remembers how it ended.

use super::build::{Build, recipe, tail};
use super::{ImageConfig, Shelf};
use crate::clock::wall;
use crate::provider::{ImageView, ProviderError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use toci_core::node::{Image, ImageOutlook, ImageState, ImageStep, ImageWish, Images};
use toci_core::time::Time;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a keeper looks after.
#[derive(Clone, Debug)]
pub(in crate::provider) struct KeeperConfig {
    /// The provider's name.
    pub(in crate::provider) provider: String,
    /// Folder on this machine: records, logs of builds.
    pub(in crate::provider) state: PathBuf,
    /// Folder on this machine where built images wait until the provider has them.
    pub(in crate::provider) built: PathBuf,
    /// The images that labels name.
    pub(in crate::provider) images: BTreeMap<String, ImageConfig>,
}

/// The images of a provider.
#[derive(Debug)]
pub(in crate::provider) struct Keeper {
    config: KeeperConfig,
    shelf: Arc<dyn Shelf>,
    images: Mutex<Images>,
    /// What is being done, by image.
    running: Mutex<HashMap<String, JoinHandle<()>>>,
    changed: watch::Sender<()>,
    /// One build at a time on this machine, whichever provider wants it.
    workshop: Arc<tokio::sync::Mutex<()>>,
}

impl Keeper {
    pub(in crate::provider) fn new(
        config: KeeperConfig,
        shelf: Arc<dyn Shelf>,
        workshop: Arc<tokio::sync::Mutex<()>>,
    ) -> Keeper {
        let wish = |(name, image): (&String, &ImageConfig)| {
            let recipe = recipe(&image.source);
            ImageWish { name: name.clone(), recipe, rebuild: image.rebuild, keep: image.keep }
        };
        let wishes = config.images.iter().map(wish).collect();
        let images = Images::load(wishes, read(&config.state), now());
        Keeper {
            config,
            shelf,
            images: Mutex::new(images),
            running: Mutex::default(),
            changed: watch::Sender::new(()),
            workshop,
        }
    }

    fn images(&self) -> MutexGuard<'_, Images> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, JoinHandle<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what is to be done, and begins it.
    pub(in crate::provider) fn wake(self: &Arc<Self>) {
        let steps = self.images().settle(&self.shelf.used(), now());
        let mut running = self.running();
        running.retain(|_, job| !job.is_finished());
        let mut begun = false;
        for step in steps {
            let id = step.image().to_owned();
            if running.contains_key(&id) {
                continue;
            }
            begun = true;
            let keeper = Arc::clone(self);
            running.insert(id, tokio::spawn(async move { keeper.step(step).await }));
        }
        drop(running);
        if begun {
            self.write();
        }
    }

    /// Ends all that is being done. It is done again after the next start.
    pub(in crate::provider) fn stop(&self) {
        for (_, job) in self.running().drain() {
            job.abort();
        }
    }

    /// An operator wants an image made anew.
    pub(in crate::provider) fn rebuild(self: &Arc<Self>, name: &str) -> bool {
        let known = self.images().rebuild(name, now());
        self.wake();
        known
    }

    /// An operator wants no machine to boot from this build any more; nor is its file used again, here or elsewhere.
    pub(in crate::provider) fn withdraw(self: &Arc<Self>, id: &str) -> bool {
        let known = self.images().withdraw(id, now());
        if known {
            self.discard(id);
            self.write();
            self.wake();
        }
        known
    }

    /// Removes the files that an image which turned out to be bad may have been made of.
    fn discard(&self, id: &str) {
        let Some(image) = self.images().get(id).cloned() else { return };
        prune(&self.config.built, &image, None);
    }

    /// The image to boot from, as soon as there is one.
    pub(in crate::provider) async fn ready(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Image, ProviderError> {
        let mut changes = self.changed.subscribe();
        loop {
            self.wake();
            let outlook = self.images().outlook(name, now());
            match outlook {
                ImageOutlook::Ready(image) => return Ok(image),
                ImageOutlook::Coming => {}
                ImageOutlook::Failed { reason, again } => {
                    let s = again.since(now()).as_secs();
                    let why = format!("{reason}\nit is tried again in {s} s");
                    return Err(ProviderError::said(format!("get the image {name}"), why));
                }
            }
            if changes.changed().await.is_err() {
                return Err(ProviderError::said(format!("get the image {name}"), "it is over"));
            }
        }
    }

    /// All images, for people.
    pub(in crate::provider) fn views(&self) -> Vec<ImageView> {
        let images = self.images();
        let view = |image: &Image| {
            let log = self.log(&image.id);
            let told = match image.state {
                ImageState::Building => {
                    tail(&log).lines().next_back().unwrap_or_default().to_owned()
                }
                ImageState::Testing
                | ImageState::Ready
                | ImageState::Failed
                | ImageState::Withdrawn
                | ImageState::Deleting => image.reason.clone(),
            };
            let log = log.exists().then_some(log);
            let serves = images.serving(&image.name).is_some_and(|serving| serving.id == image.id);
            ImageView { image: image.clone(), serves, told, log }
        };
        images.list().iter().map(view).collect()
    }

    fn log(&self, id: &str) -> PathBuf {
        self.config.state.join("images").join(format!("{id}.log"))
    }

    /// Remembers all images. What is not written is found out anew after a restart.
    fn write(&self) {
        let written = || -> std::io::Result<()> {
            let bytes = serde_json::to_vec_pretty(self.images().list())?;
            let file = record(&self.config.state);
            std::fs::create_dir_all(&self.config.state)?;
            let new = file.with_extension("new");
            std::fs::write(&new, bytes)?;
            std::fs::rename(new, file)
        };
        if let Err(error) = written() {
            tracing::warn!(provider = self.config.provider, %error, "the list of images cannot be written");
        }
    }

    async fn step(self: Arc<Self>, step: ImageStep) {
        let provider = &self.config.provider;
        match step {
            ImageStep::Build(id) => {
                tracing::info!(provider, image = id, "an image is being built");
                let result = self.build(&id).await.map_err(|e| e.to_string());
                if let Err(error) = &result {
                    tracing::warn!(provider, image = id, error, "an image cannot be built");
                }
                self.images().built(&id, result, now());
                self.ended(&id);
            }
            ImageStep::Test(id) => {
                let result = self.test(&id).await.map_err(|e| e.to_string());
                match &result {
                    Ok(kvm) => tracing::info!(provider, image = id, kvm, "an image is ready"),
                    Err(error) => {
                        tracing::warn!(provider, image = id, error, "nothing boots from an image");
                        self.discard(&id);
                    }
                }
                self.images().tested(&id, result, now());
                self.ended(&id);
            }
            ImageStep::Delete(id) => match self.delete(&id).await {
                Ok(()) => {
                    self.images().deleted(&id);
                    self.ended(&id);
                }
                // It is wanted again at the next look.
                Err(error) => tracing::warn!(provider, image = id, %error, "an image stays"),
            },
        }
    }

    /// A step is over: whoever waits looks again, and the next step begins.
    fn ended(self: &Arc<Self>, id: &str) {
        self.write();
        // This job ends in a moment, and may be followed at once.
        self.running().remove(id);
        self.changed.send_replace(());
        self.wake();
    }

    /// Makes the image and brings it to its shelf.
    async fn build(&self, id: &str) -> Result<(), ProviderError> {
        let Some(image) = self.images().get(id).cloned() else { return Ok(()) };
        let Some(config) = self.config.images.get(&image.name) else { return Ok(()) };
        self.shelf.open().await?;
        let one_at_a_time = self.workshop.lock().await;
        let newer_than = self.newest(&image.name);
        let built = match cached(&self.config.built, &image, newer_than) {
            Some(file) => file,
            None => {
                let log = self.log(id);
                let (folder, image) = (self.config.built.as_path(), id);
                Build { config, image, folder, log: &log }.run().await?
            }
        };
        prune(&self.config.built, &image, Some(&built));
        // A shelf that hangs keeps no other provider's build waiting.
        drop(one_at_a_time);
        self.shelf.put(id, &built).await
    }

    /// When the newest image that works here was made.
    fn newest(&self, name: &str) -> Time {
        let images = self.images();
        let ready = images.list().iter();
        let ready = ready.filter(|i| i.name == name && i.state == ImageState::Ready);
        ready.map(|i| i.made).max().unwrap_or_default()
    }

    /// Boots a machine from it. Says whether it did under KVM.
    async fn test(&self, id: &str) -> Result<bool, ProviderError> {
        let Some(image) = self.images().get(id).cloned() else { return Ok(false) };
        self.shelf.prove(&image).await
    }

    async fn delete(&self, id: &str) -> Result<(), ProviderError> {
        self.shelf.open().await?;
        self.shelf.remove(id).await?;
        // Mostly it is there.
        let _ = std::fs::remove_file(self.log(id));
        if !self.is_wished(id) {
            // Mostly another one's file was used.
            let _ = std::fs::remove_file(self.config.built.join(format!("{id}.qcow2")));
        }
        Ok(())
    }

    /// Whether there will be more builds like this one. What was built for it is then good for the next one too.
    fn is_wished(&self, id: &str) -> bool {
        let Some(image) = self.images().get(id).cloned() else { return false };
        let wish = self.config.images.get(&image.name);
        wish.is_some_and(|wish| recipe(&wish.source) == image.recipe)
    }

    /// Removes images that nobody remembers, after the record was lost.
    pub(in crate::provider) async fn sweep(&self) -> Result<(), ProviderError> {
        let there = self.shelf.there().await?;
        let known: BTreeSet<String> =
            self.images().list().iter().map(|image| image.id.clone()).collect();
        for id in there.difference(&known) {
            self.shelf.remove(id).await?;
        }
        Ok(())
    }
}

fn record(state: &Path) -> PathBuf {
    state.join("images.json")
}

/// The images that were written; none when there is no list, or none that can be read.
fn read(state: &Path) -> Vec<Image> {
    let bytes = std::fs::read(record(state)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn now() -> Time {
    Time(0).after(wall())
}

/// Files of the same name and recipe that were built before, with the seconds of their builds.
fn files_of(folder: &Path, image: &Image) -> Vec<(i64, PathBuf)> {
    let begin = format!("{}-{}-", image.name, image.recipe);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let file = |path: PathBuf| {
        let name = path.file_name()?.to_str()?;
        let seconds = name.strip_prefix(&begin)?.strip_suffix(".qcow2")?.parse().ok()?;
        Some((seconds, path))
    };
    entries.flatten().filter_map(|entry| file(entry.path())).collect()
}

/// The newest of them, when it is newer than what works here already: another provider had it built, or a build was
/// finished when the server stopped.
fn cached(folder: &Path, image: &Image, newer_than: Time) -> Option<PathBuf> {
    let newest = files_of(folder, image).into_iter().max()?;
    (newest.0.saturating_mul(1_000_000) > newer_than.0).then_some(newest.1)
}

/// Removes all of them but the newest, or all.
fn prune(folder: &Path, image: &Image, but: Option<&Path>) {
    for (_, file) in files_of(folder, image) {
        if Some(file.as_path()) != but {
            // It is tried again after the next build.
            let _ = std::fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Work;
    use crate::provider::image::ImageSource;
    use std::future::{pending, ready};
    use std::time::Duration;

    /// A shelf that takes everything, or hangs while it does.
    #[derive(Debug)]
    struct FakeShelf {
        hangs: bool,
        puts: watch::Sender<u32>,
    }

    impl Shelf for FakeShelf {
        fn used(&self) -> BTreeSet<String> {
            BTreeSet::new()
        }

        fn open(&self) -> Work<'_, Result<(), ProviderError>> {
            Box::pin(ready(Ok(())))
        }

        fn put<'a>(&'a self, _id: &'a str, _file: &'a Path) -> Work<'a, Result<(), ProviderError>> {
            self.puts.send_modify(|puts| *puts += 1);
            if self.hangs { Box::pin(pending()) } else { Box::pin(ready(Ok(()))) }
        }

        fn prove<'a>(&'a self, _image: &'a Image) -> Work<'a, Result<bool, ProviderError>> {
            Box::pin(ready(Ok(false)))
        }

        fn remove<'a>(&'a self, _id: &'a str) -> Work<'a, Result<(), ProviderError>> {
            Box::pin(ready(Ok(())))
        }

        fn there(&self) -> Work<'_, Result<BTreeSet<String>, ProviderError>> {
            Box::pin(ready(Ok(BTreeSet::new())))
        }
    }

    #[tokio::test]
    async fn a_provider_that_hangs_keeps_no_image_from_another() {
        let folder = tempfile::tempdir().unwrap();
        let source = ImageSource::File(folder.path().join("none"));
        let built = folder.path().join("built");
        std::fs::create_dir(&built).unwrap();
        std::fs::write(built.join(format!("d-{}-7.qcow2", recipe(&source))), "").unwrap();
        let build_limit = Duration::from_secs(60);
        let image = ImageConfig { source, rebuild: None, keep: 1, build_limit };
        let workshop = Arc::default();
        let keeper = |name: &str, hangs: bool| {
            let (puts, seen) = watch::channel(0);
            let config = KeeperConfig {
                provider: name.into(),
                state: folder.path().join(name),
                built: built.clone(),
                images: [("d".to_owned(), image.clone())].into(),
            };
            let shelf = Arc::new(FakeShelf { hangs, puts });
            (Arc::new(Keeper::new(config, shelf, Arc::clone(&workshop))), seen)
        };
        let (silent, mut puts) = keeper("silent", true);
        silent.wake();
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, puts.wait_for(|n| *n == 1)).await.unwrap().unwrap();
        let (good, _puts) = keeper("good", false);
        let image = tokio::time::timeout(limit, good.ready("d")).await.unwrap().unwrap();
        assert_eq!(image.state, ImageState::Ready);
        silent.stop();
    }

    #[test]
    fn what_was_built_is_used_again_and_one_of_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut images = Images::load(
            vec![ImageWish { name: "d".into(), recipe: "r".into(), rebuild: None, keep: 1 }],
            Vec::new(),
            Time(0),
        );
        images.settle(&BTreeSet::new(), Time(9_000_000));
        let image = images.list()[0].clone();
        assert_eq!(cached(folder.path(), &image, Time(0)), None);
        for name in ["d-r-5.qcow2", "d-r-7.qcow2", "d-other-9.qcow2", ".d-r-8.work"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let newest = folder.path().join("d-r-7.qcow2");
        assert_eq!(cached(folder.path(), &image, Time(0)), Some(newest.clone()));
        assert_eq!(cached(folder.path(), &image, Time(7_000_000)), None);
        prune(folder.path(), &image, Some(&newest));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
