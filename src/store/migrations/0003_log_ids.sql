-- Which log a session has: another session of the same name has another one, in whatever database.
ALTER TABLE sessions ADD COLUMN log TEXT NOT NULL DEFAULT '';
UPDATE sessions SET log = lower(hex(randomblob(8)));
