-- Goal: CREATE INDEX ... USING xtree for every type and in every form, and REINDEX, give an index that
-- the checker accepts and that answers as the table does.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS xtree;
RESET client_min_messages;
SELECT setseed(0.75);

-- Every operator class is what amvalidate expects, and no member is missing against core's GiST.
SELECT opcname, opcintype::regtype, opcdefault, amvalidate(c.oid)
FROM pg_opclass c JOIN pg_am a ON a.oid = opcmethod WHERE amname = 'xtree' ORDER BY 1;
SELECT g.amopstrategy, g.amopopr::regoperator
FROM pg_amop g JOIN pg_am a ON a.oid = g.amopmethod AND a.amname = 'gist'
	 JOIN pg_opfamily f ON f.oid = g.amopfamily
WHERE f.opfname IN ('point_ops', 'box_ops', 'poly_ops', 'circle_ops')
	  AND NOT EXISTS (SELECT 1 FROM pg_amop x JOIN pg_am xa ON xa.oid = x.amopmethod AND xa.amname = 'xtree'
					  WHERE (x.amopopr, x.amopstrategy, x.amoppurpose, x.amopsortfamily)
							= (g.amopopr, g.amopstrategy, g.amoppurpose, g.amopsortfamily));
SELECT p, pg_indexam_has_property(a.oid, p)
FROM pg_am a, unnest(ARRAY['can_order', 'can_unique', 'can_multi_col', 'can_exclude', 'can_include']) p
WHERE amname = 'xtree' ORDER BY 1;

CREATE TABLE shapes AS SELECT i AS id, p AS pt, box(p, point(p[0] + random(), p[1] + random())) AS bx,
		polygon(circle(p, random() + 0.01)) AS py, circle(p, random()) AS ci
	FROM (SELECT i, point(random() * 100, random() * 100) AS p FROM generate_series(1, 20000) i) s;
CREATE INDEX shapes_pt ON shapes USING xtree (pt);
CREATE INDEX shapes_bx ON shapes USING xtree (bx) WITH (fillfactor = 50);
CREATE INDEX shapes_py ON shapes USING xtree (py poly_ops);
CREATE INDEX shapes_ci ON shapes USING xtree (ci);
CREATE INDEX shapes_expression ON shapes USING xtree (box(ci));
CREATE INDEX shapes_partial ON shapes USING xtree (bx) WHERE id % 10 = 0;
CREATE INDEX CONCURRENTLY shapes_concurrently ON shapes USING xtree (pt);
SELECT indexrelid::regclass, indisvalid FROM pg_index WHERE indrelid = 'shapes'::regclass ORDER BY indexrelid::regclass::text;
SELECT c.relname, s.entries, s.null_entries, s.height, s.nodes[s.height] AS roots,
	   s.level_entries[1] = s.entries AS leaves_hold_all, s.used_blocks <= s.file_blocks AS fits
FROM pg_class c, xtree_stats(c.oid) s WHERE relname LIKE 'shapes\_%' ORDER BY 1;
SELECT a.fill_percent[1] > b.fill_percent[1] AS denser FROM xtree_stats('shapes_pt') a, xtree_stats('shapes_bx') b;
SELECT count(xtree_check(oid, true)) FROM pg_class WHERE relname LIKE 'shapes\_%';

SET enable_seqscan = off;
SELECT count(*) FROM shapes WHERE pt <@ box '(10,10),(20,20)';
SELECT count(*) FROM shapes WHERE bx && '(10,10),(20,20)';
SELECT count(*) FROM shapes WHERE py && '((10,10),(20,20),(10,20))';
SELECT count(*) FROM shapes WHERE ci && '<(15,15),5>';
SELECT count(*) FROM shapes WHERE box(ci) && '(10,10),(20,20)';
SELECT count(*) FROM shapes WHERE bx && '(10,10),(20,20)' AND id % 10 = 0;
SET enable_indexscan = off;
SET enable_bitmapscan = off;
SET enable_seqscan = on;
SELECT count(*) FROM shapes WHERE pt <@ box '(10,10),(20,20)';
SELECT count(*) FROM shapes WHERE bx && '(10,10),(20,20)';
SELECT count(*) FROM shapes WHERE py && '((10,10),(20,20),(10,20))';
SELECT count(*) FROM shapes WHERE ci && '<(15,15),5>';
SELECT count(*) FROM shapes WHERE box(ci) && '(10,10),(20,20)';
SELECT count(*) FROM shapes WHERE bx && '(10,10),(20,20)' AND id % 10 = 0;
RESET enable_indexscan;
RESET enable_bitmapscan;

-- Changed rows, and again from scratch.
UPDATE shapes SET pt = point(pt[0] + 1, pt[1]), bx = bx + point(1, 0) WHERE id % 4 = 0;
DELETE FROM shapes WHERE id % 5 = 0;
SELECT count(xtree_check(oid, true)) FROM pg_class WHERE relname LIKE 'shapes\_%';
REINDEX TABLE shapes;
SELECT count(xtree_check(oid, true)) FROM pg_class WHERE relname LIKE 'shapes\_%';
REINDEX INDEX CONCURRENTLY shapes_bx;
ALTER INDEX shapes_bx SET (fillfactor = 95);
REINDEX INDEX shapes_bx;
SELECT count(xtree_check(oid, true)) FROM pg_class WHERE relname LIKE 'shapes\_%';

-- An index on an empty table grows from nothing.
CREATE TABLE grown (id int, k box);
CREATE INDEX grown_k ON grown USING xtree (k);
SELECT entries, height, pg_relation_size('grown_k') < 131072 AS small FROM xtree_stats('grown_k');
SELECT count(*) FROM grown WHERE k && '(0,0),(1,1)';
INSERT INTO grown SELECT i, box(point(i % 100, i / 100), point(i % 100 + 1, i / 100 + 1)) FROM generate_series(1, 20000) i;
SELECT xtree_check('grown_k', true);
SET enable_seqscan = off;
SELECT count(*) FROM grown WHERE k && '(10.5,10.5),(20.5,20.5)';
RESET enable_seqscan;
-- All keys equal: there is nothing to split by.
TRUNCATE grown;
INSERT INTO grown SELECT i, '(1,1),(2,2)' FROM generate_series(1, 5000) i;
SELECT xtree_check('grown_k', true);
SET enable_seqscan = off;
SELECT count(*) FROM grown WHERE k ~= '(1,1),(2,2)';
SELECT count(*) FROM grown WHERE k && '(3,3),(4,4)';
RESET enable_seqscan;

-- Partitions, inheritance of the index.
CREATE TABLE parts (id int, k point) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
CREATE INDEX parts_k ON parts USING xtree (k);
INSERT INTO parts SELECT i, point(i, i) FROM generate_series(0, 199) i;
SET enable_seqscan = off;
SELECT count(*) FROM parts WHERE k <@ box '(50,50),(149,149)';
SELECT id FROM parts ORDER BY k <-> '(99.6,99.6)' LIMIT 3;
RESET enable_seqscan;

SELECT indexrelname, usable, entries, null_entries FROM pg_stat_xtree WHERE relname IN ('grown', 'parts_1') ORDER BY 1;
DROP TABLE shapes, grown, parts;
SELECT count(*) FROM pg_stat_xtree WHERE relname IN ('shapes', 'grown', 'parts');
