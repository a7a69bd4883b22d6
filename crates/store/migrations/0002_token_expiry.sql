-- When a token dies by itself; none: never.
ALTER TABLE token ADD COLUMN expires_us BIGINT;
