-- A ledger as version 0.1.0 of the program left it when it was killed: schema 2, dumped as SQL.
PRAGMA application_id = 1768777584;
PRAGMA user_version = 2;
BEGIN TRANSACTION;
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
INSERT INTO "attempt" VALUES(1,1,1,1,'ok','c91113d49d58731215c1617dbb237c1abb15cae561126e863373348fe26fd2b8','gemini-3-pro-image',134000,142084,1795906702794824,1795906702905079,1.017070440002498799e-01,NULL,200,NULL,'20261128225822800424000FF55P2rG','tTsfK0I91EN1m7w1Uv2rdw','gemini-3-pro-image',2,1120,640,'','8fecdc8bb6acd6bf065bf61df95565294fcc8b3478ce7010e6affc2fcb8c0d76',NULL);
INSERT INTO "attempt" VALUES(2,1,2,1,'ok','464ead181cf50578acbdf63c984dca5303d2cfe897a5f0f4403fc806ff59ff1a','gemini-3-pro-image',134000,144280,1795906702900940,1795906702913227,3.70397599999705562368e-03,NULL,200,NULL,'202611282258229039950006VoIWYvs','BZS3RhltRcF2Vaxmk9jqWQ','gemini-3-pro-image',2,1120,823,'','1438c9481c2f3c68f86282c202093b209c304520554e01d4a02971166b46d8ba',NULL);
INSERT INTO "attempt" VALUES(3,1,3,1,'ok','d224ba859106453aa9fc08b53bbc80b45bec8db598b72e8724a4ae7e51befdd8','gemini-3-pro-image',134000,144072,1795906702901103,1795906702919257,1.03255060002993559464e-02,NULL,200,NULL,'20261128225822908434000rMkO2CKK','ZVWohF4hR1Cs2L_cp8AXSg','gemini-3-pro-image',564,1120,712,'','b019b5cc7e484545ee37a5757b8e2937f6286a62373a6d6e9234b15603c88308',NULL);
INSERT INTO "attempt" VALUES(4,1,4,1,'paid','ae20d9917ff2cadd52530ddd987a54d9adbba455b3a3cf73e99f986800f60afb','gemini-3-pro-image',134000,1836,1795906702906464,1795906702917913,4.83840800006873905658e-03,'refused',200,'IMAGE_SAFETY','20261128225822916673000y3vhBKC4',NULL,NULL,564,0,59,'refused (IMAGE_SAFETY): Unable to show the generated image. The model could not generate the image based on the prompt provided. You will not be charged for this request. Try rephrasing the prompt.',NULL,NULL);
INSERT INTO "attempt" VALUES(5,2,5,1,'sent','f3cce3c8a87db7997935ac43ffb9eab9def9ef4fdc0bbfbe2447c03813a7ca65','gemini-3-pro-image',134000,0,1795906706419658,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
INSERT INTO "attempt" VALUES(6,2,6,1,'sent','3180a1317e620b793a9e3105530ca13edc180b23f016b3d165e1b47a287fc048','gemini-3-pro-image',134000,0,1795906706463751,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'',NULL,NULL);
CREATE TABLE digest (
  path BLOB PRIMARY KEY,
  size_bytes INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  sha256 TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "digest" VALUES(X'2E2E2F2E2E2F70686F746F2E706E67',77,1795906698867666369,'8b9b0ed1626d2b433706da847997f97bb395b5b4d8e06c04fb82276de8c69fb3');
CREATE TABLE earlier (
  task INTEGER NOT NULL REFERENCES task,
  fingerprint TEXT NOT NULL,
  record TEXT NOT NULL,
  PRIMARY KEY (task, fingerprint)
) STRICT;
CREATE TABLE hold (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  not_before INTEGER NOT NULL,
  reason TEXT NOT NULL
) STRICT;
CREATE TABLE manifest (
  manifest TEXT PRIMARY KEY,
  output BLOB NOT NULL                        -- its output directory, relative to the state directory
) STRICT;
INSERT INTO "manifest" VALUES('shop',X'2E2E');
CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  is_play_money INTEGER NOT NULL CHECK (is_play_money IN (0, 1)),
  created_at INTEGER NOT NULL,
  version TEXT NOT NULL                       -- of the program that made this file
) STRICT;
INSERT INTO "meta" VALUES(1,1,1795906702305516,'0.1.0');
CREATE TABLE record (
  task INTEGER PRIMARY KEY REFERENCES task,
  record TEXT NOT NULL
, fingerprint TEXT NOT NULL DEFAULT '') STRICT;
INSERT INTO "record" VALUES(1,'{"id":"mugs/red@1","job":"mugs","row":"red","variant":1,"prompt":"A red mug","model":"gemini-3-pro-image","name":"mugs/red-1","system":null,"aspect_ratio":"3:2","size":"1K","seed":null,"temperature":null,"params":{"topP":0.9},"safety":{},"tags":[],"rerun_when":["prompt","inputs","params","model"],"keep_metadata":false,"embed":false,"matrix":{},"fields":{"id":"red","colour":"red"},"images":[]}','c91113d49d58731215c1617dbb237c1abb15cae561126e863373348fe26fd2b8');
INSERT INTO "record" VALUES(2,'{"id":"mugs/red@2","job":"mugs","row":"red","variant":2,"prompt":"A red mug","model":"gemini-3-pro-image","name":"mugs/red-2","system":null,"aspect_ratio":"3:2","size":"1K","seed":null,"temperature":null,"params":{"topP":0.9},"safety":{},"tags":[],"rerun_when":["prompt","inputs","params","model"],"keep_metadata":false,"embed":false,"matrix":{},"fields":{"id":"red","colour":"red"},"images":[]}','464ead181cf50578acbdf63c984dca5303d2cfe897a5f0f4403fc806ff59ff1a');
INSERT INTO "record" VALUES(3,'{"id":"night/cafe","job":"night","row":"cafe","variant":1,"prompt":"The same at night","model":"gemini-3-pro-image","name":"night/cafe","system":null,"aspect_ratio":null,"size":null,"seed":null,"temperature":0.5,"params":{},"safety":{},"tags":[],"rerun_when":["prompt","inputs","params","model"],"keep_metadata":false,"embed":false,"matrix":{},"fields":{},"images":[{"path":"../../photo.png","sha256":"8b9b0ed1626d2b433706da847997f97bb395b5b4d8e06c04fb82276de8c69fb3","size_bytes":77}]}','d224ba859106453aa9fc08b53bbc80b45bec8db598b72e8724a4ae7e51befdd8');
INSERT INTO "record" VALUES(4,'{"id":"night/bad","job":"night","row":"bad","variant":1,"prompt":"A mug [[refuse]]","model":"gemini-3-pro-image","name":"night/bad","system":null,"aspect_ratio":null,"size":null,"seed":null,"temperature":0.5,"params":{},"safety":{},"tags":[],"rerun_when":["prompt","inputs","params","model"],"keep_metadata":false,"embed":false,"matrix":{},"fields":{},"images":[{"path":"../../photo.png","sha256":"8b9b0ed1626d2b433706da847997f97bb395b5b4d8e06c04fb82276de8c69fb3","size_bytes":77}]}','ae20d9917ff2cadd52530ddd987a54d9adbba455b3a3cf73e99f986800f60afb');
INSERT INTO "record" VALUES(5,'{"id":"mugs/lost@1","job":"mugs","row":"lost","variant":1,"prompt":"A lost mug","model":"gemini-3-pro-image","name":"mugs/lost-1","system":null,"aspect_ratio":"3:2","size":"1K","seed":null,"temperature":null,"params":{"topP":0.9},"safety":{},"tags":[],"rerun_when":["prompt","inputs","params","model"],"keep_metadata":false,"embed":false,"matrix":{},"fields":{"id":"lost","colour":"lost"},"images":[]}','f3cce3c8a87db7997935ac43ffb9eab9def9ef4fdc0bbfbe2447c03813a7ca65');
INSERT INTO "record" VALUES(6,'{"id":"mugs/lost@2","job":"mugs","row":"lost","variant":2,"prompt":"A lost mug","model":"gemini-3-pro-image","name":"mugs/lost-2","system":null,"aspect_ratio":"3:2","size":"1K","seed":null,"temperature":null,"params":{"topP":0.9},"safety":{},"tags":[],"rerun_when":["prompt","inputs","params","model"],"keep_metadata":false,"embed":false,"matrix":{},"fields":{"id":"lost","colour":"lost"},"images":[]}','3180a1317e620b793a9e3105530ca13edc180b23f016b3d165e1b47a287fc048');
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
INSERT INTO "run" VALUES(1,'shop','00797873b05036e369b7318063aff52c80677d9cb39000c0dffa2f1d4c50f1bd','0.1.0',1795906702411443,1795906702920306,3,'');
INSERT INTO "run" VALUES(2,'shop','00797873b05036e369b7318063aff52c80677d9cb39000c0dffa2f1d4c50f1bd','0.1.0',1795906705940434,NULL,NULL,'');
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
INSERT INTO "task" VALUES(1,'shop','mugs/red@1','mugs','red',1,'gemini-3-pro-image','done','c91113d49d58731215c1617dbb237c1abb15cae561126e863373348fe26fd2b8','13ba6100ff09ed37','4f53cda18c2baa0c','45c64fad3fa734c0','gemini-3-pro-image','mugs/red-1','mugs/red-1',1,0,142084,'',1795906702905079,'mugs/red-1.png','8fecdc8bb6acd6bf065bf61df95565294fcc8b3478ce7010e6affc2fcb8c0d76','image/png',8,8,77,1795906702895666608,'c91113d49d58731215c1617dbb237c1abb15cae561126e863373348fe26fd2b8',1);
INSERT INTO "task" VALUES(2,'shop','mugs/red@2','mugs','red',2,'gemini-3-pro-image','done','464ead181cf50578acbdf63c984dca5303d2cfe897a5f0f4403fc806ff59ff1a','13ba6100ff09ed37','4f53cda18c2baa0c','b6254d1259dd4f39','gemini-3-pro-image','mugs/red-2','mugs/red-2',1,0,144280,'',1795906702913227,'mugs/red-2.png','1438c9481c2f3c68f86282c202093b209c304520554e01d4a02971166b46d8ba','image/png',8,8,77,1795906702903666609,'464ead181cf50578acbdf63c984dca5303d2cfe897a5f0f4403fc806ff59ff1a',2);
INSERT INTO "task" VALUES(3,'shop','night/cafe','night','cafe',1,'gemini-3-pro-image','done','d224ba859106453aa9fc08b53bbc80b45bec8db598b72e8724a4ae7e51befdd8','3de07a30e2f34cfa','74f7caf89b53af52','494bb3cecd426f94','gemini-3-pro-image','night/cafe','night/cafe',1,0,144072,'',1795906702919257,'night/cafe.png','b019b5cc7e484545ee37a5757b8e2937f6286a62373a6d6e9234b15603c88308','image/png',8,8,77,1795906702911666609,'d224ba859106453aa9fc08b53bbc80b45bec8db598b72e8724a4ae7e51befdd8',3);
INSERT INTO "task" VALUES(4,'shop','night/bad','night','bad',1,'gemini-3-pro-image','refused','ae20d9917ff2cadd52530ddd987a54d9adbba455b3a3cf73e99f986800f60afb','a13b666e7740f9b8','74f7caf89b53af52','494bb3cecd426f94','gemini-3-pro-image','night/bad','night/bad',1,0,1836,'refused (IMAGE_SAFETY): Unable to show the generated image. The model could not generate the image based on the prompt provided. You will not be charged for this request. Try rephrasing the prompt.',1795906702917913,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "task" VALUES(5,'shop','mugs/lost@1','mugs','lost',1,'gemini-3-pro-image','pending','f3cce3c8a87db7997935ac43ffb9eab9def9ef4fdc0bbfbe2447c03813a7ca65','d83b6210e6df8a33','4f53cda18c2baa0c','45c64fad3fa734c0','gemini-3-pro-image','mugs/lost-1','mugs/lost-1',1,0,0,'',1795906706419658,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "task" VALUES(6,'shop','mugs/lost@2','mugs','lost',2,'gemini-3-pro-image','pending','3180a1317e620b793a9e3105530ca13edc180b23f016b3d165e1b47a287fc048','d83b6210e6df8a33','4f53cda18c2baa0c','b6254d1259dd4f39','gemini-3-pro-image','mugs/lost-2','mugs/lost-2',1,0,0,'',1795906706463751,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE INDEX task_name ON task (name_key);
CREATE INDEX task_path ON task (path) WHERE path IS NOT NULL;
CREATE INDEX task_adopted ON task (sha256) WHERE maker IS NULL AND sha256 IS NOT NULL;
CREATE INDEX attempt_task ON attempt (task);
CREATE INDEX attempt_run_money ON attempt (run, state, cost_microusd, reserved_microusd);
CREATE INDEX attempt_time_money ON attempt (sent_at, state, cost_microusd, reserved_microusd);
CREATE INDEX attempt_open ON attempt (state) WHERE state IN ('sent', 'unknown');
CREATE INDEX attempt_sha256 ON attempt (sha256) WHERE sha256 IS NOT NULL;
INSERT INTO "sqlite_sequence" VALUES('run',2);
INSERT INTO "sqlite_sequence" VALUES('attempt',6);
COMMIT;
