-- What is kept of providers of nodes: who has paused them, and which builds fail there; JSON, written by toci-core.
CREATE TABLE provider (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
);
