/*
 * xtvacuum.c: ambulkdelete and amvacuumcleanup.
 *
 * A lock-free scan hands out leaf by leaf; the host's callback is asked about each TID with no engine
 * frame on the stack; the dead ones of a leaf are deleted in one logged operation that names their
 * bounds and TIDs, so it finds them wherever they have moved to meanwhile. Entries inserted after the
 * scan's epoch are not seen, and need not be: VACUUM's dead TIDs were in the index before it began, and
 * cannot be given to other rows before it ends.
 */
#include "xtregistry.h"

#include <math.h>

#include "access/genam.h"
#include "access/xlog.h"
#include "commands/vacuum.h"
#include "miscadmin.h"

/* Entries of one leaf, or as many as one call of xt_scan_next hands out. */
#define BATCH_CAPACITY		(2 * XT_SCAN_BATCH_MIN)

typedef struct VacuumState
{
	Relation	index;
	XtHandle   *handle;
	IndexBulkDeleteResult *stats;
	IndexBulkDeleteCallback callback;
	void	   *callback_state;
	XLogRecPtr	last_lsn;

	/* One batch. */
	uint64		record_ids[BATCH_CAPACITY];
	double	   *keys_lo;		/* BATCH_CAPACITY * dims */
	double	   *keys_hi;
	uint64		dead[XT_DELETE_BATCH_MAX];
	uint32		dead_count;
	double		bound_lo[XT_DIMS_MAX];
	double		bound_hi[XT_DIMS_MAX];
} VacuumState;

static int
compare_record_ids(const void *a, const void *b)
{
	uint64		left = *(const uint64 *) a;
	uint64		right = *(const uint64 *) b;

	return left < right ? -1 : left > right;
}

/* Deletes what has been collected. */
static void
delete_dead(VacuumState *state, uint32 tree)
{
	XtHandle   *handle = state->handle;
	XtError		error;
	uint32		found = 0;
	bool		prepared;

	if (state->dead_count == 0)
		return;
	qsort(state->dead, state->dead_count, sizeof(uint64), compare_record_ids);
	XtLock(handle, LW_EXCLUSIVE);
	do
		prepared = xt_prepare_delete(handle->index, tree, state->bound_lo, state->bound_hi,
									 state->dead, state->dead_count, &found, &error);
	while (!prepared && XtProvideMemory(handle, &error));
	if (!prepared)
	{
		XtUnlock(handle);
		XtReportError(state->index, &error);
	}
	if (found > 0)
	{
		XLogRecPtr	lsn = XtLogAndApplyDelete(state->index, handle, tree, state->bound_lo,
											  state->bound_hi, state->dead, state->dead_count);

		XtNoteRemoval(handle->shared);
		state->last_lsn = Max(state->last_lsn, lsn);
	}
	XtUnlock(handle);
	state->stats->tuples_removed += found;
	state->dead_count = 0;
	XtAfterChange(state->index, handle);
}

static void
add_dead(VacuumState *state, uint32 tree, int dims, uint64 record_id, const double *lo,
		 const double *hi)
{
	for (int d = 0; d < dims; d++)
	{
		if (state->dead_count == 0)
		{
			state->bound_lo[d] = lo[d];
			state->bound_hi[d] = hi[d];
		}
		else
		{
			state->bound_lo[d] = Min(state->bound_lo[d], lo[d]);
			state->bound_hi[d] = Max(state->bound_hi[d], hi[d]);
		}
	}
	state->dead[state->dead_count++] = record_id;
	if (state->dead_count == XT_DELETE_BATCH_MAX)
		delete_dead(state, tree);
}

/* Everything matches. */
static void
match_all(XtPredicate *predicate)
{
	memset(predicate, 0, sizeof(*predicate));
	for (int d = 0; d < XT_DIMS_MAX; d++)
	{
		predicate->lo_min[d] = predicate->hi_min[d] = -INFINITY;
		predicate->lo_max[d] = predicate->hi_max[d] = INFINITY;
	}
	predicate->nan_matches = true;
}

static void
vacuum_tree(VacuumState *state, uint32 tree)
{
	XtHandle   *handle = state->handle;
	int			dims = tree == XT_TREE_NULL ? 1 : handle->spec.dims;
	XtScanRef  *ref = XtScanBegin(state->index, handle);
	XtPredicate predicate;
	XtError		error;

	match_all(&predicate);
	while (!xt_scan_window(ref->scan, tree, &predicate, &error))
		if (!XtProvideMemory(handle, &error))
			XtReportError(state->index, &error);
	for (;;)
	{
		int			count = xt_scan_next(ref->scan, state->record_ids, state->keys_lo,
										 state->keys_hi, NULL, BATCH_CAPACITY, true, &error);

		if (count < 0)
		{
			if (XtProvideMemory(handle, &error))
				continue;
			XtReportError(state->index, &error);
		}
		if (count == 0)
			break;
		for (int i = 0; i < count; i++)
		{
			ItemPointerData tid;

			XtRecordTid(state->record_ids[i], &tid);
			if (state->callback(&tid, state->callback_state))
				add_dead(state, tree, dims, state->record_ids[i], state->keys_lo + i * dims,
						 state->keys_hi + i * dims);
		}
		delete_dead(state, tree);
		vacuum_delay_point();
	}
	XtScanEnd(ref);
}

static void
fill_stats(XtHandle *handle, IndexBulkDeleteResult *stats)
{
	stats->num_pages = xt_data_blocks(handle->index);
	stats->num_index_tuples = xt_entries(handle->index, XT_TREE_MAIN) +
		xt_entries(handle->index, XT_TREE_NULL);
	stats->estimated_count = false;
}

IndexBulkDeleteResult *
xtbulkdelete(IndexVacuumInfo *info, IndexBulkDeleteResult *stats,
			 IndexBulkDeleteCallback callback, void *callback_state)
{
	VacuumState *state = palloc0(sizeof(VacuumState));
	Size		key_bytes;

	if (stats == NULL)
		stats = palloc0(sizeof(IndexBulkDeleteResult));
	state->index = info->index;
	state->handle = XtOpen(info->index);
	state->stats = stats;
	state->callback = callback;
	state->callback_state = callback_state;
	key_bytes = sizeof(double) * BATCH_CAPACITY * state->handle->spec.dims;
	state->keys_lo = palloc(key_bytes);
	state->keys_hi = palloc(key_bytes);

	vacuum_tree(state, XT_TREE_MAIN);
	vacuum_tree(state, XT_TREE_NULL);

	/*
	 * The heap's line pointers may be reused as soon as this returns. Were a deletion lost then, an
	 * entry would point to a row that it does not belong to.
	 */
	if (!XLogRecPtrIsInvalid(state->last_lsn))
		XLogFlush(state->last_lsn);
	XtAwaitPins(state->handle->shared);
	fill_stats(state->handle, stats);
	pfree(state->keys_lo);
	pfree(state->keys_hi);
	pfree(state);
	return stats;
}

IndexBulkDeleteResult *
xtvacuumcleanup(IndexVacuumInfo *info, IndexBulkDeleteResult *stats)
{
	if (info->analyze_only)
		return stats;
	if (stats == NULL)
		stats = palloc0(sizeof(IndexBulkDeleteResult));
	fill_stats(XtOpen(info->index), stats);
	return stats;
}
