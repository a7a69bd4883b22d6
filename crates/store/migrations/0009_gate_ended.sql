-- Items that left their pipelines, for people who look back; JSON, written by toci-core. What is filtered by stands in
-- columns. `number` is 0 for what is no change.
CREATE TABLE gate_ended (
    id TEXT PRIMARY KEY,
    ended_us BIGINT NOT NULL,
    pipeline TEXT NOT NULL,
    project TEXT NOT NULL,
    source TEXT NOT NULL,
    number BIGINT NOT NULL,
    patchset TEXT NOT NULL,
    ended_as TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX gate_ended_order ON gate_ended (ended_us, id);
