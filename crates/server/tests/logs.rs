//! Logs of a run: packed, archived, and read over HTTP as a browser and as curl would.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as expected")]

mod common;
mod s3_store;

use common::{LIMIT, World};
use s3_store::S3Store;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toci_core::event::{ChangeKey, SourceName};
use toci_core::id::{ItemId, RunId};
use toci_core::layout::{PipelineName, Precedence};
use toci_core::log::LogPath;
use toci_core::pipeline::{RunContext, RunResult, RunWish, Subject};
use toci_core::time::Time;
use toci_edge::archive::Found;
use toci_edge::node::console::Mask;
use toci_server::tasks::log::{Archived, Finished, LogStore};
use toci_server::{LogsStore, ServerConfig};
use toci_store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn wish(job: &str) -> RunWish {
    let source = SourceName::new("gerrit").unwrap();
    let context = RunContext {
        pipeline: PipelineName("check".into()),
        post_review: false,
        subject: Subject::Change(ChangeKey { source, number: 4711, patchset: "2".into() }),
        change: None,
        series: vec![],
        changes: vec![],
        reference: String::new(),
        commits: vec![],
    };
    RunWish {
        run: RunId(0xabc_def0_1234_u128 << 84),
        item: ItemId(1),
        job: Arc::new(common::job::job(job, common::job::plain())),
        attempt: 1,
        context: Arc::new(context),
        precedence: Precedence::Normal,
        relative_priority: 0,
        enqueued: Time(0),
    }
}

fn write(folder: &Path, path: &str, text: &str) {
    let place = folder.join(path);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(place, text).unwrap();
}

async fn archived(
    config: &ServerConfig,
    wish: &RunWish,
    folder: &Path,
    result: RunResult,
) -> Archived {
    let rows = Store::open("sqlite::memory:").await.unwrap();
    archived_into(&LogStore::open(&config.logs, rows).await.unwrap(), wish, folder, result).await
}

async fn archived_into(
    store: &LogStore,
    wish: &RunWish,
    folder: &Path,
    result: RunResult,
) -> Archived {
    let mask = Mask::new(["hunter2"]);
    store.archive(Finished { wish, result, folder, mask: &mask }).await.unwrap()
}

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    fn has(&self, words: &[&str]) {
        let all = format!("{}\n{}", self.head, self.text());
        for word in words {
            assert!(all.contains(word), "{word:?} is not in {all}");
        }
    }
}

async fn get(world: &World, path: &str, headers: &str) -> Reply {
    let mut stream = TcpStream::connect(world.running.api[0]).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nhost: x\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut all)).await.unwrap().unwrap();
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head, body: all[end + 4..].to_vec() }
}

fn unzipped(bytes: &[u8]) -> String {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(bytes), &mut text)
        .unwrap();
    text
}

const CONSOLE: &str = "2026-11-25T21:00:00.000000Z | + deploy --password hunter2\n\
    2026-11-25T21:00:01.000000Z | <script>alert(1)</script> & more\n\
    2026-11-25T21:00:02.000000Z | E: Unable to locate package <b>seed</b>\n\
    2026-11-25T21:00:03.000000Z | + exit 100\n";

async fn failed_run(world: &World) -> Archived {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "console.txt", CONSOLE);
    write(folder.path(), "logs/report.html", "<script>alert(2)</script>");
    write(folder.path(), "logs/sub dir/a#b.log", "x\n");
    write(folder.path(), "logs/index.html", "mine");
    write(folder.path(), "logs/id_rsa", "key");
    archived(&common::config(world.folder.path()), &wish("job"), folder.path(), RunResult::Failure)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_read_by_people_and_by_programs() {
    let world = World::start().await;
    let archived = failed_run(&world).await;
    assert_eq!(archived.first_error, "E: Unable to locate package <b>seed</b>");
    assert!(archived.url.ends_with("/logs/11/4711/2/check/job/abcdef0/"), "{}", archived.url);
    let run = "/logs/11/4711/2/check/job/abcdef0";
    let page = get(&world, &format!("{run}/"), "").await;
    page.has(&["200", "text/html", "nosniff", "sandbox", "FAILURE", "console.html#L3"]);
    page.has(&[
        "E: Unable to locate package &lt;b&gt;seed&lt;/b&gt;",
        "./sub%20dir/a%23b.log",
        "./index.html.2",
    ]);
    page.has(&["logs/id_rsa", "left out: keys and passwords are never kept"]);
    // As text, whatever it is, compressed for whoever can take it.
    let plain = get(&world, &format!("{run}/console.txt"), "").await;
    plain.has(&["text/plain; charset=utf-8", "--password ********", "<script>alert(1)"]);
    assert!(!plain.head.contains("content-encoding"));
    let zipped = get(&world, &format!("{run}/console.txt"), "accept-encoding: br, gzip\r\n").await;
    assert!(zipped.head.contains("content-encoding: gzip"), "{}", zipped.head);
    assert_eq!(unzipped(&zipped.body), plain.text());
    let refused = get(&world, &format!("{run}/console.txt"), "accept-encoding: gzip;q=0\r\n").await;
    assert_eq!(refused.body, plain.body);
    let file = get(&world, &format!("{run}/console.txt.gz"), "").await;
    file.has(&["application/gzip"]);
    assert_eq!(unzipped(&file.body), plain.text());
    get(&world, &format!("{run}/report.html"), "").await.has(&["text/plain", "nosniff", "sandbox"]);
    get(&world, &format!("{run}/sub%20dir/a%23b.log"), "").await.has(&["200", "x\n"]);
    get(&world, &format!("{run}/sub%20dir/"), "").await.has(&["text/html", "a#b.log"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_has_numbers_to_link_to_and_cannot_become_markup() {
    let world = World::start().await;
    failed_run(&world).await;
    let run = "/logs/11/4711/2/check/job/abcdef0";
    let page = get(&world, &format!("{run}/console.html"), "").await;
    page.has(&[
        "text/html",
        "<tr id=L3 class=bad>",
        "2026-11-25T21:00:02.000000Z",
        "default-src 'none'",
    ]);
    page.has(&["&lt;script&gt;alert(1)&lt;/script&gt; &amp; more"]);
    assert!(!page.text().contains("<script"));
    let errors = get(&world, &format!("{run}/console.html?level=ERROR"), "").await;
    assert!(!errors.text().contains("id=L1"), "{}", errors.text());
    errors.has(&["<tr id=L3 class=bad>"]);
    let rest = get(&world, &format!("{run}/console.txt?lines&from=4"), "").await;
    assert!(!rest.text().contains("id=L3"));
    rest.has(&["<tr id=L4 class=warm>"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_listed_and_nothing_outside_can_be_reached() {
    let world = World::start().await;
    get(&world, "/logs/", "").await.has(&["200", "Nothing is here yet"]);
    failed_run(&world).await;
    get(&world, "/logs", "").await.has(&["308", "location: /logs/"]);
    get(&world, "/logs/", "").await.has(&["./11/"]);
    get(&world, "/logs/11/4711", "").await.has(&["308", "location: /logs/11/4711/"]);
    get(&world, "/logs/11/4711/2/check/", "").await.has(&["./job/", "href=\"../\">2</a>"]);
    for path in [
        "/logs/../toci.db",
        "/logs/%2e%2e/toci.db",
        "/logs/11/..%2f..%2f..%2ftoci.db",
        "/logs/11/%2e%2e/%2e%2e/admin.token",
        "/logs/.staging/",
        "/logs//etc/passwd",
        "/logs/%2fetc%2fpasswd",
        "/logs/11/nothing",
        "/logs/11%00",
        "/logs/11%0d%0ax:y",
    ] {
        let reply = get(&world, path, "").await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_that_are_not_public_need_a_token_also_from_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = common::config(folder.path());
    config.logs.public = false;
    let world = World::around(toci_server::start(config).await.unwrap(), folder);
    failed_run(&world).await;
    let path = "/logs/11/4711/2/check/job/abcdef0/console.txt";
    get(&world, path, "").await.has(&["401", "basic realm="]);
    get(&world, path, "authorization: Bearer wrong\r\n").await.has(&["401"]);
    get(&world, path, "authorization: Basic !!!\r\n").await.has(&["401"]);
    let token = std::fs::read_to_string(&world.running.admin_token_file).unwrap();
    let token = token.trim();
    get(&world, path, &format!("authorization: Bearer {token}\r\n")).await.has(&["200"]);
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("me:{token}"));
    get(&world, path, &format!("authorization: Basic {basic}\r\n")).await.has(&["200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_console_and_a_run_that_is_archived_again() {
    let world = World::start().await;
    let config = common::config(world.folder.path());
    let folder = tempfile::tempdir().unwrap();
    let wish = wish("../..");
    let first = archived(&config, &wish, folder.path(), RunResult::NodeFailure).await;
    assert_eq!(first.first_error, "");
    write(folder.path(), "console.txt", "error: the node is gone\n");
    let second = archived(&config, &wish, folder.path(), RunResult::NodeFailure).await;
    assert_eq!(
        (second.url.as_str(), second.first_error.as_str()),
        (first.url.as_str(), "error: the node is gone")
    );
    assert!(second.url.ends_with("/logs/11/4711/2/check/__/__/abcdef0/"), "{}", second.url);
    get(&world, "/logs/11/4711/2/check/__/__/abcdef0/", "").await.has(&[
        "200",
        "NODE_FAILURE",
        "the node is gone",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_whose_ids_begin_alike_both_keep_their_logs() {
    let world = World::start().await;
    let config = common::config(world.folder.path());
    let rows = Store::open("sqlite::memory:").await.unwrap();
    let store = LogStore::open(&config.logs, rows).await.unwrap();
    let run = tempfile::tempdir().unwrap();
    let (first, second) =
        (wish("job"), RunWish { run: RunId((0xabc_def0_u128 << 100) + 1), ..wish("job") });
    assert_eq!(first.run.to_string()[..7], second.run.to_string()[..7]);
    let mut urls = Vec::new();
    for (wish, said) in [(&first, "one"), (&second, "two"), (&first, "one again"), (&second, "two")]
    {
        write(run.path(), "console.txt", said);
        urls.push(archived_into(&store, wish, run.path(), RunResult::Success).await.url);
    }
    assert_eq!((&urls[0], &urls[1]), (&urls[2], &urls[3]));
    for (url, said) in [(&urls[0], "one again"), (&urls[1], "two")] {
        let path = &url[url.find("/logs/").unwrap()..];
        assert_eq!(get(&world, &format!("{path}console.txt"), "").await.text(), said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_expire_and_go_with_their_folders() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = common::config(folder.path());
    config.logs.keep = Some(Duration::from_secs(3600));
    let rows = Store::open("sqlite::memory:").await.unwrap();
    let store = LogStore::open(&config.logs, rows.clone()).await.unwrap();
    let run = tempfile::tempdir().unwrap();
    write(run.path(), "console.txt", "x\n");
    let (old, new) = (wish("old"), RunWish { run: RunId(1 << 100), ..wish("new") });
    archived_into(&store, &old, run.path(), RunResult::Success).await;
    archived_into(&store, &new, run.path(), RunResult::Success).await;
    assert_eq!(store.sweep().await.unwrap(), 0);
    rows.keep_log(old.run, "11/4711/2/check/old/abcdef0", Time(1)).await.unwrap();
    rows.keep_log(RunId(5), "gone/long/ago", Time(0)).await.unwrap();
    assert_eq!(store.sweep().await.unwrap(), 2);
    let LogsStore::Folder(root) = &config.logs.store else { panic!("not a folder") };
    assert!(!root.join("11/4711/2/check/old").exists());
    assert!(root.join("11/4711/2/check/new").exists());
    assert_eq!(rows.expired_logs(Time(i64::MAX), 10).await.unwrap().len(), 1);
    assert_eq!(store.sweep().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_cannot_be_written_to_is_told_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = common::config(folder.path());
    let rows = Store::open("sqlite::memory:").await.unwrap();
    let store = LogStore::open(&config.logs, rows).await.unwrap();
    let run = tempfile::tempdir().unwrap();
    write(run.path(), "console.txt", "x\n");
    let LogsStore::Folder(root) = &config.logs.store else { panic!("not a folder") };
    std::fs::write(root.join("11"), "in the way").unwrap();
    let (wish, mask) = (wish("job"), Mask::default());
    let finished =
        Finished { wish: &wish, result: RunResult::Success, folder: run.path(), mask: &mask };
    let error = store.archive(finished).await.unwrap_err();
    assert!(error.to_string().starts_with("keep the logs of run "), "{error}");
    assert!(std::fs::read_dir(root.join(".staging")).unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_in_an_s3_store_are_read_through_the_server_and_by_others_and_expire() {
    let mut s3 = S3Store::start();
    let folder = tempfile::tempdir().unwrap();
    let mut config = common::config(folder.path());
    config.logs.store = s3.config(folder.path());
    config.logs.keep = Some(Duration::from_secs(3600));
    let logs = config.logs.clone();
    let world = World::around(toci_server::start(config).await.unwrap(), folder);
    let rows = Store::open("sqlite::memory:").await.unwrap();
    let store = LogStore::open(&logs, rows.clone()).await.unwrap();
    let run = tempfile::tempdir().unwrap();
    write(run.path(), "console.txt", CONSOLE);
    write(run.path(), "logs/sub dir/a#b+ü.log", "x\n");
    // No text, and longer than two parts.
    let noise: Vec<u8> =
        (0..11_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(run.path().join("logs/disk.bin"), &noise).unwrap();
    archived_into(&store, &wish("job"), run.path(), RunResult::Failure).await;

    let at = "/logs/11/4711/2/check/job/abcdef0";
    get(&world, &format!("{at}/"), "").await.has(&[
        "200",
        "text/html",
        "FAILURE",
        "console.html#L3",
    ]);
    let plain = get(&world, &format!("{at}/console.txt"), "").await;
    plain.has(&["200", "text/plain; charset=utf-8", "--password ********"]);
    let zipped = get(&world, &format!("{at}/console.txt"), "accept-encoding: gzip\r\n").await;
    assert!(zipped.head.contains("content-encoding: gzip"), "{}", zipped.head);
    assert_eq!(unzipped(&zipped.body), plain.text());
    let stored = get(&world, &format!("{at}/console.txt.gz"), "").await;
    assert_eq!(unzipped(&stored.body), plain.text());
    get(&world, &format!("{at}/console.html"), "").await.has(&["<tr id=L3 class=bad>"]);
    get(&world, &format!("{at}/sub%20dir/"), "").await.has(&["text/html", "a#b+ü.log"]);
    get(&world, &format!("{at}/sub%20dir/a%23b%2B%C3%BC.log"), "").await.has(&["200", "x\n"]);
    assert_eq!(get(&world, &format!("{at}/disk.bin"), "").await.body, noise);
    get(&world, "/logs/11/4711/", "").await.has(&["./2/"]);
    assert_eq!(get(&world, &format!("{at}/nothing"), "").await.status, 404);

    // As a browser gets it that reads the bucket itself.
    let key = "ci/11/4711/2/check/job/abcdef0";
    let head = s3.ask(&format!("head {key}/console.txt"));
    assert_eq!(
        (&head["type"], &head["encoding"]),
        (&"text/plain; charset=utf-8".into(), &"gzip".into())
    );
    assert_eq!(s3.ask(&format!("head {key}/index.html"))["type"], "text/html; charset=utf-8");
    let disk = s3.ask(&format!("head {key}/disk.bin"));
    assert_eq!(disk["bytes"], noise.len());
    assert!(disk["tag"].as_str().unwrap().ends_with("-3\""), "not in three parts: {disk}");

    // The same run again: what it does not have any more is gone.
    std::fs::remove_file(run.path().join("logs/disk.bin")).unwrap();
    archived_into(&store, &wish("job"), run.path(), RunResult::Failure).await;
    archived_into(
        &store,
        &RunWish { run: RunId(1 << 100), ..wish("new") },
        run.path(),
        RunResult::Success,
    )
    .await;
    let listed = s3.ask("list");
    let keys: Vec<&str> =
        listed["keys"].as_array().unwrap().iter().filter_map(|k| k.as_str()).collect();
    assert_eq!(keys.len(), 6, "{keys:?}");
    assert!(!keys.iter().any(|key| key.ends_with("disk.bin")), "{keys:?}");
    assert_eq!(listed["unfinished"], 0);
    // Retention.
    rows.keep_log(wish("job").run, &at[6..], Time(1)).await.unwrap();
    assert_eq!(store.sweep().await.unwrap(), 1);
    let listed = s3.ask("list");
    let keys: Vec<&str> =
        listed["keys"].as_array().unwrap().iter().filter_map(|k| k.as_str()).collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
    assert!(keys.iter().all(|key| key.contains("/check/new/")), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_store_that_refuses_or_is_not_there_is_told_without_its_secret() {
    let s3 = S3Store::start();
    let folder = tempfile::tempdir().unwrap();
    let mut config = common::config(folder.path());
    let run = tempfile::tempdir().unwrap();
    write(run.path(), "console.txt", "x\n");
    let (wish, mask) = (wish("job"), Mask::default());
    let failure = async |logs: &toci_server::LogsConfig| {
        let store =
            LogStore::open(logs, Store::open("sqlite::memory:").await.unwrap()).await.unwrap();
        let (result, folder) = (RunResult::Success, run.path());
        let finished = Finished { wish: &wish, result, folder, mask: &mask };
        let error = store.archive(finished).await.unwrap_err();
        format!("{} {error:?}", toci_core::chain::Chain(&error))
    };
    config.logs.store = s3.config(folder.path());
    std::fs::write(folder.path().join("secret"), "not-the-secret").unwrap();
    let refused = failure(&config.logs).await;
    assert!(
        refused.contains("answered 403") && refused.contains("SignatureDoesNotMatch"),
        "{refused}"
    );
    assert!(!refused.contains("not-the-secret") && !refused.contains(s3.secret()), "{refused}");
    drop(s3);
    let gone = failure(&config.logs).await;
    assert!(gone.contains("connect to http://127.0.0.1"), "{gone}");
    std::fs::remove_file(folder.path().join("secret")).unwrap();
    let error = toci_server::start(config).await.err().unwrap();
    let error = toci_core::chain::Chain(&error).to_string();
    assert!(error.contains("use logs.secret_key_file: read secret file"), "{error}");
}

/// What a reader gets of the run's console; the run's folder, and its name in the one above, are there with it or not at all.
async fn console_of_run(store: &LogStore) -> Option<String> {
    let run = LogPath::new("11/4711/2/check/job/abcdef0").unwrap();
    let find = async |at: &LogPath| store.find(at).await.unwrap();
    let console = find(&run.join("console.txt").unwrap()).await;
    let is_there = find(&run).await.is_some();
    let is_named = match find(&run.parent().unwrap()).await {
        Some(Found::Folder(entries, _)) => entries.iter().any(|entry| entry.name == "abcdef0"),
        _ => false,
    };
    assert_eq!((is_there, is_named), (console.is_some(), console.is_some()));
    let Found::File(mut console) = console? else { panic!("the console is a folder") };
    let mut bytes = Vec::new();
    console.body.read_to_end(&mut bytes).await.unwrap();
    Some(unzipped(&bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_in_an_s3_store_are_seen_when_all_of_them_are_there() {
    let mut s3 = S3Store::start();
    let folder = tempfile::tempdir().unwrap();
    let mut config = common::config(folder.path());
    config.logs.store = s3.config(folder.path());
    config.logs.keep = Some(Duration::from_secs(3600));
    let rows = Store::open("sqlite::memory:").await.unwrap();
    let store = LogStore::open(&config.logs, rows.clone()).await.unwrap();
    let run = tempfile::tempdir().unwrap();
    let archive = |said: &str| {
        write(run.path(), "console.txt", said);
        let (store, folder) = (store.clone(), run.path().to_owned());
        tokio::spawn(async move {
            archived_into(&store, &wish("job"), &folder, RunResult::Success).await;
        })
    };
    // The second time it takes the place of the first.
    for said in ["one\n", "two\n"] {
        s3.ask("hold index.html");
        let archived = archive(said);
        assert_eq!(s3.ask("held")["held"], true);
        assert_eq!(s3.ask("head ci/11/4711/2/check/job/abcdef0/console.txt")["encoding"], "gzip");
        assert_eq!(console_of_run(&store).await, None, "half of {said}");
        s3.ask("go");
        archived.await.unwrap();
        assert_eq!(console_of_run(&store).await.as_deref(), Some(said));
    }
    // What a server that was killed has left is not shown by the next one either, until it has archived it itself.
    s3.ask("hold index.html");
    let archived = archive("three\n");
    assert_eq!(s3.ask("held")["held"], true);
    archived.abort();
    assert!(archived.await.is_err());
    s3.ask("go");
    let next = LogStore::open(&config.logs, rows.clone()).await.unwrap();
    assert_eq!(console_of_run(&next).await, None);
    archived_into(&next, &wish("job"), run.path(), RunResult::Success).await;
    assert_eq!(console_of_run(&next).await.as_deref(), Some("three\n"));
    // Out of sight first, then out of the bucket, file by file.
    let path = "11/4711/2/check/job/abcdef0";
    rows.keep_log(wish("job").run, path, Time(1)).await.unwrap();
    rows.show_log(wish("job").run).await.unwrap();
    assert!(console_of_run(&next).await.is_some());
    rows.hide_log(&rows.expired_logs(Time(2), 1).await.unwrap()[0]).await.unwrap();
    assert_eq!(console_of_run(&next).await, None);
    assert_eq!(next.sweep().await.unwrap(), 1);
    assert_eq!(s3.ask("list")["keys"], serde_json::json!([]));
}
