-- The measured tables, and the procedures that bench.sh calls. Rows keep the order of their files: along
-- the shores, as data often arrives.
SET client_min_messages = warning;
SELECT setseed(0.5) \g /dev/null
CREATE TABLE boxes AS
	SELECT row_number() OVER () AS id, box(point(xlo, ylo), point(xhi, yhi)) AS key
	FROM (SELECT * FROM raw_boxes LIMIT :rows) AS r;
CREATE TABLE points AS
	SELECT row_number() OVER () AS id, point(x, y) AS key
	FROM (SELECT * FROM raw_points LIMIT :rows) AS r;
DROP TABLE raw_boxes, raw_points;
CREATE TABLE shuffled_box AS TABLE boxes ORDER BY random();
CREATE TABLE shuffled_point AS TABLE points ORDER BY random();
VACUUM ANALYZE;

CREATE TABLE results (position serial, kind text, measure text, method text, value float8);
CREATE TABLE windows (kind text, size int, win box, middle point);
CREATE TABLE clock (started timestamptz);

CREATE FUNCTION ms_since(started timestamptz) RETURNS float8 LANGUAGE sql VOLATILE AS
	$$SELECT 1000 * extract(epoch FROM clock_timestamp() - started)::float8$$;
CREATE PROCEDURE start_clock() LANGUAGE sql AS
	$$DELETE FROM clock; INSERT INTO clock VALUES (clock_timestamp())$$;
CREATE PROCEDURE stop_clock(method text, kind text, measure text) LANGUAGE sql AS
	$$INSERT INTO results (kind, measure, method, value) SELECT kind, measure, method, ms_since(started) FROM clock$$;

-- Builds `runs` times; the last index stays, as bench_index.
CREATE PROCEDURE bench_build(method text, kind text, runs int) LANGUAGE plpgsql AS $$
DECLARE
	relation text := CASE kind WHEN 'box' THEN 'boxes' ELSE 'points' END;
	started timestamptz;
	build_ms float8;
BEGIN
	EXECUTE format('SELECT count(key) FROM %I', relation); -- Into the cache.
	SET client_min_messages = warning;
	FOR run IN 1..runs LOOP
		DROP INDEX IF EXISTS bench_index;
		COMMIT;
		started := clock_timestamp();
		EXECUTE format('CREATE INDEX bench_index ON %I USING %I (key)', relation, method);
		COMMIT;
		build_ms := ms_since(started);
		INSERT INTO results (kind, measure, method, value) VALUES (kind, 'CREATE INDEX, ms', method, build_ms);
	END LOOP;
	INSERT INTO results (kind, measure, method, value)
		VALUES (kind, 'index size, MB', method, pg_relation_size('bench_index') / 1e6);
END $$;

-- Windows around rows of the table, each as large as its nearest 1, 100 or 10,000 rows need.
CREATE PROCEDURE make_windows(kind text) LANGUAGE plpgsql AS $$
DECLARE
	relation text := CASE kind WHEN 'box' THEN 'boxes' ELSE 'points' END;
	centre text := CASE kind WHEN 'box' THEN 'center(key)' ELSE 'key' END;
	size int;
BEGIN
	PERFORM setseed(0.75);
	FOREACH size IN ARRAY ARRAY[1, 100, 10000] LOOP
		EXECUTE format($query$
			INSERT INTO windows
			SELECT %L, %s, box(m - point(r, r), m + point(r, r)), m
			FROM (SELECT %s AS m FROM %I WHERE random() < 0.001 LIMIT %s) AS middles,
				LATERAL (SELECT 0.7 * (key <-> m) AS r FROM %I ORDER BY key <-> m OFFSET %s LIMIT 1) AS reach
			$query$, kind, size, centre, relation, CASE size WHEN 10000 THEN 40 ELSE 500 END,
			relation, size - 1);
	END LOOP;
END $$;

-- Makes ask_windows(target) and ask_nearest(k): loops of one statement each, planned once, as a session
-- runs a prepared statement. Both return how many statements they ran.
CREATE PROCEDURE make_loops(kind text) LANGUAGE plpgsql AS $$
DECLARE
	relation text := CASE kind WHEN 'box' THEN 'boxes' ELSE 'points' END;
	operator text := CASE kind WHEN 'box' THEN '&&' ELSE '<@' END;
BEGIN
	EXECUTE format($body$
		CREATE OR REPLACE FUNCTION ask_windows(target int) RETURNS int LANGUAGE plpgsql AS $loop$
		DECLARE
			asked int := 0;
			w windows;
			found_rows bigint;
		BEGIN
			FOR w IN SELECT * FROM windows AS q WHERE q.kind = %L AND q.size = target LOOP
				SELECT count(id) INTO found_rows FROM %I WHERE key %s w.win;
				asked := asked + 1;
			END LOOP;
			RETURN asked;
		END $loop$ $body$, kind, relation, operator);
	EXECUTE format($body$
		CREATE OR REPLACE FUNCTION ask_nearest(k int) RETURNS int LANGUAGE plpgsql AS $loop$
		DECLARE
			asked int := 0;
			w windows;
			found_rows bigint;
		BEGIN
			FOR w IN SELECT * FROM windows AS q WHERE q.kind = %L AND q.size = 100 LOOP
				SELECT count(id) INTO found_rows
				FROM (SELECT id FROM %I ORDER BY key <-> w.middle LIMIT k) AS n;
				asked := asked + 1;
			END LOOP;
			RETURN asked;
		END $loop$ $body$, kind, relation);
END $$;

-- Points against widened boxes, or boxes against points: every 20th outer row.
CREATE FUNCTION ask_join(kind text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	found_rows bigint;
BEGIN
	IF kind = 'box' THEN
		SELECT count(*) INTO found_rows FROM (SELECT key AS p FROM points WHERE id % 20 = 0) AS o
			JOIN boxes i ON i.key && box(o.p - point(0.01, 0.01), o.p + point(0.01, 0.01));
		RETURN count(*) FROM points WHERE id % 20 = 0;
	END IF;
	SELECT count(*) INTO found_rows FROM (SELECT key AS b FROM boxes WHERE id % 20 = 0) AS o
		JOIN points i ON i.key <@ box(o.b[0] + point(0.01, 0.01), o.b[1] - point(0.01, 0.01));
	RETURN count(*) FROM boxes WHERE id % 20 = 0;
END $$;

-- Microseconds a statement: windows by size, nearest, a join by nested loops.
CREATE PROCEDURE bench_queries(method text, kind text, runs int) LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz;
	asked int;
	target int;
BEGIN
	SET enable_seqscan = off;
	SET enable_hashjoin = off;
	SET enable_mergejoin = off;
	SET enable_material = off;
	SET plan_cache_mode = force_generic_plan;
	CALL make_loops(kind);
	FOR run IN 0..runs LOOP -- Run 0 warms up.
		FOREACH target IN ARRAY ARRAY[1, 100, 10000] LOOP
			started := clock_timestamp();
			asked := ask_windows(target);
			INSERT INTO results (kind, measure, method, value)
				SELECT kind, format('window of about %s rows, us', target), method, 1000 * ms_since(started) / asked
				WHERE run > 0;
		END LOOP;
		CONTINUE WHEN method = 'brin'; -- Has no order.
		FOREACH target IN ARRAY ARRAY[1, 10, 100] LOOP
			started := clock_timestamp();
			asked := ask_nearest(target);
			INSERT INTO results (kind, measure, method, value)
				SELECT kind, format('nearest %s, us', target), method, 1000 * ms_since(started) / asked
				WHERE run > 0;
		END LOOP;
		CONTINUE WHEN run > 3;
		started := clock_timestamp();
		asked := ask_join(kind);
		INSERT INTO results (kind, measure, method, value)
			SELECT kind, 'join by nested loops, us an outer row', method, 1000 * ms_since(started) / asked
			WHERE run > 0;
	END LOOP;
END $$;

-- A table of the first half of the shuffled rows, indexed.
CREATE PROCEDURE prepare_inserts(method text, kind text) LANGUAGE plpgsql AS $$
BEGIN
	SET client_min_messages = warning;
	DROP TABLE IF EXISTS inserts;
	EXECUTE format('CREATE TABLE inserts AS SELECT * FROM shuffled_%s LIMIT (SELECT count(*) / 2 FROM shuffled_%s)', kind, kind);
	IF method <> 'none' THEN
		EXECUTE format('CREATE INDEX inserts_index ON inserts USING %I (key)', method);
	END IF;
END $$;

-- 100,000 random inserts in one statement: time and WAL.
CREATE PROCEDURE bench_inserts(method text, kind text, what text) LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz;
	start_lsn pg_lsn;
	ms float8;
	n bigint;
BEGIN
	EXECUTE format('CREATE TEMP TABLE batch AS SELECT * FROM shuffled_%s OFFSET (SELECT count(*) / 2 FROM shuffled_%s) LIMIT 100000',
				   kind, kind);
	started := clock_timestamp();
	start_lsn := pg_current_wal_insert_lsn();
	INSERT INTO inserts SELECT * FROM batch;
	GET DIAGNOSTICS n = ROW_COUNT;
	ms := ms_since(started);
	INSERT INTO results (kind, measure, method, value) VALUES
		(kind, 'insert, us a row, ' || what, method, 1000 * ms / n),
		(kind, 'insert, WAL bytes a row, ' || what, method, (pg_current_wal_insert_lsn() - start_lsn) / n);
	DROP TABLE batch;
END $$;
