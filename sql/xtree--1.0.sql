/* sql/xtree--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION xtree" to load this file. \quit

CREATE FUNCTION xthandler(internal)
RETURNS index_am_handler
AS 'MODULE_PATHNAME'
LANGUAGE C STRICT;

CREATE ACCESS METHOD xtree TYPE INDEX HANDLER xthandler;
COMMENT ON ACCESS METHOD xtree IS 'X-tree index access method';

-- The strategy numbers are those of core's operator classes for GiST.

CREATE OPERATOR CLASS point_ops DEFAULT FOR TYPE point USING xtree AS
	OPERATOR 1  << (point, point),
	OPERATOR 5  >> (point, point),
	OPERATOR 6  ~= (point, point),
	OPERATOR 10 <<| (point, point),
	OPERATOR 11 |>> (point, point),
	OPERATOR 15 <-> (point, point) FOR ORDER BY pg_catalog.float_ops,
	OPERATOR 28 <@ (point, box),
	OPERATOR 29 <^ (point, point),
	OPERATOR 30 >^ (point, point),
	OPERATOR 48 <@ (point, polygon),
	OPERATOR 68 <@ (point, circle);

CREATE OPERATOR CLASS box_ops DEFAULT FOR TYPE box USING xtree AS
	OPERATOR 1  << (box, box),
	OPERATOR 2  &< (box, box),
	OPERATOR 3  && (box, box),
	OPERATOR 4  &> (box, box),
	OPERATOR 5  >> (box, box),
	OPERATOR 6  ~= (box, box),
	OPERATOR 7  @> (box, box),
	OPERATOR 8  <@ (box, box),
	OPERATOR 9  &<| (box, box),
	OPERATOR 10 <<| (box, box),
	OPERATOR 11 |>> (box, box),
	OPERATOR 12 |&> (box, box),
	OPERATOR 15 <-> (box, point) FOR ORDER BY pg_catalog.float_ops;

CREATE OPERATOR CLASS poly_ops DEFAULT FOR TYPE polygon USING xtree AS
	OPERATOR 1  << (polygon, polygon),
	OPERATOR 2  &< (polygon, polygon),
	OPERATOR 3  && (polygon, polygon),
	OPERATOR 4  &> (polygon, polygon),
	OPERATOR 5  >> (polygon, polygon),
	OPERATOR 6  ~= (polygon, polygon),
	OPERATOR 7  @> (polygon, polygon),
	OPERATOR 8  <@ (polygon, polygon),
	OPERATOR 9  &<| (polygon, polygon),
	OPERATOR 10 <<| (polygon, polygon),
	OPERATOR 11 |>> (polygon, polygon),
	OPERATOR 12 |&> (polygon, polygon),
	OPERATOR 15 <-> (polygon, point) FOR ORDER BY pg_catalog.float_ops;

CREATE OPERATOR CLASS circle_ops DEFAULT FOR TYPE circle USING xtree AS
	OPERATOR 1  << (circle, circle),
	OPERATOR 2  &< (circle, circle),
	OPERATOR 3  && (circle, circle),
	OPERATOR 4  &> (circle, circle),
	OPERATOR 5  >> (circle, circle),
	OPERATOR 6  ~= (circle, circle),
	OPERATOR 7  @> (circle, circle),
	OPERATOR 8  <@ (circle, circle),
	OPERATOR 9  &<| (circle, circle),
	OPERATOR 10 <<| (circle, circle),
	OPERATOR 11 |>> (circle, circle),
	OPERATOR 12 |&> (circle, circle),
	OPERATOR 15 <-> (circle, point) FOR ORDER BY pg_catalog.float_ops;

-- The first element of each array is the leaves. Privileges are checked inside: the owner of the index,
-- or pg_stat_scan_tables.
CREATE FUNCTION xtree_stats(index regclass,
	OUT entries bigint,
	OUT null_entries bigint,
	OUT height int,
	OUT nodes bigint[],
	OUT supernodes bigint[],
	OUT level_entries bigint[],
	OUT fill_percent float8[],
	OUT file_blocks bigint,
	OUT used_blocks bigint,
	OUT log_bytes bigint,
	OUT log_file_blocks bigint,
	OUT epoch bigint,
	OUT checkpoint_epoch bigint,
	OUT applied_lsn pg_lsn,
	OUT checkpoint_lsn pg_lsn,
	OUT retired_versions bigint,
	OUT checkpoints bigint,
	OUT shards int,
	OUT windows_mapped int,
	OUT retained_blocks bigint,
	OUT oldest_reader_pid int,
	OUT oldest_reader_lag bigint,
	OUT shared_inserts bigint,
	OUT exclusive_retries bigint,
	OUT lock_waits bigint,
	OUT latch_waits bigint)
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION xtree_stats(regclass) IS 'size and shape of an xtree index';

CREATE FUNCTION xtree_check(index regclass, heapallindexed boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION xtree_check(regclass, boolean)
	IS 'verify an xtree index, and optionally that every row of its table is in it';

CREATE FUNCTION xtree_svg(index regclass, level int DEFAULT 0)
RETURNS text
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION xtree_svg(regclass, int) IS 'picture of the nodes of one level of an xtree index';

CREATE FUNCTION xtree_checkpoint(index regclass)
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION xtree_checkpoint(regclass)
	IS 'make an xtree index durable in its data file and empty its log';

CREATE FUNCTION xtree_state(index regclass,
	OUT usable boolean,
	OUT entries bigint,
	OUT null_entries bigint,
	OUT file_blocks bigint,
	OUT log_bytes bigint,
	OUT applied_lsn pg_lsn)
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION xtree_state(regclass) IS 'what is known of an xtree index without reading it';

-- Only indexes that the user may look into: without privileges, one would hide all others.
CREATE VIEW pg_stat_xtree AS
	SELECT i.indrelid AS relid, i.indexrelid, n.nspname AS schemaname, t.relname,
		   c.relname AS indexrelname, s.*
	FROM pg_catalog.pg_index i
		 JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
		 JOIN pg_catalog.pg_am a ON a.oid = c.relam AND a.amname = 'xtree'
		 JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
		 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		 CROSS JOIN LATERAL xtree_state(i.indexrelid) s
	WHERE NOT pg_catalog.pg_is_other_temp_schema(c.relnamespace)
		  AND (pg_catalog.pg_has_role(c.relowner, 'USAGE')
			   OR pg_catalog.pg_has_role('pg_stat_scan_tables', 'USAGE'));
GRANT SELECT ON pg_stat_xtree TO PUBLIC;
