/*
 * xtgrace.c: the grace period of VACUUM for scans that must not meet a reused row id.
 *
 * An index-only scan returns a row without looking at the heap where the visibility map says that all
 * rows of the page are visible. A row id that VACUUM has removed from the index since the scan read it
 * would then be taken for a live row: VACUUM may set the map's bit, or another row may have the row
 * id, as soon as every index's bulk delete has returned. Scans under snapshots that are not MVCC would
 * meet the other row itself. So these scans announce themselves before they read the index, and bulk
 * delete returns only when those that may have read removed row ids are over (src/README.md, "Row ids
 * and VACUUM").
 *
 * The order that makes it right: a scan notes the index's count of removals in its pin, publishes the
 * pin, executes a full fence, and only then loads the index's published epoch. VACUUM publishes the
 * removal, counts it, executes a full fence, and then reads the pins. A pin that VACUUM does not see
 * was published after it looked, so the scan's later load of the epoch sees the removal; a pin with
 * VACUUM's own count was made after the removal. What may be stale: a pin may be there a little
 * longer than its scan, which only delays VACUUM.
 */
#include "xtregistry.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/bufmgr.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Pins of one process. Those beyond share one that stands for all indexes. */
#define XT_PINS_MAX			14
#define XT_PIN_NONE			0
#define XT_PIN_SHARED		(-1)

/* While VACUUM polls. Scans are mostly shorter than that, and transactions longer. */
#define XT_POLL_MS_MAX		1000
#define XT_POLL_SLEEP_MS	10

typedef struct XtPin
{
	pg_atomic_uint64 index;		/* XtShared.self, 0 if free; its scan keeps the XtShared alive */
	pg_atomic_uint64 removals;	/* XtShared.removals before the scan began; written before `index` */
} XtPin;

/* Of one PGPROC. Written by its process only. */
typedef struct XtPinSlot
{
	pg_atomic_uint64 vxid;		/* backend id << 32 | local transaction id; written before any pin */
	pg_atomic_uint64 shared;	/* scans that found no free pin */
	XtPin		pins[XT_PINS_MAX];
} XtPinSlot;

static XtPinSlot *slots = NULL;

static int
slot_count(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

Size
XtGraceBytes(void)
{
	return mul_size(slot_count(), sizeof(XtPinSlot));
}

void
XtGraceStartup(void)
{
	bool		found;

	slots = ShmemInitStruct("xtree pins", XtGraceBytes(), &found);
	if (found)
		return;
	for (int i = 0; i < slot_count(); i++)
	{
		pg_atomic_init_u64(&slots[i].vxid, 0);
		pg_atomic_init_u64(&slots[i].shared, 0);
		for (int j = 0; j < XT_PINS_MAX; j++)
		{
			pg_atomic_init_u64(&slots[i].pins[j].index, 0);
			pg_atomic_init_u64(&slots[i].pins[j].removals, 0);
		}
	}
}

void
XtPinTake(XtScanRef *ref)
{
	XtShared   *shared = ref->handle->shared;
	XtPinSlot  *slot = &slots[MyProc->pgprocno];

	if (ref->pin != XT_PIN_NONE)
		return;
	/* All scans of a process end with its transaction, so the pins agree about it. */
	pg_atomic_write_u64(&slot->vxid, ((uint64) MyProc->backendId << 32) | MyProc->lxid);
	for (int i = 0; i < XT_PINS_MAX; i++)
	{
		XtPin	   *pin = &slot->pins[i];

		if (pg_atomic_read_u64(&pin->index) != 0)
			continue;
		pg_atomic_write_u64(&pin->removals, pg_atomic_read_u64(&shared->removals));
		pg_write_barrier();
		pg_atomic_write_u64(&pin->index, shared->self);
		ref->pin = i + 1;
		break;
	}
	if (ref->pin == XT_PIN_NONE)
	{
		pg_write_barrier();
		pg_atomic_write_u64(&slot->shared, pg_atomic_read_u64(&slot->shared) + 1);
		ref->pin = XT_PIN_SHARED;
	}
	pg_memory_barrier();
}

void
XtPinRelease(XtScanRef *ref)
{
	XtPinSlot  *slot;

	if (ref->pin == XT_PIN_NONE)
		return;
	slot = &slots[MyProc->pgprocno];
	/* What was read under the pin has been used by now. */
	pg_memory_barrier();
	if (ref->pin == XT_PIN_SHARED)
		pg_atomic_write_u64(&slot->shared, pg_atomic_read_u64(&slot->shared) - 1);
	else
		pg_atomic_write_u64(&slot->pins[ref->pin - 1].index, 0);
	ref->pin = XT_PIN_NONE;
}

/* As TestForOldSnapshot, with the last removal in the place of a change to a page. */
void
XtTestForOldSnapshot(XtScanRef *ref, Relation index, Snapshot snapshot)
{
	if (unlikely(old_snapshot_threshold >= 0) && IsMVCCSnapshot(snapshot) &&
		!XLogRecPtrIsInvalid(snapshot->lsn) &&
		pg_atomic_read_u64(&ref->handle->shared->removed_lsn) > snapshot->lsn)
		TestForOldSnapshot_impl(snapshot, index);
}

void
XtNoteRemoval(XtShared *shared)
{
	pg_atomic_fetch_add_u64(&shared->removals, 1);
}

/* Whether a process has a scan that may have read what was removed before `removals` was reached. */
static bool
slot_blocks(XtPinSlot *slot, XtShared *shared, uint64 removals)
{
	if (pg_atomic_read_u64(&slot->shared) > 0)
		return true;
	for (int i = 0; i < XT_PINS_MAX; i++)
	{
		XtPin	   *pin = &slot->pins[i];

		if (pg_atomic_read_u64(&pin->index) != shared->self)
			continue;
		/* Should the pin be another by now, the one that was seen is gone, and any answer is right. */
		pg_read_barrier();
		if (pg_atomic_read_u64(&pin->removals) < removals)
			return true;
	}
	return false;
}

/* Waits until the process of `slot` has none. */
static void
await_slot(XtPinSlot *slot, XtShared *shared, uint64 removals)
{
	const int	poll_ms = Min(DeadlockTimeout, XT_POLL_MS_MAX);
	const TimestampTz started = GetCurrentTimestamp();
	long		sleep_ms = 1;

	while (slot_blocks(slot, shared, removals))
	{
		VirtualTransactionId vxid;
		uint64		word;

		CHECK_FOR_INTERRUPTS();
		if (!TimestampDifferenceExceeds(started, GetCurrentTimestamp(), poll_ms))
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, sleep_ms,
							 PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			sleep_ms = Min(sleep_ms * 2, XT_POLL_SLEEP_MS);
			continue;
		}

		/*
		 * A lock, so that others see whom VACUUM waits for and a deadlock is found (the reader may go on
		 * to wait for VACUUM's lock on the table). Only the transaction that was seen to block is
		 * waited for: a pin of a later one would not.
		 */
		word = pg_atomic_read_u64(&slot->vxid);
		pg_read_barrier();
		if (!slot_blocks(slot, shared, removals))
			break;
		vxid.backendId = (BackendId) (word >> 32);
		vxid.localTransactionId = (LocalTransactionId) word;
		if (VirtualTransactionIdIsValid(vxid))
			(void) VirtualXactLock(vxid, true);
	}
}

void
XtAwaitPins(XtShared *shared)
{
	uint64		removals;

	/*
	 * Not only removals of this VACUUM count: one that was cancelled has left rows that are dead in the
	 * heap and gone from the index, and this VACUUM is the one that frees them.
	 */
	pg_memory_barrier();
	removals = pg_atomic_read_u64(&shared->removals);
	for (int i = 0; i < slot_count(); i++)
	{
		if (i != MyProc->pgprocno)
			await_slot(&slots[i], shared, removals);
	}
	/* The heap's pages are changed after this. */
	pg_memory_barrier();
}
