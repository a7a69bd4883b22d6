//! The two databases behind one handle.

use crate::error::StoreError;
use crate::row::Marks;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Postgres, Sqlite, Transaction};
use std::fs::File;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

/// How long a statement waits for another process that has the file locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that read a SQLite file while the one writer writes.
const SQLITE_READERS_MAX: u32 = 4;
/// Connections to PostgreSQL.
const PG_CONNECTIONS_MAX: u32 = 8;

#[derive(Clone, Debug)]
pub(crate) enum Db {
    /// `write` has one connection; `read` is the same pool for a database in memory.
    Sqlite {
        write: SqlitePool,
        read: SqlitePool,
    },
    Pg(PgPool),
}

/// The handle; clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) db: Db,
    pub(crate) epoch: Arc<AtomicI64>,
    /// Where it keeps what is written, for people.
    place: Arc<str>,
    /// Held until it is closed, or for as long as a handle lives.
    lock: Option<Arc<File>>,
}

/// An open transaction on either database.
pub(crate) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Pg(Transaction<'static, Postgres>),
}

/// Runs the same code on whichever database it is, for reads.
macro_rules! read_db {
    ($store:expr, $p:ident => $body:expr) => {
        match &$store.db {
            $crate::db::Db::Sqlite { read: $p, .. } => $body,
            $crate::db::Db::Pg($p) => $body,
        }
    };
}
/// Runs the same code on whichever database it is, for a single statement that writes.
macro_rules! write_db {
    ($store:expr, $p:ident => $body:expr) => {
        match &$store.db {
            $crate::db::Db::Sqlite { write: $p, .. } => $body,
            $crate::db::Db::Pg($p) => $body,
        }
    };
}
/// Runs the same code in whichever transaction it is.
macro_rules! in_tx {
    ($tx:expr, $t:ident => $body:expr) => {
        match $tx {
            $crate::db::Tx::Sqlite(tx) => {
                let $t = &mut **tx;
                $body
            }
            $crate::db::Tx::Pg(tx) => {
                let $t = &mut **tx;
                $body
            }
        }
    };
}
pub(crate) use {in_tx, read_db, write_db};

impl Store {
    pub(crate) fn marks(&self) -> Marks {
        match &self.db {
            Db::Sqlite { .. } => Marks::Plain,
            Db::Pg(_) => Marks::Numbered,
        }
    }

    /// Opens `sqlite:PATH`, `sqlite::memory:` or `postgres://...` and brings its tables up to
    /// date. A SQLite file is locked against a second server.
    pub async fn open(url: &str) -> Result<Store, StoreError> {
        let place = place_of(url);
        let (db, lock) = if url.starts_with("sqlite:") {
            open_sqlite(url).await.map_err(|error| error.at(&place))?
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgPoolOptions::new().max_connections(PG_CONNECTIONS_MAX);
            (Db::Pg(options.connect(url).await.map_err(StoreError::Open)?), None)
        } else {
            let shown = url.split(':').next().unwrap_or_default();
            return Err(StoreError::BadAddress(format!("{shown}:...")));
        };
        let migrator = sqlx::migrate!("./migrations");
        match &db {
            Db::Sqlite { write, .. } => migrator.run(write).await,
            Db::Pg(pool) => migrator.run(pool).await,
        }
        .map_err(|source| StoreError::Migrate(source).at(&place))?;
        let epoch = Arc::new(AtomicI64::new(0));
        Ok(Store { db, epoch, place: place.into(), lock: lock.map(Arc::new) })
    }

    /// The outcome of a write; a full disk is named.
    pub(crate) fn written<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        outcome.map_err(|error| error.at(&self.place))
    }

    /// Closes the connections, so that everything is checkpointed. Then others may open it, whoever still holds a handle.
    pub async fn close(&self) {
        match &self.db {
            Db::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Db::Pg(pool) => pool.close().await,
        }
        if let Some(lock) = &self.lock
            && let Err(error) = lock.unlock()
        {
            tracing::warn!(%error, "the database's lock stays until this process ends");
        }
    }

    /// Prepares a statement: the database's own message when it is wrong for it.
    pub async fn prepare(&self, sql: &str) -> Result<(), StoreError> {
        use sqlx::{AssertSqlSafe, Executor, SqlSafeStr};
        let text = AssertSqlSafe(sql.to_owned()).into_sql_str();
        let failed = |source| StoreError::Read { what: "a statement", source };
        match &self.db {
            Db::Sqlite { write, .. } => write.prepare(text).await.map(drop).map_err(failed),
            Db::Pg(pool) => pool.prepare(text).await.map(drop).map_err(failed),
        }
    }

    pub(crate) async fn begin(&self) -> Result<Tx, StoreError> {
        let failed = |source| StoreError::Write { what: "a transaction", source };
        Ok(match &self.db {
            Db::Sqlite { write, .. } => {
                Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?)
            }
            Db::Pg(pool) => Tx::Pg(pool.begin().await.map_err(failed)?),
        })
    }
}

impl Tx {
    pub(crate) fn marks(&self) -> Marks {
        match self {
            Tx::Sqlite(_) => Marks::Plain,
            Tx::Pg(_) => Marks::Numbered,
        }
    }

    pub(crate) async fn commit(self, what: &'static str) -> Result<(), StoreError> {
        match self {
            Tx::Sqlite(tx) => tx.commit().await,
            Tx::Pg(tx) => tx.commit().await,
        }
        .map_err(|source| StoreError::Write { what, source })
    }
}

/// The database file; of PostgreSQL no more than that, for its address may hold a password.
fn place_of(url: &str) -> String {
    match url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path)) {
        Some(path) => path.split('?').next().unwrap_or_default().to_owned(),
        None => "of the PostgreSQL server".to_owned(),
    }
}

async fn open_sqlite(url: &str) -> Result<(Db, Option<File>), StoreError> {
    let options = SqliteConnectOptions::from_str(url)
        .map_err(StoreError::Open)?
        .create_if_missing(true)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .synchronous(SqliteSynchronous::Full);
    let one = |options| async {
        SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            // When SQLite itself rolls a transaction back (its disk is full, above all), sqlx goes on
            // counting it as open, and would refuse every later one: such a connection is replaced.
            .before_acquire(|connection, _| {
                let usable = !connection.is_in_transaction();
                Box::pin(async move { Ok(usable) })
            })
            .connect_with(options)
            .await
            .map_err(StoreError::Open)
    };
    if url.contains(":memory:") {
        let write = one(options).await?;
        return Ok((Db::Sqlite { read: write.clone(), write }, None));
    }
    let lock = lock_beside(options.get_filename())?;
    let options = options.journal_mode(SqliteJournalMode::Wal);
    let write = one(options.clone()).await?;
    let read = SqlitePoolOptions::new()
        .max_connections(SQLITE_READERS_MAX)
        .test_before_acquire(false)
        .connect_lazy_with(options.read_only(true).create_if_missing(false));
    Ok((Db::Sqlite { write, read }, Some(lock)))
}

fn lock_beside(file: &std::path::Path) -> Result<File, StoreError> {
    let mut path = file.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let shown = path.display().to_string();
    let file =
        File::create(&path).map_err(|source| StoreError::Lock { path: shown.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse { path: shown }),
        Err(std::fs::TryLockError::Error(source)) => Err(StoreError::Lock { path: shown, source }),
    }
}
