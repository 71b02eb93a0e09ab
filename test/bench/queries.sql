-- Builds and queries: the procedures that bench.sh calls.

-- `size` 0: windows without a row. `tids` are the rows that a window finds.
CREATE TABLE windows (kind text, size int, win box, middle point, tids tid[]);
CREATE TABLE areas (sort text, area polygon);

-- Builds `runs` times; the last index stays, as bench_index.
CREATE PROCEDURE bench_build(method text, key_kind text, runs int) LANGUAGE plpgsql AS $$
DECLARE
	k kinds := (SELECT kinds FROM kinds WHERE kind = key_kind);
	started timestamptz;
	build_ms float8;
BEGIN
	EXECUTE format('SELECT count(key) FROM %I', k.relation); -- Into the cache.
	SET client_min_messages = warning;
	FOR run IN 1..runs LOOP
		DROP INDEX IF EXISTS bench_index;
		COMMIT;
		started := clock_timestamp();
		EXECUTE format('CREATE INDEX bench_index ON %I USING %I (key)', k.relation, method);
		COMMIT;
		build_ms := ms_since(started);
		CALL result(key_kind, 'CREATE INDEX, ms', method, build_ms);
	END LOOP;
	CALL result(key_kind, 'index size, bytes a row', method, pg_relation_size('bench_index') / row_count(k.relation));
END $$;

-- Windows around rows of the table, each as large as its nearest 1, 100 or 10,000 rows need; and empty ones
-- near rows. The index that finds them is gone afterwards.
CREATE PROCEDURE make_windows(key_kind text) LANGUAGE plpgsql AS $$
DECLARE
	k kinds := (SELECT kinds FROM kinds WHERE kind = key_kind);
	size int;
BEGIN
	PERFORM setseed(0.75);
	EXECUTE format('CREATE INDEX windows_index ON %I USING xtree (key)', k.relation);
	EXECUTE format('CREATE TEMP TABLE middles AS SELECT %s AS m FROM %I WHERE random() < 5000.0 / %s',
				   k.centre, k.relation, row_count(k.relation));
	SET enable_seqscan = off;
	FOREACH size IN ARRAY ARRAY[1, 100, 10000] LOOP
		EXECUTE format($query$
			INSERT INTO windows
			SELECT %L, %s, box(m - point(r, r), m + point(r, r)), m
			FROM (SELECT m FROM middles ORDER BY random() LIMIT %s) AS chosen,
				LATERAL (SELECT 0.7 * (key <-> m) AS r FROM %I ORDER BY key <-> m OFFSET %s LIMIT 1) AS reach
			$query$, key_kind, size, CASE size WHEN 10000 THEN 40 ELSE 500 END, k.relation, size - 1);
	END LOOP;
	EXECUTE format($query$
		INSERT INTO windows SELECT %L, 0, win, m
		FROM (SELECT m, box(m - point(0.01, 0.01), m + point(0.01, 0.01)) AS win
			  FROM (SELECT m + point(random() - 0.5, random() - 0.5) AS m FROM middles) AS near) AS w
		WHERE NOT EXISTS (SELECT FROM %I WHERE %s) LIMIT 500
		$query$, key_kind, k.relation, k.condition);
	EXECUTE format('UPDATE windows SET tids = ARRAY(SELECT ctid FROM %I WHERE %s) WHERE kind = %L',
				   k.relation, k.condition, key_kind);
	DROP INDEX windows_index;
	DROP TABLE middles;
	RESET enable_seqscan;
END $$;

-- Polygons of twelve corners around rows, which overlap their neighbours, and the countries of the world.
CREATE PROCEDURE make_areas() LANGUAGE sql AS $$
	INSERT INTO areas SELECT 'overlapping polygons', polygon(12, circle(key, 0.02)) FROM points WHERE id % 500 = 0;
	INSERT INTO areas SELECT 'countries', area FROM countries;
$$;

-- Makes ask_TASK(target): loops of one statement each, planned once, as a session runs a prepared statement. All
-- return how many statements they ran. The windows, and rows' TIDs where they are
-- used, are in memory, so that no loop fetches them.
CREATE PROCEDURE make_loop(task text, key_kind text, chosen text, statement text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format($body$
		CREATE OR REPLACE FUNCTION ask_%s(target int) RETURNS int LANGUAGE plpgsql AS $loop$
		DECLARE
			asked int := 0;
			w windows;
			every windows[] := ARRAY(SELECT ROW(kind, size, q.win, q.middle, %s)::windows
									 FROM windows AS q WHERE q.kind = %L AND %s);
			win box;
			tids tid[];
			middle point;
			found_rows bigint;
		BEGIN
			FOREACH w IN ARRAY every LOOP
				win := w.win;
				tids := w.tids;
				middle := w.middle;
				%s INTO found_rows;
				asked := asked + 1;
			END LOOP;
			RETURN asked;
		END $loop$ $body$, task, CASE task WHEN 'tids' THEN 'q.tids' ELSE 'NULL' END, key_kind, chosen, statement);
END $$;

CREATE PROCEDURE make_loops(key_kind text) LANGUAGE plpgsql AS $$
DECLARE
	k kinds := (SELECT kinds FROM kinds WHERE kind = key_kind);
BEGIN
	CALL make_loop('windows', key_kind, 'q.size = target', format('SELECT count(id) FROM %I WHERE %s', k.relation, k.condition));
	CALL make_loop('counts', key_kind, 'q.size = target', format('SELECT count(*) FROM %I WHERE %s', k.relation, k.condition));
	CALL make_loop('tids', key_kind, 'q.size = target', format('SELECT count(id) FROM %I WHERE ctid = ANY (tids)', k.relation));
	CALL make_loop('nearest', key_kind, 'q.size = 100', format(
		'SELECT count(id) FROM (SELECT id FROM %I ORDER BY key <-> middle LIMIT target) AS n', k.relation));
END $$;

-- Points against widened boxes, or boxes against points.
CREATE FUNCTION ask_join(key_kind text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	found_rows bigint;
BEGIN
	IF key_kind = 'box' THEN
		SELECT count(*) INTO found_rows FROM outer_box o
			JOIN boxes i ON i.key && box(o.key - point(0.01, 0.01), o.key + point(0.01, 0.01));
	ELSE
		SELECT count(*) INTO found_rows FROM outer_point o
			JOIN points i ON i.key <@ box(o.key[0] + point(0.01, 0.01), o.key[1] - point(0.01, 0.01));
	END IF;
	RETURN row_count('outer_' || key_kind);
END $$;

CREATE FUNCTION ask_areas(wanted text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	found_rows bigint;
BEGIN
	SELECT count(*) INTO found_rows FROM areas JOIN points i ON i.key <@ area WHERE sort = wanted;
	RETURN count(*) FROM areas WHERE sort = wanted;
END $$;

-- Times one call of `task`, and notes it but for the warm-up.
CREATE PROCEDURE bench_task(run int, key_kind text, measure text, method text, task text) LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz := clock_timestamp();
	asked int;
BEGIN
	EXECUTE 'SELECT ask_' || task INTO asked;
	IF run > 0 THEN
		CALL result(key_kind, measure, method, 1000 * ms_since(started) / asked);
	END IF;
END $$;

-- Microseconds a statement. Run 0 warms up (not BRIN, which takes too long). The method "floor" fetches the same rows by TID.
CREATE PROCEDURE bench_queries(method text, key_kind text, runs int) LANGUAGE plpgsql AS $$
DECLARE
	target int;
BEGIN
	SET enable_seqscan = off;
	SET enable_hashjoin = off;
	SET enable_mergejoin = off;
	SET enable_material = off;
	SET plan_cache_mode = force_generic_plan;
	CALL make_loops(key_kind);
	FOR run IN CASE method WHEN 'brin' THEN 1 ELSE 0 END..runs LOOP
		FOREACH target IN ARRAY ARRAY[0, 1, 100, 10000] LOOP
			CALL bench_task(run, key_kind, CASE target WHEN 0 THEN 'empty window, us'
							ELSE format('window of about %s rows, us', target) END, method,
							format('%s(%s)', CASE method WHEN 'floor' THEN 'tids' ELSE 'windows' END, target));
		END LOOP;
		-- BRIN has no order, and takes minutes for a join.
		CONTINUE WHEN method IN ('brin', 'floor');
		FOREACH target IN ARRAY ARRAY[1, 100, 10000] LOOP
			-- No index returns a polygon, but each counts points and boxes by itself.
			EXIT WHEN key_kind = 'polygon';
			CALL bench_task(run, key_kind, format('count(*) of about %s rows, us', target), method,
							format('counts(%s)', target));
		END LOOP;
		FOREACH target IN ARRAY ARRAY[1, 10, 100] LOOP
			CALL bench_task(run, key_kind, format('nearest %s, us', target), method, format('nearest(%s)', target));
		END LOOP;
		CONTINUE WHEN key_kind = 'polygon' OR run > 3;
		CALL bench_task(run, key_kind, 'join by nested loops, us an outer row', method, format('join(%L)', key_kind));
		-- SP-GiST has no such operator.
		CONTINUE WHEN key_kind <> 'point' OR method = 'spgist';
		CALL bench_task(run, key_kind, 'points in overlapping polygons, us a polygon', method,
						$c$areas('overlapping polygons')$c$);
		CALL bench_task(run, key_kind, 'points in countries, us a polygon', method, $c$areas('countries')$c$);
	END LOOP;
END $$;
