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
    /// A newer server has taken the book over.
    #[error("another server has taken the book over")]
    TakenOver,
}
