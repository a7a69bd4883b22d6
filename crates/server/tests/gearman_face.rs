//! The broker from within the process, beside peers from outside.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gearman_support;

use gearman_support::{LIMIT, Served, wait_for};
use std::time::Duration;
use toci_core::broker::{Precedence, WorkKind};
use toci_server::broker::{FaceSubmit, SubmitError, TaskEvent};

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("nothing within the limit")
}

fn job(function: &str, payload: &str) -> FaceSubmit {
    FaceSubmit {
        function: function.into(),
        unique: Vec::new(),
        payload: payload.into(),
        precedence: Precedence::Normal,
    }
}

#[tokio::test]
async fn a_face_serves_outside_clients_and_hears_when_they_leave() {
    let served = Served::start(|_| {});
    let broker = served.handle();
    let face = broker.face("lockenv").await.unwrap();
    face.register(b"lockenv").await.unwrap();
    let mut client = served.peer();
    let handle = client.submit("lockenv", b"please");
    within(face.queued()).await;
    let view = broker.function(b"lockenv").await.unwrap();
    assert_eq!((view.queued, view.outside_workers, view.inside_workers), (1, 0, 1));
    let taken = face.grab().await.unwrap().expect("a job waits");
    assert_eq!(
        (taken.handle.as_slice(), taken.payload.as_slice()),
        (handle.as_bytes(), &b"please"[..])
    );
    assert!(face.grab().await.unwrap().is_none());
    face.status(&taken.handle, 1, 3).await.unwrap();
    face.data(&taken.handle, b"part").await.unwrap();
    face.complete(&taken.handle, b"yours").await.unwrap();
    assert_eq!(client.hear(), format!("STATUS {handle} 1/3"));
    assert_eq!(client.hear(), format!("Data {handle} part"));
    assert_eq!(client.hear(), format!("Complete {handle} yours"));
    let ended = tokio::time::timeout(Duration::from_millis(50), taken.abandoned()).await;
    assert!(ended.is_err(), "an ended job is not abandoned");

    client.submit("lockenv", b"again");
    within(face.queued()).await;
    let taken = face.grab().await.unwrap().expect("a job waits");
    drop(client);
    within(taken.abandoned()).await;
    assert!(taken.is_abandoned());
    assert_eq!(broker.figures().await.unwrap().total, 0);
}

#[tokio::test]
async fn a_face_submits_to_outside_workers_and_hears_their_loss() {
    let served = Served::start(|_| {});
    let face = served.handle().face("caller").await.unwrap();
    let mut task = within(face.submit(job("callback", "te json"))).await.unwrap();
    let mut worker = served.peer();
    worker.can_do("callback");
    worker.grab();
    let heard = worker.hear();
    let handle = String::from_utf8(task.handle.clone()).unwrap();
    assert!(heard.starts_with(&format!("ASSIGN {handle} callback")), "{heard}");
    worker.done(WorkKind::Warning, &handle, b"careful");
    assert_eq!(within(task.next()).await, Some(TaskEvent::Warning(b"careful".to_vec())));
    drop(worker);
    assert_eq!(within(task.end()).await, Some(TaskEvent::Fail));
    assert_eq!(within(task.next()).await, None);

    let refused = within(face.submit(job("", ""))).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Refused { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_flood_of_data_does_not_lose_the_end() {
    let served = Served::start(|_| {});
    let face = served.handle().face("caller").await.unwrap();
    let mut task = within(face.submit(job("f", ""))).await.unwrap();
    let mut worker = served.peer();
    worker.can_do("f");
    worker.grab();
    worker.hear();
    let handle = String::from_utf8(task.handle.clone()).unwrap();
    for _ in 0..1000 {
        worker.done(WorkKind::Data, &handle, b"x");
    }
    worker.done(WorkKind::Complete, &handle, b"end");
    assert_eq!(within(task.end()).await, Some(TaskEvent::Complete(b"end".to_vec())));
}

#[tokio::test]
async fn a_dropped_face_is_a_lost_connection() {
    let served = Served::start(|_| {});
    let face = served.handle().face("short").await.unwrap();
    face.register(b"f").await.unwrap();
    let mut client = served.peer();
    let handle = client.submit("f", b"");
    face.grab().await.unwrap().expect("a job waits");
    drop(face);
    assert_eq!(client.hear(), format!("Fail {handle}"));
    let list = wait_for("no worker", || client.list("status"), |s| s == &["f\t0\t0\t0"]);
    assert_eq!(list.len(), 1);
}

#[tokio::test]
async fn a_cancelled_grab_loses_no_job() {
    let served = Served::start(|_| {});
    let face = served.handle().face("impatient").await.unwrap();
    face.register(b"f").await.unwrap();
    let mut client = served.peer();
    for n in 0..200_u32 {
        let handle = client.submit("f", b"");
        // Cancelled before, while or after the broker's thread answers.
        let patience = Duration::from_micros(u64::from(n));
        let mut job =
            tokio::time::timeout(patience, face.grab()).await.ok().and_then(Result::unwrap);
        while job.is_none() {
            job = within(face.grab()).await.unwrap();
        }
        face.complete(&job.unwrap().handle, b"").await.unwrap();
        assert_eq!(client.hear(), format!("Complete {handle}"));
    }
}

#[tokio::test]
async fn outside_workers_and_the_face_share_a_function() {
    let served = Served::start(|_| {});
    let face = served.handle().face("lockenv").await.unwrap();
    face.register(b"lockenv").await.unwrap();
    let (mut outside, mut client) = (served.peer(), served.peer());
    outside.can_do("lockenv");
    outside.say(toci_core::broker::Request::PreSleep);
    let view = wait_for("both", || client.list("status"), |s| s == &["lockenv\t0\t0\t2"]);
    assert_eq!(view.len(), 1);
    let handle = client.submit("lockenv", b"x");
    assert_eq!(outside.hear(), "NOOP", "the face does not keep outside workers asleep");
    outside.grab();
    assert!(outside.hear().starts_with(&format!("ASSIGN {handle}")));
    within(face.queued()).await;
    assert!(face.grab().await.unwrap().is_none(), "it was told, but somebody was quicker");
}
