-- Whether the logs of a run are whole in the archive, and so shown: where many files cannot come at once, readers wait for
-- the last one.
ALTER TABLE log ADD COLUMN shown BIGINT NOT NULL DEFAULT 1;
CREATE INDEX log_hidden ON log (path) WHERE shown = 0;
