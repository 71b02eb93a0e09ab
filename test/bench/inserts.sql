-- Inserts and what follows from them: the procedures that bench.sh calls.

-- A batch's rows: a share of those that the table of inserts does not begin with.
CREATE FUNCTION batch_rows(kind text) RETURNS bigint LANGUAGE sql STABLE AS $$
	SELECT least(100000, row_count('shuffled_' || kind)::bigint / 2 / 7)
$$;

-- A table of the first half of the shuffled rows, indexed.
CREATE PROCEDURE prepare_inserts(method text, kind text) LANGUAGE plpgsql AS $$
BEGIN
	SET client_min_messages = warning;
	DROP TABLE IF EXISTS inserts;
	EXECUTE format('CREATE TABLE inserts AS SELECT id, key FROM shuffled_%1$s
		WHERE place <= (SELECT count(*) / 2 FROM shuffled_%1$s) ORDER BY place', kind);
	-- An index without rows: vacuumed first, so the log tells when vacuuming of the other begins.
	CREATE INDEX inserts_marker ON inserts (id) WHERE false;
	IF method <> 'none' THEN
		EXECUTE format('CREATE INDEX inserts_index ON inserts USING %I (key)', method);
	END IF;
END $$;

-- Batches `first` and up as one table, which the inserts read.
CREATE PROCEDURE prepare_batch(name text, kind text, first int, batches int) LANGUAGE plpgsql AS $$
BEGIN
	SET client_min_messages = warning;
	EXECUTE format('DROP TABLE IF EXISTS %I', name);
	EXECUTE format('CREATE UNLOGGED TABLE %1$I AS SELECT id, key FROM shuffled_%2$s
		WHERE place > (SELECT count(*) / 2 FROM shuffled_%2$s) + %3$s ORDER BY place LIMIT %4$s',
		name, kind, first * batch_rows(kind), batches * batch_rows(kind));
	EXECUTE format('SELECT count(key) FROM %I', name);
END $$;

-- Random inserts in one statement: time and WAL.
CREATE PROCEDURE bench_inserts(method text, kind text, batch text, what text) LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz := clock_timestamp();
	start_lsn pg_lsn := pg_current_wal_insert_lsn();
	ms float8;
	n bigint;
BEGIN
	EXECUTE format('INSERT INTO inserts SELECT * FROM %I', batch);
	GET DIAGNOSTICS n = ROW_COUNT;
	ms := ms_since(started);
	CALL result(kind, 'insert, us a row, ' || what, method, 1000 * ms / n);
	CALL result(kind, 'insert, WAL bytes a row, ' || what, method, (pg_current_wal_insert_lsn() - start_lsn) / n);
END $$;

-- A transaction a row. Nobody waits for the disk, which would hide everything else. A session's first rows pay
-- for what it has not yet mapped, so those that follow are a measure of their own.
CREATE PROCEDURE bench_commits(method text, kind text, batch text) LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz;
	n bigint;
	r record;
BEGIN
	SET synchronous_commit = off;
	FOR part IN 0..1 LOOP
		n := 0;
		started := clock_timestamp();
		FOR r IN EXECUTE format('SELECT id, key FROM %I OFFSET %s LIMIT 20000', batch, 20000 * part) LOOP
			INSERT INTO inserts SELECT r.id, r.key;
			COMMIT;
			n := n + 1;
		END LOOP;
		EXIT WHEN n = 0;
		CALL result(kind, 'insert, us a row, one a transaction' || CASE part WHEN 0 THEN ', a session''s first 20,000'
					ELSE ', its next 20,000' END, method, 1000 * ms_since(started) / n);
	END LOOP;
END $$;

-- What sessions that insert at once did, and when.
CREATE TABLE sessions (started timestamptz, ended timestamptz, n bigint);
CREATE PROCEDURE session_inserts(batch text) LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz;
	n bigint;
BEGIN
	-- They wait for one another.
	PERFORM pg_advisory_lock_shared(1);
	started := clock_timestamp();
	EXECUTE format('INSERT INTO inserts SELECT * FROM %I', batch);
	GET DIAGNOSTICS n = ROW_COUNT;
	INSERT INTO sessions VALUES (started, clock_timestamp(), n);
END $$;

CREATE PROCEDURE bench_sessions(method text, kind text) LANGUAGE plpgsql AS $$
DECLARE
	one float8 := (SELECT n / extract(epoch FROM ended - started) FROM sessions ORDER BY started LIMIT 1);
	two float8 := (SELECT sum(n) / extract(epoch FROM max(ended) - min(started))
				   FROM (SELECT * FROM sessions ORDER BY started OFFSET 1) AS s);
BEGIN
	CALL result(kind, 'insert, us a row, two sessions', method, 1e6 / two);
	CALL result(kind, 'two sessions: rows a second over those of one', method, two / one);
	DELETE FROM sessions;
END $$;
