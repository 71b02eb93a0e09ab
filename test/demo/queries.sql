-- The same questions to both. A question returns one column; where it reads "{}" an index's table goes.
-- The answers must be the same set, row for row; times are medians, planning included.
SET client_min_messages = warning;
SET max_parallel_workers_per_gather = 0;

CREATE TABLE questions (position serial, question text, query text);
INSERT INTO questions (question, query) VALUES
	('Cities of Greater London (window)',
	 $$SELECT id FROM cities{} WHERE place <@ box '((-0.51,51.28),(0.33,51.69))'$$),
	('Cities of Switzerland and around (window)',
	 $$SELECT id FROM cities{} WHERE place <@ box '((5.9,45.8),(10.5,47.8))'$$),
	('How many cities lie in the tropics of Africa (count)',
	 $$SELECT count(*) FROM cities{} WHERE place <@ box '((-18,0),(52,15))'$$),
	('The city nearest to the middle of the Atlantic',
	 $$SELECT place <-> point '(-35,20)' FROM cities{} ORDER BY place <-> point '(-35,20)' LIMIT 1$$),
	('The 10 cities nearest to Prague',
	 $$SELECT place <-> point '(14.42,50.09)' FROM cities{} ORDER BY place <-> point '(14.42,50.09)' LIMIT 10$$),
	('The 100 cities nearest to Nairobi',
	 $$SELECT place <-> point '(36.82,-1.29)' FROM cities{} ORDER BY place <-> point '(36.82,-1.29)' LIMIT 100$$),
	('Cities within a degree of Tokyo (circle)',
	 $$SELECT id FROM cities{} WHERE place <@ circle '((139.69,35.69),1)'$$),
	('Cities of Italy (inside its polygons)',
	 $$SELECT c.id FROM countries n, cities{} c WHERE n.name = 'Italy' AND c.place <@ n.border$$),
	('Shore of the bay of Naples (overlapping boxes)',
	 $$SELECT id FROM shore{} WHERE piece && box '((13.9,40.5),(14.5,40.9))'$$),
	('Shore wholly within the Balearic Islands (contained boxes)',
	 $$SELECT id FROM shore{} WHERE piece <@ box '((1.1,38.6),(4.4,40.1))'$$),
	('The 10 pieces of shore nearest to Rome',
	 $$SELECT piece <-> point '(12.5,41.9)' FROM shore{} ORDER BY piece <-> point '(12.5,41.9)' LIMIT 10$$),
	('Shore west of one degree west (boxes left of)',
	 $$SELECT count(*) FROM shore{} WHERE piece << box '((-1,30),(0,50))' AND piece >> box '((-3,30),(-2,50))'$$),
	('Cities beside the shore (join of points and boxes)',
	 $$SELECT count(*) FROM cities c JOIN shore{} s
	     ON s.piece && box(c.place + point '(-0.01,-0.01)', c.place + point '(0.01,0.01)')
	   WHERE c.place <@ box '((0,36),(16,46))' AND c.population > 5000$$),
	('The cities of each small country (join of polygons and points)',
	 $$SELECT n.name || count(*) FROM countries n JOIN cities{} c ON c.place <@ n.border
	   WHERE n.vertices BETWEEN 20 AND 60 GROUP BY n.id, n.name$$),
	('Countries that touch the Alps (overlapping polygons)',
	 $$SELECT id FROM countries{} WHERE border && polygon '((6,44),(16,46),(15,48),(8,47))'$$);

CREATE TABLE answers (position int, method text, rows bigint, digest text, ms float8);

-- Runs for at least five times and 0.2 seconds, at most 101 times.
CREATE PROCEDURE ask(question questions, method text) LANGUAGE plpgsql AS $$
DECLARE
	query text := replace(question.query, '{}', CASE method WHEN 'gist' THEN '_gist' ELSE '' END);
	times float8[] := '{}';
	began timestamptz := clock_timestamp();
	start timestamptz;
	row_count bigint;
	answer text;
BEGIN
	EXECUTE format('SELECT count(*), md5(string_agg(a::text, '','' ORDER BY a::text)) FROM (%s) AS q(a)', query)
		INTO row_count, answer;
	WHILE cardinality(times) < 5 OR
		  (cardinality(times) < 101 AND clock_timestamp() < began + interval '0.2 s') LOOP
		start := clock_timestamp();
		EXECUTE format('SELECT count(a) FROM (%s) AS q(a)', query);
		times := times || 1000 * extract(epoch FROM clock_timestamp() - start)::float8;
	END LOOP;
	INSERT INTO answers
		SELECT question.position, method, row_count, answer, percentile_cont(0.5) WITHIN GROUP (ORDER BY t)
		FROM unnest(times) AS t;
END $$;

DO $$
DECLARE
	question questions;
BEGIN
	FOR question IN SELECT * FROM questions ORDER BY position LOOP
		CALL ask(question, 'gist');
		CALL ask(question, 'xtree');
	END LOOP;
END $$;

\pset footer off
\pset title 'The same questions to both: rows, and median time'
SELECT q.question, x.rows,
	   CASE WHEN g.rows = x.rows AND g.digest IS NOT DISTINCT FROM x.digest THEN 'same' ELSE 'DIFFERENT' END AS answer,
	   round(g.ms::numeric, 3) AS "GiST ms", round(x.ms::numeric, 3) AS "xtree ms",
	   round((g.ms / x.ms)::numeric, 1) AS "times faster"
FROM questions q
JOIN answers g ON g.position = q.position AND g.method = 'gist'
JOIN answers x ON x.position = q.position AND x.method = 'xtree'
ORDER BY q.position;

\pset title 'One of them explained'
EXPLAIN (ANALYZE, BUFFERS, COSTS off, TIMING off)
	SELECT id FROM shore WHERE piece && box '((13.9,40.5),(14.5,40.9))';

\pset title 'What the tree looks like inside'
SELECT * FROM xtree_stats('shore_piece') \gx

DO $$
BEGIN
	IF EXISTS (SELECT FROM answers g JOIN answers x USING (position)
			   WHERE g.method = 'gist' AND x.method = 'xtree'
			   AND (g.rows <> x.rows OR g.digest IS DISTINCT FROM x.digest)) THEN
		RAISE EXCEPTION 'the indexes gave different answers';
	END IF;
END $$;
