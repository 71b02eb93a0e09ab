-- Goal: VACUUM removes exactly the dead rows' entries, and what remains is found.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS xtree;
RESET client_min_messages;

CREATE TABLE vac (id int, k box) WITH (autovacuum_enabled = off);
INSERT INTO vac SELECT i, box(point(i % 200, i / 200), point(i % 200 + 1, i / 200 + 1)) FROM generate_series(1, 20000) i;
CREATE INDEX vac_k ON vac USING xtree (k);
DELETE FROM vac WHERE id % 3 = 0;
VACUUM vac;
SELECT entries FROM xtree_stats('vac_k');
SELECT count(*) FROM vac;
SELECT reltuples FROM pg_class WHERE relname = 'vac_k';
SELECT xtree_check('vac_k', true);

-- Freed row ids are used again; the old keys must not lead to the new rows.
INSERT INTO vac SELECT i, box(point(500 + i, 0), point(501 + i, 1)) FROM generate_series(1, 6666) i;
SET enable_seqscan = off;
SELECT count(*) FROM vac WHERE k && '(0,0),(200.5,200)';
SELECT count(*) FROM vac WHERE k && '(500.5,0),(10000,1)';
SELECT xtree_check('vac_k', true);

-- Rounds of deletion at random and insertion.
SELECT setseed(0.3);
DO $$ BEGIN
	FOR i IN 1..4 LOOP
		DELETE FROM vac WHERE random() < 0.4;
		UPDATE vac SET k = k + point(0.25, 0.25) WHERE random() < 0.1;
		INSERT INTO vac SELECT i * 100000 + j, box(point(random() * 200, random() * 100), point(random() * 200, random() * 100))
			FROM generate_series(1, 500) j;
	END LOOP;
END $$;
VACUUM (INDEX_CLEANUP ON) vac;
SELECT s.entries = (SELECT count(*) FROM vac) AS exact FROM xtree_stats('vac_k') s;
SELECT xtree_check('vac_k', true);
VACUUM (PARALLEL 2) vac;
VACUUM (INDEX_CLEANUP OFF) vac;

-- Everything, then from nothing again.
DELETE FROM vac;
VACUUM vac;
SELECT entries, null_entries FROM xtree_stats('vac_k');
SELECT count(*) FROM vac WHERE k && '(0,0),(100000,100000)';
INSERT INTO vac SELECT i, box(point(i, i), point(i, i)) FROM generate_series(1, 1000) i;
SELECT count(*) FROM vac WHERE k && '(0,0),(100.5,100.5)';
SELECT xtree_check('vac_k', true);
-- Space comes back.
SELECT xtree_checkpoint('vac_k');
SELECT xtree_checkpoint('vac_k');
SELECT used_blocks < 100 AS small, log_bytes FROM xtree_stats('vac_k');
SELECT xtree_check('vac_k', true);
VACUUM (FREEZE, ANALYZE) vac;
DROP TABLE vac;
