-- Tables of the demo: each twice, the same rows in the same order, for GiST and for xtree.
SET client_min_messages = warning;
CREATE EXTENSION xtree;

CREATE UNLOGGED TABLE raw_cities (id bigint, lon float8, lat float8, population bigint);
CREATE UNLOGGED TABLE raw_shore (xlo float8, ylo float8, xhi float8, yhi float8);
CREATE UNLOGGED TABLE raw_countries (code text, name text, vertices int, border polygon);
