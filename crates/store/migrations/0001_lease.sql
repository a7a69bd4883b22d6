-- One text for SQLite and PostgreSQL: TEXT and BIGINT only, times in microseconds, JSON as TEXT.

-- Who writes the book, and what the clock said at its last commit. One row.
CREATE TABLE writer (
    id BIGINT PRIMARY KEY,
    epoch BIGINT NOT NULL,
    boot TEXT NOT NULL,
    boot_us BIGINT NOT NULL,
    book_us BIGINT NOT NULL
);
INSERT INTO writer (id, epoch, boot, boot_us, book_us) VALUES (1, 0, '', 0, 0);

CREATE TABLE host (
    id TEXT PRIMARY KEY,
    draining BIGINT NOT NULL,
    enrolled_us BIGINT NOT NULL
);

CREATE TABLE testenv (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    number BIGINT NOT NULL,
    shape TEXT NOT NULL,
    labels TEXT NOT NULL,
    generation BIGINT NOT NULL,
    state TEXT NOT NULL,
    lease BIGINT,
    draining BIGINT NOT NULL,
    strikes BIGINT NOT NULL,
    reason TEXT NOT NULL,
    since_us BIGINT NOT NULL
);

CREATE TABLE lease (
    id BIGINT PRIMARY KEY,
    live BIGINT NOT NULL,
    state TEXT NOT NULL,
    moment_us BIGINT NOT NULL,
    owner TEXT NOT NULL,
    project TEXT NOT NULL,
    label TEXT,
    shape TEXT,
    count BIGINT NOT NULL,
    priority BIGINT NOT NULL,
    purpose TEXT NOT NULL,
    idempotency_key TEXT,
    timeout_us BIGINT NOT NULL,
    wait_until_us BIGINT,
    queue_rank BIGINT NOT NULL,
    requested_us BIGINT NOT NULL,
    active_us BIGINT,
    testenvs TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX lease_live ON lease (live, id);

-- The TE JSON of a live lease, with its key. Erased when the lease ends.
CREATE TABLE credential (
    lease BIGINT NOT NULL,
    testenv TEXT NOT NULL,
    generation BIGINT NOT NULL,
    te_json TEXT NOT NULL,
    PRIMARY KEY (lease, testenv)
);

CREATE TABLE hold_budget (
    project TEXT PRIMARY KEY,
    used_us BIGINT NOT NULL,
    at_us BIGINT NOT NULL
);

CREATE TABLE token (
    hash TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    subject TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    revoked_us BIGINT
);

CREATE TABLE enrol_token (
    hash TEXT PRIMARY KEY,
    host TEXT,
    expires_us BIGINT NOT NULL,
    used_us BIGINT,
    used_by TEXT
);
