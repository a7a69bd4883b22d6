//! Images of nodes: what is built, tested, kept and deleted when. [`Images`] is the whole of it as one pure value; who
//! owns one builds, tests and deletes what it says and tells it how that ended.
//!
//! ```text
//!   Building ──built──▶ Testing ──booted and answered──▶ Ready ──enough newer ones are ready──▶ Deleting ──▶ (gone)
//!       │ failed           │ failed                       │ │ not wished for any more               ▲ ▲
//!       └──────────────────┴────────▶ Failed ─────────────┼─┴──the next try───────────────────────┘ │
//!                                                         └─an operator─▶ Withdrawn ──no disk on it─┘
//! ```
//!
//! * An image is never replaced by one that was not tested; the old one serves until then.
//! * The newest of the wished recipe serves. So many as an operator says are kept, for the day on which the newest one
//!   turns out to be bad: it is withdrawn, or its recipe is taken back, and the one before it serves at once.
//! * One that a machine's disk lies on is not deleted.
//! * After a failure there is a pause, which doubles, and only then the next try.

use crate::time::Time;
use core::cmp::Reverse;
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
    /// No machine is to boot from it any more; disks may still lie on it.
    Withdrawn,
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
    /// So many that work are kept, the one that serves among them; at least one is.
    pub keep: usize,
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
                ImageState::Ready
                | ImageState::Failed
                | ImageState::Withdrawn
                | ImageState::Deleting => false,
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
            ImageState::Ready | ImageState::Failed | ImageState::Withdrawn => None,
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

    /// An operator wants no machine to boot from this one any more. Whether there is such a one that works.
    pub fn withdraw(&mut self, id: &str, now: Time) -> bool {
        let works = self.get(id).is_some_and(|image| image.state == ImageState::Ready);
        if works {
            self.set(id, ImageState::Withdrawn, now);
        }
        works
    }

    /// What to boot a machine from, or what to wait for.
    #[must_use]
    pub fn outlook(&self, name: &str, now: Time) -> Outlook {
        if let Some(image) = self.serving(name) {
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

    /// The one that serves: the newest that works of the wished recipe, or of any.
    #[must_use]
    pub fn serving(&self, name: &str) -> Option<&Image> {
        self.ready(name).into_iter().next()
    }

    /// All that work, the one that serves first, then the newest.
    fn ready(&self, name: &str) -> Vec<&Image> {
        let recipe = self.wishes.iter().find(|wish| wish.name == name).map(|wish| &wish.recipe);
        let mut ready: Vec<&Image> =
            self.of(name).filter(|i| i.state == ImageState::Ready).collect();
        ready.sort_by_key(|image| Reverse(image.made));
        // The sort is stable: this moves one to the front.
        let serves = ready.iter().position(|image| Some(&image.recipe) == recipe).unwrap_or(0);
        if let Some(first) = ready.get_mut(..=serves) {
            first.rotate_right(1);
        }
        ready
    }

    fn of<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a Image> + use<'a, 'n> {
        self.list.iter().filter(move |image| image.name == name)
    }

    fn is_pending(&self, name: &str) -> bool {
        self.of(name).any(|i| matches!(i.state, ImageState::Building | ImageState::Testing))
    }

    fn last_failure(&self, name: &str) -> Option<&Image> {
        let failed = self.of(name).filter(|image| image.state == ImageState::Failed);
        failed.max_by_key(|image| image.made)
    }

    fn is_due(&self, wish: &ImageWish, now: Time) -> bool {
        let fits = |image: &&Image| image.recipe == wish.recipe;
        let fresh = self
            .serving(&wish.name)
            .filter(fits)
            .is_some_and(|image| wish.rebuild.is_none_or(|age| now < image.made.after(age)));
        let paused = self.last_failure(&wish.name).filter(fits).is_some_and(|i| again(i) > now);
        !fresh && !paused && !self.is_pending(&wish.name)
    }

    fn is_superfluous(&self, image: &Image) -> bool {
        let wish = self.wishes.iter().find(|wish| wish.name == image.name);
        let keep = wish.map_or(0, |wish| wish.keep.max(1));
        match image.state {
            ImageState::Ready => {
                self.ready(&image.name).into_iter().skip(keep).any(|i| i.id == image.id)
            }
            // A failure is told until there is something newer.
            ImageState::Failed => {
                wish.is_none() || self.of(&image.name).any(|i| i.made > image.made)
            }
            ImageState::Withdrawn => true,
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
