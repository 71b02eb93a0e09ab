/*
 * xtfuncs.c: SQL functions that look into an index: xtree_stats, xtree_state (for pg_stat_xtree),
 * xtree_check, xtree_svg and xtree_checkpoint.
 *
 * Privileges: a function that tells about structure needs ownership of the index or membership in
 * pg_stat_scan_tables; one that shows keys needs what reading the table needs, row security included;
 * one that works on the index needs ownership. Nothing is locked before that is checked.
 */
#include "postgres.h"

#include <math.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/index.h"
#include "catalog/pg_authid_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "commands/defrem.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "xtree.h"

PG_FUNCTION_INFO_V1(xtree_stats);
PG_FUNCTION_INFO_V1(xtree_state);
PG_FUNCTION_INFO_V1(xtree_check);
PG_FUNCTION_INFO_V1(xtree_svg);
PG_FUNCTION_INFO_V1(xtree_checkpoint);

/* A picture of more boxes helps nobody, and a text value ends at 1 GB. */
#define SVG_BOXES_MAX	1000000
#define SVG_WIDTH		1000.0

typedef enum XtRight
{
	RIGHT_STRUCTURE, RIGHT_DATA, RIGHT_MAINTAIN
} XtRight;

/* An xtree index and its table, both locked. */
typedef struct XtTarget
{
	Relation	heap;
	Relation	index;
	LOCKMODE	lockmode;
} XtTarget;

/* --- Opening ---------------------------------------------------------------------------------- */

static void
check_right(Oid indexoid, Oid heapoid, XtRight right)
{
	const Oid	user = GetUserId();

	if (right == RIGHT_DATA)
	{
		AclResult	acl = pg_class_aclcheck(heapoid, user, ACL_SELECT);

		if (acl != ACLCHECK_OK)
			aclcheck_error(acl, OBJECT_TABLE, get_rel_name(heapoid));
		if (check_enable_rls(heapoid, InvalidOid, true) == RLS_ENABLED)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("cannot show keys of table \"%s\", which has row-level security",
							get_rel_name(heapoid))));
		return;
	}
	if (right == RIGHT_STRUCTURE && has_privs_of_role(user, ROLE_PG_STAT_SCAN_TABLES))
		return;
	if (!pg_class_ownercheck(indexoid, user))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_INDEX, get_rel_name(indexoid));
}

static bool
is_xtree_index(Relation relation)
{
	return relation->rd_rel->relkind == RELKIND_INDEX &&
		relation->rd_rel->relam == get_index_am_oid("xtree", true);
}

/* Locks the table, then the index, in the order that everybody does. */
static void
open_target(Oid indexoid, XtRight right, LOCKMODE lockmode, XtTarget *target)
{
	const Oid	heapoid = IndexGetRelation(indexoid, true);

	if (OidIsValid(heapoid))
		check_right(indexoid, heapoid, right);
	target->lockmode = lockmode;
	target->heap = OidIsValid(heapoid) ? try_table_open(heapoid, lockmode) : NULL;
	target->index = relation_open(indexoid, lockmode);
	if (target->heap == NULL || !is_xtree_index(target->index))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not an xtree index", RelationGetRelationName(target->index))));

	/* The index may have been dropped, and its OID used again, before it was locked. */
	if (heapoid != IndexGetRelation(indexoid, false))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("could not open parent table of index \"%s\"",
						RelationGetRelationName(target->index))));
	if (RELATION_IS_OTHER_TEMP(target->index))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot access temporary tables of other sessions"),
				 errdetail("Index \"%s\" is associated with temporary relation \"%s\".",
						   RelationGetRelationName(target->index),
						   RelationGetRelationName(target->heap))));
}

static void
close_target(XtTarget *target)
{
	relation_close(target->index, target->lockmode);
	table_close(target->heap, target->lockmode);
}

/* --- Walking ---------------------------------------------------------------------------------- */

typedef struct XtWalkState
{
	Relation	index;
	XtHandle   *handle;
	XtWalk	   *walk;
} XtWalkState;

/* Also at exit: a handle is not closed under a walk. */
static void
end_walk(int code, Datum arg)
{
	XtWalkState *state = (XtWalkState *) DatumGetPointer(arg);

	xt_walk_free(state->walk);
	state->handle->scans--;
}

/* Raises the first of the problems. */
static void
report_problems(XtWalkState *state)
{
	const int	problems = (int) xt_walk_problems(state->walk);

	if (problems > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INDEX_CORRUPTED),
				 errmsg_plural("index \"%s\" is corrupted: %d problem found",
							   "index \"%s\" is corrupted: %d problems found",
							   problems, RelationGetRelationName(state->index), problems),
				 errdetail_internal("%s", xt_walk_problem(state->walk, 0)),
				 errhint("Please REINDEX it.")));
}

static void
run_walk(XtWalkState *state, bool verify)
{
	XtHandle   *handle = state->handle;
	XtError		error;
	bool		again;
	bool		ok = true;

	do
	{
		bool		done = false;

		while (!done)
		{
			CHECK_FOR_INTERRUPTS();
			if (!xt_walk_step(state->walk, &done, &error) && !XtProvideMemory(handle, &error))
				XtReportError(state->index, &error);
		}
		again = false;
		if (verify)
		{
			XtLock(handle, LW_EXCLUSIVE);
			ok = xt_walk_finish(state->walk, &again, &error);
			XtUnlock(handle);
		}
	} while (ok && again);
	if (!ok)
		XtReportError(state->index, &error);
	if (verify)
		report_problems(state);
}

/*
 * Goes through a whole index in steps, between which others change it and interrupts are served. On a
 * standby, too: the startup process waits no longer than other writers do.
 */
static void
walk_index(Relation index, XtHandle *handle, bool verify, XtStats *stats)
{
	XtWalkState state = {index, handle, NULL};
	XtError		error;

	do
	{
		if (verify)
			XtLock(handle, LW_EXCLUSIVE);
		state.walk = xt_walk_begin(handle->index, verify, &error);
		if (verify)
			XtUnlock(handle);
	} while (state.walk == NULL && XtProvideMemory(handle, &error));
	if (state.walk == NULL)
		XtReportError(index, &error);
	handle->scans++;
	PG_ENSURE_ERROR_CLEANUP(end_walk, PointerGetDatum(&state));
	{
		run_walk(&state, verify);
	}
	PG_END_ENSURE_ERROR_CLEANUP(end_walk, PointerGetDatum(&state));
	if (stats != NULL)
		xt_walk_stats(state.walk, stats);
	end_walk(0, PointerGetDatum(&state));
}

/* --- xtree_stats ------------------------------------------------------------------------------ */

static Datum
int8_array(const uint64 *values, int count)
{
	Datum		elements[XT_LEVELS_MAX];

	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum((int64) values[i]);
	return PointerGetDatum(construct_array(elements, count, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static Datum
float8_array(const double *values, int count)
{
	Datum		elements[XT_LEVELS_MAX];

	for (int i = 0; i < count; i++)
		elements[i] = Float8GetDatum(values[i]);
	return PointerGetDatum(construct_array(elements, count, FLOAT8OID, sizeof(double),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static HeapTuple
form_stats(TupleDesc tupdesc, const XtStats *stats)
{
	uint64		nodes[XT_LEVELS_MAX];
	uint64		supernodes[XT_LEVELS_MAX];
	uint64		entries[XT_LEVELS_MAX];
	double		fill[XT_LEVELS_MAX];
	const int	levels = Min((int) stats->levels, XT_LEVELS_MAX);
	Datum		values[26];
	bool		nulls[26] = {false};
	int			i = 0;

	for (int level = 0; level < levels; level++)
	{
		const XtLevelStats *one = &stats->level[level];

		nodes[level] = one->nodes;
		supernodes[level] = one->supernodes;
		entries[level] = one->entries;
		fill[level] = one->capacity == 0 ? 0.0 :
			rint(1000.0 * (double) one->entries / (double) one->capacity) / 10.0;
	}
	values[i++] = Int64GetDatum((int64) stats->entries);
	values[i++] = Int64GetDatum((int64) stats->null_entries);
	values[i++] = Int32GetDatum((int32) stats->height);
	values[i++] = int8_array(nodes, levels);
	values[i++] = int8_array(supernodes, levels);
	values[i++] = int8_array(entries, levels);
	values[i++] = float8_array(fill, levels);
	values[i++] = Int64GetDatum((int64) stats->file_blocks);
	values[i++] = Int64GetDatum((int64) stats->used_blocks);
	values[i++] = Int64GetDatum((int64) stats->log_bytes);
	values[i++] = Int64GetDatum((int64) stats->log_file_blocks);
	values[i++] = Int64GetDatum((int64) stats->published_epoch);
	values[i++] = Int64GetDatum((int64) stats->capture_epoch);
	values[i++] = LSNGetDatum(stats->applied_lsn);
	values[i++] = LSNGetDatum(stats->capture_lsn);
	values[i++] = Int64GetDatum((int64) stats->retired_versions);
	values[i++] = Int64GetDatum((int64) stats->folds);
	values[i++] = Int32GetDatum((int32) stats->active_shards);
	values[i++] = Int32GetDatum((int32) stats->windows_mapped);
	values[i++] = Int64GetDatum((int64) stats->retained_blocks);
	nulls[i] = nulls[i + 1] = !stats->has_reader;
	values[i++] = Int32GetDatum(stats->has_reader ?
								GetPGProcByNumber(stats->oldest_reader)->pid : 0);
	values[i++] = Int64GetDatum((int64) stats->oldest_reader_lag);
	values[i++] = Int64GetDatum((int64) stats->shared_inserts);
	values[i++] = Int64GetDatum((int64) stats->exclusive_retries);
	values[i++] = Int64GetDatum((int64) stats->lock_waits);
	values[i++] = Int64GetDatum((int64) stats->latch_waits);
	Assert(i == lengthof(values));
	return heap_form_tuple(tupdesc, values, nulls);
}

Datum
xtree_stats(PG_FUNCTION_ARGS)
{
	XtTarget	target;
	XtHandle   *handle;
	TupleDesc	tupdesc;
	XtStats		stats;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE || tupdesc->natts != 26)
		elog(ERROR, "unexpected result type of xtree_stats");
	open_target(PG_GETARG_OID(0), RIGHT_STRUCTURE, AccessShareLock, &target);
	handle = XtOpen(target.index);
	walk_index(target.index, handle, false, &stats);
	close_target(&target);
	PG_RETURN_DATUM(HeapTupleGetDatum(form_stats(BlessTupleDesc(tupdesc), &stats)));
}

/* --- xtree_state ------------------------------------------------------------------------------ */

/*
 * What is known without reading a node. An index that cannot be used is reported, not raised: a view
 * over all indexes must show the others.
 */
Datum
xtree_state(PG_FUNCTION_ARGS)
{
	XtTarget	target;
	XtHandle   *handle;
	TupleDesc	tupdesc;
	Datum		values[6];
	bool		nulls[6] = {false, true, true, true, true, true};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE ||
		tupdesc->natts != lengthof(values))
		elog(ERROR, "unexpected result type of xtree_state");
	open_target(PG_GETARG_OID(0), RIGHT_STRUCTURE, AccessShareLock, &target);
	handle = XtOpenNoError(target.index);
	values[0] = BoolGetDatum(handle != NULL);
	if (handle != NULL)
	{
		values[1] = Int64GetDatum((int64) xt_entries(handle->index, XT_TREE_MAIN));
		values[2] = Int64GetDatum((int64) xt_entries(handle->index, XT_TREE_NULL));
		values[3] = Int64GetDatum((int64) xt_data_blocks(handle->index));
		values[4] = Int64GetDatum((int64) xt_log_bytes(handle->index));
		values[5] = LSNGetDatum(xt_applied_lsn(handle->index));
		memset(nulls, false, sizeof(nulls));
	}
	close_target(&target);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

/* --- xtree_check ------------------------------------------------------------------------------ */

typedef struct XtHeapCheck
{
	XtHandle   *handle;
	double		rows;
} XtHeapCheck;

/* Every row that the snapshot sees must be in the index, under the key that it has now. */
static void
check_row(Relation index, ItemPointer tid, Datum *values, bool *isnull, bool alive, void *state)
{
	XtHeapCheck *check = (XtHeapCheck *) state;
	double		lo[XT_DIMS_MAX];
	double		hi[XT_DIMS_MAX];
	const bool	has_key = XtFormKey(index, values, isnull, lo, hi);
	XtError		error;
	bool		found = false;
	bool		ok;

	XtLock(check->handle, LW_EXCLUSIVE);
	do
		ok = xt_contains(check->handle->index, has_key ? lo : NULL, has_key ? hi : NULL,
						 XtRecordId(tid), &found, &error);
	while (!ok && XtProvideMemory(check->handle, &error));
	XtUnlock(check->handle);

	if (!ok)
		XtReportError(index, &error);
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_INDEX_CORRUPTED),
				 errmsg("heap tuple (%u,%u) from table \"%s\" lacks matching entry in index \"%s\"",
						ItemPointerGetBlockNumber(tid), ItemPointerGetOffsetNumber(tid),
						get_rel_name(index->rd_index->indrelid),
						RelationGetRelationName(index)),
				 errhint("Please REINDEX it.")));
	check->rows++;
}

static void
check_heap(XtTarget *target, XtHandle *handle)
{
	IndexInfo  *info;
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	TableScanDesc scan;
	XtHeapCheck check = {handle, 0};
	Oid			user;
	int			security;
	int			guc_level;

	/* Older row versions than the index need not be in it. */
	if (IsolationUsesXactSnapshot() && target->index->rd_index->indcheckxmin &&
		!TransactionIdPrecedes(HeapTupleHeaderGetXmin(target->index->rd_indextuple->t_data),
							   snapshot->xmin))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("index \"%s\" cannot be verified using transaction snapshot",
						RelationGetRelationName(target->index))));

	/* The index's expressions are the table owner's code, and run as such. */
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(target->heap->rd_rel->relowner, security | SECURITY_RESTRICTED_OPERATION);
	guc_level = NewGUCNestLevel();
	info = BuildIndexInfo(target->index);

	/* A scan by this snapshot, beside writers: as CREATE INDEX CONCURRENTLY makes it. */
	info->ii_Concurrent = true;
	info->ii_Unique = false;
	info->ii_ExclusionOps = NULL;
	info->ii_ExclusionProcs = NULL;
	info->ii_ExclusionStrats = NULL;
	scan = table_beginscan_strat(target->heap, snapshot, 0, NULL, true, true);
	table_index_build_scan(target->heap, target->index, info, true, false, check_row, &check, scan);
	UnregisterSnapshot(snapshot);
	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(user, security);
	ereport(DEBUG1,
			(errmsg_internal("found %.0f rows of table \"%s\" in index \"%s\"", check.rows,
							 RelationGetRelationName(target->heap),
							 RelationGetRelationName(target->index))));
}

Datum
xtree_check(PG_FUNCTION_ARGS)
{
	const bool	heapallindexed = PG_GETARG_BOOL(1);
	XtTarget	target;
	XtHandle   *handle;

	open_target(PG_GETARG_OID(0), RIGHT_STRUCTURE, AccessShareLock, &target);
	handle = XtOpen(target.index);
	walk_index(target.index, handle, true, NULL);
	if (heapallindexed && target.index->rd_index->indisvalid)
		check_heap(&target, handle);
	close_target(&target);
	PG_RETURN_VOID();
}

/* --- xtree_svg -------------------------------------------------------------------------------- */

/* Extent of the finite boxes. False if there is none. */
static bool
svg_extent(const double *boxes, uint64 count, double *lo, double *hi)
{
	bool		any = false;

	for (uint64 i = 0; i < count; i++)
	{
		const double *box = boxes + i * 4;

		if (!isfinite(box[0]) || !isfinite(box[1]) || !isfinite(box[2]) || !isfinite(box[3]))
			continue;
		for (int dim = 0; dim < 2; dim++)
		{
			lo[dim] = any ? Min(lo[dim], box[dim]) : box[dim];
			hi[dim] = any ? Max(hi[dim], box[dim + 2]) : box[dim + 2];
		}
		any = true;
	}
	return any;
}

static void
svg_draw(StringInfo svg, const double *boxes, uint64 count)
{
	double		lo[2];
	double		hi[2];
	double		scale = 1.0;
	double		height = 1.0;

	if (svg_extent(boxes, count, lo, hi))
	{
		const double extent = Max(hi[0] - lo[0], hi[1] - lo[1]);

		if (isfinite(extent) && extent > 0)
			scale = SVG_WIDTH / extent;
		height = Max((hi[1] - lo[1]) * scale, 1.0);
	}
	appendStringInfo(svg,
					 "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %.6g\">\n"
					 "<g fill=\"none\" stroke=\"#205090\" stroke-width=\"0.5\">\n",
					 SVG_WIDTH, height);
	for (uint64 i = 0; i < count; i++)
	{
		const double *box = boxes + i * 4;

		if (!isfinite(box[0]) || !isfinite(box[1]) || !isfinite(box[2]) || !isfinite(box[3]))
			continue;
		/* The y axis of a picture points down. */
		appendStringInfo(svg, "<rect x=\"%.7g\" y=\"%.7g\" width=\"%.7g\" height=\"%.7g\"/>\n",
						 (box[0] - lo[0]) * scale, (hi[1] - box[3]) * scale,
						 (box[2] - box[0]) * scale, (box[3] - box[1]) * scale);
	}
	appendStringInfoString(svg, "</g>\n</svg>\n");
}

Datum
xtree_svg(PG_FUNCTION_ARGS)
{
	const int32 level = PG_GETARG_INT32(1);
	XtTarget	target;
	XtHandle   *handle;
	StringInfoData svg;
	double	   *boxes = NULL;
	uint64		count = 0;
	XtError		error;

	open_target(PG_GETARG_OID(0), RIGHT_DATA, AccessShareLock, &target);
	if (level < 0 || level >= XT_LEVELS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("level must be between 0 and %d", XT_LEVELS_MAX - 1)));
	handle = XtOpen(target.index);
	if (handle->spec.dims != 2)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot draw an index of %d dimensions", handle->spec.dims)));

	initStringInfo(&svg);
	while (!xt_level_boxes(handle->index, level, SVG_BOXES_MAX, &boxes, &count, &error))
	{
		if (!XtProvideMemory(handle, &error))
			XtReportError(target.index, &error);
	}
	PG_TRY();
	{
		if (count > SVG_BOXES_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("level %d of index \"%s\" has too many nodes to draw",
							level, RelationGetRelationName(target.index)),
					 errhint("Draw a higher level.")));
		svg_draw(&svg, boxes, count);
	}
	PG_FINALLY();
	{
		free(boxes);
	}
	PG_END_TRY();
	close_target(&target);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(svg.data, svg.len));
}

/* --- xtree_checkpoint ------------------------------------------------------------------------- */

Datum
xtree_checkpoint(PG_FUNCTION_ARGS)
{
	XtTarget	target;
	bool		done;

	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery is in progress"),
				 errhint("xtree_checkpoint() cannot be executed during recovery.")));
	open_target(PG_GETARG_OID(0), RIGHT_MAINTAIN, AccessShareLock, &target);
	/* A host checkpoint is everybody's burden: only for who may ask for one by name. */
	done = has_privs_of_role(GetUserId(), ROLE_PG_CHECKPOINT) ? XtFoldNow(target.index) :
		XtFoldSoon(target.index);
	close_target(&target);
	PG_RETURN_BOOL(done);
}
