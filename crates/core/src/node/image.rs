//! Images of nodes: what is built, tested, kept and deleted when. [`Images`] is the whole of it as one pure value; who
//! owns one builds, tests and deletes what it says and tells it how that ended.
//!
//! ```text
//!   Building ──built──▶ Testing ──booted and answered──▶ Ready ──a newer one is ready──▶ Deleting ──▶ (gone)
//!       │ failed           │ failed                        │ not wished for any more       ▲
//!       └──────────────────┴────────▶ Failed ──────────────┴──the next try───────────────┘
//! ```
//!
//! * An image is never replaced by one that was not tested; the old one serves until then.
//! * One that a machine's disk lies on is not deleted.
//! * After a failure there is a pause, which doubles, and only then the next try.

use crate::time::Time;
use core::time::Duration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How long after a first failed build no other one of the image is begun; doubles with each further failure ...
pub const IMAGE_PAUSE_MIN: Duration = Duration::from_secs(60);
/// ... up to this.
pub const IMAGE_PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Longest reason, or last lines of a build, that are kept, in bytes.
pub const IMAGE_REASON_MAX_BYTES: usize = 2_048;

/// What an image is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// It is being made.
    Building,
    /// It is made; whether a machine boots from it is being found out.
    Testing,
    /// Machines boot from it.
    Ready,
    /// It could not be made, or nothing boots from it.
    Failed,
    /// Not needed any more.
    Deleting,
}

/// What an operator wants to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageWish {
    /// Its name.
    pub name: String,
    /// Hash of all that it is made of.
    pub recipe: String,
    /// How old it may get; none: as old as it likes.
    pub rebuild: Option<Duration>,
}

/// One build of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `<name>-<recipe>-<seconds>`.
    pub id: String,
    /// What labels call it.
    pub name: String,
    /// Hash of what it is made of.
    pub recipe: String,
    /// When its build began.
    pub made: Time,
    /// What it is doing.
    pub state: ImageState,
    /// Since when.
    pub since: Time,
    /// Builds that failed in a row, before this one or with it.
    pub failures: u32,
    /// Why it failed.
    pub reason: String,
    /// It was seen to boot under KVM.
    pub kvm: bool,
}

/// What is to be done with an image now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageStep {
    /// Make it.
    Build(String),
    /// Boot it and see.
    Test(String),
    /// Remove all that is there of it.
    Delete(String),
}

impl ImageStep {
    /// Of which image.
    #[must_use]
    pub fn image(&self) -> &str {
        match self {
            ImageStep::Build(id) | ImageStep::Test(id) | ImageStep::Delete(id) => id,
        }
    }
}

/// What somebody who wants to boot a machine may expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// This is the image.
    Ready(Image),
    /// It is being made or tested, or is about to be.
    Coming,
    /// It failed, and is left alone for now.
    Failed {
        /// Why.
        reason: String,
        /// When it is tried again.
        again: Time,
    },
}

/// All images of a provider.
#[derive(Clone, Debug, Default)]
pub struct Images {
    wishes: Vec<ImageWish>,
    list: Vec<Image>,
}

impl Images {
    /// As they were when they were last written; builds that were going on are lost.
    #[must_use]
    pub fn load(wishes: Vec<ImageWish>, mut list: Vec<Image>, now: Time) -> Images {
        for image in &mut list {
            let wished = wishes.iter().any(|w| w.name == image.name && w.recipe == image.recipe);
            let lost = match image.state {
                ImageState::Building => true,
                ImageState::Testing => !wished,
                ImageState::Ready | ImageState::Failed | ImageState::Deleting => false,
            };
            if lost {
                (image.state, image.since) = (ImageState::Deleting, now);
            }
        }
        Images { wishes, list }
    }

    /// All of them, in the order of their builds.
    #[must_use]
    pub fn list(&self) -> &[Image] {
        &self.list
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Image> {
        self.list.iter().find(|image| image.id == id)
    }

    /// Brings the list up to date and says what is to be done now; asking again says the same again. `used` are the
    /// images that disks of machines lie on.
    pub fn settle(&mut self, used: &BTreeSet<String>, now: Time) -> Vec<ImageStep> {
        for wish in self.wishes.clone() {
            if self.is_due(&wish, now) {
                self.begin(&wish, now);
            }
        }
        let superfluous: Vec<String> = self
            .list
            .iter()
            .filter(|image| self.is_superfluous(image) && !used.contains(&image.id))
            .map(|image| image.id.clone())
            .collect();
        for id in superfluous {
            self.set(&id, ImageState::Deleting, now);
        }
        let step = |image: &Image| match image.state {
            ImageState::Building => Some(ImageStep::Build(image.id.clone())),
            ImageState::Testing => Some(ImageStep::Test(image.id.clone())),
            ImageState::Deleting => Some(ImageStep::Delete(image.id.clone())),
            ImageState::Ready | ImageState::Failed => None,
        };
        self.list.iter().filter_map(step).collect()
    }

    /// How a build ended.
    pub fn built(&mut self, id: &str, result: Result<(), String>, now: Time) {
        if self.get(id).is_none_or(|image| image.state != ImageState::Building) {
            return;
        }
        match result {
            Ok(()) => self.set(id, ImageState::Testing, now),
            Err(reason) => self.failed(id, &reason, now),
        }
    }

    /// How a test ended; well: whether it booted under KVM.
    pub fn tested(&mut self, id: &str, result: Result<bool, String>, now: Time) {
        if self.get(id).is_none_or(|image| image.state != ImageState::Testing) {
            return;
        }
        match result {
            Ok(kvm) => {
                self.set(id, ImageState::Ready, now);
                if let Some(image) = self.list.iter_mut().find(|image| image.id == id) {
                    (image.kvm, image.failures) = (kvm, 0);
                }
            }
            Err(reason) => self.failed(id, &reason, now),
        }
    }

    /// Nothing is left of it.
    pub fn deleted(&mut self, id: &str) {
        self.list.retain(|image| image.id != id || image.state != ImageState::Deleting);
    }

    /// An operator wants the image of this name made anew, now. Whether there is such an image.
    pub fn rebuild(&mut self, name: &str, now: Time) -> bool {
        let Some(wish) = self.wishes.iter().find(|wish| wish.name == name).cloned() else {
            return false;
        };
        if !self.is_pending(name) {
            self.begin(&wish, now);
        }
        true
    }

    /// What to boot a machine from, or what to wait for.
    #[must_use]
    pub fn outlook(&self, name: &str, now: Time) -> Outlook {
        if let Some(image) = self.current(name) {
            return Outlook::Ready(image.clone());
        }
        let failed = self.last_failure(name).filter(|_| !self.is_pending(name));
        match failed {
            Some(image) if again(image) > now => {
                Outlook::Failed { reason: image.reason.clone(), again: again(image) }
            }
            Some(_) | None => Outlook::Coming,
        }
    }

    /// The newest one that works.
    fn current(&self, name: &str) -> Option<&Image> {
        let ready = self.list.iter().filter(|i| i.name == name && i.state == ImageState::Ready);
        ready.max_by_key(|image| image.made)
    }

    fn of<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a Image> + use<'a, 'n> {
        self.list.iter().filter(move |image| image.name == name)
    }

    fn is_pending(&self, name: &str) -> bool {
        self.of(name).any(|i| matches!(i.state, ImageState::Building | ImageState::Testing))
    }

    fn last_failure(&self, name: &str) -> Option<&Image> {
        let failed = self.list.iter().filter(|i| i.name == name && i.state == ImageState::Failed);
        failed.max_by_key(|image| image.made)
    }

    fn is_due(&self, wish: &ImageWish, now: Time) -> bool {
        let fits = |image: &&Image| image.recipe == wish.recipe;
        let fresh = self
            .current(&wish.name)
            .filter(fits)
            .is_some_and(|image| wish.rebuild.is_none_or(|age| now < image.made.after(age)));
        let paused = self.last_failure(&wish.name).filter(fits).is_some_and(|i| again(i) > now);
        !fresh && !paused && !self.is_pending(&wish.name)
    }

    fn is_superfluous(&self, image: &Image) -> bool {
        let wished = self.wishes.iter().any(|wish| wish.name == image.name);
        match image.state {
            ImageState::Ready => {
                !wished || self.current(&image.name).is_some_and(|current| current.id != image.id)
            }
            // A failure is told until there is something newer.
            ImageState::Failed => !wished || self.of(&image.name).any(|i| i.made > image.made),
            ImageState::Building | ImageState::Testing | ImageState::Deleting => false,
        }
    }

    fn begin(&mut self, wish: &ImageWish, now: Time) {
        let same = |image: &&Image| image.recipe == wish.recipe;
        let failures = self.last_failure(&wish.name).filter(same).map_or(0, |i| i.failures);
        let mut seconds = now.0 / 1_000_000;
        let id = |seconds: i64| format!("{}-{}-{seconds}", wish.name, wish.recipe);
        while self.get(&id(seconds)).is_some() {
            seconds += 1;
        }
        self.list.push(Image {
            id: id(seconds),
            name: wish.name.clone(),
            recipe: wish.recipe.clone(),
            made: now,
            state: ImageState::Building,
            since: now,
            failures,
            reason: String::new(),
            kvm: false,
        });
    }

    fn set(&mut self, id: &str, state: ImageState, now: Time) {
        if let Some(image) = self.list.iter_mut().find(|image| image.id == id) {
            (image.state, image.since) = (state, now);
        }
    }

    fn failed(&mut self, id: &str, reason: &str, now: Time) {
        self.set(id, ImageState::Failed, now);
        if let Some(image) = self.list.iter_mut().find(|image| image.id == id) {
            image.failures += 1;
            // The end of what was said is what matters.
            let mut from = reason.len().saturating_sub(IMAGE_REASON_MAX_BYTES);
            while !reason.is_char_boundary(from) {
                from += 1;
            }
            reason[from..].clone_into(&mut image.reason);
        }
    }
}

/// When a failed image is tried again.
fn again(failed: &Image) -> Time {
    let doublings = failed.failures.saturating_sub(1).min(20);
    failed.since.after(IMAGE_PAUSE_MIN.saturating_mul(1 << doublings).min(IMAGE_PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(seconds: i64) -> Time {
        Time(seconds * 1_000_000)
    }

    fn wish(recipe: &str) -> ImageWish {
        ImageWish { name: "debian".into(), recipe: recipe.into(), rebuild: Some(DAY) }
    }

    fn nobody() -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Builds and tests what is wanted, well.
    fn make(images: &mut Images, now: Time) -> String {
        let steps = images.settle(&nobody(), now);
        let [ImageStep::Build(id)] = &steps[..] else { panic!("{steps:?}") };
        images.built(id, Ok(()), now);
        assert_eq!(images.settle(&nobody(), now), [ImageStep::Test(id.clone())]);
        images.tested(id, Ok(false), now);
        id.clone()
    }

    #[test]
    fn it_is_built_once_and_anew_when_it_is_old() {
        let mut images = Images::load(vec![wish("r1")], Vec::new(), at(0));
        assert_eq!(images.outlook("debian", at(5)), Outlook::Coming);
        let first = make(&mut images, at(5));
        assert_eq!(first, "debian-r1-5");
        assert_eq!(images.settle(&nobody(), at(100)), []);
        // A day later the next one is built; the first serves until it has been tested, and goes when no disk needs it.
        let later = at(5 + 86_400);
        let steps = images.settle(&nobody(), later);
        let [ImageStep::Build(second)] = &steps[..] else { panic!("{steps:?}") };
        images.built(second, Ok(()), later);
        let Outlook::Ready(now) = images.outlook("debian", later) else { panic!() };
        assert_eq!(now.id, first);
        images.tested(second, Ok(true), later);
        let Outlook::Ready(now) = images.outlook("debian", later) else { panic!() };
        assert!(now.id == *second && now.kvm);
        assert_eq!(images.settle(&BTreeSet::from([first.clone()]), later), []);
        assert_eq!(images.settle(&nobody(), later), [ImageStep::Delete(first.clone())]);
        images.deleted(&first);
        assert_eq!(images.list().len(), 1);
    }

    #[test]
    fn a_failure_pauses_and_the_pause_doubles() {
        let mut images = Images::load(vec![wish("r1")], Vec::new(), at(0));
        for (begin, pause) in [(0, 60), (1_000, 120), (2_000, 240)] {
            let id = format!("debian-r1-{begin}");
            let steps = images.settle(&nobody(), at(begin));
            assert_eq!(steps.last(), Some(&ImageStep::Build(id.clone())), "{steps:?}");
            for step in &steps {
                if let ImageStep::Delete(id) = step {
                    images.deleted(id);
                }
            }
            images.built(&id, Err("E: no space".into()), at(begin));
            let failed = Outlook::Failed { reason: "E: no space".into(), again: at(begin + pause) };
            assert_eq!(images.outlook("debian", at(begin + pause - 1)), failed);
            assert_eq!(images.settle(&nobody(), at(begin + pause - 1)), []);
        }
        // By hand it goes at once, and a good one ends the row.
        assert!(images.rebuild("debian", at(2_001)) && !images.rebuild("fedora", at(2_001)));
        assert_eq!(images.outlook("debian", at(2_001)), Outlook::Coming);
        let id = "debian-r1-2001";
        images.built(id, Ok(()), at(2_002));
        images.tested(id, Ok(false), at(2_003));
        assert_eq!(images.get(id).map(|i| i.failures), Some(0));
        assert_eq!(
            images.settle(&nobody(), at(2_004)),
            [ImageStep::Delete("debian-r1-2000".into())]
        );
    }

    #[test]
    fn another_recipe_replaces_it_and_a_name_nobody_wants_goes() {
        let mut images = Images::load(vec![wish("r1")], Vec::new(), at(0));
        let first = make(&mut images, at(1));
        let mut images = Images::load(vec![wish("r2")], images.list().to_vec(), at(2));
        let second = make(&mut images, at(3));
        assert_eq!(images.settle(&nobody(), at(4)), [ImageStep::Delete(first)]);
        let mut images = Images::load(Vec::new(), images.list().to_vec(), at(5));
        assert!(images.settle(&nobody(), at(6)).contains(&ImageStep::Delete(second)));
    }

    #[test]
    fn after_a_restart_a_build_is_begun_anew_and_a_test_repeated() {
        let mut images = Images::load(vec![wish("r1")], Vec::new(), at(0));
        images.settle(&nobody(), at(1));
        let mut again = Images::load(vec![wish("r1")], images.list().to_vec(), at(1));
        // In the same second: another name all the same.
        assert_eq!(
            again.settle(&nobody(), at(1)),
            [ImageStep::Delete("debian-r1-1".into()), ImageStep::Build("debian-r1-2".into())]
        );
        images.built("debian-r1-1", Ok(()), at(2));
        let mut again = Images::load(vec![wish("r1")], images.list().to_vec(), at(3));
        assert_eq!(again.settle(&nobody(), at(3)), [ImageStep::Test("debian-r1-1".into())]);
    }

    #[test]
    fn a_long_reason_keeps_its_end() {
        let mut images = Images::load(vec![wish("r1")], Vec::new(), at(0));
        images.settle(&nobody(), at(1));
        images.built("debian-r1-1", Err(format!("{}the end", "ä".repeat(4_000))), at(2));
        let reason = &images.list()[0].reason;
        assert!(reason.len() <= IMAGE_REASON_MAX_BYTES && reason.ends_with("the end"));
    }
}
