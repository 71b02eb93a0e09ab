-- Which plan is chosen, where rows that are neighbours in space are so in the heap, and where they are not. The host
-- believes that a condition holds for a thousandth of all rows; the index knows better how many pages it reads.
CREATE TABLE plans_ordered AS SELECT i AS id, point(i, 0) AS p FROM generate_series(1, 30000) AS i;
CREATE TABLE plans_random AS SELECT * FROM plans_ordered ORDER BY hashint4(id);
CREATE INDEX plans_ordered_p ON plans_ordered USING xtree (p);
CREATE INDEX plans_random_p ON plans_random USING xtree (p);
VACUUM ANALYZE plans_ordered, plans_random;

-- A fifth of all rows. A few of them come sooner from the index than from the table's beginning.
EXPLAIN (COSTS OFF) SELECT id FROM plans_ordered WHERE p <@ box '((15000,-1),(21000,1))' LIMIT 10;
EXPLAIN (COSTS OFF) SELECT id FROM plans_ordered WHERE p <@ box '((15000,-1),(21000,1))'
	ORDER BY p <-> point '(18000,0)' LIMIT 10;
-- All of them: page by page.
EXPLAIN (COSTS OFF) SELECT id FROM plans_ordered WHERE p <@ box '((15000,-1),(21000,1))';
EXPLAIN (COSTS OFF) SELECT id FROM plans_random WHERE p <@ box '((15000,-1),(21000,1))';
-- Few rows need no bitmap.
EXPLAIN (COSTS OFF) SELECT id FROM plans_ordered WHERE p <@ box '((15000,-1),(15100,1))';
-- An argument that is not known yet.
SET plan_cache_mode = force_generic_plan;
PREPARE window_rows(box) AS SELECT id FROM plans_ordered WHERE p <@ $1;
EXPLAIN (COSTS OFF) EXECUTE window_rows('((15000,-1),(15100,1))');
-- No rows, and a table that was never analyzed.
CREATE TABLE plans_empty (p point);
CREATE INDEX plans_empty_p ON plans_empty USING xtree (p);
SELECT count(*) FROM plans_empty WHERE p <@ box '((0,0),(1,1))';
INSERT INTO plans_empty SELECT point(i, i) FROM generate_series(1, 1000) AS i;
SELECT count(*) FROM plans_empty WHERE p <@ box '((0,0),(10,10))';
DROP TABLE plans_ordered, plans_random, plans_empty;
