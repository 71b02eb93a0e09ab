/*
 * xtinsert.c: aminsert.
 *
 * Everything that can fail (the key, space, log room, mappings) fails before the WAL record; after it
 * nothing can. The writer lock is held from prepare to apply, so that the order of LSNs is the order of
 * operations in the tree and in the engine's log.
 */
#include "xtregistry.h"

bool
xtinsert(Relation index, Datum *values, bool *isnull, ItemPointer heap_tid, Relation heap,
		 IndexUniqueCheck checkUnique, bool indexUnchanged, struct IndexInfo *indexInfo)
{
	double		lo[XT_DIMS_MAX];
	double		hi[XT_DIMS_MAX];
	uint64		record_id = XtRecordId(heap_tid);
	XtHandle   *handle;
	XtError		error;
	bool		has_key;
	bool		prepared;

	has_key = XtFormKey(index, values, isnull, lo, hi);
	handle = XtOpen(index);

	XtLock(handle, LW_EXCLUSIVE);
	do
		prepared = xt_prepare_insert(handle->index, has_key ? lo : NULL, has_key ? hi : NULL,
									 record_id, &error);
	while (!prepared && XtProvideMemory(handle, &error));
	if (!prepared)
	{
		XtUnlock(handle);
		XtReportError(index, &error);
	}
	/* No ereport(ERROR) until the change is logged and applied. */
	XtLogAndApplyInsert(index, handle, has_key ? lo : NULL, has_key ? hi : NULL, record_id);
	XtUnlock(handle);

	XtAfterChange(index, handle);
	return false;
}
