-- Whether the planner chooses well: for windows of many sizes, with and without LIMIT and order, the time of the
-- plan that it chooses beside the best of those that it makes when it is kept from some.
CREATE TABLE plans (kind text, method text, size int, shape text, chosen text, chosen_ms float8, best text, best_ms float8);
CREATE TABLE plan_windows (kind text, size int, win box, middle point);

CREATE PROCEDURE make_plan_windows(key_kind text) LANGUAGE plpgsql AS $$
DECLARE
	k kinds := (SELECT kinds FROM kinds WHERE kind = key_kind);
	size int;
	total bigint := row_count(k.relation);
BEGIN
	SET enable_seqscan = off;
	PERFORM setseed(0.3);
	FOREACH size IN ARRAY ARRAY[1, 10, 100, 1000, 10000, 100000, 500000] LOOP
		CONTINUE WHEN size > total / 2;
		EXECUTE format($query$
			INSERT INTO plan_windows
			SELECT %L, %s, box(m - point(r, r), m + point(r, r)), m
			FROM (SELECT %s AS m FROM %I WHERE random() < 1000.0 / %s LIMIT 2) AS middles,
				LATERAL (SELECT 0.7 * (key <-> m) AS r FROM %I ORDER BY key <-> m OFFSET %s LIMIT 1) AS reach
			$query$, key_kind, size, k.centre, k.relation, total, k.relation, size - 1);
	END LOOP;
	RESET enable_seqscan;
END $$;

-- The least of some runs, in ms, and the name of the scan.
CREATE PROCEDURE time_plan(query text, INOUT scan text, INOUT ms float8) LANGUAGE plpgsql AS $$
DECLARE
	plan json;
	node json;
	took float8;
BEGIN
	ms := NULL;
	FOR run IN 1..4 LOOP
		EXECUTE 'EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) ' || query INTO plan;
		took := (plan -> 0 ->> 'Execution Time')::float8;
		ms := least(ms, took);
		EXIT WHEN took > 100;
	END LOOP;
	node := plan -> 0 -> 'Plan';
	WHILE node -> 'Plans' IS NOT NULL AND node ->> 'Node Type' <> 'Bitmap Heap Scan' LOOP
		node := node -> 'Plans' -> 0;
	END LOOP;
	scan := node ->> 'Node Type';
	IF plan::text LIKE '%"Sort"%' THEN
		scan := scan || ', sorted';
	END IF;
END $$;

CREATE PROCEDURE bench_plans(index_method text, key_kind text) LANGUAGE plpgsql AS $$
DECLARE
	k kinds := (SELECT kinds FROM kinds WHERE kind = key_kind);
	w plan_windows;
	shape text;
	query text;
	off text;
	scan text;
	ms float8;
	result plans;
BEGIN
	FOR w IN SELECT * FROM plan_windows WHERE kind = key_kind LOOP
		FOREACH shape IN ARRAY ARRAY['all rows', 'LIMIT 10', 'LIMIT 1000', 'nearest 10', 'nearest 1000'] LOOP
			query := format('SELECT id FROM %I WHERE %s', k.relation, replace(k.condition, 'win', format('%L::box', w.win)));
			IF shape LIKE 'nearest%' THEN
				query := query || format(' ORDER BY key <-> %L::point', w.middle);
			END IF;
			IF shape <> 'all rows' THEN
				query := query || ' LIMIT ' || split_part(shape, ' ', 2);
			END IF;
			result := (key_kind, index_method, w.size, shape, NULL, NULL, NULL, NULL);
			CALL time_plan(query, result.chosen, result.chosen_ms);
			result.best := result.chosen;
			result.best_ms := result.chosen_ms;
			-- Without the kind of scan that was chosen, and then without the next one too.
			FOREACH off IN ARRAY ARRAY['bitmapscan,seqscan', 'indexscan,seqscan', 'indexscan,bitmapscan',
									   'sort,seqscan'] LOOP
				PERFORM set_config('enable_' || split_part(off, ',', 1), 'off', true),
					set_config('enable_' || split_part(off, ',', 2), 'off', true);
				CALL time_plan(query, scan, ms);
				PERFORM set_config('enable_' || split_part(off, ',', 1), 'on', true),
					set_config('enable_' || split_part(off, ',', 2), 'on', true);
				IF scan = result.chosen THEN
					result.chosen_ms := least(result.chosen_ms, ms);
				END IF;
				IF ms < result.best_ms THEN
					result.best_ms := ms;
					result.best := scan;
				END IF;
			END LOOP;
			INSERT INTO plans SELECT result.*;
		END LOOP;
	END LOOP;
END $$;
