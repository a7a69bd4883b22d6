//! Tokens: only their SHA-256 is kept. Enrolment tokens are good once.

use crate::db::{Store, read_db, write_db};
use crate::error::StoreError;
use crate::row;
use sqlx::FromRow;
use toci_core::id::HostId;
use toci_core::time::Time;

const ADD: &str = "INSERT INTO token (hash, role, subject, created_us, revoked_us, expires_us) \
     VALUES ($1, $2, $3, $4, $5, $6)";
const READ: &str =
    "SELECT hash, role, subject, created_us, revoked_us, expires_us FROM token WHERE hash = $1";
const READ_ALL: &str = "SELECT hash, role, subject, created_us, revoked_us, expires_us FROM token \
     ORDER BY created_us, hash";
const REVOKE_ONE: &str = "UPDATE token SET revoked_us = $2 WHERE hash = $1 AND revoked_us IS NULL";
const REVOKE: &str = "UPDATE token SET revoked_us = $2 WHERE subject = $1 AND revoked_us IS NULL";
const REVOKE_HOST: &str = "UPDATE token SET revoked_us = $2 \
     WHERE subject = $1 AND role = 'host' AND revoked_us IS NULL";
const ADD_ENROL: &str = "INSERT INTO enrol_token (hash, host, expires_us) VALUES ($1, $2, $3)";
// The claim: one statement, so of two hosts with the same token one gets no row.
const CLAIM_ENROL: &str = "UPDATE enrol_token SET used_us = $3, used_by = $2 \
     WHERE hash = $1 AND used_us IS NULL AND expires_us > $3 AND (host IS NULL OR host = $2)";
// A name that is taken can only be enrolled again with a token that was made for that name.
const NAME_IS_FREE: &str = "SELECT COUNT(*) FROM enrol_token WHERE hash = $1 AND (host = $2 \
     OR NOT EXISTS (SELECT 1 FROM host WHERE id = $2))";
const ADD_HOST: &str = "INSERT INTO host (id, draining, enrolled_us) VALUES ($1, 0, $2) \
     ON CONFLICT (id) DO NOTHING";

pub(crate) const STATEMENTS: &[&str] = &[
    ADD,
    READ,
    READ_ALL,
    REVOKE,
    REVOKE_ONE,
    REVOKE_HOST,
    ADD_ENROL,
    CLAIM_ENROL,
    NAME_IS_FREE,
    ADD_HOST,
];

/// A token, by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Lower-case hex SHA-256 of the secret.
    pub hash: String,
    /// `client`, `host`, `operator` or `read_only`.
    pub role: String,
    /// Who has it.
    pub subject: String,
    /// When it was made.
    pub created: Time,
    /// When it dies by itself.
    pub expires: Option<Time>,
    /// When it was revoked.
    pub revoked: Option<Time>,
}

/// How an enrolment went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// The host is in.
    Done,
    /// The token is unknown, used, too old, or made for another name.
    BadToken,
    /// The name is taken, and the token was not made for it. The token is still good.
    HostExists,
}

#[derive(FromRow)]
struct Row {
    hash: String,
    role: String,
    subject: String,
    created_us: i64,
    revoked_us: Option<i64>,
    expires_us: Option<i64>,
}

impl From<Row> for TokenRow {
    fn from(r: Row) -> TokenRow {
        TokenRow {
            hash: r.hash,
            role: r.role,
            subject: r.subject,
            created: Time(r.created_us),
            expires: r.expires_us.map(Time),
            revoked: r.revoked_us.map(Time),
        }
    }
}

impl Store {
    /// Adds a token.
    pub async fn add_token(&self, t: &TokenRow) -> Result<(), StoreError> {
        let outcome = write_db!(self, p => sqlx::query(ADD)
            .bind(t.hash.clone())
            .bind(t.role.clone())
            .bind(t.subject.clone())
            .bind(t.created.0)
            .bind(t.revoked.map(|r| r.0))
            .bind(t.expires.map(|e| e.0))
            .execute(p)
            .await
            .map(drop))
        .map_err(|source| StoreError::Write { what: "a token", source });
        self.written(outcome)
    }

    /// The token with this hash, also when it is revoked.
    pub async fn token(&self, hash: &str) -> Result<Option<TokenRow>, StoreError> {
        let hash = hash.to_owned();
        let row: Option<Row> =
            read_db!(self, p => sqlx::query_as(READ).bind(hash).fetch_optional(p).await)
                .map_err(|source| StoreError::Read { what: "a token", source })?;
        Ok(row.map(TokenRow::from))
    }

    /// Every token.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let rows: Vec<Row> = read_db!(self, p => sqlx::query_as(READ_ALL).fetch_all(p).await)
            .map_err(|source| StoreError::Read { what: "tokens", source })?;
        Ok(rows.into_iter().map(TokenRow::from).collect())
    }

    /// Revokes all tokens of a subject; says how many.
    pub async fn revoke_tokens(&self, subject: &str, now: Time) -> Result<u64, StoreError> {
        let subject = subject.to_owned();
        let outcome = write_db!(self, p => sqlx::query(REVOKE)
            .bind(subject)
            .bind(now.0)
            .execute(p)
            .await
            .map(|done| done.rows_affected()))
        .map_err(|source| StoreError::Write { what: "tokens", source });
        self.written(outcome)
    }

    /// Revokes one token; false when it is unknown or was revoked before.
    pub async fn revoke_token(&self, hash: &str, now: Time) -> Result<bool, StoreError> {
        let hash = hash.to_owned();
        let outcome = write_db!(self, p => sqlx::query(REVOKE_ONE)
            .bind(hash)
            .bind(now.0)
            .execute(p)
            .await
            .map(|done| done.rows_affected() > 0))
        .map_err(|source| StoreError::Write { what: "a token", source });
        self.written(outcome)
    }

    /// Adds a one-time token, perhaps for one host name only.
    pub async fn add_enrol_token(
        &self,
        hash: &str,
        host: Option<&HostId>,
        expires: Time,
    ) -> Result<(), StoreError> {
        let (hash, host) = (hash.to_owned(), host.map(|h| h.as_str().to_owned()));
        let outcome = write_db!(self, p => sqlx::query(ADD_ENROL)
            .bind(hash)
            .bind(host)
            .bind(expires.0)
            .execute(p)
            .await
            .map(drop))
        .map_err(|source| StoreError::Write { what: "an enrolment token", source });
        self.written(outcome)
    }

    /// Claims a one-time token and enrols the host: its row and its token, replacing an older
    /// token of the same host, in one transaction.
    pub async fn enrol(
        &self,
        enrol_hash: &str,
        host: &HostId,
        host_token_hash: &str,
        now: Time,
    ) -> Result<Enrolment, StoreError> {
        self.written(self.enrol_once(enrol_hash, host, host_token_hash, now).await)
    }

    async fn enrol_once(
        &self,
        enrol_hash: &str,
        host: &HostId,
        host_token_hash: &str,
        now: Time,
    ) -> Result<Enrolment, StoreError> {
        const WHAT: &str = "an enrolment";
        let mut tx = self.begin().await?;
        let claim = [enrol_hash.into(), host.as_str().into(), now.0.into()];
        if row::execute(&mut tx, WHAT, CLAIM_ENROL, &claim).await? != 1 {
            return Ok(Enrolment::BadToken);
        }
        let name = [enrol_hash.into(), host.as_str().into()];
        if row::fetch_number(&mut tx, WHAT, NAME_IS_FREE, &name).await? == 0 {
            // The transaction is dropped, so the token is not used up.
            return Ok(Enrolment::HostExists);
        }
        let subject_now = [host.as_str().into(), now.0.into()];
        row::execute(&mut tx, WHAT, REVOKE_HOST, &subject_now).await?;
        row::execute(&mut tx, WHAT, ADD_HOST, &subject_now).await?;
        let token = [
            host_token_hash.into(),
            "host".into(),
            host.as_str().into(),
            now.0.into(),
            row::Value::Int(None),
            row::Value::Int(None),
        ];
        row::execute(&mut tx, WHAT, ADD, &token).await?;
        tx.commit(WHAT).await?;
        Ok(Enrolment::Done)
    }
}
