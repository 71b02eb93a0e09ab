/*
 * xtstamp.c: host checksums of the blocks that this process has modified.
 *
 * Where data checksums are on, the blocks that a transaction has modified are stamped before its locks are
 * released, so that a quiet index always verifies. Until then their LSN is all ones, which tells a base backup
 * not to verify them. What a crash leaves unstamped is xtscrub.c's.
 */
#include "xtregistry.h"

#include "access/xlog.h"
#include "access/xlogutils.h"
#include "storage/bufpage.h"
#include "storage/checksum.h"

/* Changes after which blocks are stamped before the transaction ends. */
#define XT_TOUCHED_MAX		1000

static bool pending = false;	/* some handle has blocks to stamp */

void
XtStampPage(void *page, BlockNumber block, XLogRecPtr lsn)
{
	PageSetLSN((Page) page, lsn);
	((PageHeader) page)->pd_checksum = pg_checksum_page(page, block);
}

void
XtStampTouched(XtHandle *handle)
{
	XtTouched	touched;
	XLogRecPtr	lsn = xt_applied_lsn(handle->index);

	Assert(LWLockHeldByMeInMode(&handle->shared->lock, LW_EXCLUSIVE));
	while (xt_touched_next(handle->index, &touched))
		XtStampPage(touched.page, touched.block, lsn);
	handle->touched = 0;
}

void
XtNoteTouched(XtHandle *handle)
{
	if (!DataChecksumsEnabled())
		return;
	pending = true;
	handle->touched++;
	if (InRecovery)
		XtStampTouched(handle);
}

/* Without XtLock, which may have to attach memory and fail at that. */
static void
stamp_alone(XtHandle *handle)
{
	LWLockAcquire(&handle->shared->lock, LW_EXCLUSIVE);
	XtStampTouched(handle);
	LWLockRelease(&handle->shared->lock);
}

void
XtStampWhenMany(XtHandle *handle)
{
	if (unlikely(handle->touched >= XT_TOUCHED_MAX))
		stamp_alone(handle);
}

static void
stamp_if_touched(XtHandle *handle)
{
	if (handle->touched > 0 && handle->index != NULL)
		stamp_alone(handle);
}

bool
XtStampIsPending(void)
{
	return pending;
}

void
XtStampAll(void)
{
	if (!pending)
		return;
	/* Should anything fail here during an abort, it must not be tried again by the same abort. */
	pending = false;
	XtForEachHandle(stamp_if_touched);
}
