-- Goal: index-only scans return each value as it was stored, bit for bit, and never where the index
-- cannot know it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS xtree;
RESET client_min_messages;
SELECT setseed(0.25);
SET extra_float_digits = 3;
SET enable_bitmapscan = off;

CREATE TABLE spots (id int, note text, k point) WITH (autovacuum_enabled = off);
CREATE TABLE areas (id int, note text, k box) WITH (autovacuum_enabled = off);
INSERT INTO spots SELECT i, 'row', CASE WHEN i % 50 = 0 THEN NULL ELSE point(random() * 100, random() * 0.9) END
	FROM generate_series(1, 3000) i;
INSERT INTO spots VALUES (0, '', '-0,0'), (0, '', '0,-0'), (0, '', '5e-324,-5e-324'), (0, '', '1.7976931348623157e308,1'),
	(0, '', 'Infinity,-Infinity'), (0, '', 'NaN,1'), (0, '', '1,NaN'), (0, '', 'NaN,Infinity'), (0, '', 'NaN,NaN');
INSERT INTO areas SELECT i, 'row', CASE WHEN i % 50 = 0 THEN NULL ELSE box(point(random() * 100, random()), point(random() * 100, random())) END
	FROM generate_series(1, 3000) i;
INSERT INTO areas VALUES (0, '', '(-0,0),(0,-0)'), (0, '', '(5e-324,0),(-5e-324,1)'), (0, '', '(Infinity,1),(-Infinity,0)'),
	(0, '', '(NaN,1),(2,3)'), (0, '', '(1,NaN),(2,3)');
CREATE INDEX spots_k ON spots USING xtree (k);
CREATE INDEX areas_k ON areas USING xtree (k);
-- What is all visible comes from the index, what is not from the heap; some rows are not there any more.
VACUUM ANALYZE spots, areas;
SELECT pg_index_column_has_property('spots_k'::regclass, 1, 'returnable') AS points,
	   pg_index_column_has_property('areas_k'::regclass, 1, 'returnable') AS boxes;

-- Every value, by index and by heap.
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT k::text FROM spots;
CREATE TABLE spots_found AS SELECT k::text FROM spots;
CREATE TABLE areas_found AS SELECT k::text FROM areas;
CREATE TABLE areas_window AS SELECT k::text FROM areas WHERE k && '(10,0.2),(50,0.3)';
RESET enable_seqscan;
SELECT count(*) FROM ((TABLE spots_found EXCEPT ALL SELECT k::text FROM spots) UNION ALL (SELECT k::text FROM spots EXCEPT ALL TABLE spots_found)) d;
SELECT count(*) FROM ((TABLE areas_found EXCEPT ALL SELECT k::text FROM areas) UNION ALL (SELECT k::text FROM areas EXCEPT ALL TABLE areas_found)) d;
SELECT count(*) FROM ((TABLE areas_window EXCEPT ALL SELECT k::text FROM areas WHERE k && '(10,0.2),(50,0.3)' AND note IS NOT NULL)
	UNION ALL (SELECT k::text FROM areas WHERE k && '(10,0.2),(50,0.3)' AND note IS NOT NULL EXCEPT ALL TABLE areas_window)) d;

SET enable_seqscan = off;
-- NULLs and values that cannot be put in order, also through an update chain and beside deleted ones.
BEGIN;
UPDATE spots SET note = 'newer' WHERE id = 0;
UPDATE spots SET note = 'newest' WHERE id = 0 AND k[1] = 1;
DELETE FROM spots WHERE k[0] = 'NaN' AND k[1] = 'NaN';
EXPLAIN (COSTS OFF) SELECT k FROM spots WHERE k << point '(-1,0)' OR k IS NULL;
EXPLAIN (COSTS OFF) SELECT k FROM spots WHERE k >> point '(1e300,0)';
SELECT k FROM spots WHERE k >> point '(1e300,0)' ORDER BY k::text;
SELECT k FROM spots WHERE k |>> point '(0,0.95)' ORDER BY k::text;
SELECT count(*), count(k) FROM spots WHERE k IS NULL;
SELECT count(*), count(k) FROM spots WHERE k IS NOT NULL;
SELECT count(*) FROM spots;
ROLLBACK;
SELECT k FROM areas WHERE k <<| '(0,4),(0,5)' AND k |>> '(0,-2),(0,-1)' AND k >> '(0,-2),(0.5,-1)' AND k << '(10,0),(11,0)' ORDER BY k::text LIMIT 3;

-- A polygon is more than its box: the values come from the heap, the number of rows does not.
CREATE TABLE lands (k polygon) WITH (autovacuum_enabled = off);
INSERT INTO lands SELECT polygon(circle(point(i, i), 1)) FROM generate_series(1, 500) i;
INSERT INTO lands VALUES (NULL), ('((NaN,1),(2,3))');
CREATE INDEX lands_k ON lands USING xtree (k);
CREATE INDEX lands_center ON lands USING xtree (point(k)) WHERE k IS NOT NULL;
VACUUM ANALYZE lands;
SELECT pg_index_column_has_property('lands_k'::regclass, 1, 'returnable') AS polygons;
EXPLAIN (COSTS OFF) SELECT k FROM lands WHERE k && polygon '((3,3),(5,5),(3,5))';
DROP INDEX lands_center;
EXPLAIN (COSTS OFF) SELECT count(*) FROM lands;
SELECT count(*) FROM lands;
DROP INDEX lands_k;
CREATE INDEX lands_center ON lands USING xtree (point(k));
EXPLAIN (COSTS OFF) SELECT count(*) FROM lands;
SELECT count(*) FROM lands;
SELECT count(*) FROM lands WHERE point(k) <@ box '(0,0),(10,10)';

-- In an ordered scan the heap is read, since some distances are only bounded.
EXPLAIN (COSTS OFF) SELECT k FROM spots ORDER BY k <-> point '(3,3)' LIMIT 5;
EXPLAIN (COSTS OFF) SELECT k FROM areas ORDER BY k <-> point '(3,3)', k <-> point '(4,4)' LIMIT 5;
SELECT count(*) FROM (SELECT k FROM spots ORDER BY k <-> point '(3,3)') s;
SELECT count(*) FROM (SELECT k FROM areas ORDER BY k <-> point '(3,3)', k <-> point '(4,4)') s;

-- Rescans, an index-only scan for each outer row, more of them open at once than a process has pins.
EXPLAIN (COSTS OFF) SELECT count(*) FROM areas a JOIN spots s ON s.k <@ a.k WHERE a.id % 100 = 1;
SELECT count(*) FROM areas a JOIN spots s ON s.k <@ a.k WHERE a.id % 100 = 1;
SELECT sum(n) FROM (SELECT (SELECT count(*) FROM spots s WHERE s.k <@ a.k) AS n FROM areas a WHERE a.id % 100 = 1) s;
BEGIN;
DO $$
DECLARE
	cursors refcursor[];
	c refcursor;
	found_key point;
BEGIN
	FOR i IN 1..40 LOOP
		c := NULL;
		OPEN c FOR SELECT k FROM spots WHERE k <@ box '(0,0),(100,1)';
		FETCH c INTO found_key;
		cursors := cursors || c;
	END LOOP;
	FOREACH c IN ARRAY cursors LOOP
		MOVE ALL FROM c;
		CLOSE c;
	END LOOP;
END $$;
COMMIT;
VACUUM spots;
-- A domain over a type is returned, too.
CREATE DOMAIN spot AS point;
CREATE TABLE named (k spot);
INSERT INTO named SELECT point(i, i) FROM generate_series(1, 300) i;
CREATE INDEX named_k ON named USING xtree (k);
VACUUM ANALYZE named;
EXPLAIN (COSTS OFF) SELECT k FROM named WHERE k <@ box '(2,2),(4,4)';
SELECT k FROM named WHERE k <@ box '(2,2),(4,4)' ORDER BY k::text;
DROP TABLE spots, areas, lands, spots_found, areas_found, areas_window, named;
DROP DOMAIN spot;
