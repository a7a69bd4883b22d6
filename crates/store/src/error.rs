//! How the store fails. All of these are the world's fault.

/// A failure of the store, named by the operation.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address is no database that is known.
    #[error("`{0}` is not a database address: use sqlite:PATH or postgres://...")]
    BadAddress(String),
    /// Another server has the file open.
    #[error("{path} is in use by another server")]
    InUse {
        /// The lock file.
        path: String,
    },
    /// The lock file could not be made.
    #[error("cannot make the lock file {path}")]
    Lock {
        /// The lock file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database could not be opened.
    #[error("cannot open the database")]
    Open(#[source] sqlx::Error),
    /// The tables could not be made or brought up to date.
    #[error("cannot bring the tables up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A read failed.
    #[error("cannot read {what}")]
    Read {
        /// What was to be read.
        what: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A row makes no sense.
    #[error("{what} in the database makes no sense: {why}")]
    BadRow {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A transaction failed; nothing of it is in the database, or (when the connection broke at
    /// its very end) all of it. Read again before going on.
    #[error("cannot write {what}")]
    Write {
        /// What was to be written.
        what: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// There is no room for what was to be written; nothing of it is in the database.
    #[error("the disk is full: {place}")]
    DiskFull {
        /// The database file, or whose database it is.
        place: String,
        /// What the database said.
        #[source]
        source: Box<StoreError>,
    },
    /// A newer server has taken the book over.
    #[error("another server has taken the book over")]
    TakenOver,
}

/// SQLite's `SQLITE_FULL` and `SQLITE_IOERR_SHMSIZE` (no room for the index of its log), PostgreSQL's `disk_full`.
const DISK_FULL_CODES: [&str; 3] = ["13", "4874", "53100"];

impl StoreError {
    /// The same failure, told as a full disk at `place` if that is what it comes from.
    pub(crate) fn at(self, place: &str) -> StoreError {
        if self.is_disk_full() {
            return StoreError::DiskFull { place: place.to_owned(), source: Box::new(self) };
        }
        self
    }

    fn is_disk_full(&self) -> bool {
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            let code = match error.downcast_ref::<sqlx::Error>() {
                Some(sqlx::Error::Database(said)) => said.code(),
                Some(_) | None => None,
            };
            if code.is_some_and(|code| DISK_FULL_CODES.contains(&code.as_ref())) {
                return true;
            }
            next = error.source();
        }
        false
    }
}
