-- Markdown: a row a measure, medians of each method, and how xtree compares with GiST. For inserts the
-- cost of the same table without an index is taken off first.
WITH medians AS (
	SELECT kind, measure, method, min(position) AS position,
		   percentile_cont(0.5) WITHIN GROUP (ORDER BY value) AS value
	FROM results GROUP BY kind, measure, method
), net AS (
	SELECT m.kind, CASE WHEN n.value IS NULL THEN m.measure ELSE m.measure || ', over no index' END AS measure,
		   m.method, m.position, m.value - coalesce(n.value, 0) AS value
	FROM medians m
	LEFT JOIN medians n ON n.kind = m.kind AND n.measure = m.measure AND n.method = 'none' AND m.measure LIKE 'insert%'
	WHERE m.method <> 'none'
), shown AS (
	SELECT kind, measure, min(position) AS position,
		   max(value) FILTER (WHERE method = 'gist') AS gist,
		   max(value) FILTER (WHERE method = 'spgist') AS spgist,
		   max(value) FILTER (WHERE method = 'brin') AS brin,
		   max(value) FILTER (WHERE method = 'xtree') AS xtree
	FROM net GROUP BY kind, measure
)
SELECT line FROM (
SELECT '| key | measure | GiST | SP-GiST | BRIN | xtree | xtree / GiST |' AS line, 0 AS part, 0 AS position
UNION ALL SELECT '|---|---|---|---|---|---|---|', 1, 0
UNION ALL
SELECT format('| %s | %s | %s | %s | %s | **%s** | %s |', kind, measure,
			  round(gist::numeric, d), coalesce(round(spgist::numeric, d)::text, '-'),
			  coalesce(round(brin::numeric, d)::text, '-'), round(xtree::numeric, d),
			  round((xtree / nullif(gist, 0))::numeric, 2)), 2, position
FROM shown, LATERAL (SELECT CASE WHEN greatest(gist, xtree) >= 100 THEN 0 ELSE 1 END AS d) AS digits
) AS lines ORDER BY part, position;
