-- Every statement the store sends, by name; `ledger_file.query` returns them.

-- name: broken_rows
-- SQLite does not read CHECK constraints of a database that is open read-only, so the check at start asks them itself.
SELECT 'task' FROM task WHERE state NOT IN ('pending', 'done', 'failed', 'refused', 'unknown', 'conflict')
  OR cost_microusd < 0 OR (path IS NULL) <> (sha256 IS NULL) OR length(sha256) <> 64
  OR (state = 'done' AND (path IS NULL OR made IS NOT fingerprint))
UNION ALL
SELECT 'attempt' FROM attempt WHERE state NOT IN ('sent', 'ok', 'free', 'paid', 'unknown')
  OR reserved_microusd < 0 OR cost_microusd < 0
UNION ALL
SELECT 'meta' FROM meta WHERE is_play_money NOT IN (0, 1)
LIMIT 3

-- name: set_meta
INSERT INTO meta (one, is_play_money, created_at, version, ledger)
VALUES (1, :is_play_money, :now, :version, lower(hex(randomblob(4))))

-- name: is_play_money
SELECT is_play_money FROM meta

-- name: created_at
SELECT created_at FROM meta

-- name: ledger_id
SELECT ledger FROM meta

-- name: keep_ledger_id
-- A rebuilt ledger goes on with the numbers of the damaged one, so it has its name as well.
UPDATE meta SET ledger = :ledger

-- name: set_manifest
INSERT INTO manifest (manifest, output) VALUES (:manifest, :output)
ON CONFLICT (manifest) DO UPDATE SET output = excluded.output WHERE output <> excluded.output

-- name: output_of
SELECT output FROM manifest WHERE manifest = :manifest

-- name: begin_run
INSERT INTO run (manifest, manifest_sha256, version, started_at, found)
VALUES (:manifest, :manifest_sha256, :version, :now, :found)

-- name: set_found
UPDATE run SET found = :found WHERE run = :run

-- name: end_run
UPDATE run SET ended_at = :now, exit = :exit, reason = :reason WHERE run = :run

-- name: intend_task
-- Boundary B0, first half: what is asked now becomes the task's request; the image it has stays known.
INSERT INTO task (manifest, id, job, row, variant, model, state, fingerprint, prompt_digest, inputs_digest,
                  params_digest, model_digest, pixels_digest, name, name_key, attempts, updated_at)
VALUES (:manifest, :id, :job, :row, :variant, :model, 'pending', :fingerprint, :prompt, :inputs,
        :params, :model_digest, :pixels, :name, :name_key, 1, :now)
ON CONFLICT (manifest, id) DO UPDATE SET
  job = excluded.job, row = excluded.row, variant = excluded.variant, model = excluded.model, state = 'pending',
  unknowns = CASE WHEN fingerprint IN (SELECT value FROM json_each(:fingerprints)) THEN unknowns ELSE 0 END,
  fingerprint = excluded.fingerprint, prompt_digest = excluded.prompt_digest, inputs_digest = excluded.inputs_digest,
  params_digest = excluded.params_digest, model_digest = excluded.model_digest, pixels_digest = excluded.pixels_digest,
  name = excluded.name, name_key = excluded.name_key, attempts = attempts + 1, reason = '',
  updated_at = excluded.updated_at
RETURNING task, attempts, maker, path, sha256, mime, width, height, size_bytes, mtime_ns

-- name: set_record
INSERT INTO record (task, fingerprint, record) VALUES (:task, :fingerprint, :record)
ON CONFLICT (task) DO UPDATE SET fingerprint = excluded.fingerprint, record = excluded.record
  WHERE record <> excluded.record OR fingerprint <> excluded.fingerprint

-- name: keep_record
-- Before `set_record`, which takes its place.
INSERT OR REPLACE INTO earlier (task, fingerprint, record)
SELECT task, fingerprint, record FROM record WHERE task = :task AND fingerprint <> :fingerprint

-- name: intend_attempt
-- Boundary B0, second half.
INSERT INTO attempt (run, task, number, state, fingerprint, model, reserved_microusd, sent_at)
VALUES (:run, :task, :number, 'sent', :fingerprint, :model, :reserved, :now)

-- name: withdraw_attempt
-- The caller went away before anything was sent.
UPDATE attempt SET state = 'free', ended_at = :now, reason = 'withdrawn before it was sent'
WHERE attempt = :attempt AND state = 'sent'

-- name: receive
-- An image that will lose its part when it gets its name: recovery finds it by this hash.
UPDATE attempt SET sha256 = :sha256, kept = :kept WHERE attempt = :attempt

-- name: finish_task
-- Boundary B5, first half. Before `finish_attempt`, whose old cost and state it takes back.
UPDATE task SET state = 'done', path = :path, sha256 = :sha256, mime = :mime, width = :width, height = :height,
  size_bytes = :size_bytes, mtime_ns = :mtime_ns, made = attempt.fingerprint, maker = attempt.attempt, edit = '', flags = :flags,
  look = :look,
  unknowns = max(0, unknowns - (attempt.state = 'unknown')),
  cost_microusd = task.cost_microusd + :cost - attempt.cost_microusd, reason = '', updated_at = :now
FROM attempt WHERE attempt.attempt = :attempt AND task.task = attempt.task

-- name: finish_attempt
-- Boundary B5, second half.
UPDATE attempt SET state = 'ok', cost_microusd = :cost, ended_at = coalesce(ended_at, :now),
  seconds = coalesce(:seconds, seconds), status = coalesce(:status, status),
  request_id = coalesce(:request_id, request_id), response_id = coalesce(:response_id, response_id),
  model_version = coalesce(:model_version, model_version), prompt_tokens = coalesce(:prompt_tokens, prompt_tokens),
  image_tokens = coalesce(:image_tokens, image_tokens), text_tokens = coalesce(:text_tokens, text_tokens),
  reason = :reason, fault = NULL, sha256 = :sha256, kept = NULL
WHERE attempt = :attempt

-- name: close_task
-- A task that has the image it asks for stays done when another request for it brought none.
UPDATE task SET state = CASE WHEN stays THEN 'done' ELSE :state END, reason = CASE WHEN stays THEN '' ELSE :reason END,
  unknowns = max(0, unknowns + :is_unknown - (asked.state = 'unknown')),
  cost_microusd = task.cost_microusd + :cost - asked.cost_microusd, updated_at = :now
FROM (SELECT attempt.task, attempt.state, attempt.cost_microusd,
        coalesce(made = attempt.fingerprint AND path IS NOT NULL, FALSE) AND NOT :is_unknown AND :sha256 IS NULL AS stays
      FROM attempt JOIN task USING (task) WHERE attempt = :attempt) AS asked
WHERE task.task = asked.task

-- name: close_attempt
UPDATE attempt SET state = :attempt_state, cost_microusd = :cost, reserved_microusd = coalesce(:reserved, reserved_microusd),
  ended_at = :now, seconds = :seconds, fault = :fault, status = :status, code = :code, request_id = :request_id,
  response_id = :response_id, prompt_tokens = :prompt_tokens, image_tokens = :image_tokens,
  text_tokens = :text_tokens, reason = :reason, sha256 = :sha256, kept = :kept
WHERE attempt = :attempt

-- name: fail_task
UPDATE task SET state = 'failed', updated_at = :now WHERE manifest = :manifest AND id = :id AND state = 'pending'

-- name: open_attempts
-- Left `sent` by a process that is gone, in this output directory or for this manifest.
SELECT attempt.attempt FROM attempt JOIN task USING (task) JOIN manifest USING (manifest)
WHERE attempt.state = 'sent' AND (manifest.output = :output OR manifest.manifest = :manifest)

-- name: unknown_attempts
-- Of this manifest, newest first: a bucket may have the image of one although its put was given up.
SELECT attempt.attempt FROM attempt JOIN task USING (task)
WHERE attempt.state = 'unknown' AND manifest = :manifest ORDER BY attempt.attempt DESC

-- name: attempt_record
-- Whose image is it? Asked for every part found on disk.
SELECT attempt.attempt, attempt.state AS attempt_state, attempt.fingerprint, attempt.reserved_microusd,
  attempt.cost_microusd, attempt.sha256 AS received, attempt.kept, attempt.number, attempt.sent_at, attempt.ended_at,
  task.task, task.id, task.manifest, task.state,
  task.fingerprint AS asked, task.name, task.attempts, task.maker, task.path, task.sha256, task.mime, task.width,
  task.height, task.size_bytes, task.mtime_ns
FROM attempt JOIN task USING (task) WHERE attempt = :attempt

-- name: last_attempt
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'attempt'), 0)

-- name: raise_sequence
UPDATE sqlite_sequence SET seq = max(seq, :attempt) WHERE name = 'attempt'

-- name: start_sequence
INSERT INTO sqlite_sequence (name, seq) SELECT 'attempt', :attempt
WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'attempt')

-- name: lose_task
-- Recovery: it is not known whether this request was executed.
UPDATE task SET state = 'unknown', unknowns = unknowns + 1, reason = :reason, updated_at = :now
FROM attempt WHERE attempt.attempt = :attempt AND task.task = attempt.task AND attempt.number = task.attempts

-- name: lose_attempt
UPDATE attempt SET state = 'unknown', ended_at = :now, fault = 'silence', reason = :reason WHERE attempt = :attempt

-- name: touch_artifact
UPDATE task SET mtime_ns = :mtime_ns WHERE manifest = :manifest AND id = :id AND sha256 = :sha256

-- name: move_task
UPDATE task SET name = :name, name_key = :name_key, path = :path, mtime_ns = :mtime_ns, updated_at = :now
WHERE manifest = :manifest AND id = :id

-- name: accept_task
-- The present image is taken as what the present request would bring; how it came to be stays in its record.
UPDATE task SET fingerprint = :fingerprint, made = :fingerprint, prompt_digest = :prompt, inputs_digest = :inputs,
  params_digest = :params, model_digest = :model_digest, pixels_digest = :pixels, model = :model, unknowns = 0,
  reason = 'accepted as it is', updated_at = :now
WHERE manifest = :manifest AND id = :id AND state = 'done'

-- name: accept_edited
-- The file that stands there is the task's image from now on. The attempt keeps the hash of what it brought.
UPDATE task SET edit = 'edited', flags = '', look = '', path = :path, sha256 = :sha256, mime = :mime, width = :width,
  height = :height, size_bytes = :size_bytes, mtime_ns = :mtime_ns, updated_at = :now
WHERE manifest = :manifest AND id = :id AND state = 'done'

-- name: accept_absent
UPDATE task SET edit = 'absent', updated_at = :now WHERE manifest = :manifest AND id = :id AND state = 'done'

-- name: forget_absent
UPDATE task SET edit = '', updated_at = :now WHERE manifest = :manifest AND id = :id AND edit = 'absent'

-- name: hand_over_attempts
-- Before `drop_task`: what the new task cost so far stays counted, now with the image that it takes over.
UPDATE attempt SET task = (SELECT task FROM task WHERE manifest = :manifest AND id = :former)
WHERE task = (SELECT task FROM task WHERE manifest = :manifest AND id = :id)

-- name: hand_over_costs
UPDATE task SET attempts = task.attempts + new.attempts, cost_microusd = task.cost_microusd + new.cost_microusd
FROM task AS new WHERE new.manifest = :manifest AND new.id = :id AND task.manifest = :manifest AND task.id = :former

-- name: drop_record
DELETE FROM record WHERE task = (SELECT task FROM task WHERE manifest = :manifest AND id = :id)

-- name: drop_earlier
DELETE FROM earlier WHERE task = (SELECT task FROM task WHERE manifest = :manifest AND id = :id)

-- name: drop_task
DELETE FROM task WHERE manifest = :manifest AND id = :id

-- name: rename_task
-- Its image, attempts and money go along; the file gets its new name afterwards.
UPDATE task SET id = :id, job = :job, row = :row, variant = :variant, model = :model, fingerprint = :fingerprint,
  made = :fingerprint, prompt_digest = :prompt, inputs_digest = :inputs, params_digest = :params,
  model_digest = :model_digest, pixels_digest = :pixels, reason = '', updated_at = :now
WHERE manifest = :manifest AND id = :former AND state = 'done'
RETURNING task

-- name: made_for
-- Tasks whose image is what a request asks for, its input images compared by their pixels.
SELECT id FROM task WHERE made = :fingerprint AND manifest = :manifest AND state = 'done' AND id <> :id
UNION ALL
SELECT id FROM task WHERE pixels_digest = :pixels AND pixels_digest <> '' AND prompt_digest = :prompt
  AND params_digest = :params AND manifest = :manifest AND state = 'done' AND id <> :id AND made <> :fingerprint

-- name: made_by_models
SELECT id, prompt_digest || inputs_digest || params_digest FROM task
WHERE manifest = :manifest AND state = 'done' AND model_digest IN (SELECT value FROM json_each(:models))

-- name: has_images
SELECT 1 FROM task WHERE manifest = :manifest AND path IS NOT NULL LIMIT 1

-- name: accept_refused
UPDATE task SET accepted = fingerprint, updated_at = :now
WHERE manifest = :manifest AND id = :id AND state = 'refused'
  AND fingerprint IN (SELECT value FROM json_each(:fingerprints))

-- name: settle_task
-- Before `settle_attempt`. What is asked again is bought knowingly: so a billed one waits for `retry`.
UPDATE task SET unknowns = max(0, unknowns - (attempt.fingerprint = task.fingerprint)),
  cost_microusd = task.cost_microusd + :is_billed * attempt.reserved_microusd,
  state = CASE WHEN task.state <> 'unknown' OR attempt.fingerprint <> task.fingerprint THEN task.state
    WHEN :is_billed THEN 'failed'
    WHEN EXISTS (SELECT 1 FROM attempt AS other WHERE other.task = task.task AND other.state = 'unknown'
      AND other.attempt <> :attempt AND other.fingerprint = task.fingerprint) THEN 'unknown'
    ELSE 'pending' END,
  reason = CASE WHEN task.state = 'unknown' THEN :reason ELSE task.reason END, updated_at = :now
FROM attempt WHERE attempt.attempt = :attempt AND attempt.state = 'unknown' AND task.task = attempt.task

-- name: settle_attempt
UPDATE attempt SET state = CASE WHEN :is_billed THEN 'paid' ELSE 'free' END,
  cost_microusd = :is_billed * reserved_microusd, reason = :reason
WHERE attempt = :attempt AND state = 'unknown'

-- name: forget_image
UPDATE task SET state = 'pending', path = NULL, sha256 = NULL, mime = NULL, width = NULL, height = NULL,
  size_bytes = NULL, mtime_ns = NULL, made = NULL, maker = NULL, edit = '', flags = '', look = '',
  reason = 'removed by prune', updated_at = :now
WHERE manifest = :manifest AND id = :id

-- name: restore_done
-- The image of the present request is there: a later attempt that brought none takes nothing away.
UPDATE task SET state = 'done', updated_at = :now
WHERE manifest = :manifest AND state IN ('pending', 'failed', 'refused', 'unknown') AND made = fingerprint
  AND path IS NOT NULL

-- name: adopt_task
-- Rebuild: a file stands where this task's image would, and the ledger has none.
INSERT INTO task (manifest, id, job, row, variant, model, state, fingerprint, prompt_digest, inputs_digest,
                  params_digest, model_digest, name, name_key, updated_at, reason,
                  path, sha256, mime, width, height, size_bytes, mtime_ns, made)
VALUES (:manifest, :id, :job, :row, :variant, :model, 'done', :fingerprint, :prompt, :inputs,
        :params, :model_digest, :name, :name_key, :now, 'adopted by rebuild',
        :path, :sha256, :mime, :width, :height, :size_bytes, :mtime_ns, :fingerprint)
ON CONFLICT (manifest, id) DO UPDATE SET state = 'done', fingerprint = excluded.fingerprint,
  prompt_digest = excluded.prompt_digest, inputs_digest = excluded.inputs_digest,
  params_digest = excluded.params_digest, model_digest = excluded.model_digest, model = excluded.model,
  name = excluded.name, name_key = excluded.name_key, updated_at = excluded.updated_at, reason = excluded.reason,
  path = excluded.path, sha256 = excluded.sha256, mime = excluded.mime, width = excluded.width,
  height = excluded.height, size_bytes = excluded.size_bytes, mtime_ns = excluded.mtime_ns, made = excluded.made,
  maker = NULL

-- name: key_of_task
SELECT task FROM task WHERE manifest = :manifest AND id = :id

-- name: release_task
-- A task whose redo is unknown is done: the old image stays.
UPDATE task SET state = iif(state = 'done', 'done', 'pending'), unknowns = 0, accepted = '', updated_at = :now,
  released = coalesce((SELECT max(attempt) FROM attempt WHERE attempt.task = task.task), 0)
WHERE manifest = :manifest AND id = :id AND :state IN (state, iif(state = 'done' AND unknowns > 0, 'unknown', ''))

-- name: set_hold
-- The model is that of the request whose answer said to wait.
INSERT INTO hold (provider, key, model, set_at, not_before, reason) VALUES (:provider, :key,
  coalesce((SELECT model FROM attempt WHERE run = :run AND fault IS NOT NULL AND ended_at IS NOT NULL
            ORDER BY fault = 'quota' DESC, fault = 'throttled' DESC, attempt DESC LIMIT 1), ''),
  :now, :not_before, :reason)
ON CONFLICT (provider, key, model) DO UPDATE SET
  not_before = CASE WHEN set_at > excluded.set_at THEN excluded.not_before
                    ELSE max(not_before, excluded.not_before) END,
  set_at = excluded.set_at, reason = excluded.reason

-- name: forget_holds
-- What binds one provider and key.
DELETE FROM hold WHERE provider IN ('', :provider) AND key IN ('', :key)

-- name: forget_void_holds
-- What a clock that was ahead has dated.
DELETE FROM hold WHERE set_at > :later

-- name: holds
SELECT provider, key, model, set_at, not_before, reason FROM hold ORDER BY not_before

-- name: remember_digest
INSERT INTO digest (path, size_bytes, mtime_ns, sha256, pixels)
VALUES (:path, :size_bytes, :mtime_ns, :sha256, :pixels)
ON CONFLICT (path) DO UPDATE SET size_bytes = excluded.size_bytes, mtime_ns = excluded.mtime_ns, sha256 = excluded.sha256,
  pixels = excluded.pixels

-- name: forget_digest
DELETE FROM digest WHERE path = :path

-- name: digest
SELECT sha256, pixels FROM digest WHERE path = :path AND size_bytes = :size_bytes AND mtime_ns = :mtime_ns

-- name: known_among
-- Many at once: a plan asks for each of a million tasks, and most of what one question costs is the asking.
SELECT id, state, fingerprint, prompt_digest, inputs_digest, params_digest, model_digest, name,
  attempts, unknowns, cost_microusd, reason, updated_at, made,
  CASE WHEN state IN ('pending', 'unknown') AND attempts > 0 THEN
    (SELECT group_concat(fault) FROM attempt WHERE attempt.task = task.task AND attempt.fingerprint = task.fingerprint
      AND attempt > released AND fault IN ('no_image', 'broken', 'other') AND attempt.state <> 'free') END,
  accepted = fingerprint, pixels_digest, edit, flags,
  path, sha256, mime, width, height, size_bytes, mtime_ns
FROM task WHERE manifest = :manifest AND id IN (SELECT value FROM json_each(:ids))

-- name: all_done
-- The plus keeps the index of names away: each batch goes on where the one before ended, without sorting them all.
SELECT task, id, path, sha256, mime, width, height, size_bytes, mtime_ns FROM task
WHERE task > :after AND +manifest = :manifest AND state = 'done' AND edit <> 'absent' ORDER BY task LIMIT :most

-- name: all_known
SELECT id, state, fingerprint, prompt_digest, inputs_digest, params_digest, model_digest, name,
  attempts, unknowns, cost_microusd, reason, updated_at, made,
  CASE WHEN state IN ('pending', 'unknown') AND attempts > 0 THEN
    (SELECT group_concat(fault) FROM attempt WHERE attempt.task = task.task AND attempt.fingerprint = task.fingerprint
      AND attempt > released AND fault IN ('no_image', 'broken', 'other') AND attempt.state <> 'free') END,
  accepted = fingerprint, pixels_digest, edit, flags,
  path, sha256, mime, width, height, size_bytes, mtime_ns
FROM task WHERE manifest = :manifest ORDER BY task

-- name: flags
SELECT flag.key, count(*) FROM task, json_each(task.flags) AS flag
WHERE manifest = :manifest AND state = 'done' AND flags <> '' GROUP BY 1

-- name: looks
-- The latest ones.
SELECT id, look FROM task WHERE manifest = :manifest AND job = :job AND look <> '' ORDER BY task DESC LIMIT :most

-- name: jobs
SELECT job, count(*) FROM task WHERE manifest = :manifest GROUP BY job

-- name: attempts
SELECT attempt, run, number, state, reserved_microusd, cost_microusd, sent_at, ended_at, seconds, fault, status, request_id,
  response_id, model_version, reason, sha256, fingerprint
FROM attempt WHERE task = (SELECT task FROM task WHERE manifest = :manifest AND id = :id) ORDER BY attempt

-- name: unknowns
SELECT task.id, attempt.attempt, attempt.number, attempt.state, attempt.sent_at, attempt.reserved_microusd, attempt.reason,
  attempt.request_id
FROM attempt JOIN task USING (task)
WHERE attempt.state IN ('sent', 'unknown') AND manifest = :manifest ORDER BY attempt.attempt

-- name: any_attempt
SELECT 1 FROM attempt LIMIT 1

-- name: unknowns_of_nobody
-- A rebuild keeps them under the name of the damaged file.
SELECT task.id, attempt.attempt, attempt.number, attempt.state, attempt.sent_at, attempt.reserved_microusd, attempt.reason,
  attempt.request_id
FROM attempt JOIN task USING (task)
WHERE attempt.state = 'unknown' AND task.fingerprint = '' AND manifest <> :manifest ORDER BY attempt.attempt

-- name: spend_all
SELECT coalesce(sum(CASE WHEN state IN ('ok', 'paid') THEN cost_microusd END), 0),
  coalesce(sum(CASE WHEN state IN ('sent', 'unknown') THEN reserved_microusd END), 0) FROM attempt

-- name: spend_since
SELECT coalesce(sum(CASE WHEN state IN ('ok', 'paid') THEN cost_microusd END), 0),
  coalesce(sum(CASE WHEN state IN ('sent', 'unknown') THEN reserved_microusd END), 0)
FROM attempt INDEXED BY attempt_time_money WHERE sent_at BETWEEN :since AND :until

-- name: spend_of_last_run
-- A rebuild is none.
SELECT coalesce(sum(CASE WHEN state IN ('ok', 'paid') THEN cost_microusd END), 0),
  coalesce(sum(CASE WHEN state IN ('sent', 'unknown') THEN reserved_microusd END), 0)
FROM attempt INDEXED BY attempt_run_money
WHERE run = (SELECT max(run) FROM run WHERE manifest = :manifest AND reason NOT LIKE 'rebuilt%')

-- name: dearest
-- The dearest answer of each model, size and tier: what its request asked for stands in the task's record. A size among
-- its own params wins, in either spelling.
SELECT model, coalesce(
    json_extract(asked, '$.params.imageConfig.imageSize'), json_extract(asked, '$.params.imageConfig.image_size'),
    json_extract(asked, '$.params.image_config.imageSize'), json_extract(asked, '$.params.image_config.image_size'),
    json_extract(asked, '$.size'), '1K') AS size,
  coalesce(json_extract(asked, '$.tier'), 'standard') AS tier, max(cost_microusd)
FROM (
  SELECT attempt.model, attempt.cost_microusd, coalesce(record.record, earlier.record) AS asked
  FROM attempt INDEXED BY attempt_time_money
    LEFT JOIN record ON record.task = attempt.task AND record.fingerprint = attempt.fingerprint
    LEFT JOIN earlier ON earlier.task = attempt.task AND earlier.fingerprint = attempt.fingerprint
  WHERE attempt.sent_at >= :since AND attempt.state IN ('ok', 'paid') AND attempt.image_tokens IS NOT NULL)
WHERE json_valid(asked) GROUP BY 1, 2, 3

-- name: costs
-- By job, model and quarter of an hour: every time zone's days are made of those.
SELECT task.job, attempt.model, attempt.sent_at / 900000000, count(*),
  sum(attempt.state = 'ok'), sum(CASE WHEN attempt.state IN ('ok', 'paid') THEN attempt.cost_microusd ELSE 0 END),
  sum(CASE WHEN attempt.state IN ('sent', 'unknown') THEN attempt.reserved_microusd ELSE 0 END)
FROM attempt JOIN task USING (task) WHERE manifest = :manifest AND attempt.sent_at >= :since
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3

-- name: run_that_goes_on
SELECT run, started_at, found, manifest FROM run WHERE ended_at IS NULL AND found <> '' AND run = (SELECT max(run) FROM run)

-- name: states_of_run
-- Where the tasks stand that a run has asked for.
SELECT task.state, count(*) FROM task
WHERE task.task IN (SELECT DISTINCT attempt.task FROM attempt WHERE attempt.run = :run) GROUP BY task.state

-- name: attempts_of_run
SELECT state, count(*) FROM attempt INDEXED BY attempt_run_money WHERE run = :run GROUP BY state

-- name: runs
SELECT started_at FROM run ORDER BY run

-- name: pace
SELECT images, seconds FROM (
  SELECT run.run,
    (SELECT count(*) FROM attempt INDEXED BY attempt_run_money WHERE attempt.run = run.run AND state = 'ok') AS images,
    (coalesce(ended_at, (SELECT max(attempt.ended_at) FROM attempt WHERE attempt.run = run.run)) - started_at) / 1e6
      AS seconds
  FROM run WHERE manifest = :manifest ORDER BY run.run DESC LIMIT 20)
WHERE images >= :fewest AND seconds > 0 ORDER BY run DESC LIMIT 1

-- name: claimed_elsewhere
SELECT name_key, task.manifest, task.id FROM task JOIN manifest USING (manifest)
WHERE name_key IN (SELECT value FROM json_each(:name_keys)) AND manifest <> :manifest
  AND output = coalesce(:output, (SELECT output FROM manifest WHERE manifest = :manifest)) ORDER BY task DESC

-- name: twins
-- CROSS JOIN: by the index of manifests and ids; else it would read every pair once a task.
SELECT manifest, count(*) FROM manifest CROSS JOIN json_each(:pairs) AS pair CROSS JOIN task USING (manifest)
WHERE manifest <> :manifest AND task.id = pair.value ->> 0 AND pair.value ->> 1 IN (task.fingerprint,
  CASE WHEN model_digest IN (SELECT value FROM json_each(:models)) THEN prompt_digest || inputs_digest || params_digest END)
GROUP BY manifest

-- name: made_by_path
SELECT manifest, id, maker FROM task WHERE path = :path

-- name: made_by_sha256
SELECT task.manifest, task.id, attempt.attempt FROM attempt JOIN task USING (task)
WHERE attempt.sha256 = :sha256
UNION SELECT manifest, id, maker FROM task WHERE sha256 = :sha256 AND maker IS NULL

-- name: made_elsewhere
SELECT 1 FROM attempt JOIN task USING (task) WHERE attempt = :attempt AND manifest <> :manifest

-- name: recorded_near
-- Images at a path, or under its name whatever the case.
SELECT path FROM task WHERE (path = :path OR name_key = :name_key) AND path IS NOT NULL AND manifest IN
  (SELECT manifest FROM manifest WHERE output = (SELECT output FROM manifest WHERE manifest = :manifest))

-- name: record
SELECT record, fingerprint FROM record WHERE task = (SELECT task FROM task WHERE manifest = :manifest AND id = :id)

-- name: record_of
-- Of one request. The latest word on it comes first.
SELECT record, fingerprint FROM record
WHERE task = (SELECT task FROM task WHERE manifest = :manifest AND id = :id) AND fingerprint = :fingerprint
UNION ALL
SELECT record, fingerprint FROM earlier
WHERE task = (SELECT task FROM task WHERE manifest = :manifest AND id = :id) AND fingerprint = :fingerprint

-- name: read_manifest
SELECT rowid, manifest, output FROM manifest NOT INDEXED WHERE rowid > :after ORDER BY rowid LIMIT :most

-- name: read_run
SELECT rowid, run, manifest, manifest_sha256, version, started_at, ended_at, exit, reason
FROM run NOT INDEXED WHERE rowid > :after ORDER BY rowid LIMIT :most

-- name: read_task
SELECT rowid, task, manifest, id, job, row, variant, model, state, fingerprint, prompt_digest, inputs_digest,
  params_digest, model_digest, name, name_key, attempts, unknowns, cost_microusd, reason, updated_at,
  path, sha256, mime, width, height, size_bytes, mtime_ns, made, maker
FROM task NOT INDEXED WHERE rowid > :after ORDER BY rowid LIMIT :most

-- name: read_given
-- What a person ordered of tasks; apart from them, because ledgers before migration 5 have no such columns.
SELECT rowid, task, released, accepted FROM task NOT INDEXED
WHERE rowid > :after AND (released > 0 OR accepted <> '') ORDER BY rowid LIMIT :most

-- name: read_edit
-- As above, since migration 6: what a person did to images, and their inputs' pixels.
SELECT rowid, task, edit, pixels_digest FROM task NOT INDEXED
WHERE rowid > :after AND (edit <> '' OR pixels_digest <> '') ORDER BY rowid LIMIT :most

-- name: read_record
SELECT rowid, task, record FROM record NOT INDEXED WHERE rowid > :after ORDER BY rowid LIMIT :most

-- name: read_earlier
SELECT rowid, task, fingerprint, record FROM earlier NOT INDEXED WHERE rowid > :after ORDER BY rowid LIMIT :most

-- name: read_hold
SELECT rowid, provider, key, model, set_at, not_before, reason FROM hold NOT INDEXED WHERE rowid > :after ORDER BY rowid LIMIT :most

-- name: read_attempt
SELECT rowid, attempt, run, task, number, state, fingerprint, model, reserved_microusd, cost_microusd, sent_at,
  ended_at, seconds, fault, status, code, request_id, response_id, model_version, prompt_tokens, image_tokens,
  text_tokens, reason, sha256, kept
FROM attempt NOT INDEXED WHERE rowid > :after ORDER BY rowid LIMIT :most

-- name: read_money_forwards
-- The index holds all of it: the pages of the table are not read.
SELECT attempt, state, cost_microusd, reserved_microusd, sent_at FROM attempt INDEXED BY attempt_time_money
WHERE sent_at >= 0 ORDER BY sent_at

-- name: read_money_backwards
SELECT attempt, state, cost_microusd, reserved_microusd, sent_at FROM attempt INDEXED BY attempt_time_money
WHERE sent_at >= 0 ORDER BY sent_at DESC

-- name: money_of
SELECT state, cost_microusd, reserved_microusd FROM attempt WHERE attempt = ?

-- name: carry_manifest
INSERT OR IGNORE INTO manifest (manifest, output) VALUES (?, ?)

-- name: carry_run
INSERT OR IGNORE INTO run (run, manifest, manifest_sha256, version, started_at, ended_at, exit, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: carry_task
-- A moment with a flipped bit may be no date; its year stays below 2100.
INSERT OR IGNORE INTO task (task, manifest, id, job, row, variant, model, state, fingerprint, prompt_digest,
  inputs_digest, params_digest, model_digest, name, name_key, attempts, unknowns, cost_microusd, reason, updated_at,
  path, sha256, mime, width, height, size_bytes, mtime_ns, made, maker)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, min(max(?, 0), 4102444800000000), ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: carry_given
WITH given (task, released, accepted) AS (VALUES (?, ?, ?))
UPDATE task SET released = given.released, accepted = given.accepted FROM given WHERE task.task = given.task

-- name: carry_edit
-- A word with a flipped bit is none.
WITH done (task, edit, pixels_digest) AS (VALUES (?, ?, ?))
UPDATE task SET edit = CASE WHEN done.edit IN ('edited', 'absent') THEN done.edit ELSE '' END,
  pixels_digest = done.pixels_digest
FROM done WHERE task.task = done.task

-- name: carry_record
-- The latest request is the task's own.
WITH latest (task, record) AS (VALUES (?, ?))
INSERT OR IGNORE INTO record (task, record, fingerprint)
SELECT task.task, latest.record, task.fingerprint FROM task JOIN latest ON latest.task = task.task

-- name: carry_earlier
INSERT OR IGNORE INTO earlier (task, fingerprint, record) VALUES (?, ?, ?)

-- name: carry_hold
INSERT OR IGNORE INTO hold (provider, key, model, set_at, not_before, reason) VALUES (?, ?, ?, ?, ?, ?)

-- name: carry_attempt
INSERT OR IGNORE INTO attempt (attempt, run, task, number, state, fingerprint, model, reserved_microusd, cost_microusd,
  sent_at, ended_at, seconds, fault, status, code, request_id, response_id, model_version, prompt_tokens, image_tokens,
  text_tokens, reason, sha256, kept)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: carry_lost_attempt
INSERT OR IGNORE INTO attempt (attempt, run, task, number, state, fingerprint, model, reserved_microusd,
  cost_microusd, sent_at, ended_at, reason, sha256)
VALUES (:attempt, :run, :task, 1, :state, '', '', :reserved, :cost, :sent_at, :sent_at,
  'its task could not be read in the damaged ledger', :sha256)

-- name: place_of_the_lost
INSERT INTO task (manifest, id, job, row, variant, model, state, fingerprint, prompt_digest, inputs_digest,
  params_digest, model_digest, name, name_key, updated_at)
VALUES (:manifest, :id, :id, :id, 1, '', 'unknown', '', '', '', '', '', :id, :id, :now)

-- name: sum_up_tasks
-- The one number that is kept twice.
UPDATE task SET cost_microusd =
  (SELECT coalesce(sum(attempt.cost_microusd), 0) FROM attempt WHERE attempt.task = task.task)

-- name: count_adopted
-- An image on disk was paid for once, when its file was written: unless a request that may have brought it is known.
INSERT INTO attempt (run, task, number, state, fingerprint, model, reserved_microusd, cost_microusd, sent_at,
  ended_at, reason, sha256)
SELECT :run, task, attempts + 1, 'ok', fingerprint, model, :price, :price, :at, :at,
  'adopted by rebuild, counted at the list price', sha256
FROM task WHERE manifest = :manifest AND id = :id AND NOT EXISTS
  (SELECT 1 FROM attempt WHERE attempt.task = task.task AND attempt.state <> 'free')
  AND NOT EXISTS (SELECT 1 FROM attempt WHERE attempt.sha256 = task.sha256)

-- name: count_adopted_task
UPDATE task SET attempts = attempts + 1, cost_microusd = cost_microusd + :price
WHERE manifest = :manifest AND id = :id

-- name: doubt
-- Since when, and why, what was spent may be more than is written here.
SELECT started_at, reason FROM run WHERE reason LIKE 'rebuilt: %' AND started_at >= :since ORDER BY run LIMIT 1
