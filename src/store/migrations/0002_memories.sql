-- What a session's task has to know to go on after its server has died, and which its log does not say at once.
-- Written with the events that change it. A table of its own, since the rows of `positions` are to stay small.
CREATE TABLE memories (
  session INTEGER PRIMARY KEY,
  memory  TEXT NOT NULL                           -- JSON, the sandbox included
) STRICT;

-- How a cell is to be run, its source included: JSON; null once it is over.
ALTER TABLE cells ADD COLUMN request TEXT;

-- The memory says it, together with what else is true of it.
ALTER TABLE sessions DROP COLUMN sandbox;
