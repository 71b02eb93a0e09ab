/*
 * xtopen.c: this process's handles of indexes, and loading an index for the first time.
 *
 * A handle binds three things that may part ways: the file (inode), the shared state (generation) and
 * this process's mappings. Opening compares them: a handle of an older generation is closed and made
 * anew; a file with another inode than the state was loaded from empties the state.
 *
 * A relcache invalidation only marks a handle, since it may arrive in the middle of anything that
 * looks at a catalog; marked handles are checked when used next, and closed at the end of the
 * transaction if their file is gone.
 */
#include "xtregistry.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/catalog.h"
#include "catalog/storage.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "storage/smgr.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/* Operations of the log that are replayed between two looks for interrupts. */
#define XT_LOAD_BATCH		2000

static HTAB *handles = NULL;
static XtHandle *last_handle = NULL;	/* the one used last: most statements use one index */
static XtScanRef *scan_refs = NULL;
static bool check_pending = false;	/* some handle has `check` set */
static bool exiting = false;
static long redo_sweep_at = 256;	/* handles at which redo looks for dropped ones */

static void sweep_handles(bool all);
static void invalidate_callback(Datum arg, Oid relid);
static void xact_callback(XactEvent event, void *arg);
static void subxact_callback(SubXactEvent event, SubTransactionId mySubid,
							 SubTransactionId parentSubid, void *arg);
static void exit_callback(int code, Datum arg);
static void release_callback(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg);

/* --- Handles ---------------------------------------------------------------------------------- */
static void
close_engine(XtHandle *handle)
{
	if (handle->index != NULL)
		xt_index_close(handle->index);
	handle->index = NULL;
	handle->generation = 0;
}

/* Gives up everything but the hash entry. */
static void
detach_handle(XtHandle *handle)
{
	Assert(handle->scans == 0);
	close_engine(handle);
	if (handle->shared != NULL)
		XtSharedRelease(handle->shared);
	handle->shared = NULL;
}

static void
forget_handle(XtHandle *handle)
{
	detach_handle(handle);
	if (handle->smgr != NULL)
		smgrclearowner(&handle->smgr, handle->smgr);
	if (last_handle == handle)
		last_handle = NULL;
	hash_search(handles, &handle->key, HASH_REMOVE, NULL);
}

static void
init_handles(void)
{
	HASHCTL		ctl;

	ctl.keysize = sizeof(XtRelKey);
	ctl.entrysize = sizeof(XtHandle);
	ctl.hcxt = TopMemoryContext;
	handles = hash_create("xtree handles", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	/* The startup process has neither relation cache nor transactions, but these do no harm there. */
	CacheRegisterRelcacheCallback(invalidate_callback, (Datum) 0);
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
	RegisterResourceReleaseCallback(release_callback, NULL);
	before_shmem_exit(exit_callback, (Datum) 0);
}

/* The handle of `key`, attached to its shared record, but perhaps not to its state. */
static XtHandle *
get_handle(const XtRelKey *key, Oid relid)
{
	XtHandle   *handle;
	bool		found;

	if (last_handle != NULL && memcmp(&last_handle->key, key, sizeof(XtRelKey)) == 0)
		handle = last_handle;
	else
	{
		if (handles == NULL)
			init_handles();
		handle = hash_search(handles, key, HASH_ENTER, &found);
		if (!found)
		{
			memset((char *) handle + sizeof(XtRelKey), 0, sizeof(XtHandle) - sizeof(XtRelKey));
			handle->logged = key->backend == InvalidBackendId;
		}
		last_handle = handle;
	}
	handle->relid = relid;
	if (handle->shared != NULL && pg_atomic_read_u32(&handle->shared->gone) && handle->scans == 0)
		detach_handle(handle);
	if (handle->shared == NULL)
	{
		handle->shared = XtSharedAttach(key);
		handle->check = true;
	}
	return handle;
}

/* Opens the engine's handle for the present generation, and attaches chunks. */
static bool
attach_engine(XtHandle *handle, XtError *error)
{
	XtShared   *shared = handle->shared;
	uint64		generation = pg_atomic_read_u64(&shared->generation);
	char	   *data_path;
	char	   *log_path;

	if (handle->index != NULL && handle->generation == generation)
	{
		if (!xt_faulted(handle->index))
			return true;
		if (handle->scans > 0)
		{
			/* Mappings that scans stand on. */
			xt_fault(handle->index, error);
			return false;
		}
	}
	if (handle->scans > 0)
	{
		/* Only a statement that rebuilds an index under its own open scan gets here. */
		error->code = XT_BUSY;
		strlcpy(error->message, "the index was rebuilt while a scan was using it",
				sizeof(error->message));
		return false;
	}
	close_engine(handle);
	data_path = XtDataPath(&handle->key);
	log_path = handle->logged ? XtLogPath(&handle->key) : NULL;
	handle->index = xt_index_open(XtGetRuntime(), dsa_get_address(XtGetArea(), shared->index_shared),
								  data_path, log_path, error);
	pfree(data_path);
	if (log_path != NULL)
		pfree(log_path);
	if (handle->index == NULL)
		return false;
	handle->generation = generation;
	handle->blocks_seen = 0;
	if (DataChecksumsEnabled())
		xt_track_touched(handle->index, true);
	return true;
}

void
XtAttachChunks(XtHandle *handle)
{
	XtChunkRequest request;

	while (xt_chunk_missing(handle->index, &request))
		xt_chunk_provide(handle->index, request.array, request.level, request.ref,
						 dsa_get_address(XtGetArea(), request.ref));
}

bool
XtProvideMemory(XtHandle *handle, XtError *error)
{
	XtChunkRequest request;
	dsa_pointer chunk;

	if (error->code != XT_NEED_MEMORY)
		return false;
	if (xt_chunk_missing(handle->index, &request))
	{
		XtAttachChunks(handle);
		return true;
	}
	/* A scan that met a chunk which has been attached since. */
	if (!LWLockHeldByMe(&handle->shared->lock) &&
		pg_atomic_read_u32(&handle->shared->state) != XT_STATE_BUILDING)
		return true;
	xt_chunk_wanted(handle->index, &request);
	chunk = dsa_allocate_extended(XtGetArea(), request.bytes,
								  DSA_ALLOC_HUGE | DSA_ALLOC_ZERO | DSA_ALLOC_NO_OOM);
	if (!DsaPointerIsValid(chunk))
	{
		error->code = XT_OUT_OF_MEMORY;
		snprintf(error->message, sizeof(error->message),
				 "out of shared memory for xtree indexes, on a request of %llu bytes",
				 (unsigned long long) request.bytes);
		return false;
	}
	xt_chunk_provide(handle->index, request.array, request.level, chunk,
					 dsa_get_address(XtGetArea(), chunk));
	return true;
}

/*
 * Whether this process is asked to stop, which it would do but for the writer lock. A process that defers
 * interrupts for other reasons goes on.
 */
static bool
load_is_cancelled(void)
{
	return unlikely(InterruptPending) && (QueryCancelPending || ProcDiePending) &&
		InterruptHoldoffCount == 1 && QueryCancelHoldoffCount == 0 && CritSectionCount == 0;
}

/* Reads the state from the files. Writer lock held exclusively. */
static bool
load_locked(XtHandle *handle, XtError *error)
{
	XtShared   *shared = handle->shared;
	XtLoadPolicy policy;
	bool		done = false;
	bool		noted = XtScrubNoteChange(shared);
	instr_time	start;
	instr_time	took;

	INSTR_TIME_SET_CURRENT(start);
	/* Providing memory may raise. Then the next who comes finds this, and empties it. */
	shared->partial = true;
	if (!shared->opened)
	{
		XtDropHostBuffers(&handle->key);
		shared->opened = true;
	}
	XtFillLoadPolicy(&handle->key, &policy);
	while (!done)
	{
		if (load_is_cancelled())
		{
			error->code = XT_CANCELLED;
			strlcpy(error->message, "loading the index was cancelled", sizeof(error->message));
			XtSharedReset(shared);
			return false;
		}
		if (xt_load(handle->index, &policy, XT_LOAD_BATCH, &done, error) ||
			XtProvideMemory(handle, error))
			continue;
		if (error->code == XT_NEED_FORGET && XtExtentForget(&handle->key, error))
			policy.may_shorten = true;
		else
		{
			XtSharedReset(shared);
			return false;
		}
	}
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, start);
	XtNoteLoadedLog(handle, INSTR_TIME_GET_MICROSEC(took));
	shared->file = handle->file;
	/* A copy by the host has just been logged as images; in recovery they may have just been replayed. */
	if (RecoveryInProgress())
		pg_atomic_write_u64(&shared->images_lsn, GetXLogReplayRecPtr(NULL));
	else if (xt_adopted(handle->index) && handle->key.backend == InvalidBackendId)
	{
		XtLogAdopted(&handle->key);
		pg_atomic_write_u64(&shared->images_lsn, GetXLogInsertRecPtr());
	}
	if (DataChecksumsEnabled())
		XtStampTouched(handle);
	/* So that the flusher notes what it holds. */
	if (xt_log_bytes(handle->index) > 0)
		pg_atomic_write_u32(&shared->log_dirty, 1);
	/* Where nothing was replayed there is nothing yet to be found after a crash. */
	if (noted && xt_log_bytes(handle->index) == 0)
		XtScrubForgetChange(shared);
	shared->partial = false;
	pg_write_barrier();
	pg_atomic_write_u32(&shared->state, XT_STATE_LOADED);
	return true;
}

/* Notes the file's identity. False: it is missing or empty. */
static bool
check_file(XtHandle *handle, XtError *error)
{
	char	   *path;

	if (XtIdentifyFile(&handle->key, &handle->file))
		return true;
	path = XtDataPath(&handle->key);
	error->code = XT_NOT_FOUND;
	snprintf(error->message, sizeof(error->message), "file \"%s\" is missing or empty", path);
	pfree(path);
	return false;
}

/* Of the same number and on the same device. */
static inline bool
has_same_inode(const XtHandle *handle)
{
	const XtFileId *loaded = &handle->shared->file;

	return loaded->inode == handle->file.inode && loaded->device == handle->file.device;
}

/*
 * Whether the file is another one than the state was loaded from, though it may have got that one's inode
 * number: a database that is moved to another tablespace and back comes again under the same names. Then its
 * superblocks name the place where it was last opened, or, if nobody did that, it is what it was. They need
 * not be read where the number was given out at the same moment, too.
 */
static bool
is_other_file(XtHandle *handle)
{
	uint64		born_ns = handle->file.born_ns;

	if (!has_same_inode(handle))
		return true;
	return (born_ns == 0 || born_ns != handle->shared->file.born_ns) &&
		XtFileIsForeign(&handle->key);
}

/* The writer lock, which another process may hold for as long as it loads the index. */
static void
lock_for_load(XtShared *shared)
{
	while (!LWLockConditionalAcquire(&shared->lock, LW_EXCLUSIVE))
	{
		if (AmStartupProcess())
		{
			LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
			return;
		}
		CHECK_FOR_INTERRUPTS();
		pg_usleep(2000L);
	}
}

/* Brings a handle up to date, loading the index if nobody has. */
static bool
refresh_handle(XtHandle *handle, XtError *error)
{
	XtShared   *shared = handle->shared;
	bool		ok;
	bool		check = handle->check;

	/* A new generation may have come with a new file. */
	if (check || handle->generation != pg_atomic_read_u64(&shared->generation))
	{
		if (!check_file(handle, error))
			return false;
		handle->check = false;
	}
	for (;;)
	{
		XtState		state = pg_atomic_read_u32(&shared->state);

		if (state == XT_STATE_BROKEN || XtIsLost(&handle->key))
		{
			error->code = XT_BROKEN;
			strlcpy(error->message, "WAL replay could not follow this index",
					sizeof(error->message));
			return false;
		}
		if (!attach_engine(handle, error))
			return false;
		if (state == XT_STATE_LOADED && has_same_inode(handle) &&
			!(check && is_other_file(handle)))
			break;

		lock_for_load(shared);
		state = pg_atomic_read_u32(&shared->state);
		if (state == XT_STATE_LOADED && is_other_file(handle))
		{
			/* The host may have made it through its buffers. */
			XtSharedReset(shared);
			shared->opened = false;
		}
		else if (state == XT_STATE_EMPTY && shared->partial)
			XtSharedReset(shared);
		ok = attach_engine(handle, error);
		if (ok && pg_atomic_read_u32(&shared->state) == XT_STATE_EMPTY)
			ok = load_locked(handle, error);
		LWLockRelease(&shared->lock);
		check = false;
		if (!ok && error->code == XT_CANCELLED)
		{
			/*
			 * Raises, but where the request has been withdrawn. A session that allows its statements less time
			 * than loading takes would never get there, so a worker is asked to, whose fold also shortens the
			 * log.
			 */
			XtWantFold(handle);
			CHECK_FOR_INTERRUPTS();
			continue;
		}
		if (!ok)
			return false;
		if (pg_atomic_read_u32(&shared->state) == XT_STATE_BUILDING)
		{
			error->code = XT_BUSY;
			strlcpy(error->message, "the index is being built", sizeof(error->message));
			return false;
		}
	}
	pg_read_barrier();
	XtAttachChunks(handle);
	xt_spec(handle->index, &handle->spec);
	if (xt_is_broken(handle->index))
	{
		error->code = XT_BROKEN;
		strlcpy(error->message, "the index has been marked broken", sizeof(error->message));
		return false;
	}
	return true;
}

/* Whether nothing has happened since this handle was last brought up to date. A fault has. */
static inline bool
handle_is_fresh(XtHandle *handle)
{
	XtShared   *shared = handle->shared;

	return !handle->check && handle->index != NULL &&
		handle->generation == pg_atomic_read_u64(&shared->generation) &&
		pg_atomic_read_u32(&shared->state) == XT_STATE_LOADED &&
		!xt_is_broken(handle->index) && !xt_faulted(handle->index) && !XtIsLost(&handle->key);
}

static bool
open_handle(XtHandle *handle, XtError *error)
{
	if (handle_is_fresh(handle))
	{
		XtAttachChunks(handle);
		return true;
	}
	return refresh_handle(handle, error);
}

/*
 * With wal_level=minimal the host brings a file that its transaction has made, also as a copy, to disk at
 * commit: by fsync if it believes the file was truncated, else by logging it through its buffers. These know
 * nothing of what is stored by mappings, and would be written over it later.
 */
static inline void
sync_at_commit(Relation index)
{
	if (unlikely(!XLogIsNeeded()) && !RelationNeedsWAL(index))
		RelationPreTruncate(index);
}

XtHandle *
XtOpen(Relation index)
{
	XtRelKey	key;
	XtHandle   *handle;
	XtError		error;

	XtRequirePreloaded();
	XtKeyOfRelation(index, &key);
	sync_at_commit(index);
	handle = get_handle(&key, RelationGetRelid(index));
	if (!open_handle(handle, &error))
		XtReportError(index, &error);
	return handle;
}

XtHandle *
XtOpenNoError(Relation index)
{
	XtRelKey	key;
	XtHandle   *handle;
	XtError		error;

	if (xt_registry == NULL)
		return NULL;
	XtKeyOfRelation(index, &key);
	sync_at_commit(index);
	handle = get_handle(&key, RelationGetRelid(index));
	return open_handle(handle, &error) ? handle : NULL;
}

XtHandle *
XtOpenForBuild(Relation index, const XtSpec *spec)
{
	XtRelKey	key;
	XtHandle   *handle;
	XtShared   *shared;
	XtIdentity	identity;
	XtError		error;
	bool		ok;

	XtRequirePreloaded();
	XtKeyOfRelation(index, &key);
	sync_at_commit(index);
	handle = get_handle(&key, RelationGetRelid(index));
	shared = handle->shared;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	XtSharedReset(shared);
	XtDropHostBuffers(&key);
	shared->opened = true;
	XtFound(&key);
	XtFillIdentity(&key, &identity);
	ok = attach_engine(handle, &error);
	shared->partial = true;		/* as in load_locked */
	/* What raises before leaves no note, whose number another relation could have when it is read. */
	if (ok)
		XtScrubNote(&key);
	while (ok && !xt_create(handle->index, spec, &identity, xt_registry->timeline, &error))
		ok = XtProvideMemory(handle, &error);
	if (ok && (ok = check_file(handle, &error)))
	{
		shared->file = handle->file;
		handle->check = false;
		handle->spec = *spec;
		shared->partial = false;
		pg_atomic_write_u32(&shared->state, XT_STATE_BUILDING);
	}
	else
		XtSharedReset(shared);
	LWLockRelease(&shared->lock);
	if (!ok)
	{
		XtEmptyFiles(&key);
		XtScrubForget(&key);
		XtReportError(index, &error);
	}
	return handle;
}

void
XtBuildDone(XtHandle *handle, bool ok)
{
	XtShared   *shared = handle->shared;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (!ok)
	{
		XtEmptyFiles(&handle->key);
		XtSharedReset(shared);
	}
	/* Before anybody else can change the index, and make a note of that. */
	XtScrubForgetChange(shared);
	if (ok)
		pg_atomic_write_u32(&shared->state, XT_STATE_LOADED);
	LWLockRelease(&shared->lock);
}

XtHandle *
XtOpenForRedo(const RelFileNode *node)
{
	XtRelKey	key;
	XtHandle   *handle;
	XtError		error;

	XtKeyOfNode(node, &key);
	if (handles != NULL && hash_get_num_entries(handles) >= redo_sweep_at)
	{
		/* Nobody tells the startup process that a relation is gone. */
		sweep_handles(true);
		redo_sweep_at = 2 * hash_get_num_entries(handles) + 256;
	}
	handle = get_handle(&key, InvalidOid);
	if (handle->smgr == NULL)
	{
		/* New here; or the host has dropped, cut or moved something, perhaps these files' database. */
		handle->check = true;
		smgrsetowner(&handle->smgr, smgropen(*node, InvalidBackendId));
	}
	if (open_handle(handle, &error))
		return handle;
	if (error.code == XT_NOT_FOUND)
	{
		/* Dropped or rewritten later in the WAL. */
		forget_handle(handle);
		return NULL;
	}
	if (pg_atomic_read_u32(&handle->shared->state) != XT_STATE_BROKEN)
		XtRedoBroken(handle, &error);
	return NULL;
}

XtHandle *
XtHandleForRedo(const RelFileNode *node)
{
	XtRelKey	key;

	XtKeyOfNode(node, &key);
	return get_handle(&key, InvalidOid);
}

void
XtForget(const XtRelKey *key)
{
	XtShared   *shared;

	XtFound(key);
	shared = XtSharedLookup(key);
	if (shared == NULL)
		return;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	XtSharedReset(shared);
	LWLockRelease(&shared->lock);
	XtSharedRelease(shared);
	/* This process's handle sees the generation when it is used next, but the file may be another. */
	if (handles != NULL)
	{
		XtHandle   *handle = hash_search(handles, key, HASH_FIND, NULL);

		if (handle != NULL)
			handle->check = true;
	}
}

void
XtLock(XtHandle *handle, LWLockMode mode)
{
	LWLockAcquire(&handle->shared->lock, mode);
	/* Whoever held the lock before may have made the index grow. */
	XtAttachChunks(handle);
}

bool
XtTryLock(XtHandle *handle, LWLockMode mode)
{
	if (!LWLockConditionalAcquire(&handle->shared->lock, mode))
		return false;
	XtAttachChunks(handle);
	return true;
}

void
XtUnlock(XtHandle *handle)
{
	LWLockRelease(&handle->shared->lock);
}

/* --- Scans ------------------------------------------------------------------------------------ */
XtScanRef *
XtScanBegin(Relation index, XtHandle *handle)
{
	XtScanRef  *ref = MemoryContextAllocZero(TopMemoryContext, sizeof(XtScanRef));
	XtError		error;

	ref->scan = xt_scan_create(handle->index, &error);
	if (ref->scan == NULL)
	{
		pfree(ref);
		XtReportError(index, &error);
	}
	ref->handle = handle;
	ref->owner = CurrentResourceOwner;
	ref->next = scan_refs;
	if (scan_refs != NULL)
		scan_refs->prev = ref;
	scan_refs = ref;
	handle->scans++;
	return ref;
}

void
XtScanEnd(XtScanRef *ref)
{
	xt_scan_free(ref->scan);
	XtPinRelease(ref);
	Assert(ref->handle->scans > 0);
	ref->handle->scans--;
	if (ref->prev != NULL)
		ref->prev->next = ref->next;
	else
		scan_refs = ref->next;
	if (ref->next != NULL)
		ref->next->prev = ref->prev;
	pfree(ref);
}

/* A scan that is still there when its owner goes was cut short by an error. */
static void
release_callback(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	XtScanRef  *ref;
	XtScanRef  *next;

	if (phase != RESOURCE_RELEASE_BEFORE_LOCKS || exiting)
		return;
	for (ref = scan_refs; ref != NULL; ref = next)
	{
		next = ref->next;
		if (ref->owner == CurrentResourceOwner)
			XtScanEnd(ref);
	}
}

/* --- Invalidation and exit -------------------------------------------------------------------- */
static void
invalidate_callback(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	XtHandle   *handle;

	hash_seq_init(&status, handles);
	while ((handle = hash_seq_search(&status)) != NULL)
	{
		if (relid == InvalidOid || handle->relid == relid)
		{
			handle->check = true;
			check_pending = true;
		}
	}
}

/* Closes handles whose files are gone, so that their address space is given back. */
static void
sweep_handles(bool all)
{
	HASH_SEQ_STATUS status;
	XtHandle   *handle;
	XtError		error;

	hash_seq_init(&status, handles);
	while ((handle = hash_seq_search(&status)) != NULL)
	{
		if ((all || handle->check) && handle->scans == 0 && !check_file(handle, &error))
			forget_handle(handle);
	}
	check_pending = false;
}

void
XtForEachHandle(void (*visit) (XtHandle *handle))
{
	HASH_SEQ_STATUS status;
	XtHandle   *handle;

	hash_seq_init(&status, handles);
	while ((handle = hash_seq_search(&status)) != NULL)
		visit(handle);
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mySubid, SubTransactionId parentSubid,
				 void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		XtStampAll();
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE || event == XACT_EVENT_PARALLEL_PRE_COMMIT ||
		event == XACT_EVENT_ABORT || event == XACT_EVENT_PARALLEL_ABORT)
		XtStampAll();
	if (!check_pending)
		return;
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		sweep_handles(false);
}

/*
 * Runs before ShutdownPostgres aborts the transaction, since it was registered later: free the scans
 * here, and keep the resource owners' callback from doing it again.
 */
static void
exit_callback(int code, Datum arg)
{
	while (scan_refs != NULL)
		XtScanEnd(scan_refs);
	exiting = true;
	if (XtStampIsPending())
	{
		/* The transaction is aborted after this, when its handles are gone. */
		LWLockReleaseAll();
		XtStampAll();
	}
	last_handle = NULL;
	XtForEachHandle(detach_handle);
}
