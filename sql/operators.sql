-- Goal: an index scan returns exactly the rows that a sequential scan returns.
-- Method: for every operator of every operator class, over random data mixed with the values where
-- comparisons turn (NaN, infinities, signed zeros, one EPSILON and one unit in the last place beside
-- it, degenerate, huge), compare plain index scan and bitmap scan with the sequential scan.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS xtree;
RESET client_min_messages;
SET extra_float_digits = 1;
SELECT setseed(0.5);

-- Returns what is wrong with `condition` on `tab`, NULL if nothing is.
CREATE FUNCTION scan_difference(tab text, condition text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	query text := format('SELECT coalesce(array_agg(id ORDER BY id), ''{}'') FROM %s WHERE %s',
						 tab, condition);
	expected int[];
	got int[];
	line text;
	uses_index boolean;
BEGIN
	PERFORM set_config('enable_seqscan', 'on', true), set_config('enable_indexscan', 'off', true),
			set_config('enable_bitmapscan', 'off', true);
	EXECUTE query INTO expected;
	FOR way IN 1..2 LOOP
		PERFORM set_config('enable_seqscan', 'off', true),
				set_config('enable_indexscan', CASE way WHEN 1 THEN 'on' ELSE 'off' END, true),
				set_config('enable_bitmapscan', CASE way WHEN 2 THEN 'on' ELSE 'off' END, true);
		uses_index := false;
		FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
			uses_index := uses_index OR line ~ CASE way WHEN 1 THEN 'Index Scan using'
													 ELSE 'Bitmap Index Scan' END;
		END LOOP;
		IF NOT uses_index THEN
			RETURN 'no index scan: ' || condition;
		END IF;
		EXECUTE query INTO got;
		IF got <> expected THEN
			RETURN format('%s: way %s, expected %s rows, got %s', condition, way,
						  cardinality(expected), cardinality(got));
		END IF;
	END LOOP;
	RETURN NULL;
END $$;

-- Coordinates. Kinds: 1 ordinary and near EPSILON, 2 NaN and infinite, 3 huge and tiny.
CREATE TABLE coordinates (kind int, v float8);
INSERT INTO coordinates VALUES
	(1, '0'), (1, '-0'), (1, '1'), (1, '-1'), (1, '1e-6'), (1, '-1e-6'), (1, '2e-6'),
	(1, '0.999999'), (1, '0.9999989999999999'), (1, '0.9999990000000002'),
	(1, '1.000001'), (1, '1.0000009999999999'), (1, '1.0000010000000003'), (1, '1.0000000000000002'),
	(1, '9.999999999999998e-07'), (1, '1.0000000000000002e-06'), (1, '1e9'), (1, '1000000000.000001'),
	(2, 'NaN'), (2, 'Infinity'), (2, '-Infinity'),
	(3, '1e300'), (3, '1.7976931348623157e308'), (3, '-1.7976931348623157e308'),
	(3, '5e-324'), (3, '-5e-324'), (3, '1e16'), (3, '10000000000000002');
INSERT INTO coordinates
	SELECT 1, floor(random() * 10) + (floor(random() * 5) - 2) * 1e-6
			  + (floor(random() * 5) - 2) * 1e-16
	FROM generate_series(1, 20);

CREATE FUNCTION some_coordinate(kinds int) RETURNS float8
LANGUAGE sql VOLATILE AS $$
	SELECT CASE WHEN random() < 0.5 THEN round((random() * 10)::numeric, 2)::float8
		   ELSE (SELECT v FROM coordinates WHERE kind <= kinds ORDER BY random() LIMIT 1) END
$$;
CREATE FUNCTION some_point(kinds int) RETURNS point
LANGUAGE sql VOLATILE AS $$ SELECT point(some_coordinate(kinds), some_coordinate(kinds)) $$;
CREATE FUNCTION some_box(kinds int) RETURNS box
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	p point := some_point(kinds);
BEGIN
	RETURN CASE WHEN random() < 0.1 THEN box(p, p)
				WHEN random() < 0.3 THEN box(p, point(p[0], some_coordinate(kinds)))
				ELSE box(p, some_point(kinds)) END;
END $$;
CREATE FUNCTION some_circle(kinds int) RETURNS circle
LANGUAGE sql VOLATILE AS $$
	SELECT circle(some_point(kinds), CASE WHEN random() < 0.2 THEN 0
								 ELSE abs(some_coordinate(kinds)) / 4 END)
$$;
CREATE FUNCTION some_polygon(kinds int) RETURNS polygon
LANGUAGE sql VOLATILE AS $$
	SELECT CASE WHEN random() < 0.4 THEN polygon(some_box(kinds))
		   ELSE ('(' || string_agg(some_point(kinds)::text, ',') || ')')::polygon END
	FROM generate_series(1, 1 + floor(random() * 5)::int)
$$;

CREATE TABLE op_point AS
	SELECT i AS id, CASE WHEN i % 20 = 0 THEN NULL ELSE some_point(3) END AS k
	FROM generate_series(1, 2000) i;
CREATE TABLE op_box AS
	SELECT i AS id, CASE WHEN i % 20 = 0 THEN NULL ELSE some_box(3) END AS k
	FROM generate_series(1, 2000) i;
-- Only finite arithmetic of the host overflows to an error, so huge values stay out of these.
CREATE TABLE op_circle AS
	SELECT i AS id, CASE WHEN i % 20 = 0 THEN NULL ELSE some_circle(2) END AS k
	FROM generate_series(1, 2000) i;
CREATE TABLE op_polygon AS
	SELECT i AS id, CASE WHEN i % 20 = 0 THEN NULL ELSE some_polygon(2) END AS k
	FROM generate_series(1, 1000) i;

-- Half of each table is bulk loaded, half inserted one by one.
CREATE TABLE later AS SELECT * FROM op_point WHERE id % 2 = 0;
DELETE FROM op_point WHERE id % 2 = 0;
CREATE INDEX op_point_k ON op_point USING xtree (k);
INSERT INTO op_point SELECT * FROM later;
DROP TABLE later;
CREATE TABLE later AS SELECT * FROM op_box WHERE id % 2 = 0;
DELETE FROM op_box WHERE id % 2 = 0;
CREATE INDEX op_box_k ON op_box USING xtree (k);
INSERT INTO op_box SELECT * FROM later;
DROP TABLE later;
CREATE TABLE later AS SELECT * FROM op_circle WHERE id % 2 = 0;
DELETE FROM op_circle WHERE id % 2 = 0;
CREATE INDEX op_circle_k ON op_circle USING xtree (k);
INSERT INTO op_circle SELECT * FROM later;
DROP TABLE later;
CREATE TABLE later AS SELECT * FROM op_polygon WHERE id % 2 = 0;
DELETE FROM op_polygon WHERE id % 2 = 0;
CREATE INDEX op_polygon_k ON op_polygon USING xtree (k);
INSERT INTO op_polygon SELECT * FROM later;
DROP TABLE later;

CREATE TABLE arguments (type text, arg text);
INSERT INTO arguments SELECT 'point', some_point(3)::text FROM generate_series(1, 30);
INSERT INTO arguments SELECT 'box', some_box(3)::text FROM generate_series(1, 30);
INSERT INTO arguments SELECT 'circle', some_circle(2)::text FROM generate_series(1, 30);
INSERT INTO arguments SELECT 'polygon', some_polygon(2)::text FROM generate_series(1, 30);
-- Keys of the tables themselves: equality and touching.
INSERT INTO arguments SELECT 'point', k::text FROM op_point WHERE id % 101 = 1;
INSERT INTO arguments SELECT 'box', k::text FROM op_box WHERE id % 101 = 1;
INSERT INTO arguments SELECT 'circle', k::text FROM op_circle WHERE id % 101 = 1;
INSERT INTO arguments SELECT 'polygon', k::text FROM op_polygon WHERE id % 51 = 1;
DELETE FROM arguments WHERE arg IS NULL;

-- How often each operator was tried, and on which arguments it differed.
CREATE TEMP TABLE results AS
	SELECT o.oprleft::regtype::text AS type, p.amopstrategy AS strategy, o.oprname AS operator,
		   o.oprright::regtype::text AS argument,
		   scan_difference('op_' || o.oprleft::regtype::text,
						   format('k %s %L::%s', o.oprname, a.arg, a.type)) AS difference
	FROM pg_amop p JOIN pg_operator o ON o.oid = p.amopopr
		 JOIN pg_am m ON m.oid = p.amopmethod
		 JOIN arguments a ON a.type = o.oprright::regtype::text
	WHERE m.amname = 'xtree' AND p.amoppurpose = 's'
		  -- Reading a huge point into these overflows in the sequential scan as well.
		  AND NOT (o.oprleft = 'point'::regtype AND o.oprright IN ('circle'::regtype, 'polygon'::regtype));
SELECT type, strategy, operator, argument, count(*) > 30 AS tried, count(difference) AS differences
FROM results GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 4;
SELECT difference FROM results WHERE difference IS NOT NULL ORDER BY 1 LIMIT 20;

DELETE FROM op_point USING coordinates c WHERE c.kind = 3 AND (k[0] = c.v OR k[1] = c.v);
SELECT a.type AS argument, count(*) > 30 AS tried,
	   count(scan_difference('op_point', format('k <@ %L::%s', a.arg, a.type))) AS differences
FROM arguments a WHERE a.type IN ('circle', 'polygon') GROUP BY 1 ORDER BY 1;

-- Conjunctions: several keys on one column, NULL tests among them.
SELECT count(*) AS tried,
	   count(scan_difference('op_box', format('k && %L AND k &< %L AND k |&> %L AND k IS NOT NULL',
											  a.arg, b.arg, c.arg))) AS differences
FROM (SELECT arg, row_number() OVER (ORDER BY arg) AS n FROM arguments WHERE type = 'box') a
	 JOIN (SELECT arg, row_number() OVER (ORDER BY md5(arg)) AS n FROM arguments WHERE type = 'box') b
		  USING (n)
	 JOIN (SELECT arg, row_number() OVER (ORDER BY md5(arg || 'x')) AS n FROM arguments
		   WHERE type = 'box') c USING (n);
SELECT scan_difference('op_point', 'k << ''(5,5)'' AND k >> ''(2,2)'' AND k <@ box ''(0,0),(4,4)''');
SELECT scan_difference('op_point', 'k << ''(2,2)'' AND k >> ''(5,5)''');
SELECT scan_difference('op_point', 'k IS NULL');
SELECT scan_difference('op_point', 'k IS NOT NULL');
SELECT scan_difference('op_point', 'k IS NULL AND k << ''(5,5)''');

-- Rectangles, whose answer for polygons well inside them takes no look at the row, and polygons of four corners
-- with the same bounding box that are none: bow ties, triangles, diamonds. Keys are small, and near to the edges.
CREATE TABLE op_inside AS
	SELECT i AS id, CASE i % 4
		   WHEN 0 THEN polygon(box(at, at + point(size, size)))
		   WHEN 1 THEN polygon(4, circle(at, size))
		   WHEN 2 THEN format('(%s,%s,%s)', at, at + point(size, 0), at + point(0, size))::polygon
		   ELSE format('(%s)', at)::polygon END AS k
	FROM (SELECT i, point(some_coordinate(1), some_coordinate(1)) AS at,
				 CASE WHEN i % 3 = 0 THEN 2e-6 ELSE random() END AS size
		  FROM generate_series(1, 1000) i OFFSET 0) s;
CREATE INDEX op_inside_k ON op_inside USING xtree (k);
CREATE TEMP TABLE corners AS
	SELECT i AS id, some_coordinate(1) AS x, some_coordinate(1) AS y, some_coordinate(1) AS u, some_coordinate(1) AS v
	FROM generate_series(1, 40) i;
SELECT shape, count(*) AS tried, bool_or(EXISTS (SELECT FROM op_inside WHERE k && q)) AS some_found,
	   count(scan_difference('op_inside', format('k && %L', q))) AS differences,
	   count(scan_difference('op_inside', format('k && %L AND k && %L', q, '((2,2),(2,8),(8,8),(8,2))'))) AS both
FROM (SELECT shape, format(form, x, y, u, v)::polygon AS q
	  FROM corners, (VALUES ('rectangle', '((%1$s,%2$s),(%1$s,%4$s),(%3$s,%4$s),(%3$s,%2$s))'),
							('rectangle, turned', '((%1$s,%2$s),(%3$s,%2$s),(%3$s,%4$s),(%1$s,%4$s))'),
							('bow tie', '((%1$s,%2$s),(%3$s,%4$s),(%1$s,%4$s),(%3$s,%2$s))'),
							('bow tie, turned', '((%1$s,%2$s),(%1$s,%4$s),(%3$s,%2$s),(%3$s,%4$s))'),
							('triangle', '((%1$s,%2$s),(%1$s,%4$s),(%3$s,%4$s),(%1$s,%2$s))'),
							('edge there and back', '((%1$s,%2$s),(%1$s,%4$s),(%1$s,%2$s),(%3$s,%4$s))'),
							('five corners', '((%1$s,%2$s),(%1$s,%4$s),(%3$s,%4$s),(%3$s,%2$s),(5,5))')) AS f (shape, form)) s
GROUP BY shape ORDER BY shape;

-- The commuted form: the argument on the left.
SELECT scan_difference('op_point', 'box ''(0,0),(4,4)'' @> k');
SELECT scan_difference('op_box', 'box ''(0,0),(4,4)'' @> k');

SELECT xtree_check('op_point_k', true), xtree_check('op_box_k', true),
	   xtree_check('op_circle_k', true), xtree_check('op_polygon_k', true);

DROP TABLE op_point, op_box, op_circle, op_polygon, op_inside, arguments, coordinates, results;
DROP FUNCTION scan_difference, some_coordinate, some_point, some_box, some_circle, some_polygon;
