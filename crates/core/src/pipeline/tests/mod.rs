//! Tests of the whole gate: scenarios by hand, a model by chance, and its figures.

mod build;
mod chaos;
mod explain;
mod model;
mod scenarios;
mod script;
mod words;
mod world;

use crate::event::{Change, EventKind, TriggerEvent};
use crate::layout::Pipeline;

/// A pipeline that listens to comments on one change, that change, and such a comment.
pub(super) fn a_pipeline() -> (Pipeline, TriggerEvent, Change) {
    let layout = build::layout("pipeline gate dependent\nproject a gate=unit");
    let mut pipeline = layout.pipelines[0].clone();
    pipeline.triggers[0].approvals.clear();
    let mut world = world::World::new(layout);
    world.change(1, "a", "master", Vec::new());
    let event = world.about(EventKind::CommentAdded, 1);
    (pipeline, event, world.changes[&1].clone())
}
