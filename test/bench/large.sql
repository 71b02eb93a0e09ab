-- The table of large.sh, and what it measures. Each place of the raw rows is taken again and again, displaced,
-- until there are enough.
SET client_min_messages = warning;
CREATE EXTENSION xtree;
CREATE TABLE raw (x float8, y float8);
CREATE TABLE points (id bigint, p point);
CREATE TABLE middles (p point, step float8);

CREATE PROCEDURE fill(wanted bigint) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM setseed(0.25);
	INSERT INTO points
		SELECT row_number() OVER (), point(x + random() - 0.5, y + random() - 0.5)
		FROM generate_series(1, 1 + wanted / (SELECT count(*) FROM raw)), raw LIMIT wanted;
	-- Windows: around rows, half as wide as the square that would hold so many rows at the density there,
	-- which is counted in a square of a tenth of a degree.
	INSERT INTO middles SELECT p, 0 FROM points TABLESAMPLE SYSTEM (0.1) REPEATABLE (1) LIMIT 1000;
	UPDATE middles SET step = 0.05 / sqrt(1 + (SELECT count(*) FROM raw
		WHERE abs(x - p[0]) < 0.55 AND abs(y - p[1]) < 0.55)::float8 / 100 * wanted / (SELECT count(*) FROM raw));
END $$;

CREATE FUNCTION time_windows(wanted int) RETURNS numeric LANGUAGE plpgsql
	SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
	middle record;
	started timestamptz := clock_timestamp();
	found bigint;
BEGIN
	FOR middle IN SELECT p, step * sqrt(wanted::float8) AS half FROM middles LOOP
		SELECT count(id) INTO found FROM points
			WHERE p <@ box(point(middle.p[0] - middle.half, middle.p[1] - middle.half),
						   point(middle.p[0] + middle.half, middle.p[1] + middle.half));
	END LOOP;
	RETURN round((1e6 * extract(epoch FROM clock_timestamp() - started) / (SELECT count(*) FROM middles))::numeric, 1);
END $$;

CREATE FUNCTION time_nearest(wanted int) RETURNS numeric LANGUAGE plpgsql
	SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
	middle point;
	started timestamptz := clock_timestamp();
BEGIN
	FOR middle IN SELECT p FROM middles LOOP
		PERFORM id FROM points ORDER BY p <-> middle LIMIT wanted;
	END LOOP;
	RETURN round((1e6 * extract(epoch FROM clock_timestamp() - started) / (SELECT count(*) FROM middles))::numeric, 1);
END $$;

CREATE FUNCTION time_inserts(wanted int) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz;
BEGIN
	CREATE TEMP TABLE more ON COMMIT DROP AS
		SELECT point(x + random() - 0.5, y + random() - 0.5) AS p FROM raw ORDER BY random() LIMIT wanted;
	started := clock_timestamp();
	INSERT INTO points SELECT 0, p FROM more;
	RETURN round((1e6 * extract(epoch FROM clock_timestamp() - started) / wanted)::numeric, 2);
END $$;
