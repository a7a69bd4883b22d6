-- Wishes to hold the nodes of failures to come; JSON, written by toci-core.
CREATE TABLE autohold (
    id BIGINT PRIMARY KEY,
    body TEXT NOT NULL
);
