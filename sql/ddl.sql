-- Goal: an xtree index takes part in transactions, subtransactions, TRUNCATE, temporary and unlogged
-- tables as any other index does.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS xtree;
RESET client_min_messages;
SET enable_seqscan = off;

CREATE TABLE ddl (id int, k point);
INSERT INTO ddl SELECT i, point(i, i) FROM generate_series(1, 1000) i;

-- Rolled back: index creation, rows, both, and in subtransactions.
BEGIN;
CREATE INDEX ddl_k ON ddl USING xtree (k);
SELECT count(*) FROM ddl WHERE k <@ box '(1,1),(10,10)';
ROLLBACK;
SELECT to_regclass('ddl_k');
CREATE INDEX ddl_k ON ddl USING xtree (k);
BEGIN;
INSERT INTO ddl SELECT i, point(i, -i) FROM generate_series(1, 1000) i;
SELECT count(*) FROM ddl WHERE k <@ box '(1,-10),(10,-1)';
ROLLBACK;
SELECT count(*) FROM ddl WHERE k <@ box '(1,-10),(10,-1)';
BEGIN;
INSERT INTO ddl VALUES (2001, '(1,-1)');
SAVEPOINT s;
INSERT INTO ddl VALUES (2002, '(2,-2)');
ROLLBACK TO s;
INSERT INTO ddl VALUES (2003, '(3,-3)');
SAVEPOINT s;
DROP INDEX ddl_k;
ROLLBACK TO s;
SELECT id FROM ddl WHERE k <@ box '(1,-10),(10,-1)' ORDER BY id;
COMMIT;
SELECT id FROM ddl WHERE k <@ box '(1,-10),(10,-1)' ORDER BY id;
SELECT xtree_check('ddl_k', true);

-- TRUNCATE, rolled back and not; a build in the transaction that truncates.
BEGIN;
TRUNCATE ddl;
INSERT INTO ddl VALUES (1, '(5,5)');
SELECT count(*) FROM ddl WHERE k <@ box '(0,0),(10,10)';
ROLLBACK;
SELECT count(*) FROM ddl WHERE k <@ box '(0,0),(10,10)';
BEGIN;
CREATE TABLE fresh (k point);
CREATE INDEX fresh_k ON fresh USING xtree (k);
INSERT INTO fresh SELECT point(i, i) FROM generate_series(1, 100) i;
TRUNCATE fresh;
INSERT INTO fresh SELECT point(i, i) FROM generate_series(1, 10) i;
TRUNCATE fresh;
INSERT INTO fresh SELECT point(i, i) FROM generate_series(1, 20) i;
SELECT count(*) FROM fresh WHERE k <@ box '(0,0),(1000,1000)';
COMMIT;
SELECT count(*) FROM fresh WHERE k <@ box '(0,0),(1000,1000)';
SELECT xtree_check('fresh_k', true);
DROP TABLE fresh;

BEGIN;
REINDEX INDEX ddl_k;
INSERT INTO ddl VALUES (2004, '(4,-4)');
ROLLBACK;
SELECT xtree_check('ddl_k', true);
SELECT count(*) FROM ddl WHERE k <@ box '(1,-10),(10,-1)';

VACUUM FULL ddl;
SELECT xtree_check('ddl_k', true);
ALTER TABLE ddl ALTER COLUMN k TYPE box USING box(k, k);
SELECT count(*) FROM ddl WHERE k <@ box '(1,1),(10,10)';
SELECT xtree_check('ddl_k', true);
-- CLUSTER puts the rows in the order of the tree, NULLs last.
INSERT INTO ddl VALUES (2005, NULL), (2006, '(NaN,1),(1,1)');
CLUSTER ddl USING ddl_k;
SELECT count(*), count(k) FROM ddl;
SELECT id FROM ddl ORDER BY ctid DESC LIMIT 1;
SELECT xtree_check('ddl_k', true);

-- Unlogged and logged.
ALTER TABLE ddl SET UNLOGGED;
INSERT INTO ddl VALUES (3000, '(1,-1),(2,-2)');
SELECT count(*) FROM ddl WHERE k && '(1,-10),(10,-1)';
SELECT xtree_check('ddl_k', true);
ALTER TABLE ddl SET LOGGED;
SELECT count(*) FROM ddl WHERE k && '(1,-10),(10,-1)';
SELECT xtree_check('ddl_k', true);
CREATE UNLOGGED TABLE unlogged (k circle);
CREATE INDEX unlogged_k ON unlogged USING xtree (k);
INSERT INTO unlogged SELECT circle(point(i, i), 1) FROM generate_series(1, 500) i;
SELECT count(*) FROM unlogged WHERE k && '<(10,10),2>';
SELECT xtree_check('unlogged_k', true);
DROP TABLE unlogged;

-- Temporary, with ON COMMIT DELETE ROWS too.
CREATE TEMP TABLE temporary (k box) ON COMMIT DELETE ROWS;
CREATE INDEX temporary_k ON temporary USING xtree (k);
BEGIN;
INSERT INTO temporary SELECT box(point(i, i), point(i + 1, i + 1)) FROM generate_series(1, 2000) i;
SELECT count(*) FROM temporary WHERE k && '(10,10),(20,20)';
SELECT xtree_check('temporary_k', true);
COMMIT;
SELECT count(*) FROM temporary WHERE k && '(10,10),(20,20)';
BEGIN;
INSERT INTO temporary VALUES ('(1,1),(2,2)');
SELECT count(*) FROM temporary WHERE k && '(1,1),(20,20)';
COMMIT;
DROP TABLE temporary;

-- Many made and dropped in one session.
DO $$ BEGIN
	FOR i IN 1..50 LOOP
		CREATE TABLE many (k point);
		CREATE INDEX many_k ON many USING xtree (k);
		INSERT INTO many SELECT point(j, i) FROM generate_series(1, 20) j;
		IF (SELECT count(*) FROM many WHERE k <@ box(point(0, 0), point(10, 100))) <> 10 THEN
			RAISE 'wrong count in round %', i;
		END IF;
		DROP TABLE many;
	END LOOP;
END $$;
-- And rolled back, one at a time.
DO $$ BEGIN
	FOR i IN 1..20 LOOP
		BEGIN
			CREATE TABLE many (k point);
			CREATE INDEX many_k ON many USING xtree (k);
			INSERT INTO many SELECT point(j, i) FROM generate_series(1, 20) j;
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
END $$;

SELECT xtree_checkpoint('ddl_k');
SELECT log_bytes, checkpoint_lsn = applied_lsn AS complete FROM xtree_stats('ddl_k');
SELECT xtree_check('ddl_k', true);
DROP TABLE ddl;
