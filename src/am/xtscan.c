/*
 * xtscan.c: index scans: plain, bitmap, and ordered by distance.
 *
 * A scan runs in stages over the three kinds of rows (XtQuery): unordered, ordered, NULL. Each stage
 * is one engine scan with an epoch of its own; a row that the snapshot sees was there before the
 * first of them and stays until the snapshot is gone, so no stage misses it. Rows are fetched in
 * batches, with no engine frame on the stack between them.
 *
 * In an ordered scan the unordered rows come first, with the least possible distance and a recheck:
 * the executor puts them where they belong. So do boxes and polygons that are infinite in some
 * direction, to which the host's distance is not the geometric one (from (-10,0) it finds the box
 * from (1,1) to infinity 2 away). NULL rows come last, with NULL distances.
 *
 * Index-only scans, and scans under snapshots that are not MVCC (exclusion constraints), hold a pin from
 * before they read the index until their last row has been used: meanwhile VACUUM gives no record id
 * of theirs to another row (xtgrace.c).
 */
#include "postgres.h"

#include <math.h>

#include "access/genam.h"
#include "access/relscan.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "nodes/tidbitmap.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "xtree.h"

/* A first batch that serves a small LIMIT; each further one is twice as long. */
#define NEAREST_BATCH_MIN	4

typedef enum XtStage
{
	STAGE_START,
	STAGE_UNORDERED,
	STAGE_UNBOUNDED,			/* only when the next one is by distance; as many times as parts */
	STAGE_ORDERED,
	STAGE_NULLS,
	STAGE_END
} XtStage;

typedef struct XtScanOpaqueData
{
	MemoryContext context;		/* of all that the scan allocates */
	XtScanRef  *ref;			/* NULL until the first rescan */
	XtQuery		query;
	XtOrder		order;			/* of the first ORDER BY operator */
	bool	   *order_arg_null; /* of every ORDER BY operator */
	bool		walks_nearest;	/* the engine delivers ordered rows by distance */

	XtStage		stage;
	int			part;			/* of STAGE_UNBOUNDED (XtUnboundedPart) */
	bool		splits_unbounded;	/* STAGE_UNBOUNDED is used */
	XtPredicate predicate;		/* of this stage */
	bool		running;		/* the engine scan of this stage has begun */
	bool		recheck;		/* rows of this stage, but for those marked as sure */
	bool		marks_sure;		/* some may be, in the ordered stage */
	uint32		nearest_batch;

	/* The batch, and the next row of it to return. */
	int			count;
	int			next;
	uint64	   *record_ids;
	uint64	   *spare_ids;		/* as many, for sorting */
	double	   *distances;		/* ordered scans only */
	double	   *keys_lo;		/* where they are needed; NULL before the first such rescan */
	double	   *keys_hi;
	ItemPointer tids;			/* bitmap scans only */
	XtFilter   *filter;			/* NULL before the first rescan that has one */
	XtReturn   *returns;		/* index-only scans only */
} XtScanOpaqueData;

typedef XtScanOpaqueData *XtScanOpaque;

/* Keys that are looked at once and at once. NULL before the first scan that does. */
static double *marked_lo = NULL;
static double *marked_hi = NULL;

IndexScanDesc
xtbeginscan(Relation index, int nkeys, int norderbys)
{
	IndexScanDesc scan = RelationGetIndexScan(index, nkeys, norderbys);
	/* An exclusion constraint opens a scan for each row within one context of the executor. */
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "xtree scan",
												  ALLOCSET_SMALL_SIZES);
	XtScanOpaque so = MemoryContextAllocZero(context, sizeof(XtScanOpaqueData));

	so->context = context;
	if (norderbys > 0)
	{
		scan->xs_orderbyvals = MemoryContextAllocZero(context, sizeof(Datum) * norderbys);
		scan->xs_orderbynulls = MemoryContextAlloc(context, sizeof(bool) * norderbys);
		memset(scan->xs_orderbynulls, true, sizeof(bool) * norderbys);
		so->order_arg_null = MemoryContextAllocZero(context, sizeof(bool) * norderbys);
	}
	so->stage = STAGE_END;
	scan->opaque = so;
	return scan;
}

/* Releases the epoch, so that an exhausted scan does not hold back reclamation. */
static void
stop_engine(XtScanOpaque so)
{
	if (so->running)
		xt_scan_end(so->ref->scan);
	so->running = false;
	so->count = so->next = 0;
}

static void
allocate_batch(IndexScanDesc scan, int dims)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;

	if (so->record_ids == NULL)
	{
		so->record_ids = palloc(2 * sizeof(uint64) * XT_SCAN_BATCH_MIN);
		so->spare_ids = so->record_ids + XT_SCAN_BATCH_MIN;
	}
	if (so->walks_nearest && so->distances == NULL)
		so->distances = palloc(sizeof(double) * XT_SCAN_BATCH_MIN);
	if ((so->walks_nearest || so->query.filter || scan->xs_want_itup) && so->keys_lo == NULL)
	{
		so->keys_lo = palloc(sizeof(double) * XT_SCAN_BATCH_MIN * dims);
		so->keys_hi = palloc(sizeof(double) * XT_SCAN_BATCH_MIN * dims);
	}
	if (so->marks_sure && marked_lo == NULL)
	{
		Size		bytes = sizeof(double) * XT_SCAN_BATCH_MIN * XT_SURE_DIMS;

		marked_hi = MemoryContextAlloc(TopMemoryContext, bytes);
		marked_lo = MemoryContextAlloc(TopMemoryContext, bytes);
	}
}

static void
set_filter(IndexScanDesc scan)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;

	if (so->ref->handle->spec.kind != XT_POINT)
	{
		/* Some operator class's own idea of these functions. */
		so->query.filter = false;
		XtRecheckAll(&so->query);
		return;
	}
	if (so->filter == NULL)
		so->filter = XtFilterCreate();
	if (!XtFilterSet(so->filter, scan->keyData, scan->numberOfKeys))
		so->query.recheck = true;
}

void
xtrescan(IndexScanDesc scan, ScanKey keys, int nkeys, ScanKey orderbys, int norderbys)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;
	const XtSpec *spec;
	MemoryContext oldcontext;

	/* xtcostestimate sees to this. */
	if (scan->xs_want_itup && (scan->numberOfOrderBys > 0 || RecoveryInProgress()))
		elog(ERROR, "xtree does not support this index-only scan");

	if (keys && scan->numberOfKeys > 0)
		memmove(scan->keyData, keys, scan->numberOfKeys * sizeof(ScanKeyData));
	if (orderbys && scan->numberOfOrderBys > 0)
		memmove(scan->orderByData, orderbys, scan->numberOfOrderBys * sizeof(ScanKeyData));

	if (so->ref == NULL)
		so->ref = XtScanBegin(scan->indexRelation, XtOpen(scan->indexRelation));
	stop_engine(so);
	XtPinRelease(so->ref);
	spec = &so->ref->handle->spec;

	XtBuildQuery(spec, scan->keyData, scan->numberOfKeys, &so->query);
	oldcontext = MemoryContextSwitchTo(so->context);
	if (so->query.filter)
		set_filter(scan);
	if (scan->xs_want_itup && so->returns == NULL)
	{
		so->returns = XtReturnCreate(scan->indexRelation);
		scan->xs_itupdesc = RelationGetDescr(scan->indexRelation);
	}
	so->walks_nearest = false;
	so->splits_unbounded = false;
	for (int i = 0; i < scan->numberOfOrderBys; i++)
		so->order_arg_null[i] = (scan->orderByData[i].sk_flags & SK_ISNULL) != 0;
	if (scan->numberOfOrderBys > 0)
	{
		XtBuildOrder(spec, &scan->orderByData[0], &so->order);
		so->splits_unbounded = so->order.kind == XT_ORDER_BOX || so->order.kind == XT_ORDER_BOUND;
		so->walks_nearest = so->splits_unbounded || so->order.kind == XT_ORDER_EXACT;
	}
	so->marks_sure = XtMayBeSure(spec, &so->query);
	allocate_batch(scan, spec->dims);
	MemoryContextSwitchTo(oldcontext);
	so->nearest_batch = NEAREST_BATCH_MIN;
	so->stage = STAGE_START;
}

/* --- Batches ---------------------------------------------------------------------------------- */

/* Moves to the next stage that can have rows, if there is one, and sets its predicate. */
static bool
next_stage(IndexScanDesc scan)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;
	const XtHandle *handle = so->ref->handle;
	const int	parts = 2 * handle->spec.dims;

	/* Nearly always empty, and then not worth an epoch. */
	const bool	null_tree = xt_entries(handle->index, XT_TREE_NULL) > 0;

	while (so->stage < STAGE_END)
	{
		if (so->stage == STAGE_UNBOUNDED && so->part + 1 < parts)
			so->part++;
		else
		{
			so->stage++;
			so->part = 0;
		}
		so->recheck = so->query.recheck;
		switch (so->stage)
		{
			case STAGE_UNORDERED:
				pgstat_count_index_scan(scan->indexRelation);
				if (!so->query.unordered || !null_tree)
					break;
				so->recheck = true;
				XtNullTreePredicate(true, &so->predicate);
				return true;
			case STAGE_UNBOUNDED:
				if (so->query.ordered && so->splits_unbounded &&
					XtUnboundedPart(&handle->spec, &so->query.predicate, so->part, &so->predicate))
					return true;
				break;
			case STAGE_ORDERED:
				if (!so->query.ordered)
					break;
				if (!so->splits_unbounded)
					so->predicate = so->query.predicate;
				else if (!XtUnboundedPart(&handle->spec, &so->query.predicate, parts, &so->predicate))
					break;
				return true;
			case STAGE_NULLS:
				if (!so->query.nulls || !null_tree)
					break;
				so->recheck = false;
				XtNullTreePredicate(false, &so->predicate);
				return true;
			case STAGE_START:
			case STAGE_END:
				break;
		}
	}
	return false;
}

static void
begin_engine_scan(IndexScanDesc scan)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;
	XtScanRef  *ref = so->ref;
	const uint32 tree = (so->stage == STAGE_UNORDERED || so->stage == STAGE_NULLS) ?
		XT_TREE_NULL : XT_TREE_MAIN;
	XtError		error;
	bool		ok;

	if (scan->xs_want_itup || !IsMVCCSnapshot(scan->xs_snapshot))
		XtPinTake(ref);
	do
	{
		if (so->walks_nearest && so->stage == STAGE_ORDERED)
			ok = xt_scan_nearest(ref->scan, tree, so->order.point, &so->predicate, &error);
		else
			ok = xt_scan_window(ref->scan, tree, &so->predicate, &error);
	} while (!ok && XtProvideMemory(ref->handle, &error));
	if (!ok)
		XtReportError(scan->indexRelation, &error);
	so->running = true;
	XtTestForOldSnapshot(ref, scan->indexRelation, scan->xs_snapshot);
}

/*
 * A scan keeps all versions of nodes that were replaced since it began. The oldest one of all fails where
 * that has become too much; its snapshot is the transaction's, so there is no way to go on.
 */
static void
check_retained(IndexScanDesc scan, XtScanOpaque so)
{
	uint64		kb;

	if (xtree_max_retained_kb < 0)
		return;
	kb = xt_retained_by_me(so->ref->handle->index) * (BLCKSZ / 1024);
	if (kb > (uint64) xtree_max_retained_kb)
		ereport(ERROR,
				(errcode(ERRCODE_SNAPSHOT_TOO_OLD),
				 errmsg("scan of xtree index \"%s\" is too old",
						RelationGetRelationName(scan->indexRelation)),
				 errdetail("It keeps " UINT64_FORMAT " kB of the index from being used again; "
						   "xtree.max_retained_size is %d kB.", kb, xtree_max_retained_kb)));
}

/* Reads on in the engine's scan of this stage; the batch may be empty. False: that is at its end. */
static bool
fetch_batch(IndexScanDesc scan)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;
	const bool	ordered = so->stage == STAGE_ORDERED;	/* the other trees have no keys to look at */
	const bool	nearest = ordered && so->walks_nearest;
	const bool	filter = ordered && so->query.filter;
	const bool	mark = ordered && so->marks_sure;
	/* What looks at them: filters, marks, index-only scans, and distances not exact as they are. */
	const bool	keys = filter || mark || (ordered && so->returns != NULL) ||
		(nearest && so->order.kind != XT_ORDER_EXACT);
	const bool	upper = keys && so->ref->handle->spec.kind == XT_BOX;
	/* Marking needs the keys no longer than this call takes. */
	double	   *lo = so->keys_lo != NULL ? so->keys_lo : marked_lo;
	double	   *hi = so->keys_hi != NULL ? so->keys_hi : marked_hi;
	uint32		capacity = XT_SCAN_BATCH_MIN;
	XtError		error;
	int			n;

	check_retained(scan, so);
	if (nearest)
	{
		capacity = so->nearest_batch;
		so->nearest_batch = Min(capacity * 2, XT_SCAN_BATCH_MIN);
	}
	do
	{
		n = xt_scan_next(so->ref->scan, so->record_ids,
						 keys ? lo : NULL, upper ? hi : NULL,
						 nearest ? so->distances : NULL, capacity, false, &error);
	} while (n == -1 && XtProvideMemory(so->ref->handle, &error));
	if (n == XT_SCAN_AGAIN)
		return true;			/* with nothing, so that the caller looks for interrupts */
	if (n < 0)
		XtReportError(scan->indexRelation, &error);
	if (n == 0)
		return false;
	if (filter)
		n = XtFilterApply(so->filter, so->record_ids, so->keys_lo, nearest ? so->distances : NULL, n);
	if (mark)
		XtMarkSure(&so->query, lo, hi, so->record_ids, n);

	/*
	 * Rows of one heap page one after the other, so that it is pinned once. The order of the tree stays
	 * in a scan of everything, since CLUSTER is after that, and where the heap is rarely looked at.
	 */
	if (!nearest && so->returns == NULL && scan->numberOfKeys > 0)
		XtSortByBlock(so->record_ids, so->spare_ids, n);
	so->count = n;
	return true;
}

/* Fetches the next batch that has rows. False: the scan is over. */
static bool
next_batch(IndexScanDesc scan)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;

	so->count = so->next = 0;
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (!so->running)
		{
			if (!next_stage(scan))
			{
				XtPinRelease(so->ref);
				return false;
			}
			begin_engine_scan(scan);
		}
		if (!fetch_batch(scan))
			stop_engine(so);
		else if (so->count > 0)
			return true;
	}
}

static inline bool
must_recheck(IndexScanDesc scan, int row)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;

	return scan->numberOfKeys > 0 && so->recheck && (so->record_ids[row] & XT_RECORD_SURE) == 0;
}

/* --- Plain and ordered scans ------------------------------------------------------------------ */

static void
set_order_value(IndexScanDesc scan, int i, double value)
{
#ifndef USE_FLOAT8_BYVAL
	if (!scan->xs_orderbynulls[i])
		pfree(DatumGetPointer(scan->xs_orderbyvals[i]));
#endif
	scan->xs_orderbyvals[i] = Float8GetDatum(value);
	scan->xs_orderbynulls[i] = false;
}

static void
set_order_null(IndexScanDesc scan, int i)
{
#ifndef USE_FLOAT8_BYVAL
	if (!scan->xs_orderbynulls[i])
		pfree(DatumGetPointer(scan->xs_orderbyvals[i]));
#endif
	scan->xs_orderbyvals[i] = (Datum) 0;
	scan->xs_orderbynulls[i] = true;
}

/*
 * The ORDER BY values of row `row` of the batch. The executor compares them as a tuple, so a lower
 * bound of the first with the least possible value of the others is a lower bound of the whole.
 */
static void
set_order_values(IndexScanDesc scan, int row)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;
	const XtSpec *spec = &so->ref->handle->spec;
	const bool	nearest = so->walks_nearest && so->stage == STAGE_ORDERED;

	scan->xs_recheckorderby = scan->numberOfOrderBys > 1;
	for (int i = 0; i < scan->numberOfOrderBys; i++)
	{
		if (so->stage == STAGE_NULLS || so->order_arg_null[i])
			set_order_null(scan, i);
		else if (i == 0 && nearest && so->order.kind == XT_ORDER_EXACT)
			set_order_value(scan, i, so->distances[row]);
		else if (i == 0 && nearest)
		{
			bool		exact;

			set_order_value(scan, i, XtDistanceBound(spec, &so->order, so->distances[row],
													 so->keys_lo + row * spec->dims,
													 so->keys_hi + row * spec->dims, &exact));
			if (!exact)
				scan->xs_recheckorderby = true;
		}
		else
		{
			set_order_value(scan, i, 0.0);
			scan->xs_recheckorderby = true;
		}
	}
}

/* For an index-only scan, the value of row `row` of the batch. False: nobody sees the row. */
static bool
set_index_tuple(IndexScanDesc scan, int row)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;
	const int	dims = so->ref->handle->spec.dims;

	if (so->stage == STAGE_UNORDERED)
		return XtReturnFromHeap(so->returns, scan);
	if (so->stage == STAGE_NULLS)
		XtReturnNull(so->returns, scan);
	else
		XtReturnKey(so->returns, scan, so->keys_lo + row * dims, so->keys_hi + row * dims);
	return true;
}

bool
xtgettuple(IndexScanDesc scan, ScanDirection dir)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;

	if (dir != ForwardScanDirection)
		elog(ERROR, "xtree only supports forward scans");

	do
	{
		if (so->next >= so->count && !next_batch(scan))
			return false;
		XtRecordTid(so->record_ids[so->next], &scan->xs_heaptid);
		if (scan->numberOfOrderBys > 0)
			set_order_values(scan, so->next);
		so->next++;
	} while (so->returns != NULL && !set_index_tuple(scan, so->next - 1));
	scan->xs_recheck = must_recheck(scan, so->next - 1);
	return true;
}

/* --- Bitmap scans ----------------------------------------------------------------------------- */

int64
xtgetbitmap(IndexScanDesc scan, TIDBitmap *tbm)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;
	int64		total = 0;

	if (so->tids == NULL)
		so->tids = MemoryContextAlloc(so->context, sizeof(ItemPointerData) * XT_SCAN_BATCH_MIN);
	while (next_batch(scan))
	{
		/* Pages of which all rows are sure are not rechecked. */
		for (int start = 0, end; start < so->count; start = end)
		{
			const bool	recheck = must_recheck(scan, start);

			for (end = start; end < so->count && must_recheck(scan, end) == recheck; end++)
				XtRecordTid(so->record_ids[end], &so->tids[end]);
			tbm_add_tuples(tbm, so->tids + start, end - start, recheck);
		}
		total += so->count;
	}
	return total;
}

void
xtendscan(IndexScanDesc scan)
{
	XtScanOpaque so = (XtScanOpaque) scan->opaque;

	if (so->ref != NULL)
		XtScanEnd(so->ref);
	if (so->returns != NULL)
		XtReturnFree(so->returns);
	MemoryContextDelete(so->context);
}
