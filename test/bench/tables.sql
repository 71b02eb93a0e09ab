-- The measured tables, where results go, and the clock. Rows keep the order of their files: along the shores, as
-- data often arrives.
SET client_min_messages = warning;
SELECT setseed(0.5) \g /dev/null
CREATE TABLE boxes AS
	SELECT row_number() OVER () AS id, box(point(xlo, ylo), point(xhi, yhi)) AS key
	FROM (SELECT * FROM raw_boxes LIMIT :rows) AS r;
CREATE TABLE points AS
	SELECT row_number() OVER () AS id, point(x, y) AS key
	FROM (SELECT * FROM raw_points LIMIT :rows) AS r;
CREATE TABLE polygons AS
	SELECT id, polygon(key) AS key FROM boxes LIMIT least(500000, :rows);
DROP TABLE raw_boxes, raw_points;
CREATE TABLE shuffled_box AS
	SELECT row_number() OVER () AS place, id, key FROM (SELECT * FROM boxes ORDER BY random()) AS r;
CREATE TABLE shuffled_point AS
	SELECT row_number() OVER () AS place, id, key FROM (SELECT * FROM points ORDER BY random()) AS r;
-- Outer rows of joins, in tables of their own: reading twenty rows for each that joins took more time than the join.
CREATE TABLE outer_box AS SELECT key FROM points WHERE id % 20 = 0;
CREATE TABLE outer_point AS SELECT key FROM boxes WHERE id % 20 = 0;
CREATE INDEX ON shuffled_box (place);
CREATE INDEX ON shuffled_point (place);
VACUUM ANALYZE;

-- How queries over a key differ.
CREATE TABLE kinds (kind text, relation text, centre text, condition text);
INSERT INTO kinds VALUES
	('box', 'boxes', 'center(key)', 'key && win'),
	('point', 'points', 'key', 'key <@ win'),
	('polygon', 'polygons', 'center(box(key))', 'key && polygon(win)');

CREATE TABLE results (position serial, kind text, measure text, method text, value float8);
CREATE PROCEDURE result(kind text, measure text, method text, value float8) LANGUAGE sql AS
	$$INSERT INTO results (kind, measure, method, value) VALUES (kind, measure, method, value)$$;
CREATE FUNCTION ms_since(started timestamptz) RETURNS float8 LANGUAGE sql VOLATILE AS
	$$SELECT 1000 * extract(epoch FROM clock_timestamp() - started)::float8$$;
CREATE FUNCTION row_count(relation text) RETURNS float8 LANGUAGE sql STABLE AS
	$$SELECT reltuples FROM pg_class WHERE oid = relation::regclass$$;
