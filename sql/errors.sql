-- Goal: what xtree cannot do is refused with one clear error, and nothing is changed.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS xtree;
RESET client_min_messages;

CREATE TABLE err (id int, k box, p point, t text);
CREATE INDEX ON err USING xtree (id);
CREATE INDEX ON err USING xtree (t);
CREATE UNIQUE INDEX ON err USING xtree (k);
CREATE INDEX ON err USING xtree (k, p);
CREATE INDEX ON err USING xtree (k) INCLUDE (id);
CREATE INDEX ON err USING xtree (k DESC);
CREATE INDEX ON err USING xtree (k) WITH (fillfactor = 9);
CREATE INDEX ON err USING xtree (k) WITH (fillfactor = 101);
CREATE INDEX ON err USING xtree (k) WITH (buffering = on);
CREATE INDEX ON err USING xtree (k point_ops);
SELECT count(*) FROM pg_index WHERE indrelid = 'err'::regclass;

-- Operator classes that are not what they claim.
CREATE OPERATOR CLASS wrong_type FOR TYPE int4 USING xtree AS OPERATOR 1 < ;
CREATE OPERATOR CLASS wrong_operator FOR TYPE box USING xtree AS OPERATOR 3 @> (box, box), OPERATOR 99 && (box, box),
	OPERATOR 15 <-> (box, box) FOR ORDER BY float_ops;
SELECT opcname, amvalidate(c.oid) FROM pg_opclass c JOIN pg_am a ON a.oid = opcmethod
	WHERE amname = 'xtree' AND opcname LIKE 'wrong%' ORDER BY 1;
CREATE INDEX ON err USING xtree (id wrong_type);
-- A strategy number does not decide what an operator means: the operator does.
CREATE INDEX err_wrong ON err USING xtree (k wrong_operator);
INSERT INTO err SELECT i, box(point(i, i), point(i + 3, i + 3)) FROM generate_series(1, 100) i;
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT count(*) FROM err WHERE k @> '(5,5),(6,6)';
SELECT count(*) FROM err WHERE k @> '(5,5),(6,6)';
SELECT id FROM err ORDER BY k <-> '(5,5),(6,6)'::box LIMIT 1;
RESET enable_seqscan;
DROP OPERATOR FAMILY wrong_type USING xtree CASCADE;
DROP OPERATOR FAMILY wrong_operator USING xtree CASCADE;

-- Inspection of what is not an xtree index, or is not there.
CREATE INDEX err_gist ON err USING gist (k);
CREATE INDEX err_k ON err USING xtree (k);
SELECT xtree_stats('err'::regclass);
SELECT xtree_stats('err_gist');
SELECT xtree_check('err_gist', true);
SELECT xtree_svg('err_gist');
SELECT xtree_checkpoint('pg_class_oid_index');
SELECT xtree_stats(0);
SELECT xtree_stats(NULL);
SELECT xtree_svg('err_k', -1);
SELECT xtree_svg('err_k', 16);
CREATE TABLE err_parts (id int, k box) PARTITION BY LIST (id);
CREATE INDEX err_parts_k ON err_parts USING xtree (k);
SELECT xtree_stats('err_parts_k');

-- Privileges.
CREATE ROLE regress_xtree_user;
SET ROLE regress_xtree_user;
SELECT xtree_stats('err_k');
SELECT xtree_check('err_k');
SELECT xtree_svg('err_k');
SELECT xtree_checkpoint('err_k');
SELECT count(*) FROM pg_stat_xtree;
RESET ROLE;
GRANT pg_stat_scan_tables TO regress_xtree_user;
SET ROLE regress_xtree_user;
SELECT entries FROM xtree_stats('err_k');
SELECT xtree_check('err_k', true);
SELECT xtree_svg('err_k');
SELECT count(*) > 0 AS some FROM pg_stat_xtree;
RESET ROLE;
REVOKE pg_stat_scan_tables FROM regress_xtree_user;
GRANT SELECT ON err TO regress_xtree_user;
SET ROLE regress_xtree_user;
SELECT xtree_svg('err_k') ~ '^<svg' AS picture;
SELECT xtree_stats('err_k');
RESET ROLE;
ALTER TABLE err ENABLE ROW LEVEL SECURITY;
SET ROLE regress_xtree_user;
SELECT xtree_svg('err_k') ~ '^<svg' AS picture;
RESET ROLE;
ALTER TABLE err OWNER TO regress_xtree_user;
SET ROLE regress_xtree_user;
SELECT xtree_svg('err_k') ~ '^<svg' AS picture;
SELECT xtree_checkpoint('err_k');
RESET ROLE;
DROP TABLE err, err_parts;
DROP ROLE regress_xtree_user;

-- The picture has one rectangle a node, and an index without a finite box still has a picture.
CREATE TABLE pic (k box);
CREATE INDEX pic_k ON pic USING xtree (k);
SELECT xtree_svg('pic_k');
INSERT INTO pic SELECT box(point(i % 100, i / 100), point(i % 100 + 1, i / 100 + 1)) FROM generate_series(0, 9999) i;
SELECT array_length(regexp_split_to_array(xtree_svg('pic_k', 0), '<rect'), 1) - 1 = nodes[1] AS every_leaf
	FROM xtree_stats('pic_k');
TRUNCATE pic;
INSERT INTO pic VALUES ('(Infinity,Infinity),(-Infinity,-Infinity)');
SELECT xtree_svg('pic_k');
DROP TABLE pic;
