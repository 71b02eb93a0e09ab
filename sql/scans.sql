-- Goal: scans as the executor makes them: rescans with changing keys, cursors that outlive a
-- subtransaction or are abandoned by an error, exclusion constraints, and the plans that are chosen.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS xtree;
RESET client_min_messages;
SELECT setseed(0.125);

CREATE TABLE tiles AS SELECT x * 100 + y AS id, box(point(x, y), point(x + 1, y + 1)) AS k
	FROM generate_series(0, 99) x, generate_series(0, 99) y;
CREATE TABLE pins AS SELECT i AS id, CASE WHEN i % 50 = 0 THEN NULL ELSE point(random() * 100, random() * 100) END AS k
	FROM generate_series(1, 5000) i;
CREATE INDEX tiles_k ON tiles USING xtree (k);
CREATE INDEX pins_k ON pins USING xtree (k);
ANALYZE tiles, pins;

-- The planner takes the index for a window, a bitmap for a larger part, a nearest search for LIMIT.
EXPLAIN (COSTS OFF) SELECT * FROM tiles WHERE k && '(10.2,10.2),(10.4,10.4)';
EXPLAIN (COSTS OFF) SELECT * FROM pins ORDER BY k <-> point '(50,50)' LIMIT 5;
EXPLAIN (COSTS OFF) SELECT * FROM pins WHERE k <@ box '(10,10),(10.5,10.5)' ORDER BY k <-> point '(10,10)' LIMIT 5;
-- What the whole table matches is not worth an index.
EXPLAIN (COSTS OFF) SELECT * FROM tiles WHERE k && '(-1,-1),(101,101)';

-- Nested loops: a rescan for each outer row, NULL keys among them.
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_material = off;
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT count(*) FROM tiles t JOIN pins p ON p.k <@ t.k WHERE t.id < 5000;
SELECT count(*), sum(t.id), sum(p.id) FROM tiles t JOIN pins p ON p.k <@ t.k WHERE t.id < 5000;
SELECT count(*) FROM pins p JOIN tiles t ON t.k @> box(p.k, p.k) WHERE p.id <= 500;
SELECT count(*), sum(n) FROM (SELECT (SELECT count(*) FROM pins p WHERE p.k <@ t.k) AS n FROM tiles t) s;
SET enable_indexscan = off;
SELECT count(*), sum(t.id), sum(p.id) FROM tiles t JOIN pins p ON p.k <@ t.k WHERE t.id < 5000;
SET enable_bitmapscan = off;
SET enable_seqscan = on;
SELECT count(*), sum(t.id), sum(p.id) FROM tiles t JOIN pins p ON p.k <@ t.k WHERE t.id < 5000;
RESET ALL;

SET enable_seqscan = off;
SET enable_bitmapscan = off;
-- Early ends of scans: LIMIT, EXISTS, abandoned rescans.
SELECT count(*) FROM (SELECT 1 FROM tiles WHERE k && '(0,0),(100,100)' LIMIT 7) s;
SELECT count(*) FROM pins p WHERE EXISTS (SELECT 1 FROM tiles t WHERE t.k @> box(p.k, p.k));

-- A cursor reads on after a subtransaction that scanned has been rolled back.
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM tiles WHERE k && '(0,0),(100,100)';
MOVE 1500 FROM c;
SAVEPOINT s;
SELECT count(*) FROM tiles WHERE k && '(3.5,3.5),(7.5,7.5)';
MOVE 1500 FROM c;
INSERT INTO tiles SELECT i, box(point(i, i), point(i, i)) FROM generate_series(1, 200) i;
SELECT 1 / 0 FROM tiles WHERE k && '(3.5,3.5),(7.5,7.5)';
ROLLBACK TO s;
MOVE ALL FROM c;
CLOSE c;
-- A cursor of the subtransaction itself goes with it.
SAVEPOINT s;
DECLARE d CURSOR FOR SELECT id FROM tiles WHERE k && '(0,0),(100,100)';
MOVE 10 FROM d;
ROLLBACK TO s;
FETCH 1 FROM d;
ROLLBACK;
-- Errors within scans, many times over, leave nothing behind.
DO $$
DECLARE
	n int := 0;
BEGIN
	FOR i IN 1..200 LOOP
		BEGIN
			PERFORM 1 / (id - id) FROM tiles WHERE k && '(1,1),(50,50)' ORDER BY k <-> point '(1,1)';
		EXCEPTION WHEN division_by_zero THEN n := n + 1;
		END;
	END LOOP;
	RAISE NOTICE '% errors', n;
END $$;
-- A scan left behind would keep the versions that later changes retire.
INSERT INTO tiles SELECT 200000 + i, box(point(i % 100, 200), point(i % 100, 200)) FROM generate_series(1, 20000) i;
SELECT retired_versions < 50 AS reclaimed FROM xtree_stats('tiles_k');
DELETE FROM tiles WHERE id > 200000;
-- A holdable cursor is read to its end at commit; a scrollable one is materialized.
BEGIN;
DECLARE h CURSOR WITH HOLD FOR SELECT id FROM tiles WHERE k && '(0,0),(0.5,5.5)' ORDER BY id;
COMMIT;
FETCH 2 FROM h;
CLOSE h;
BEGIN;
DECLARE b SCROLL CURSOR FOR SELECT id FROM pins ORDER BY k <-> point '(50,50)';
MOVE 3 FROM b;
FETCH BACKWARD 1 FROM b \gset
FETCH FORWARD 0 FROM b \gset again_
SELECT :'id' = :'again_id' AS same;
COMMIT;
-- Rows inserted by a scan that reads the index do not come back in it.
BEGIN;
INSERT INTO tiles SELECT id + 100000, k FROM tiles WHERE k && '(0,0),(100,100)';
SELECT count(*) FROM tiles;
ROLLBACK;
BEGIN;
UPDATE tiles SET k = k + point(0.001, 0) WHERE k && '(0,0),(100,100)';
SELECT count(*), count(DISTINCT id) FROM tiles WHERE k && '(-1,-1),(102,102)';
ROLLBACK;
RESET ALL;

-- Exclusion constraints, immediate and deferred, and ON CONFLICT.
CREATE TABLE rooms (id int PRIMARY KEY, k box, EXCLUDE USING xtree (k WITH &&));
INSERT INTO rooms SELECT i, box(point(i * 2, 0), point(i * 2 + 1, 1)) FROM generate_series(1, 100) i;
INSERT INTO rooms VALUES (101, '(4.5,0.5),(4.6,0.6)');
INSERT INTO rooms VALUES (101, '(4.5,0.5),(4.6,0.6)') ON CONFLICT DO NOTHING;
INSERT INTO rooms VALUES (101, NULL), (102, NULL);
INSERT INTO rooms VALUES (103, '(1000,0),(1001,1)'), (104, '(1000.5,0),(1002,1)');
UPDATE rooms SET k = k + point(0.5, 0) WHERE id = 5;
UPDATE rooms SET k = k + point(1, 0) WHERE id = 5;
DELETE FROM rooms WHERE id = 6;
INSERT INTO rooms VALUES (6, '(12,0),(12.5,1)');
SELECT count(*) FROM rooms;
CREATE TABLE circles (k circle, EXCLUDE USING xtree (k WITH &&) DEFERRABLE INITIALLY DEFERRED);
-- Boxes around these overlap; the circles do not.
INSERT INTO circles VALUES ('<(0,0),1>'), ('<(1.5,1.5),1>');
BEGIN;
INSERT INTO circles VALUES ('<(0.5,0),1>');
DELETE FROM circles WHERE k ~= '<(0,0),1>';
COMMIT;
INSERT INTO circles VALUES ('<(0.5,0.1),1>');
SELECT k FROM circles ORDER BY k::text;
SELECT xtree_check('rooms_k_excl', true), xtree_check('circles_k_excl', true);
DROP TABLE tiles, pins, rooms, circles;
