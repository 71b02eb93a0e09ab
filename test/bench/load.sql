-- Raw rows, and the enlargement used where the large files are absent: copies displaced by a fraction of
-- a degree, so that density and shape stay those of real data.
SET client_min_messages = warning;
CREATE EXTENSION xtree;
CREATE UNLOGGED TABLE raw_boxes (xlo float8, ylo float8, xhi float8, yhi float8);
CREATE UNLOGGED TABLE raw_points (x float8, y float8);
CREATE TABLE countries (code text, name text, vertices int, area polygon);

CREATE PROCEDURE enlarge(copies int) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM setseed(0.25);
	CREATE TEMP TABLE more_boxes AS
		SELECT xlo + dx AS xlo, ylo + dy AS ylo, xhi + dx AS xhi, yhi + dy AS yhi
		FROM (SELECT *, random() - 0.5 AS dx, random() - 0.5 AS dy
			  FROM raw_boxes, generate_series(2, copies)) AS jittered;
	INSERT INTO raw_boxes TABLE more_boxes;
	INSERT INTO raw_points
		SELECT x + random() - 0.5, y + random() - 0.5 FROM raw_points, generate_series(2, copies);
END $$;
