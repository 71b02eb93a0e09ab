/*
 * xtfold.c: folds, which are the engine's checkpoints, and when they may be published.
 *
 * What a crash leaves: before xt_fold_publish the previous capture and its log, after it the new one.
 * Who folds is in xtworker.c; a session that writes does it too when a log passes
 * xtree.log_size_limit.
 */
#include "xtregistry.h"

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "postmaster/bgwriter.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

/* Blocks written between two looks for interrupts. */
#define FOLD_STEP_BLOCKS		1024
/* A worker rests after each step for as long as it took, within these limits, so that the disk serves
 * others too. */
#define FOLD_REST_US_MIN		2000
#define FOLD_REST_US_MAX		100000
/* The recovery target asks for no folds of logs shorter than this part of xtree.max_log_size: on a slow
 * machine they would cost more than the recovery. */
#define RECOVERY_TARGET_SHARE	16
/* A load of less says nothing of the rate. */
#define REPLAY_MEASURED_BYTES	(1024 * 1024)
/* What is given back, or moved, in one go: a millisecond or so under the writer lock. */
#define TIDY_STEP_VERSIONS		128
#define COMPACT_STEP_NODES		64
#define STEP_REST_US			500
/*
 * Whether a base backup may be copying files. It reads data file and log at different times, so while
 * it runs nothing that the log still describes may be published or recycled. The same goes for pg_rewind.
 */
bool
XtBackupRunning(void)
{
	if (pg_atomic_read_u32(&xt_registry->low_level_backups) > 0)
		return true;
	if (pg_atomic_read_u32(&xt_registry->file_copiers) > 0 &&
		GetCurrentTimestamp() < (TimestampTz) pg_atomic_read_u64(&xt_registry->files_copied_until))
		return true;
	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *walsnd = &WalSndCtl->walsnds[i];
		bool		backup;

		SpinLockAcquire(&walsnd->mutex);
		backup = walsnd->pid != 0 && walsnd->state == WALSNDSTATE_BACKUP;
		SpinLockRelease(&walsnd->mutex);
		if (backup)
			return true;
	}
	return false;
}

/* Redo point of the last checkpoint, or restartpoint, that has completed. */
static XLogRecPtr
checkpoint_redo(void)
{
	ControlFileData *control;
	XLogRecPtr	redo;
	bool		crc_ok;

	LWLockAcquire(ControlFileLock, LW_SHARED);
	control = get_controlfile(DataDir, &crc_ok);
	LWLockRelease(ControlFileLock);
	redo = crc_ok ? control->checkPointCopy.redo : InvalidXLogRecPtr;
	pfree(control);
	return redo;
}

/*
 * Whether a recovery could still begin within the WAL images of an index's files, those of its build or
 * of a copy by the host. It would replay some images and not the others, over whatever the files hold by
 * then; that is right only as long as they hold the very capture that the images show. So no later
 * capture is published before a checkpoint's redo point has passed the images.
 */
bool
XtImagesMayReplay(XtShared *shared)
{
	uint64		images_lsn = pg_atomic_read_u64(&shared->images_lsn);

	if (images_lsn == 0)
		return false;
	if (checkpoint_redo() < images_lsn)
		return true;
	(void) pg_atomic_compare_exchange_u64(&shared->images_lsn, &images_lsn, 0);
	return false;
}

static bool counts_as_fold = false; /* this process is in folds_running */

typedef struct FoldState
{
	XtHandle   *handle;
	bool		begun;
	bool		published;
} FoldState;

/* The log's first operation is as old as this, or nearly: it ages from its first sight on. */
static void
note_log(XtShared *shared)
{
	if (unlikely(pg_atomic_read_u64(&shared->log_since) == 0))
		pg_atomic_write_u64(&shared->log_since, (uint64) GetCurrentTimestamp());
}

/* The writer lock's part of the end. Attaching what others have provided may raise. */
static void
end_begun_fold(FoldState *state)
{
	XtHandle   *handle = state->handle;

	LWLockAcquire(&handle->shared->lock, LW_EXCLUSIVE);
	/* If it does, the fold is ended when this process begins the next, or any when this one has gone. */
	xt_fold_suspend(handle->index, state->published);
	XtAttachChunks(handle);
	xt_fold_end(handle->index, state->published);
	if (DataChecksumsEnabled())
		XtStampTouched(handle);
	XtUnlock(handle);
}

/* Also at exit, where an error in fold_end is final. Who takes over a fold that was not ended: xt_fold_begin. */
static void
leave_folds(int code, Datum arg)
{
	if (counts_as_fold)
		pg_atomic_fetch_sub_u32(&xt_registry->folds_running, 1);
	counts_as_fold = false;
}

static void
enter_folds(void)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(leave_folds, (Datum) 0);
	registered = true;
	pg_atomic_fetch_add_u32(&xt_registry->folds_running, 1);
	counts_as_fold = true;
}

static void
fold_end(FoldState *state)
{
	state->handle->scans--;
	/* What it would have folded is still there. */
	if (!state->published)
		note_log(state->handle->shared);
	PG_TRY();
	{
		if (state->begun)
			end_begun_fold(state);
	}
	PG_FINALLY();
	{
		leave_folds(0, (Datum) 0);
	}
	PG_END_TRY();
}

/* An error or exit. Locks may be held that fold_end is going to take. */
static void
fold_cleanup(int code, Datum arg)
{
	LWLockReleaseAll();
	fold_end((FoldState *) DatumGetPointer(arg));
}

/* Whether somebody copies files, and this index's with them, which those of temporary ones never are. */
static bool
is_being_copied(XtHandle *handle)
{
	return handle->key.backend == InvalidBackendId && XtBackupRunning();
}

/*
 * Publishes unless a backup has begun. pg_backup_start reads the control file for its redo point under
 * ControlFileLock, after its checkpoint and after it has made itself known: so either it is seen here,
 * or the superblock is on disk before that backup's first file is copied.
 */
static bool
fold_publish(XtHandle *handle, XLogRecPtr capture_lsn, XtError *error)
{
	bool		ok = true;

	/* A capture must never hold an operation that the host could lose. On a standby this moves the
	 * minimum recovery point instead. */
	if (!XLogRecPtrIsInvalid(capture_lsn))
		XLogFlush(capture_lsn);
	LWLockAcquire(ControlFileLock, LW_EXCLUSIVE);
	if (is_being_copied(handle))
	{
		error->code = XT_BUSY;
		strlcpy(error->message, "a base backup or pg_rewind is running", sizeof(error->message));
		ok = false;
	}
	else
		ok = xt_fold_publish(handle->index, error);
	if (ok)
		pg_atomic_fetch_add_u64(&xt_registry->publications, 1);
	LWLockRelease(ControlFileLock);
	return ok;
}

/* Fixes the capture, unless a fold cannot be now. */
static bool
fold_begin(FoldState *state, uint64 *capture_lsn, XtError *error)
{
	XtHandle   *handle = state->handle;

	error->code = XT_BUSY;
	/* A copying of files waits for folds that have made themselves known before they look here. */
	if (is_being_copied(handle))
	{
		strlcpy(error->message, "a base backup or pg_rewind is running", sizeof(error->message));
		return false;
	}
	if (XtImagesMayReplay(handle->shared))
	{
		strlcpy(error->message, "no checkpoint has completed since the index was built or copied",
				sizeof(error->message));
		return false;
	}
	XtLock(handle, LW_EXCLUSIVE);
	pg_atomic_write_u32(&handle->shared->fold_wanted, 0);
	/* Who changes something after this fold has begun sees an empty log, and notes its age anew. */
	pg_atomic_write_u64(&handle->shared->log_since, 0);
	do
		state->begun = xt_fold_begin(handle->index, capture_lsn, error);
	while (!state->begun && XtProvideMemory(handle, error));
	XtUnlock(handle);
	return state->begun;
}

static bool
fold_run(FoldState *state, XtError *error)
{
	uint64		capture_lsn = 0;
	bool		done = false;

	if (!fold_begin(state, &capture_lsn, error))
		return false;
	XtHaltAt(XT_HALT_FOLD_BEGUN);
	while (!done)
	{
		instr_time	start;
		instr_time	took;

		CHECK_FOR_INTERRUPTS();
		INSTR_TIME_SET_CURRENT(start);
		if (!xt_fold_write(state->handle->index, FOLD_STEP_BLOCKS, &done, error))
			return false;
		if (done || !IsBackgroundWorker ||
			xt_log_bytes(state->handle->index) > (uint64) xtree_log_size_limit_kb * 1024 / 2)
			continue;
		INSTR_TIME_SET_CURRENT(took);
		INSTR_TIME_SUBTRACT(took, start);
		pg_usleep(Max(FOLD_REST_US_MIN, Min(FOLD_REST_US_MAX, INSTR_TIME_GET_MICROSEC(took))));
	}
	XtHaltAt(XT_HALT_FOLD_WRITTEN);
	state->published = fold_publish(state->handle, capture_lsn, error);
	XtHaltAt(XT_HALT_FOLD_PUBLISHED);
	return state->published;
}

/* Gives back what a fold has set free, in steps between which others get the lock. */
static void
fold_tidy(XtHandle *handle)
{
	bool		done = false;

	while (!done)
	{
		XtLock(handle, LW_EXCLUSIVE);
		done = xt_fold_tidy(handle->index, TIDY_STEP_VERSIONS);
		XtUnlock(handle);
		if (!done)
			pg_usleep(STEP_REST_US);
		/* The rest can wait for the next fold. */
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Moves nodes to the front of a file that is mostly free, as after mass deletions. Returns whether a fold
 * would make the file shorter now. What an error or a crash leaves is as good as what was before.
 */
static bool
compact(XtHandle *handle)
{
	uint32		limit = xt_compact_limit(handle->index);
	uint64		position = 0;
	bool		done = false;
	bool		ok = true;
	XtError		error;

	if (limit == PG_UINT32_MAX)
		return false;
	while (ok && !done)
	{
		CHECK_FOR_INTERRUPTS();
		XtLock(handle, LW_EXCLUSIVE);
		do
			ok = xt_compact_step(handle->index, COMPACT_STEP_NODES, &position, limit, &done, &error);
		while (!ok && XtProvideMemory(handle, &error));
		if (DataChecksumsEnabled())
			XtStampTouched(handle);
		XtUnlock(handle);
		if (!done)
			pg_usleep(STEP_REST_US);
	}
	if (!ok)
		ereport(LOG,
				(errcode(XtSqlState(error.code)),
				 errmsg("could not compact an xtree index"),
				 errdetail_internal("%s", error.message)));
	return ok;
}

static bool
fold_once(XtHandle *handle, XtError *error)
{
	FoldState	state = {handle, false, false};
	bool		ok;

	handle->scans++;			/* keeps the handle and its mappings */
	enter_folds();
	PG_ENSURE_ERROR_CLEANUP(fold_cleanup, PointerGetDatum(&state));
	{
		ok = fold_run(&state, error);
	}
	PG_END_ENSURE_ERROR_CLEANUP(fold_cleanup, PointerGetDatum(&state));
	fold_end(&state);
	if (ok)
		fold_tidy(handle);
	return ok;
}

bool
XtFoldHandle(XtHandle *handle, XtError *error)
{
	XtError		again;

	XtScrubNoteChange(handle->shared);
	if (!fold_once(handle, error))
		return false;
	/* The first one has done what was asked for. */
	if (handle->logged && compact(handle))
		(void) fold_once(handle, &again);
	return true;
}

void
XtReportFailedFold(int elevel, Relation index, const XtError *error)
{
	ereport(elevel,
			(errcode(XtSqlState(error->code)),
			 errmsg("could not fold the log of xtree index \"%s\"", RelationGetRelationName(index)),
			 errdetail_internal("%s", error->message)));
}

bool
XtFold(Relation index)
{
	XtError		error;

	if (XtFoldHandle(XtOpen(index), &error))
		return true;
	if (error.code != XT_BUSY)
		XtReportFailedFold(ERROR, index, &error);
	return false;
}

bool
XtFoldNow(Relation index)
{
	if (XtImagesMayReplay(XtOpen(index)->shared))
		RequestCheckpoint(CHECKPOINT_IMMEDIATE | CHECKPOINT_FORCE | CHECKPOINT_WAIT);
	return XtFold(index);
}

bool
XtFoldSoon(Relation index)
{
	XtHandle   *handle = XtOpen(index);

	if (XtFold(index))
		return true;
	/* A worker does it when what is in the way has gone. */
	XtWantFold(handle);
	if (XtImagesMayReplay(handle->shared))
		ereport(NOTICE,
				(errmsg("xtree index \"%s\" will be folded after the next checkpoint",
						RelationGetRelationName(index)),
				 errdetail("No checkpoint has completed since the index was built or copied."),
				 errhint("A member of role pg_checkpoint can fold it at once.")));
	return false;
}

/* --- Asking for a fold ------------------------------------------------------------------------ */
void
XtNoteLoadedLog(XtHandle *handle, uint64 micros)
{
	uint64		bytes = xt_log_bytes(handle->index);

	if (bytes == 0)
		return;
	note_log(handle->shared);
	if (bytes >= REPLAY_MEASURED_BYTES)
		pg_atomic_write_u32(&xt_registry->replay_us_per_mb,
							(uint32) Min(Max(micros * 1024 * 1024 / bytes, 1), PG_UINT32_MAX));
}

bool
XtLogIsOld(XtShared *shared)
{
	uint64		since = pg_atomic_read_u64(&shared->log_since);

	return since != 0 && xtree_max_log_age_s > 0 &&
		TimestampDifferenceExceeds((TimestampTz) since, GetCurrentTimestamp(),
								   xtree_max_log_age_s * 1000);
}

/* Whether a worker should fold a log of this size. */
static bool
log_is_long(uint64 bytes)
{
	uint64		long_bytes = (uint64) xtree_max_log_size_kb * 1024;

	if (bytes > long_bytes)
		return true;
	return xtree_recovery_target_s > 0 && bytes > long_bytes / RECOVERY_TARGET_SHARE &&
		bytes / (1024 * 1024) * pg_atomic_read_u32(&xt_registry->replay_us_per_mb) >
		(uint64) xtree_recovery_target_s * 1000000;
}

void
XtWantFold(XtHandle *handle)
{
	uint32		flusher;

	if (pg_atomic_read_u32(&handle->shared->fold_wanted) != 0)
		return;
	pg_atomic_write_u32(&handle->shared->fold_wanted, 1);
	flusher = pg_atomic_read_u32(&xt_registry->flusher_pgprocno);
	if (flusher != 0)
		SetLatch(&GetPGProcByNumber(flusher - 1)->procLatch);
}

bool
XtLimitLog(XtHandle *handle, XtError *error)
{
	uint64		bytes = xt_log_bytes(handle->index);
	uint64		limit = (uint64) xtree_log_size_limit_kb * 1024;
	bool		ok = true;

	if (handle->logged)
		note_log(handle->shared);
	if (!log_is_long(bytes))
	{
		handle->fold_retry_bytes = 0;
		return true;
	}
	XtWantFold(handle);
	if (bytes <= limit || bytes < handle->fold_retry_bytes)
		return true;
	if (XtImagesMayReplay(handle->shared))
		RequestCheckpoint(CHECKPOINT_CAUSE_XLOG);
	else if (XtFoldHandle(handle, error))
		return true;
	else
		ok = error->code == XT_BUSY;
	/* A checkpoint, a base backup or another fold is in the way: not at every row, or record. */
	handle->fold_retry_bytes = bytes + limit / 8;
	return ok;
}

void
XtAfterChange(Relation index, XtHandle *handle)
{
	XtError		error;

	if (!XtLimitLog(handle, &error))
		XtReportFailedFold(WARNING, index, &error); /* the change itself is done, and safe in the log */
}
