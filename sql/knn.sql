-- Goal: ORDER BY key <-> point by an index scan returns the rows of a sequential scan and a sort, in
-- order, with the same distances.
-- Method: compare the sorted distances position by position; rows at equal distances may swap.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS xtree;
RESET client_min_messages;
SELECT setseed(0.25);

-- Compares the first `n` rows; returns what is wrong, or NULL.
CREATE FUNCTION nearest_difference(tab text, p text, condition text, n int) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	query text := format('SELECT k <-> %L::point AS d FROM %s WHERE %s ORDER BY k <-> %L::point LIMIT %s',
						 p, tab, condition, p, n);
	collect text := format('SELECT coalesce(array_agg(d), ''{}'') FROM (%s) s', query);
	expected float8[];
	got float8[];
	line text;
	uses_index boolean := false;
BEGIN
	PERFORM set_config('enable_indexscan', 'off', true), set_config('enable_seqscan', 'on', true),
			set_config('enable_sort', 'on', true);
	EXECUTE collect INTO expected;
	PERFORM set_config('enable_indexscan', 'on', true), set_config('enable_seqscan', 'off', true),
			set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true);
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
		uses_index := uses_index OR line ~ 'Order By:';
	END LOOP;
	EXECUTE collect INTO got;
	IF NOT uses_index THEN
		RETURN 'no ordered index scan: ' || query;
	ELSIF got <> expected OR cardinality(got) <> cardinality(expected) THEN
		RETURN format('%s: expected %s rows, got %s', query, cardinality(expected), cardinality(got));
	END IF;
	RETURN NULL;
END $$;

CREATE TABLE near_point AS SELECT i AS id, point(random() * 100, random() * 100) AS k
	FROM generate_series(1, 3000) i;
CREATE TABLE near_box AS SELECT i AS id, box(p, point(p[0] + random() * 3, p[1] + random() * 3)) AS k
	FROM (SELECT i, point(random() * 100, random() * 100) AS p FROM generate_series(1, 3000) i) s;
CREATE TABLE near_circle AS SELECT i AS id, circle(point(random() * 100, random() * 100), random() * 3) AS k
	FROM generate_series(1, 3000) i;
CREATE TABLE near_polygon AS SELECT i AS id,
		polygon(3 + i % 7, circle(point(random() * 100, random() * 100), random() * 3 + 0.001)) AS k
	FROM generate_series(1, 3000) i;
CREATE INDEX ON near_point USING xtree (k);
CREATE INDEX ON near_box USING xtree (k);
CREATE INDEX ON near_circle USING xtree (k);
CREATE INDEX ON near_polygon USING xtree (k);
INSERT INTO near_point SELECT id + 10000, k FROM near_point WHERE id % 3 = 0;
INSERT INTO near_box SELECT id + 10000, k FROM near_box WHERE id % 3 = 0;
INSERT INTO near_point VALUES (-1, NULL), (-2, '(Infinity,5)'), (-3, '(NaN,5)'), (-4, '(NaN,-Infinity)'),
	(-5, '(-0,0)'), (-6, '(0,-0)');
INSERT INTO near_box VALUES (-1, NULL), (-2, '(Infinity,5),(1,1)'), (-3, '(7,5),(7,5)'), (-4, '(0,0),(100,100)'),
	(-5, '(NaN,1),(0,0)');
INSERT INTO near_circle VALUES (-1, NULL), (-2, '<(5,5),Infinity>'), (-3, '<(NaN,5),1>'), (-4, '<(5,5),NaN>'),
	(-5, '<(50,50),0>');
INSERT INTO near_polygon VALUES (-1, NULL), (-2, '((1,1))'), (-3, '((1,1),(90,90))'),
	(-4, '((10,10),(10,10.0000005),(20,10.0000003))'), (-5, '((NaN,1),(1,1),(2,2))');
ANALYZE near_point, near_box, near_circle, near_polygon;

CREATE TABLE probes (p text);
INSERT INTO probes SELECT point(random() * 120 - 10, random() * 120 - 10)::text FROM generate_series(1, 10);
INSERT INTO probes VALUES ('(0,0)'), ('(50,50)'), ('(-1e6,7)'), ('(1e12,1e12)');
SELECT t AS "table", n AS "limit", count(*) AS tried,
	   count(nearest_difference('near_' || t, p, 'true', n)) AS differences
FROM probes, unnest(ARRAY['point', 'box', 'circle', 'polygon']) t, unnest(ARRAY[1, 10, 200, 100000]) n
GROUP BY 1, 2 ORDER BY 1, 2;
SELECT difference FROM probes, unnest(ARRAY['point', 'box', 'circle', 'polygon']) t,
	nearest_difference('near_' || t, p, 'true', 100000) difference WHERE difference IS NOT NULL;
-- With a window as well; it is applied inside the search.
SELECT t AS "table", count(*) AS tried,
	   count(nearest_difference('near_' || t, p, w, 20)) AS differences
FROM probes, (VALUES ('point', 'k <@ box ''(20,20),(60,60)'''), ('box', 'k && ''(20,20),(60,60)'''),
			  ('circle', 'k << ''<(50,50),2>'''), ('polygon', 'k @> ''((30,30))'''),
			  ('point', 'k IS NOT NULL'), ('box', 'k IS NULL')) w(t, w)
GROUP BY 1 ORDER BY 1;
-- From points that are no place.
SELECT p, t AS "table", nearest_difference('near_' || t, p, 'true', 100000)
FROM unnest(ARRAY['(Infinity,0)', '(NaN,NaN)', '(NaN,Infinity)']) p, unnest(ARRAY['point', 'circle']) t
ORDER BY 1, 2;

SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_sort = off;
-- Distances are the operator's own, to the last bit.
SELECT count(*) FROM (SELECT id, k <-> point '(3,4)' AS d, lag(k <-> point '(3,4)') OVER () AS before
	FROM (SELECT id, k FROM near_point ORDER BY k <-> point '(3,4)') s) s WHERE d < before;
-- Two orderings: the second decides among equals.
EXPLAIN (COSTS OFF) SELECT id FROM near_box ORDER BY k <-> point '(50,50)', k <-> point '(0,0)' LIMIT 5;
CREATE TEMP TABLE by_index AS SELECT row_number() OVER () AS n, d1, d2 FROM
	(SELECT k <-> point '(50,50)' AS d1, k <-> point '(0,0)' AS d2 FROM near_box ORDER BY k <-> point '(50,50)', k <-> point '(0,0)') s;
CREATE TEMP TABLE by_point AS SELECT row_number() OVER () AS n, d1, d2 FROM
	(SELECT k <-> point '(50,50)' AS d1, k <-> point '(0,0)' AS d2 FROM near_point ORDER BY k <-> point '(50,50)', k <-> point '(0,0)') s;
RESET enable_sort;
SET enable_indexscan = off;
SET enable_seqscan = on;
SELECT count(*) FROM by_index FULL JOIN
	(SELECT row_number() OVER (ORDER BY k <-> point '(50,50)', k <-> point '(0,0)') AS n, k <-> point '(50,50)' AS d1,
			k <-> point '(0,0)' AS d2 FROM near_box) s USING (n)
	WHERE (by_index.d1, by_index.d2) IS DISTINCT FROM (s.d1, s.d2);
SELECT count(*) FROM by_point FULL JOIN
	(SELECT row_number() OVER (ORDER BY k <-> point '(50,50)', k <-> point '(0,0)') AS n, k <-> point '(50,50)' AS d1,
			k <-> point '(0,0)' AS d2 FROM near_point) s USING (n)
	WHERE (by_point.d1, by_point.d2) IS DISTINCT FROM (s.d1, s.d2);
RESET enable_indexscan;
SET enable_seqscan = off;
SET enable_sort = off;
-- A NULL argument: every distance is NULL, every row is returned.
PREPARE from_null(point) AS SELECT count(*) FROM (SELECT id FROM near_point ORDER BY k <-> $1) s;
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE from_null(NULL);
EXECUTE from_null(NULL);
EXECUTE from_null('(1,1)');
DEALLOCATE from_null;
RESET plan_cache_mode;
-- The argument on the left, and a lateral join: a new search for each outer row.
EXPLAIN (COSTS OFF) SELECT id FROM near_point ORDER BY point '(1,2)' <-> k LIMIT 1;
SELECT count(*), count(DISTINCT s.id) > 5 AS several FROM probes,
	LATERAL (SELECT id FROM near_point ORDER BY k <-> p::point LIMIT 3) s;

DROP TABLE near_point, near_box, near_circle, near_polygon, probes, by_index, by_point;
DROP FUNCTION nearest_difference;
