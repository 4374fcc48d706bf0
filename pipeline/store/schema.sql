-- The ledger. Migrations are numbered and append-only: a line that was released never changes.
--
-- Times are integer microseconds since 1970 UTC; order in time is the order of rowids, so a clock that jumps reorders
-- nothing. Money is integer micro-dollars. Paths are relative: to the manifest's output directory, or to the state
-- directory where the column is a BLOB (file names are bytes).

-- migration 1: the first shape

CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  is_play_money INTEGER NOT NULL CHECK (is_play_money IN (0, 1)),
  created_at INTEGER NOT NULL,
  version TEXT NOT NULL                       -- of the program that made this file
) STRICT;

CREATE TABLE manifest (
  manifest TEXT PRIMARY KEY,
  output BLOB NOT NULL                        -- its output directory, relative to the state directory
) STRICT;

CREATE TABLE run (
  run INTEGER PRIMARY KEY AUTOINCREMENT,
  manifest TEXT NOT NULL REFERENCES manifest,
  manifest_sha256 TEXT NOT NULL,
  version TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,                           -- NULL: still running, or died
  exit INTEGER,
  reason TEXT NOT NULL DEFAULT ''
) STRICT;

-- One image asked of the API. The first half is the request as it was last asked, the second half the image on disk,
-- which may still be that of an earlier request while state is not `done`.
CREATE TABLE task (
  task INTEGER PRIMARY KEY,
  manifest TEXT NOT NULL REFERENCES manifest,
  id TEXT NOT NULL,
  job TEXT NOT NULL,
  row TEXT NOT NULL,
  variant INTEGER NOT NULL,
  model TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('pending', 'done', 'failed', 'refused', 'unknown', 'conflict')),
  fingerprint TEXT NOT NULL,
  prompt_digest TEXT NOT NULL,
  inputs_digest TEXT NOT NULL,
  params_digest TEXT NOT NULL,
  model_digest TEXT NOT NULL,
  name TEXT NOT NULL,                         -- output name without extension
  name_key TEXT NOT NULL,                     -- the same, NFC and case-folded
  attempts INTEGER NOT NULL DEFAULT 0,
  unknowns INTEGER NOT NULL DEFAULT 0,        -- of this fingerprint
  cost_microusd INTEGER NOT NULL DEFAULT 0 CHECK (cost_microusd >= 0),
  reason TEXT NOT NULL DEFAULT '',
  updated_at INTEGER NOT NULL,
  path TEXT,
  sha256 TEXT CHECK (length(sha256) = 64),
  mime TEXT,
  width INTEGER,
  height INTEGER,
  size_bytes INTEGER,
  mtime_ns INTEGER,
  made TEXT,                                  -- fingerprint of the request that made the image
  maker INTEGER,                              -- attempt that made it; NULL: adopted by a rebuild
  UNIQUE (manifest, id),
  CHECK ((path IS NULL) = (sha256 IS NULL)),
  CHECK (state <> 'done' OR (path IS NOT NULL AND made = fingerprint))  -- a flipped bit in either is found at open
) STRICT;
CREATE INDEX task_name ON task (name_key);
CREATE INDEX task_path ON task (path) WHERE path IS NOT NULL;
CREATE INDEX task_adopted ON task (sha256) WHERE maker IS NULL AND sha256 IS NOT NULL;

-- How an image came to be, for people: JSON. Apart from `task`, so that walking a million tasks reads no prompts.
CREATE TABLE record (
  task INTEGER PRIMARY KEY REFERENCES task,
  record TEXT NOT NULL
) STRICT;

-- One HTTP request. AUTOINCREMENT: a number is never given twice, because parts on disk carry it.
CREATE TABLE attempt (
  attempt INTEGER PRIMARY KEY AUTOINCREMENT,
  run INTEGER NOT NULL REFERENCES run,
  task INTEGER NOT NULL REFERENCES task,
  number INTEGER NOT NULL,                    -- of this task, counted from 1
  state TEXT NOT NULL CHECK (state IN ('sent', 'ok', 'free', 'paid', 'unknown')),
  fingerprint TEXT NOT NULL,
  model TEXT NOT NULL,
  reserved_microusd INTEGER NOT NULL DEFAULT 0 CHECK (reserved_microusd >= 0),
  cost_microusd INTEGER NOT NULL DEFAULT 0 CHECK (cost_microusd >= 0),
  sent_at INTEGER NOT NULL,
  ended_at INTEGER,
  seconds REAL,
  fault TEXT,
  status INTEGER,
  code TEXT,
  request_id TEXT,
  response_id TEXT,
  model_version TEXT,
  prompt_tokens INTEGER,
  image_tokens INTEGER,
  text_tokens INTEGER,
  reason TEXT NOT NULL DEFAULT '',
  sha256 TEXT,                                -- of the image it brought
  kept TEXT                                   -- where that image is, while it has no final name
) STRICT;
CREATE INDEX attempt_task ON attempt (task);
CREATE INDEX attempt_run_money ON attempt (run, state, cost_microusd, reserved_microusd);
CREATE INDEX attempt_time_money ON attempt (sent_at, state, cost_microusd, reserved_microusd);
CREATE INDEX attempt_open ON attempt (state) WHERE state IN ('sent', 'unknown');
CREATE INDEX attempt_sha256 ON attempt (sha256) WHERE sha256 IS NOT NULL;

-- Until when nothing may be sent (P11).
CREATE TABLE hold (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  not_before INTEGER NOT NULL,
  reason TEXT NOT NULL
) STRICT;

-- SHA-256 of input images, so that an unchanged file is read once.
CREATE TABLE digest (
  path BLOB PRIMARY KEY,
  size_bytes INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  sha256 TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- migration 2: what was asked before is kept

-- A record is that of the task's latest request, whose fingerprint stands beside it.
ALTER TABLE record ADD COLUMN fingerprint TEXT NOT NULL DEFAULT '';
UPDATE record SET fingerprint = (SELECT fingerprint FROM task WHERE task.task = record.task);

-- The same of its earlier requests. Written only where a prompt, an input or a parameter changes.
CREATE TABLE earlier (
  task INTEGER NOT NULL REFERENCES task,
  fingerprint TEXT NOT NULL,
  record TEXT NOT NULL,
  PRIMARY KEY (task, fingerprint)
) STRICT;

-- migration 3: parts say which ledger they belong to

-- Eight hex digits, drawn once: several ledgers may publish into one directory, and each counts its attempts from 1.
ALTER TABLE meta ADD COLUMN ledger TEXT NOT NULL DEFAULT '';
UPDATE meta SET ledger = lower(hex(randomblob(4)));

-- migration 4: a hold belongs to the provider, key and model that were told to wait

CREATE TABLE hold_of (
  provider TEXT NOT NULL,                     -- '': of any, written by an earlier version; so are key and model
  key TEXT NOT NULL,                          -- the beginning of a digest: it tells keys apart
  model TEXT NOT NULL,
  set_at INTEGER NOT NULL,                    -- a clock that was ahead is known by it
  not_before INTEGER NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (provider, key, model)
) STRICT;
INSERT INTO hold_of SELECT '', '', '',
  coalesce((SELECT max(sent_at) FROM (SELECT sent_at FROM attempt ORDER BY attempt DESC LIMIT 1)), 0),
  not_before, reason FROM hold;
DROP TABLE hold;
ALTER TABLE hold_of RENAME TO hold;

-- migration 5: what a task met counts over all runs, until a person asks again

ALTER TABLE task ADD COLUMN released INTEGER NOT NULL DEFAULT 0;   -- attempts up to this one count no more
ALTER TABLE task ADD COLUMN accepted TEXT NOT NULL DEFAULT '';     -- the fingerprint whose refusal is taken as it is

-- migration 6: an image keeps its task when that is renamed, its input's metadata change, or a person edits it

ALTER TABLE task ADD COLUMN pixels_digest TEXT NOT NULL DEFAULT '';   -- of the inputs without their metadata; '': not known
ALTER TABLE task ADD COLUMN edit TEXT NOT NULL DEFAULT '';            -- what a person did to the image, accepted: edited, absent
ALTER TABLE digest ADD COLUMN pixels TEXT NOT NULL DEFAULT '';        -- SHA-256 of the file without its metadata
CREATE INDEX task_made ON task (made) WHERE made IS NOT NULL;
CREATE INDEX task_pixels ON task (pixels_digest) WHERE pixels_digest <> '';

-- migration 7: a run says what it found, so that `status` beside it needs neither manifest nor files

ALTER TABLE run ADD COLUMN found TEXT NOT NULL DEFAULT '';            -- JSON: due tasks, and the others by state

-- migration 8: what checks found in an image

ALTER TABLE task ADD COLUMN flags TEXT NOT NULL DEFAULT '';           -- JSON: flag -> reason; '': none

-- migration 9: what images look like, so that a twin of an earlier run is found

ALTER TABLE task ADD COLUMN look TEXT NOT NULL DEFAULT '';            -- a perceptual hash, hex; '': twins are not looked for
CREATE INDEX task_look ON task (manifest, job) WHERE look <> '';
