-- Goal: points in polygons and circles, decided on the index's keys, are those that the host finds.
-- Method: points on a grid of quarters, moved by multiples of half the host's tolerance, against polygons
-- whose corners lie on the same grid (points on edges and corners, edges in a line, edges back and forth)
-- and against large ones; sequential and index scan must agree on each pair.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS xtree;
RESET client_min_messages;
SELECT setseed(0.5);

CREATE TABLE dots (id int, k point);
INSERT INTO dots SELECT row_number() OVER (), point(x / 4.0 + dx * 5e-7, y / 4.0 + dy * 5e-7)
	FROM generate_series(1, 16) x, generate_series(-1, 9) y, generate_series(-2, 2) dx, generate_series(-2, 2) dy;
INSERT INTO dots VALUES (-1, NULL), (-2, 'NaN,1'), (-3, '1,NaN'), (-4, 'NaN,NaN'), (-5, 'Infinity,1'),
	(-6, '1,-Infinity'), (-7, '-Infinity,Infinity'), (-8, 'NaN,Infinity'), (-9, '-0,-0');
CREATE TABLE shapes (id serial, k polygon);
-- Random corners on the grid, any number of them, crossing themselves and doubling back.
INSERT INTO shapes (k) SELECT polygon(('(' || string_agg(format('(%s,%s)', floor(random() * 5), floor(random() * 5)), ',') || ')'))
	FROM generate_series(1, 60) s, generate_series(1, s / 3 + 1) corner GROUP BY s;
-- On quarters, and moved off the grid by about the tolerance.
INSERT INTO shapes (k) SELECT polygon(('(' || string_agg(format('(%s,%s)', floor(random() * 17) / 4 + floor(random() * 7 - 3) * 5e-7,
														floor(random() * 17) / 4 + floor(random() * 7 - 3) * 5e-7), ',') || ')'))
	FROM generate_series(1, 60) s, generate_series(1, s + 1) corner GROUP BY s;
-- Round ones with many corners, and stars whose edges cross many strips.
INSERT INTO shapes (k) SELECT polygon(n, circle(point(2, 2), r)) FROM unnest(ARRAY[3, 24, 100, 400]) n, unnest(ARRAY[0.1, 1.5, 4]) r;
INSERT INTO shapes (k) SELECT polygon(('(' || string_agg(format('(%s,%s)', 2 + 2 * cos(i * 2.4), 2 + 2 * sin(i * 2.4)), ',' ORDER BY i) || ')'))
	FROM generate_series(1, 2) s, generate_series(1, 100 * s) i GROUP BY s;
-- Flat ones, points, and such as the host's arithmetic may overflow on or cannot order.
INSERT INTO shapes (k) VALUES ('((1,1),(3,1))'), ('((1,1),(1,3),(1,2))'), ('((1,1))'), ('((1,1),(1,1))'),
	('((NaN,1),(2,2),(3,1))'), ('((0,0),(Infinity,0),(2,4))'),
	('((1e-300,0),(2e-300,1),(0,1e-310))'), ('((1e14,1e14),(1e14,0),(0,0),(0,1e14))'), (NULL);
INSERT INTO shapes (k) SELECT polygon(('(' || string_agg(format('(%s,1)', i / 10.0), ',') || ')')) FROM generate_series(1, 40) i;
CREATE TABLE discs (id serial, k circle);
INSERT INTO discs (k) SELECT circle(point(floor(random() * 17) / 4, floor(random() * 17) / 4), floor(random() * 9) / 4) FROM generate_series(1, 60);
INSERT INTO discs (k) VALUES ('<(0,0),1e200>'), ('<(1,1),Infinity>'), ('<(1,1),NaN>'), ('<(Infinity,1),2>'), (NULL), ('<(1e16,0),1e16>');
CREATE INDEX dots_k ON dots USING xtree (k);
VACUUM ANALYZE dots, shapes, discs;

SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_material = off;
EXPLAIN (COSTS OFF) SELECT d.id FROM shapes s JOIN dots d ON d.k <@ s.k;
CREATE TABLE found AS SELECT s.id AS shape, d.id AS dot FROM shapes s JOIN dots d ON d.k <@ s.k;
CREATE TABLE found_discs AS SELECT s.id AS shape, d.id AS dot FROM discs s JOIN dots d ON d.k <@ s.k;
CREATE TABLE found_both AS SELECT s.id AS shape, c.id AS disc, d.id AS dot
	FROM shapes s JOIN discs c ON c.id = s.id JOIN dots d ON d.k <@ s.k AND d.k <@ c.k AND d.k <@ box '(0.5,0.5),(3,3)';
-- The order by distance and the value of an index-only scan do not come between.
CREATE TABLE found_near AS SELECT s.id AS shape, n.k::text AS dot FROM shapes s CROSS JOIN LATERAL
	(SELECT d.k FROM dots d WHERE d.k <@ s.k ORDER BY d.k <-> point '(2,2)', d.k[0], d.k[1] LIMIT 3) n;
EXPLAIN (COSTS OFF) SELECT count(*) FROM dots WHERE k <@ polygon '((0,0),(4,0),(2,4))';
CREATE TABLE found_keys AS SELECT s.id AS shape, d.k::text AS dot FROM shapes s JOIN dots d ON d.k <@ s.k;
SET enable_seqscan = on; SET enable_indexscan = off; SET enable_indexonlyscan = off;
CREATE TABLE expected AS SELECT s.id AS shape, d.id AS dot FROM shapes s JOIN dots d ON d.k <@ s.k;
CREATE TABLE expected_discs AS SELECT s.id AS shape, d.id AS dot FROM discs s JOIN dots d ON d.k <@ s.k;
CREATE TABLE expected_both AS SELECT s.id AS shape, c.id AS disc, d.id AS dot
	FROM shapes s JOIN discs c ON c.id = s.id JOIN dots d ON d.k <@ s.k AND d.k <@ c.k AND d.k <@ box '(0.5,0.5),(3,3)';
CREATE TABLE expected_near AS SELECT s.id AS shape, n.k::text AS dot FROM shapes s CROSS JOIN LATERAL
	(SELECT d.k FROM dots d WHERE d.k <@ s.k ORDER BY d.k <-> point '(2,2)', d.k[0], d.k[1] LIMIT 3) n;
CREATE TABLE expected_keys AS SELECT s.id AS shape, d.k::text AS dot FROM shapes s JOIN dots d ON d.k <@ s.k;
RESET ALL;

SELECT count(*) > 50000 AS many FROM expected;
SELECT count(*) FROM ((TABLE found EXCEPT ALL TABLE expected) UNION ALL (TABLE expected EXCEPT ALL TABLE found)) d;
SELECT count(*) FROM ((TABLE found_discs EXCEPT ALL TABLE expected_discs) UNION ALL (TABLE expected_discs EXCEPT ALL TABLE found_discs)) d;
SELECT count(*) FROM ((TABLE found_both EXCEPT ALL TABLE expected_both) UNION ALL (TABLE expected_both EXCEPT ALL TABLE found_both)) d;
SELECT count(*) FROM ((TABLE found_near EXCEPT ALL TABLE expected_near) UNION ALL (TABLE expected_near EXCEPT ALL TABLE found_near)) d;
SELECT count(*) FROM ((TABLE found_keys EXCEPT ALL TABLE expected_keys) UNION ALL (TABLE expected_keys EXCEPT ALL TABLE found_keys)) d;
SELECT count(*) > 1000 AS many_discs FROM expected_discs;
SELECT count(*) > 1000 AS many_both FROM expected_both;

-- More operators than a filter holds.
SET enable_seqscan = off; SET enable_bitmapscan = off;
SELECT count(*) FROM dots WHERE k <@ polygon '((0,0),(4,0),(2,4))' AND k <@ circle '<(2,2),2>' AND k <@ circle '<(2,1.5),2>'
	AND k <@ circle '<(2,1),2>' AND k <@ circle '<(2,0.5),2>' AND k <@ polygon '((0,0),(4,0),(4,4),(0,2))';
RESET ALL;
SELECT count(*) FROM dots WHERE (k <@ polygon '((0,0),(4,0),(2,4))') AND (k <@ circle '<(2,2),2>') AND k <@ circle '<(2,1.5),2>'
	AND k <@ circle '<(2,1),2>' AND k <@ circle '<(2,0.5),2>' AND k <@ polygon '((0,0),(4,0),(4,4),(0,2))' AND id::text <> '';
DROP TABLE dots, shapes, discs, found, found_discs, found_both, found_near, found_keys,
	expected, expected_discs, expected_both, expected_near, expected_keys;
