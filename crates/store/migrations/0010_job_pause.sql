-- Jobs that an operator has paused.
CREATE TABLE job_pause (
    job TEXT PRIMARY KEY,
    since_us BIGINT NOT NULL,
    paused_by TEXT NOT NULL,
    reason TEXT NOT NULL
);
