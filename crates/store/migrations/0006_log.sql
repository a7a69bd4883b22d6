-- Logs in the archive: where each run's lie, and since when, so that they can expire.
CREATE TABLE log (
    run TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    kept_us BIGINT NOT NULL
);
CREATE INDEX log_path ON log (path);
CREATE INDEX log_kept ON log (kept_us);
