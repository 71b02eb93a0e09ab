-- The leaves of the tree of cities (level 0) and their parents (level 1), over the map of countries.
-- xtree_svg draws into a box of its own, which spans the data; that box is placed on the map, where one
-- unit is a degree and y points up.
WITH span AS (
	SELECT min(place[0]) AS x, max(place[0]) - min(place[0]) AS width,
		   -max(place[1]) AS y, max(place[1]) - min(place[1]) AS height
	FROM cities
), tree AS (
	SELECT regexp_replace(replace(xtree_svg('cities_place', level), '#205090', colour), '<svg xmlns="[^"]*"',
		format('<svg x="%s" y="%s" width="%s" height="%s" preserveAspectRatio="none"', x, y, width, height)) AS boxes
	FROM span, (VALUES (0, '#205090'), (1, '#c03020')) AS levels(level, colour)
)
SELECT '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-180 -85 360 145" width="1800" height="725">'
	|| '<rect x="-180" y="-85" width="360" height="145" fill="#eef4f8"/>'
UNION ALL SELECT '<g transform="scale(1,-1)" fill="#dcd8c8" stroke="#a09880" stroke-width="0.08">'
UNION ALL SELECT format('<polygon points="%s"/>', translate(border::text, '()', '')) FROM countries
UNION ALL SELECT '</g>'
UNION ALL SELECT '<g fill="#404040" fill-opacity="0.5">'
UNION ALL SELECT format('<circle cx="%s" cy="%s" r="0.12"/>', place[0], -place[1])
	FROM cities WHERE population > 50000
UNION ALL SELECT '</g>'
UNION ALL SELECT boxes FROM tree
UNION ALL SELECT '</svg>';
