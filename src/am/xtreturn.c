/*
 * xtreturn.c: index-only scans: the values that a scan returns in place of the row's.
 *
 * A point or a box is its key, bit for bit, so the leaf has the value. The tree of NULLs has only row
 * ids: NULL is all there is to say of a NULL row, but an unordered one (a coordinate is NaN) is read
 * from the heap, under the scan's own snapshot. Polygons and circles are more than their keys; their
 * indexes return nothing but the number of rows, as an index on an expression does: the planner takes
 * an index-only scan for a query that needs no column, whatever amcanreturn says, and the executor
 * then wants a tuple whose content it does not look at.
 */
#include "postgres.h"

#include "access/itup.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "utils/geo_decls.h"

#include "xtree.h"

/* The one index tuple of a scan, overwritten for each row. */
struct XtReturn
{
	Oid			type;
	AttrNumber	heap_attno;		/* 0: an expression, or a type that is not returned */
	TupleTableSlot *heap_slot;	/* NULL until an unordered row is met */
	union
	{
		IndexTupleData header;
		char		bytes[MAXALIGN(sizeof(IndexTupleData)) + sizeof(BOX)];
	}			value;
	union
	{
		IndexTupleData header;
		char		bytes[MAXALIGN(sizeof(IndexTupleData) + sizeof(IndexAttributeBitMapData))];
	}			null;
};

StaticAssertDecl(sizeof(Point) <= sizeof(BOX), "a tuple has room for either");

static bool
type_is_its_key(Oid type)
{
	return type == POINTOID || type == BOXOID;
}

/*
 * Not on a standby: replay of a removal does not wait for scans (xtgrace.c). A plan is made for the
 * server it runs on, which may become a primary later but not a standby.
 */
bool
xtcanreturn(Relation index, int attno)
{
	return type_is_its_key(index->rd_opcintype[0]) && !RecoveryInProgress();
}

XtReturn *
XtReturnCreate(Relation index)
{
	XtReturn   *ret = palloc0(sizeof(XtReturn));
	const Oid	type = index->rd_opcintype[0];

	ret->type = type;
	if (type_is_its_key(type))
		ret->heap_attno = index->rd_index->indkey.values[0];
	ret->value.header.t_info = MAXALIGN(sizeof(IndexTupleData)) +
		(type == POINTOID ? sizeof(Point) : sizeof(BOX));
	/* A NULL's bit is clear. */
	ret->null.header.t_info = sizeof(ret->null) | INDEX_NULL_MASK;
	return ret;
}

void
XtReturnKey(XtReturn *ret, IndexScanDesc scan, const double *lo, const double *hi)
{
	char	   *data = ret->value.bytes + MAXALIGN(sizeof(IndexTupleData));

	if (ret->type == POINTOID)
	{
		Point	   *point = (Point *) data;

		point->x = lo[0];
		point->y = lo[1];
	}
	else if (ret->type == BOXOID)
	{
		BOX		   *box = (BOX *) data;

		box->high.x = hi[0];
		box->high.y = hi[1];
		box->low.x = lo[0];
		box->low.y = lo[1];
	}
	else
	{
		XtReturnNull(ret, scan);
		return;
	}
	scan->xs_itup = &ret->value.header;
}

void
XtReturnNull(XtReturn *ret, IndexScanDesc scan)
{
	scan->xs_itup = &ret->null.header;
}

bool
XtReturnFromHeap(XtReturn *ret, IndexScanDesc scan)
{
	ItemPointerData tid = scan->xs_heaptid; /* moves along the HOT chain */
	bool		call_again = false;
	bool		isnull;
	Datum		value;

	if (ret->heap_attno == 0)
	{
		XtReturnNull(ret, scan);
		return true;
	}
	if (ret->heap_slot == NULL)
		ret->heap_slot = table_slot_create(scan->heapRelation, NULL);
	if (!table_index_fetch_tuple(scan->xs_heapfetch, &tid, scan->xs_snapshot, ret->heap_slot,
								 &call_again, NULL))
		return false;
	value = slot_getattr(ret->heap_slot, ret->heap_attno, &isnull);
	if (isnull)
		XtReturnNull(ret, scan);
	else
	{
		memcpy(ret->value.bytes + MAXALIGN(sizeof(IndexTupleData)), DatumGetPointer(value),
			   ret->type == POINTOID ? sizeof(Point) : sizeof(BOX));
		scan->xs_itup = &ret->value.header;
	}
	ExecClearTuple(ret->heap_slot);
	return true;
}

void
XtReturnFree(XtReturn *ret)
{
	if (ret->heap_slot != NULL)
		ExecDropSingleTupleTableSlot(ret->heap_slot);
	pfree(ret);
}
