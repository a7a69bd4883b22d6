-- The gate: one row an item, one an untold report, one for the rest; JSON, written by toci-core.
CREATE TABLE gate_item (
    id TEXT PRIMARY KEY,
    body TEXT NOT NULL
);

CREATE TABLE gate_report (
    id TEXT PRIMARY KEY,
    body TEXT NOT NULL
);

CREATE TABLE gate_state (
    id BIGINT PRIMARY KEY,
    body TEXT NOT NULL
);

-- How far each source was heard.
CREATE TABLE source_cursor (
    source TEXT NOT NULL,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (source, name)
);
