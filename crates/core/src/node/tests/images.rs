//! Images of nodes, from their first build to the last.

use crate::node::{
    IMAGE_REASON_MAX_BYTES, Image, ImageOutlook as Outlook, ImageState, ImageStep, ImageWish,
    Images,
};
use crate::time::Time;
use core::time::Duration;
use proptest::prelude::*;
use std::collections::BTreeSet;

const DAY: Duration = Duration::from_secs(86_400);

fn at(seconds: i64) -> Time {
    Time(seconds * 1_000_000)
}

fn wish(recipe: &str) -> ImageWish {
    ImageWish { name: "debian".into(), recipe: recipe.into(), rebuild: Some(DAY), keep: 1 }
}

/// As [`wish`], and two of it are kept.
fn wish_two(recipe: &str) -> ImageWish {
    ImageWish { keep: 2, ..wish(recipe) }
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
    assert_eq!(images.settle(&nobody(), at(2_004)), [ImageStep::Delete("debian-r1-2000".into())]);
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

fn serving(images: &Images) -> Option<&str> {
    images.serving("debian").map(|image| &*image.id)
}

#[test]
fn the_one_before_is_kept_and_serves_again_when_the_newest_is_withdrawn() {
    let mut images = Images::load(vec![wish_two("r1")], Vec::new(), at(0));
    let first = make(&mut images, at(1));
    let second = make(&mut images, at(100_000));
    assert_eq!(images.settle(&nobody(), at(100_001)), []);
    let third = make(&mut images, at(200_000));
    assert_eq!(images.settle(&nobody(), at(200_001)), [ImageStep::Delete(first.clone())]);
    images.deleted(&first);
    assert_eq!(serving(&images), Some(&*third));

    // It goes when no disk lies on it; meanwhile the one before it serves.
    assert!(images.withdraw(&third, at(200_002)) && !images.withdraw(&third, at(200_002)));
    assert_eq!(serving(&images), Some(&*second));
    let steps = images.settle(&BTreeSet::from([third.clone()]), at(200_003));
    // What serves is older than it may get.
    assert_eq!(steps, [ImageStep::Build("debian-r1-200003".into())]);
    let steps = images.settle(&nobody(), at(200_004));
    assert!(steps.contains(&ImageStep::Delete(third)), "{steps:?}");
    assert!(!images.withdraw("debian-r1-200003", at(200_005)), "it is not made yet");
}

#[test]
fn a_recipe_that_is_taken_back_serves_at_once() {
    let mut images = Images::load(vec![wish_two("r1")], Vec::new(), at(0));
    let first = make(&mut images, at(1));
    let mut images = Images::load(vec![wish_two("r2")], images.list().to_vec(), at(2));
    assert_eq!(serving(&images), Some(&*first));
    let second = make(&mut images, at(3));
    assert_eq!(serving(&images), Some(&*second));
    let mut images = Images::load(vec![wish_two("r1")], images.list().to_vec(), at(4));
    assert_eq!(serving(&images), Some(&*first));
    assert_eq!(images.settle(&nobody(), at(5)), []);
    // Room for one only: the wished one stays, though it is older.
    let mut images = Images::load(vec![wish("r1")], images.list().to_vec(), at(6));
    assert_eq!(images.settle(&nobody(), at(7)), [ImageStep::Delete(second)]);
}

#[test]
fn without_another_one_a_withdrawn_image_is_made_anew() {
    let mut images = Images::load(vec![wish_two("r1")], Vec::new(), at(0));
    let first = make(&mut images, at(1));
    assert!(images.withdraw(&first, at(2)));
    assert_eq!(images.outlook("debian", at(2)), Outlook::Coming);
    let steps = images.settle(&nobody(), at(3));
    assert_eq!(steps, [ImageStep::Delete(first), ImageStep::Build("debian-r1-3".into())]);
}

/// What may happen to images.
#[derive(Clone, Debug)]
enum Event {
    Wait(i64),
    /// The first one that is being built or tried: how that ended.
    Ended(bool),
    /// The first that is being deleted is gone.
    Deleted,
    Withdraw(usize),
    Rebuild,
    /// The server starts again, with this recipe, or without the image.
    Restart(Option<(&'static str, usize)>),
    /// A machine is made of the one that serves, or all are gone.
    Use(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => prop_oneof![1..100_i64, 80_000..200_000_i64].prop_map(Event::Wait),
        5 => prop::bool::weighted(0.8).prop_map(Event::Ended),
        2 => Just(Event::Deleted),
        1 => (0..6_usize).prop_map(Event::Withdraw),
        1 => Just(Event::Rebuild),
        1 => prop::option::weighted(0.9, (prop::sample::select(vec!["r1", "r2"]), 0..4_usize))
            .prop_map(Event::Restart),
        2 => prop::bool::weighted(0.7).prop_map(Event::Use),
    ]
}

fn first(images: &Images, is: impl Fn(ImageState) -> bool) -> Option<Image> {
    images.list().iter().find(|image| is(image.state)).cloned()
}

proptest! {
    #[test]
    fn whatever_happens_what_serves_stays_and_enough_is_kept(
        events in prop::collection::vec(event(), 1..60)
    ) {
        let mut wish = Some(wish_two("r1"));
        let mut images = Images::load(wish.iter().cloned().collect(), Vec::new(), at(0));
        let (mut now, mut used) = (1, BTreeSet::new());
        for event in events {
            match event {
                Event::Wait(seconds) => now += seconds,
                Event::Ended(well) => {
                    let result = || if well { Ok(()) } else { Err("no".to_owned()) };
                    if let Some(image) = first(&images, |s| s == ImageState::Building) {
                        images.built(&image.id, result(), at(now));
                    } else if let Some(image) = first(&images, |s| s == ImageState::Testing) {
                        images.tested(&image.id, result().map(|()| true), at(now));
                    }
                }
                Event::Deleted => {
                    if let Some(image) = first(&images, |s| s == ImageState::Deleting) {
                        images.deleted(&image.id);
                    }
                }
                Event::Withdraw(number) => {
                    if let Some(image) = images.list().get(number).cloned() {
                        images.withdraw(&image.id, at(now));
                    }
                }
                Event::Rebuild => drop(images.rebuild("debian", at(now))),
                Event::Restart(recipe) => {
                    wish = recipe.map(|(recipe, keep)| ImageWish { keep, ..self::wish(recipe) });
                    let wishes = wish.iter().cloned().collect();
                    images = Images::load(wishes, images.list().to_vec(), at(now));
                }
                Event::Use(true) => used.extend(serving(&images).map(str::to_owned)),
                Event::Use(false) => used.clear(),
            }
            let (before, served) = (images.clone(), serving(&images).map(str::to_owned));
            let steps = images.settle(&used, at(now));
            prop_assert_eq!(images.clone().settle(&used, at(now)), steps);
            for image in images.list().iter().filter(|i| i.state == ImageState::Deleting) {
                let was = before.get(&image.id).map(|image| image.state);
                prop_assert!(was == Some(ImageState::Deleting) || !used.contains(&image.id));
            }
            let count = |is: &dyn Fn(&Image) -> bool| images.list().iter().filter(|i| is(i)).count();
            let pending = count(&|i| matches!(i.state, ImageState::Building | ImageState::Testing));
            let spare = count(&|i| i.state == ImageState::Ready && !used.contains(&i.id));
            prop_assert!(pending <= 1);
            match &wish {
                Some(wish) => {
                    prop_assert!(spare <= wish.keep.max(1));
                    prop_assert!(served.is_none() || serving(&images) == served.as_deref());
                    let failed = matches!(images.outlook("debian", at(now)), Outlook::Failed { .. });
                    prop_assert!(serving(&images).is_some() || pending == 1 || failed);
                }
                None => prop_assert_eq!(spare, 0),
            }
        }
    }
}
