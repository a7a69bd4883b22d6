//! The same promises on SQLite and on PostgreSQL: a real server, started by the test.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod postgres;

use std::sync::Arc;
use std::time::Duration;
use toci_core::event::{ProjectKey, ProjectName, RefUpdate, Revision, SourceName};
use toci_core::id::{
    AutoholdId, Generation, HostId, ItemId, Label, LeaseId, NodeId, Project, ProviderName, RunId,
    ShapeName, TeId,
};
use toci_core::layout::{JobName, PipelineName};
use toci_core::lease::{Demand, End, HoldBudget, Host, Lease, LeaseState, Rows, Te, TeState};
use toci_core::node::{
    Autohold, Hold, Meant, Node, NodeState, ProviderPause, ProviderRow, Trouble,
};
use toci_core::pipeline::{Gate, Input, ItemRow, Policy, ReportRow, RunResult, Subject};
use toci_core::run::record::{Record, RunNode, SshWay};
use toci_core::run::steps::State;
use toci_core::time::Time;
use toci_store::{
    Batch, ClockMark, Credential, Enrolment, GateBatch, LeaseFilter, NodeBatch, Store, StoreError,
    TokenRow,
};

fn lease(id: u64, state: LeaseState) -> Lease {
    Lease {
        id: LeaseId(id),
        state,
        owner: "me".into(),
        project: Project::new("p").unwrap(),
        demand: Demand { label: Some(Label::new("devtest").unwrap()), shape: None },
        count: 1,
        priority: 50,
        purpose: "it's \"quoted\" — and ünïcode".into(),
        idempotency_key: Some(format!("k{id}")),
        timeout: Duration::from_secs(3),
        wait_until: Some(Time(9)),
        rank: -5,
        requested: Time(1),
        active: None,
        tes: vec![(TeId::new("h-1").unwrap(), Generation(id))],
        reason: String::new(),
    }
}

fn te(n: u32, state: TeState) -> Te {
    let host = HostId::new("h").unwrap();
    Te {
        id: TeId::of(&host, n).unwrap(),
        host,
        number: n,
        shape: ShapeName::new("seed-2").unwrap(),
        labels: vec![Label::new("a").unwrap(), Label::new("b").unwrap()],
        generation: Generation(7),
        state,
        draining: true,
        strikes: 1,
        reason: "why".into(),
        since: Time(4),
    }
}

fn mark(book: i64) -> ClockMark {
    ClockMark { boot: "b".into(), boot_us: 5, book: Time(book) }
}

fn credential(lease: u64) -> Credential {
    Credential {
        lease: LeaseId(lease),
        te: TeId::new("h-1").unwrap(),
        generation: Generation(lease),
        te_json: r#"{"ssh-key":"secret"}"#.into(),
    }
}

/// Everything that holds on one database.
async fn contract(url: &str) {
    let store = Store::open(url).await.unwrap();
    for sql in toci_store::statements(&store) {
        store.prepare(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }
    a_book_reads_back(&store).await;
    // A database in memory cannot be reached past its one connection.
    if !url.contains(":memory:") {
        a_batch_is_all_or_nothing(&store, url).await;
    }
    nodes(&store, url).await;
    history(&store).await;
    a_gate_reads_back(&store).await;
    logs_of_runs_expire(&store).await;
    runs_read_back(&store).await;
    tokens(&store).await;
    enrolment(&store).await;
    let again = Store::open(url).await;
    let newer = match again {
        Ok(newer) => newer,
        // The file is locked: a second server cannot even begin.
        Err(StoreError::InUse { .. }) => return,
        Err(e) => panic!("{e:?}"),
    };
    if url.contains(":memory:") {
        return;
    }
    newer.claim_book(10).await.unwrap();
    let err = store.commit(&Batch::default()).await.unwrap_err();
    assert!(matches!(err, StoreError::TakenOver), "{err:?}");
    let err = store.commit_gate(&GateBatch::default()).await.unwrap_err();
    assert!(matches!(err, StoreError::TakenOver), "{err:?}");
    let err = store.commit_nodes(&NodeBatch::default()).await.unwrap_err();
    assert!(matches!(err, StoreError::TakenOver), "{err:?}");
    let err = store.put_run(&run(9, 1, State::WaitingNode)).await.unwrap_err();
    assert!(matches!(err, StoreError::TakenOver), "{err:?}");
    newer.commit(&Batch::default()).await.unwrap();
    newer.commit_gate(&GateBatch::default()).await.unwrap();
    newer.close().await;
}

fn run(id: u128, queued: i64, state: State) -> Record {
    Record {
        run: RunId(id),
        item: ItemId(1),
        job: JobName("it's a job".into()),
        voting: true,
        attempt: 2,
        pipeline: PipelineName("gate".into()),
        project: Some(ProjectName::new("org/p").unwrap()),
        branch: None,
        subject: "1,2".into(),
        state,
        waits_for: String::new(),
        queued: Time(queued),
        started: None,
        ended: None,
        nodes: vec![RunNode {
            name: "n1".into(),
            label: Label::new("small").unwrap(),
            provider: "static".into(),
            way: Some(SshWay {
                target: "u@h".into(),
                port: 22,
                key: "/k".into(),
                known_hosts: "/h".into(),
            }),
        }],
        lease: Some(LeaseId(7)),
        url: String::new(),
        note: "“quoted”".into(),
    }
}

async fn runs_read_back(store: &Store) {
    let over = |id, queued| run(id, queued, State::Over(RunResult::TimedOut));
    for record in [over(1, 10), over(2, 20), run(3, 30, State::WaitingNode), over(4, 40)] {
        store.put_run(&record).await.unwrap();
    }
    store.put_run(&run(3, 30, State::Preparing { since: Time(31) })).await.unwrap();
    assert_eq!(store.run(RunId(2)).await.unwrap(), Some(over(2, 20)));
    assert_eq!(store.run(RunId(99)).await.unwrap(), None);
    let live = store.live_runs().await.unwrap();
    assert_eq!(live, [run(3, 30, State::Preparing { since: Time(31) })]);
    assert_eq!(store.ended_runs(2).await.unwrap(), [over(4, 40), over(2, 20)]);
    assert_eq!(store.prune_runs(2).await.unwrap(), 1);
    assert_eq!(store.ended_runs(9).await.unwrap(), [over(4, 40), over(2, 20)]);
    assert_eq!(store.live_runs().await.unwrap().len(), 1, "what is live is not pruned");
    for id in [3, 4] {
        store.forget_run(RunId(id)).await.unwrap();
    }
    assert!(store.live_runs().await.unwrap().is_empty());
    assert!(store.run(RunId(4)).await.unwrap().is_some(), "it is over");
}

/// A gate with an item that entered by a ref update, whose start is told.
async fn a_gate_reads_back(store: &Store) {
    let text = "
pipelines: [{name: post, manager: independent, trigger: {gerrit: [{event: ref-updated}]}, start: {smtp: {to: a@b}}}]
projects: [{name: p, post: [j]}]
";
    let source = SourceName::new("gerrit").unwrap();
    let layout = Arc::new(toci_wire::layout::read("l", text, &source).layout.unwrap());
    let mut gate = Gate::new(layout.clone(), Policy::default());
    let update = RefUpdate {
        project: ProjectKey { source: source.clone(), name: "p".parse().unwrap() },
        reference: "refs/heads/master".parse().unwrap(),
        old: Revision::none(),
        new: Revision::new("a".repeat(40)).unwrap(),
    };
    let subject = Subject::Ref(update);
    let input =
        Input::Enqueue { pipeline: PipelineName("post".into()), subject, changes: Vec::new() };
    let mut number = 0;
    let mut ids = || {
        number += 1;
        number
    };
    gate.on(input, Time(5), &mut ids).unwrap();
    let rows = gate.rows();
    assert_eq!((rows.items.len(), rows.reports.len()), (1, 1));
    let cursor = |text: &str| (source.clone(), "stream".to_owned(), text.to_owned());
    let batch = GateBatch {
        items: rows.items.clone(),
        reports: rows.reports.clone(),
        state: rows.state.clone(),
        cursors: vec![cursor("1"), cursor("2")],
        ..GateBatch::default()
    };
    store.commit_gate(&batch).await.unwrap();
    store.commit_gate(&batch).await.unwrap();
    let read = store.read_gate().await.unwrap();
    let json = |rows: &toci_core::pipeline::Rows| serde_json::to_string(rows).unwrap();
    assert_eq!(json(&read), json(&rows));
    assert_eq!(store.read_cursors().await.unwrap()[&source]["stream"], "2");
    let gone = GateBatch {
        removed_items: rows.items.iter().map(ItemRow::id).collect(),
        removed_reports: rows.reports.iter().map(ReportRow::id).collect(),
        ..GateBatch::default()
    };
    store.commit_gate(&gone).await.unwrap();
    let read = store.read_gate().await.unwrap();
    assert!(read.items.is_empty() && read.reports.is_empty() && read.state.is_some());
}

async fn a_book_reads_back(store: &Store) {
    let (rows, first) = store.claim_book(10).await.unwrap();
    assert_eq!((rows, first), (Rows::default(), ClockMark::default()));
    let host = Host { id: HostId::new("h").unwrap(), draining: true, enrolled: Time(3) };
    let budget = HoldBudget {
        project: Project::new("p").unwrap(),
        used: Duration::from_secs(9),
        at: Time(2),
    };
    let active = LeaseState::Active { expires: Time(99) };
    let batch = Batch {
        hosts: vec![host.clone()],
        tes: (1..=100).map(|n| te(n, TeState::Ready)).collect(),
        leases: vec![lease(1, LeaseState::Waiting), lease(2, active)],
        credentials: vec![credential(2)],
        budgets: vec![budget.clone()],
        mark: mark(42),
        ..Batch::default()
    };
    store.commit(&batch).await.unwrap();
    // The same again, with changes: rows are replaced.
    let busy = te(1, TeState::Granted(LeaseId(2)));
    let change = Batch { tes: vec![busy.clone()], mark: mark(43), ..Batch::default() };
    store.commit(&change).await.unwrap();
    let (rows, read) = store.claim_book(10).await.unwrap();
    assert_eq!(read, mark(43));
    assert_eq!(rows.hosts, [host]);
    assert_eq!(rows.tes.len(), 100);
    assert_eq!(rows.tes.iter().find(|t| t.id == busy.id), Some(&busy));
    assert_eq!(rows.leases, [lease(1, LeaseState::Waiting), lease(2, active)]);
    assert_eq!(rows.budgets, [budget]);
    assert_eq!(rows.confirmed.into_iter().collect::<Vec<_>>(), [(LeaseId(2), busy.id)]);
    assert_eq!(store.credentials(LeaseId(2)).await.unwrap(), [credential(2)]);
    // The end erases the credentials.
    let over = LeaseState::Over { end: End::Released, at: Time(50) };
    let leases: Vec<Lease> = (2..=20).map(|n| lease(n, over)).collect();
    let end = Batch { leases, ..Batch::default() };
    store.commit(&end).await.unwrap();
    assert_eq!(store.credentials(LeaseId(2)).await.unwrap(), []);
    let removed = vec![HostId::new("h").unwrap()];
    store.commit(&Batch { removed_hosts: removed, ..Batch::default() }).await.unwrap();
    let rows = store.read_book(3).await.unwrap();
    assert!(rows.hosts.is_empty() && rows.tes.is_empty());
    let ids: Vec<u64> = rows.leases.iter().map(|l| l.id.0).collect();
    assert_eq!(ids, [1, 18, 19, 20], "the live ones and the newest that are over");
}

/// Says something to the database past the store.
async fn directly(url: &str, sql: &'static str) {
    use sqlx::{Connection, Executor};
    if url.starts_with("sqlite:") {
        let mut c = sqlx::SqliteConnection::connect(url).await.unwrap();
        c.execute(sql).await.unwrap();
        c.close().await.unwrap();
    } else {
        let mut c = sqlx::PgConnection::connect(url).await.unwrap();
        c.execute(sql).await.unwrap();
        c.close().await.unwrap();
    }
}

async fn a_batch_is_all_or_nothing(store: &Store, url: &str) {
    let before = store.read_book(10).await.unwrap();
    let project = Project::new("late").unwrap();
    let batch = Batch {
        hosts: vec![Host { id: HostId::new("x").unwrap(), draining: false, enrolled: Time(1) }],
        leases: vec![lease(500, LeaseState::Waiting)],
        // Written last, into a table that is not there.
        budgets: vec![HoldBudget { project, used: Duration::ZERO, at: Time(1) }],
        mark: mark(77),
        ..Batch::default()
    };
    directly(url, "ALTER TABLE hold_budget RENAME TO lost").await;
    let err = store.commit(&batch).await.unwrap_err();
    assert!(matches!(err, StoreError::Write { .. }), "{err:?}");
    directly(url, "ALTER TABLE lost RENAME TO hold_budget").await;
    assert_eq!(store.read_book(10).await.unwrap(), before);
    store.commit(&Batch::default()).await.unwrap();
}

fn node(id: u64, state: NodeState) -> Node {
    Node {
        id: NodeId(id),
        name: format!("devtest-rack1-{id}"),
        label: Label::new("devtest").unwrap(),
        provider: ProviderName::new("rack1").unwrap(),
        state,
        since: Time(3),
        machine: r#"{"address":"192.0.2.1"}"#.into(),
        job: "check-it's".into(),
        hold: None,
        reason: "why".into(),
    }
}

fn autohold(id: u64) -> Autohold {
    let meant = Meant {
        job: "check-it's".into(),
        project: Some("org/app".into()),
        subject: None,
        count: 3,
        length: Duration::from_secs(3600),
        reason: "why".into(),
    };
    Autohold { id: AutoholdId(id), meant, until: Time(77) }
}

fn provider(name: &str, by: &str) -> ProviderRow {
    let paused = ProviderPause { since: Time(3), by: by.into(), reason: "it's moved".into() };
    let trouble = Trouble { failures: 2, until: Time(8), reason: "no \"image\"".into() };
    ProviderRow {
        name: ProviderName::new(name).unwrap(),
        paused: Some(paused),
        troubles: [(Label::new("devtest").unwrap(), trouble)].into(),
    }
}

async fn nodes(store: &Store, url: &str) {
    assert_eq!(store.read_nodes().await.unwrap(), toci_core::node::Rows::default());
    let run = RunId(0xfeed);
    let states = [
        NodeState::Building,
        NodeState::Testing,
        NodeState::Ready,
        NodeState::Handing(run),
        NodeState::InUse(run),
        NodeState::Held,
        NodeState::Deleting,
    ];
    let mut all: Vec<Node> = (1..).zip(states).map(|(id, state)| node(id, state)).collect();
    all[5].hold = Some(Hold { until: Time(99), reason: "look".into() });
    let batch = NodeBatch {
        nodes: all.clone(),
        autoholds: vec![autohold(7), autohold(8)],
        providers: vec![provider("p", "ann"), provider("q", "ann")],
        last_node: 9,
        ..NodeBatch::default()
    };
    store.commit_nodes(&batch).await.unwrap();
    let read = store.read_nodes().await.unwrap();
    assert_eq!((read.last_node, &read.nodes), (9, &all));
    assert_eq!(read.autoholds, [autohold(7), autohold(8)]);
    assert_eq!(read.providers, batch.providers);
    // Rows are replaced and removed; the number never goes back.
    all[0].state = NodeState::Testing;
    let gone = vec![all.pop().unwrap().id];
    let less = Autohold { until: Time(5), ..autohold(8) };
    let batch = NodeBatch {
        nodes: vec![all[0].clone()],
        gone,
        autoholds: vec![less.clone()],
        autoholds_gone: vec![AutoholdId(7)],
        providers: vec![provider("q", "bob")],
        providers_gone: vec![ProviderName::new("p").unwrap()],
        last_node: 3,
    };
    store.commit_nodes(&batch).await.unwrap();
    let read = store.read_nodes().await.unwrap();
    assert_eq!((read.last_node, &read.nodes), (9, &all));
    assert_eq!(read.autoholds, [less]);
    assert_eq!(read.providers, batch.providers);
    if !url.contains(":memory:") {
        // All or nothing: the upserts come last, into a table that is not there.
        directly(url, "ALTER TABLE node RENAME TO lost").await;
        let batch = NodeBatch { nodes: vec![node(50, NodeState::Ready)], last_node: 50, ..batch };
        let err = store.commit_nodes(&batch).await.unwrap_err();
        assert!(matches!(err, StoreError::Write { .. }), "{err:?}");
        directly(url, "ALTER TABLE lost RENAME TO node").await;
        assert_eq!(store.read_nodes().await.unwrap(), read);
    }
}

async fn history(store: &Store) {
    let me = LeaseFilter { owner: Some("me".into()), limit: 2, ..LeaseFilter::default() };
    let ended = store.ended_leases(&me).await.unwrap();
    assert_eq!(ended.iter().map(|l| l.id.0).collect::<Vec<_>>(), [20, 19]);
    let nobody = LeaseFilter { project: Some("q".into()), limit: 2, ..LeaseFilter::default() };
    assert!(store.ended_leases(&nobody).await.unwrap().is_empty());
    assert_eq!(store.lease(LeaseId(1)).await.unwrap().map(|l| l.id.0), Some(1));
    store.prune_ended(5).await.unwrap();
    let all = LeaseFilter { limit: 100, ..LeaseFilter::default() };
    let left: Vec<u64> = store.ended_leases(&all).await.unwrap().iter().map(|l| l.id.0).collect();
    assert_eq!(left, [20, 19, 18, 17, 16]);
    assert!(store.lease(LeaseId(2)).await.unwrap().is_none());
    assert!(store.lease(LeaseId(1)).await.unwrap().is_some(), "a live lease stays");
}

async fn tokens(store: &Store) {
    let token = |hash: &str, subject: &str| TokenRow {
        hash: hash.into(),
        role: "client".into(),
        subject: subject.into(),
        created: Time(1),
        expires: None,
        revoked: None,
    };
    store.add_token(&token("h1", "ann")).await.unwrap();
    store.add_token(&token("h2", "bob")).await.unwrap();
    assert!(store.add_token(&token("h2", "eve")).await.is_err(), "a hash is one token's");
    assert_eq!(store.token("h1").await.unwrap(), Some(token("h1", "ann")));
    assert_eq!(store.token("none").await.unwrap(), None);
    assert_eq!(store.revoke_tokens("ann", Time(5)).await.unwrap(), 1);
    assert_eq!(store.revoke_tokens("ann", Time(6)).await.unwrap(), 0);
    assert_eq!(store.token("h1").await.unwrap().unwrap().revoked, Some(Time(5)));
    assert_eq!(store.tokens().await.unwrap().len(), 2);
}

async fn enrolment(store: &Store) {
    let (a, b) = (HostId::new("hosta").unwrap(), HostId::new("hostb").unwrap());
    store.add_enrol_token("any", None, Time(100)).await.unwrap();
    store.add_enrol_token("any2", None, Time(100)).await.unwrap();
    store.add_enrol_token("fora", Some(&a), Time(100)).await.unwrap();
    let enrol = |t: &'static str, host: HostId, hash: &'static str, at| async move {
        store.enrol(t, &host, hash, Time(at)).await.unwrap()
    };
    assert_eq!(enrol("none", a.clone(), "ta", 1).await, Enrolment::BadToken);
    assert_eq!(enrol("any", a.clone(), "ta", 101).await, Enrolment::BadToken, "too old");
    assert_eq!(enrol("fora", b.clone(), "tb", 1).await, Enrolment::BadToken, "another name");
    // Two hosts at once with one token: one is in.
    let (x, y) = tokio::join!(enrol("any", a.clone(), "ta", 1), enrol("any", b.clone(), "tb", 1));
    let mut both = [x, y];
    both.sort_by_key(|e| *e != Enrolment::Done);
    assert_eq!(both, [Enrolment::Done, Enrolment::BadToken]);
    let (first, other) = if x == Enrolment::Done { (a.clone(), b) } else { (b, a.clone()) };
    // A duplicate name is refused and does not use the token up.
    assert_eq!(enrol("any2", first, "tc", 2).await, Enrolment::HostExists);
    assert_eq!(enrol("any2", other, "td", 2).await, Enrolment::Done);
    // A token made for the name replaces the host's token.
    assert_eq!(enrol("fora", a.clone(), "te", 3).await, Enrolment::Done);
    let live: Vec<TokenRow> = store
        .tokens()
        .await
        .unwrap()
        .into_iter()
        .filter(|t| t.subject == "hosta" && t.revoked.is_none())
        .collect();
    assert_eq!(live.iter().map(|t| t.hash.as_str()).collect::<Vec<_>>(), ["te"]);
    assert_eq!(live[0].role, "host");
    assert_eq!(store.read_book(0).await.unwrap().hosts.len(), 2);
}

async fn logs_of_runs_expire(store: &Store) {
    let expired = async |before: i64| -> Vec<(String, i64)> {
        let rows = store.expired_logs(Time(before), 10).await.unwrap();
        rows.into_iter().map(|row| (row.path, row.kept.0)).collect()
    };
    store.keep_log(RunId(1), "a/1", Time(10)).await.unwrap();
    store.keep_log(RunId(2), "a/2", Time(5)).await.unwrap();
    assert_eq!(expired(5).await, []);
    assert_eq!(expired(11).await, [("a/2".into(), 5), ("a/1".into(), 10)]);
    // Archived again between the look and the end: it is not forgotten.
    let old = store.expired_logs(Time(6), 10).await.unwrap().remove(0);
    store.keep_log(RunId(2), "a/2", Time(20)).await.unwrap();
    store.forget_log(&old).await.unwrap();
    assert_eq!(expired(99).await, [("a/1".into(), 10), ("a/2".into(), 20)]);
    // Where another run's logs lie nothing else is put, until they are gone.
    assert!(!store.keep_log(RunId(3), "a/1", Time(30)).await.unwrap());
    let old = store.expired_logs(Time(11), 10).await.unwrap().remove(0);
    store.forget_log(&old).await.unwrap();
    assert!(store.keep_log(RunId(3), "a/1", Time(30)).await.unwrap());
    assert_eq!(expired(99).await, [("a/2".into(), 20), ("a/1".into(), 30)]);
    // Hidden until they are whole; again while they are archived again, and before they go.
    let hidden = async || {
        let mut paths = store.hidden_logs().await.unwrap();
        paths.sort();
        paths.join(" ")
    };
    assert_eq!(hidden().await, "a/1 a/2");
    store.show_log(RunId(2)).await.unwrap();
    store.show_log(RunId(3)).await.unwrap();
    assert_eq!(hidden().await, "");
    let rows = store.expired_logs(Time(99), 10).await.unwrap();
    store.keep_log(RunId(2), "a/2", Time(40)).await.unwrap();
    store.show_log(RunId(2)).await.unwrap();
    for row in &rows {
        store.hide_log(row).await.unwrap();
    }
    assert_eq!(hidden().await, "a/1", "a/2 was archived again");
}

#[tokio::test]
async fn sqlite_in_memory() {
    contract("sqlite::memory:").await;
}

#[tokio::test]
async fn sqlite_file() {
    let dir = tempfile::tempdir().unwrap();
    contract(&format!("sqlite:{}", dir.path().join("toci.db").display())).await;
}

#[tokio::test]
async fn postgresql() {
    let server = postgres::Server::start();
    contract(&server.url()).await;
}

#[tokio::test]
async fn addresses_that_are_none() {
    for url in ["mysql://x", "", "/var/lib/toci.db"] {
        let err = Store::open(url).await.unwrap_err();
        assert!(matches!(err, StoreError::BadAddress(_)), "{err:?}");
    }
    let err = Store::open("sqlite:/no/such/directory/toci.db").await.unwrap_err();
    assert!(matches!(err, StoreError::Lock { .. }), "{err:?}");
}
