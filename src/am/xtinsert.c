/*
 * xtinsert.c: aminsert.
 *
 * Everything that can fail (the key, space, log room, mappings) fails before the WAL record; after it
 * nothing can. The writer lock is held from prepare to apply. Who is alone takes it exclusively; who has
 * met others lately shares it with them, and takes it exclusively only if the insertion turns out to
 * change the structure (src/README.md, "Writers beside each other").
 */
#include "xtregistry.h"

/* Some 20 us: as long as most who hold the lock need, and less than it takes to sleep and be woken. */
#define TRIES_BEFORE_SLEEP 400

/*
 * Takes the writer lock; noted if it must be waited for, since that is what sharing it is for. False: not
 * taken. It was wanted alone, and before it could be had others have done what it was wanted for.
 */
static bool
lock_to_insert(XtHandle *handle, LWLockMode mode)
{
	if (likely(XtTryLock(handle, mode)))
		return true;
	xt_note_lock_wait(handle->index);
	for (int i = 0; i < TRIES_BEFORE_SLEEP; i++)
	{
		pg_spin_delay();
		if (mode == LW_EXCLUSIVE && xt_may_insert_shared_again(handle->index))
			return false;
		if (XtTryLock(handle, mode))
			return true;
	}
	XtLock(handle, mode);
	return true;
}

/* Beside others, if that is all it takes. */
static bool
insert_shared(Relation index, XtHandle *handle, const double *lo, const double *hi,
			  uint64 record_id)
{
	XtError		error;
	bool		prepared;
	bool		ok;

	(void) lock_to_insert(handle, LW_SHARED);
	ok = xt_prepare_insert_shared(handle->index, lo, hi, record_id, &prepared, &error);
	if (prepared)
		XtLogAndApplyInsert(index, handle, lo, hi, record_id);
	XtUnlock(handle);
	/* Whoever has the lock alone can provide memory. */
	if (!ok && error.code != XT_NEED_MEMORY)
		XtReportError(index, &error);
	return prepared;
}

/* Under the writer lock, taken exclusively; releases it. */
static void
insert_exclusive(Relation index, XtHandle *handle, const double *lo, const double *hi,
				 uint64 record_id)
{
	XtError		error;
	bool		prepared;

	do
		prepared = xt_prepare_insert(handle->index, lo, hi, record_id, &error);
	while (!prepared && XtProvideMemory(handle, &error));
	if (!prepared)
	{
		XtUnlock(handle);
		XtReportError(index, &error);
	}
	/* No ereport(ERROR) until the change is logged and applied. */
	XtLogAndApplyInsert(index, handle, lo, hi, record_id);
	XtUnlock(handle);
}

bool
xtinsert(Relation index, Datum *values, bool *isnull, ItemPointer heap_tid, Relation heap,
		 IndexUniqueCheck checkUnique, bool indexUnchanged, struct IndexInfo *indexInfo)
{
	double		lo_values[XT_DIMS_MAX];
	double		hi_values[XT_DIMS_MAX];
	double	   *lo = lo_values;
	double	   *hi = hi_values;
	uint64		record_id = XtRecordId(heap_tid);
	XtHandle   *handle;
	bool		shared;
	bool		done = false;

	if (!XtFormKey(index, values, isnull, lo, hi))
		lo = hi = NULL;
	handle = XtOpen(index);

	shared = xt_take_shared_turn(handle->index);
	if (!shared && unlikely(!XtTryLock(handle, LW_EXCLUSIVE)))
	{
		xt_note_lock_wait(handle->index);
		shared = true;
	}
	if (shared)
	{
		/* Whoever meets a full log block first opens the next one; the others then go on beside. */
		do
			done = insert_shared(index, handle, lo, hi, record_id);
		while (!done && !lock_to_insert(handle, LW_EXCLUSIVE));
	}
	if (!done)
		insert_exclusive(index, handle, lo, hi, record_id);

	XtStampWhenMany(handle);
	XtAfterChange(index, handle);
	return false;
}
