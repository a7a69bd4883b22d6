-- Nodes that are not gone, and the highest number that was ever given: numbers and names are not used again.
CREATE TABLE node (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    label TEXT NOT NULL,
    provider TEXT NOT NULL,
    state TEXT NOT NULL,
    run TEXT,
    since_us BIGINT NOT NULL,
    machine TEXT NOT NULL,
    job TEXT NOT NULL,
    hold_until_us BIGINT,
    hold_reason TEXT NOT NULL,
    reason TEXT NOT NULL
);

CREATE TABLE node_number (
    id BIGINT PRIMARY KEY,
    last BIGINT NOT NULL
);
INSERT INTO node_number (id, last) VALUES (1, 0);
