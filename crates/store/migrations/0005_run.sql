-- Runs; JSON, written by toci-core. `live`: something of it may be running.
CREATE TABLE run (
    id TEXT PRIMARY KEY,
    live BIGINT NOT NULL,
    queued_us BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX run_live ON run (live, queued_us);
