-- Changes that may be merged but for one that is gated in another queue; JSON, written by toci-core.
CREATE TABLE gate_waiting (
    id TEXT PRIMARY KEY,
    body TEXT NOT NULL
);
