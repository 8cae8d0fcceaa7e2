-- What a session is. Rows change rarely.
CREATE TABLE sessions (
  key          INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused
  id           TEXT    NOT NULL UNIQUE,           -- the caller's own
  state        TEXT    NOT NULL,                  -- open, ended
  settings     TEXT    NOT NULL,                  -- JSON
  opened_at_ms INTEGER NOT NULL,
  workspace    TEXT    NOT NULL,                  -- a directory's name below workspaces/
  sandbox      TEXT                               -- a uuid
) STRICT;

-- Where a session stands. Rows are small and change with every append; apart from `sessions`, so that those of a
-- hundred busy sessions share one or two pages.
CREATE TABLE positions (
  session      INTEGER PRIMARY KEY,
  head         INTEGER NOT NULL,                  -- the last seq, 0 at the beginning
  first        INTEGER NOT NULL,                  -- the first seq that is still there, head + 1 if none is
  bytes        INTEGER NOT NULL,                  -- of JSON in the events that are still there
  bulk_end     INTEGER NOT NULL,                  -- the end of what counts in its bulk file
  kernel_frame INTEGER NOT NULL,                  -- the last frame of the kernel whose events are here
  active_at_ms INTEGER NOT NULL
) STRICT;

-- One number as the key, not (session, seq) WITHOUT ROWID: SQLite compares whole rows there, output included.
CREATE TABLE events (
  id    INTEGER PRIMARY KEY,                      -- session << 36 | seq
  at_ms INTEGER NOT NULL,
  bytes INTEGER NOT NULL,                         -- of JSON
  json  BLOB,                                     -- an Envelope, in the bytes that are sent; null if it is in the bulk file
  bulk  INTEGER                                   -- where in the session's bulk file it begins
) STRICT;

CREATE TABLE cells (
  session  INTEGER NOT NULL,
  cell     TEXT    NOT NULL,                      -- a uuid
  key      TEXT,                                  -- the caller's idempotency key
  queued   INTEGER NOT NULL,                      -- the seq of its CellQueued
  finished INTEGER,                               -- the seq of its CellFinished
  PRIMARY KEY (session, cell)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX cells_by_key ON cells (session, key) WHERE key IS NOT NULL;

-- Sessions that were deleted and whose events are still to be swept.
CREATE TABLE doomed (
  session INTEGER PRIMARY KEY
) STRICT;
