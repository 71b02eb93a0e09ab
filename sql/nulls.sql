-- Goal: NULL keys are in the index and are found by IS NULL, by no operator, and by a scan without
-- keys; a NULL argument finds nothing.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS xtree;
RESET client_min_messages;

CREATE TABLE nulls (id int, k box);
INSERT INTO nulls SELECT i, CASE WHEN i % 3 = 0 THEN NULL ELSE box(point(i, i), point(i + 1, i + 1)) END
	FROM generate_series(1, 300) i;
CREATE INDEX nulls_k ON nulls USING xtree (k);
INSERT INTO nulls SELECT i, CASE WHEN i % 3 = 0 THEN NULL ELSE box(point(i, i), point(i + 1, i + 1)) END
	FROM generate_series(301, 600) i;
INSERT INTO nulls VALUES (601, '(NaN,NaN),(NaN,NaN)'), (602, '(1,NaN),(0,0)');

SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT count(*) FROM nulls WHERE k IS NULL;
SELECT count(*), min(id), max(id) FROM nulls WHERE k IS NULL;
SELECT count(*), min(id), max(id) FROM nulls WHERE k IS NOT NULL;
SELECT count(*) FROM nulls WHERE k IS NULL AND k IS NOT NULL;
SELECT count(*) FROM nulls WHERE k && NULL;
SELECT count(*) FROM nulls WHERE k && '(0,0),(10,10)';
SELECT count(*) FROM nulls WHERE k && '(0,0),(10,10)' AND k IS NOT NULL;
SELECT count(*) FROM nulls WHERE k && '(0,0),(10,10)' AND k IS NULL;
PREPARE met(box) AS SELECT count(*) FROM nulls WHERE k && $1;
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE met(NULL);
EXECUTE met(NULL);
EXECUTE met('(0,0),(10,10)');
EXECUTE met(NULL);
RESET plan_cache_mode;
-- Unordered keys match where the comparisons that an operator makes leave the NaN out.
SELECT id FROM nulls WHERE k ~= '(NaN,NaN),(NaN,NaN)';
SELECT id FROM nulls WHERE k << '(5,0),(6,1)' ORDER BY id;
SELECT count(*) FROM nulls WHERE k << '(5,0),(6,1)' AND k IS NULL;

-- A scan without keys returns every row: ORDER BY makes the planner take one.
EXPLAIN (COSTS OFF) SELECT id FROM nulls ORDER BY k <-> point '(0,0)';
SELECT count(*), count(id) FILTER (WHERE id % 3 = 0) FROM
	(SELECT id FROM nulls ORDER BY k <-> point '(0,0)') s;

SET enable_indexscan = off;
SET enable_bitmapscan = on;
EXPLAIN (COSTS OFF) SELECT count(*) FROM nulls WHERE k IS NULL;
SELECT count(*), min(id), max(id) FROM nulls WHERE k IS NULL;
SELECT count(*), min(id), max(id) FROM nulls WHERE k IS NOT NULL;
SELECT count(*) FROM nulls WHERE k IS NULL OR k && '(0,0),(10,10)';
RESET enable_indexscan;

-- Changing a key to NULL and back.
UPDATE nulls SET k = NULL WHERE id = 1;
UPDATE nulls SET k = '(0,0),(1,1)' WHERE id = 3;
SELECT count(*) FROM nulls WHERE k IS NULL;
DELETE FROM nulls WHERE k IS NULL;
VACUUM nulls;
SELECT count(*) FROM nulls WHERE k IS NULL;
DELETE FROM nulls WHERE id > 600;
VACUUM nulls;
SELECT entries, null_entries FROM xtree_stats('nulls_k');
SELECT xtree_check('nulls_k', true);

-- Nothing but NULLs, and nothing at all.
TRUNCATE nulls;
SELECT count(*) FROM nulls WHERE k IS NULL;
INSERT INTO nulls SELECT i, NULL FROM generate_series(1, 5000) i;
SELECT count(*) FROM nulls WHERE k IS NULL;
SELECT count(*) FROM nulls WHERE k && '(0,0),(10,10)';
REINDEX INDEX nulls_k;
SELECT count(*) FROM nulls WHERE k IS NULL;
SELECT entries, null_entries FROM xtree_stats('nulls_k');
SELECT xtree_check('nulls_k', true);
DROP TABLE nulls;
