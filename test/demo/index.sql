-- Copies the raw rows, then builds each index under a stopwatch.
SET client_min_messages = warning;

CREATE TABLE cities AS
	SELECT id, point(lon, lat) AS place, population FROM raw_cities;
CREATE TABLE shore AS
	SELECT row_number() OVER () AS id, box(point(xlo, ylo), point(xhi, yhi)) AS piece FROM raw_shore;
CREATE TABLE countries AS
	SELECT row_number() OVER () AS id, name, vertices, border FROM raw_countries;
CREATE TABLE cities_gist AS TABLE cities;
CREATE TABLE shore_gist AS TABLE shore;
CREATE TABLE countries_gist AS TABLE countries;
DROP TABLE raw_cities, raw_shore, raw_countries;
VACUUM ANALYZE;

CREATE TABLE builds (position serial, what text, rows bigint, method text, ms float8, bytes bigint);

-- Median of three builds; the last one stays.
CREATE FUNCTION build(what text, relation regclass, col name, method text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	name text := format('%s_%s', relation, col);
	times float8[] := '{}';
	start timestamptz;
	row_count bigint;
BEGIN
	FOR i IN 1..3 LOOP
		EXECUTE format('DROP INDEX IF EXISTS %I', name);
		start := clock_timestamp();
		EXECUTE format('CREATE INDEX %I ON %s USING %s (%I)', name, relation, method, col);
		times := times || 1000 * extract(epoch FROM clock_timestamp() - start)::float8;
	END LOOP;
	EXECUTE format('SELECT count(*) FROM %s', relation) INTO row_count;
	INSERT INTO builds (what, rows, method, ms, bytes)
		SELECT what, row_count, method, percentile_cont(0.5) WITHIN GROUP (ORDER BY t), pg_relation_size(name::regclass)
		FROM unnest(times) AS t;
END $$;

SELECT build('cities (point)', 'cities', 'place', 'xtree'), build('cities (point)', 'cities_gist', 'place', 'gist'),
	   build('shoreline (box)', 'shore', 'piece', 'xtree'), build('shoreline (box)', 'shore_gist', 'piece', 'gist'),
	   build('countries (polygon)', 'countries', 'border', 'xtree'),
	   build('countries (polygon)', 'countries_gist', 'border', 'gist')
\g /dev/null
VACUUM ANALYZE;

\pset footer off
\pset title 'CREATE INDEX, and the size of the index'
SELECT g.what AS "column", g.rows,
	   round(g.ms::numeric, 1) AS "GiST ms", round(x.ms::numeric, 1) AS "xtree ms",
	   round((g.ms / x.ms)::numeric, 1) AS "times faster",
	   g.bytes / 1024 AS "GiST kB", x.bytes / 1024 AS "xtree kB",
	   round(100.0 * x.bytes / g.bytes) || ' %' AS "of GiST's size"
FROM builds g JOIN builds x USING (what)
WHERE g.method = 'gist' AND x.method = 'xtree'
ORDER BY x.position;
