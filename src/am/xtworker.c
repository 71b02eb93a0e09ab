/*
 * xtworker.c: the processes that flush logs and fold indexes.
 *
 * A flusher, started with the server and connected to no database, writes back all logs that have been
 * appended to, in one batch, so that the host's checkpoints find little left to sync. It also starts a
 * fold worker for a database in which some log is too long or too old. The worker opens each such
 * index by its catalog row under a relation lock, one short transaction each, so that the file cannot be
 * dropped or rewritten under it.
 */
#include "xtregistry.h"

#include <sys/stat.h>

#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/bgwriter.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/relfilenodemap.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* A worker for the same database is not started again sooner. */
#define FOLD_WORKER_PAUSE_MS	5000
/* What was dropped gives its shared memory back within this time, and after its sessions let go. */
#define SWEEP_INTERVAL_MS		10000
/* How long the flusher waits, when the server stops, for others to close their indexes. */
#define LAST_WAIT_MS			3000
#define LAST_PAUSE_MS			10
/* How long a worker tries to lock an index that is about to be copied. */
#define SETTLE_TRIES			50
#define SETTLE_PAUSE_US			100000
/* In bgw_extra: fold every index of the database, wanted or not; on standbys too. */
#define FOLD_ALL				1
#define FOLD_ALL_EVERYWHERE		2

PGDLLEXPORT void XtFlusherMain(Datum arg);
PGDLLEXPORT void XtFoldWorkerMain(Datum arg);

/* --- Flusher ---------------------------------------------------------------------------------- */
/* A log that is being synced, its files the paths up to this one. */
typedef struct FlushLog
{
	XtRelKey	key;
	XtLogExtent extent;			/* what the sync will cover */
	int			paths_end;
} FlushLog;

typedef struct FlushState
{
	const char **paths;
	int			count;
	int			allocated;
	List	   *logs;			/* FlushLog, in the order of their paths */
	bool		last;			/* the server stops */
	Oid			fold_databases[16]; /* in which some index wants a fold */
	int			fold_count;
} FlushState;

/* The last fold worker that was started for a database. */
typedef struct FoldLaunch
{
	Oid			database;
	TimestampTz started;
	BackgroundWorkerHandle *worker;
} FoldLaunch;

static List *launches = NIL;

static void
note_fold_database(FlushState *state, Oid database)
{
	for (int i = 0; i < state->fold_count; i++)
		if (state->fold_databases[i] == database)
			return;
	if (state->fold_count < (int) lengthof(state->fold_databases))
		state->fold_databases[state->fold_count++] = database;
}

static void
note_dirty_file(FlushState *state, const char *path)
{
	if (state->count == state->allocated)
	{
		state->allocated = Max(64, state->allocated * 2);
		state->paths = state->paths == NULL ? palloc(sizeof(char *) * state->allocated) :
			repalloc(state->paths, sizeof(char *) * state->allocated);
	}
	state->paths[state->count++] = path;
}

/* What the log holds at this moment. False: somebody is changing the index. */
static bool
read_extent(XtShared *shared, XtLogExtent *extent)
{
	memset(extent, 0, sizeof(*extent));
	if (!LWLockConditionalAcquire(&shared->lock, LW_SHARED))
		return false;
	if (pg_atomic_read_u32(&shared->state) == XT_STATE_LOADED)
		xt_log_extent(dsa_get_address(XtGetArea(), shared->index_shared), extent);
	LWLockRelease(&shared->lock);
	return true;
}

static void
note_dirty_log(FlushState *state, XtShared *shared)
{
	char	   *path = XtLogPath(&shared->key);
	FlushLog   *log = palloc(sizeof(FlushLog));
	struct stat st;

	log->key = shared->key;
	if (!read_extent(shared, &log->extent))
		pg_atomic_write_u32(&shared->log_dirty, 1); /* noted in a later round */
	note_dirty_file(state, path);
	/* Files of 1 GB, as all of the host's. */
	for (int segment = 1;; segment++)
	{
		char	   *next = psprintf("%s.%d", path, segment);

		if (stat(next, &st) != 0 || st.st_size == 0)
			break;
		note_dirty_file(state, next);
	}
	log->paths_end = state->count;
	state->logs = lappend(state->logs, log);
}

/* All of them: were a round limited, logs at the end of the registry would never have their turn. */
static bool
flusher_visit(XtShared *shared, void *arg)
{
	FlushState *state = arg;

	if (shared->key.backend != InvalidBackendId)
		return true;
	if (XtLogIsOld(shared))
		pg_atomic_write_u32(&shared->fold_wanted, 1);
	if (pg_atomic_read_u32(&shared->fold_wanted) != 0 && !XtImagesMayReplay(shared))
		note_fold_database(state, shared->key.database);
	if ((xtree_flush_interval_ms > 0 || state->last) &&
		pg_atomic_exchange_u32(&shared->log_dirty, 0) != 0)
		note_dirty_log(state, shared);
	return true;
}

static void
flush_logs(FlushState *state)
{
	int		   *status = palloc0(sizeof(int) * Max(state->count, 1));
	ListCell   *lc;
	int			file = 0;

	if (state->count > 0 && enableFsync)
	{
		xt_sync_files(state->paths, status, state->count);
		for (int i = 0; i < state->count; i++)
		{
			bool		lost = status[i] == XT_IO_ERROR || status[i] == XT_NO_SPACE;

			/* Linux reports a failed write-back once, to whoever syncs first. What was not tried at all
			 * (for want of memory) is left to the checkpointer. */
			if (status[i] != XT_OK && status[i] != XT_NOT_FOUND)
				ereport(lost ? data_sync_elevel(ERROR) : LOG,
						(errcode(XtSqlState(status[i])),
						 errmsg("could not fsync file \"%s\"", state->paths[i])));
		}
	}
	foreach(lc, state->logs)
	{
		FlushLog   *log = lfirst(lc);
		bool		synced = log->extent.bytes > 0;

		for (; file < log->paths_end; file++)
			synced &= status[file] == XT_OK;
		if (synced)
			XtExtentWrite(&log->key, &log->extent);
	}
}

/* One round. */
static void
flush(bool last, FlushState *state)
{
	memset(state, 0, sizeof(*state));
	state->last = last;
	XtRegistryForEach(flusher_visit, state);
	flush_logs(state);
}

static bool
find_opened(XtShared *shared, void *arg)
{
	bool	   *found = arg;

	/* The registry has a reference, and this visit. */
	*found |= pg_atomic_read_u32(&shared->refs) > 2;
	return !*found;
}

/*
 * The server stops, and what its sessions have still to write is the last that these logs will hold. So the last
 * notes wait until nobody has an index open; not for ever, since a walsender whose client has also asked queries
 * ends only after this.
 */
static void
flush_the_last(void)
{
	TimestampTz begin = GetCurrentTimestamp();
	FlushState	state;
	bool		opened = true;

	while (opened && !TimestampDifferenceExceeds(begin, GetCurrentTimestamp(), LAST_WAIT_MS))
	{
		opened = false;
		XtRegistryForEach(find_opened, &opened);
		if (opened)
			(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LAST_PAUSE_MS, PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
	}
	flush(true, &state);
}

static void
describe_fold_worker(BackgroundWorker *worker, Oid database)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_ConsistentState;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker->bgw_library_name, "xtree", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, "XtFoldWorkerMain", sizeof(worker->bgw_function_name));
	snprintf(worker->bgw_name, sizeof(worker->bgw_name), "xtree fold worker for database %u",
			 database);
	strlcpy(worker->bgw_type, "xtree fold worker", sizeof(worker->bgw_type));
	worker->bgw_main_arg = ObjectIdGetDatum(database);
}

static void
launch_fold_worker(Oid database)
{
	BackgroundWorker worker;
	FoldLaunch *launch = NULL;
	ListCell   *lc;
	MemoryContext oldcontext;
	pid_t		pid;

	foreach(lc, launches)
	{
		if (((FoldLaunch *) lfirst(lc))->database == database)
			launch = lfirst(lc);
	}
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	if (launch == NULL)
	{
		launch = palloc0(sizeof(FoldLaunch));
		launch->database = database;
		launches = lappend(launches, launch);
	}
	if (launch->worker != NULL)
	{
		BgwHandleStatus status = GetBackgroundWorkerPid(launch->worker, &pid);

		if (status == BGWH_STARTED || status == BGWH_NOT_YET_STARTED ||
			!TimestampDifferenceExceeds(launch->started, GetCurrentTimestamp(),
										FOLD_WORKER_PAUSE_MS))
		{
			MemoryContextSwitchTo(oldcontext);
			return;
		}
		pfree(launch->worker);
		launch->worker = NULL;
	}
	describe_fold_worker(&worker, database);
	launch->started = GetCurrentTimestamp();
	if (!RegisterDynamicBackgroundWorker(&worker, &launch->worker))
		launch->worker = NULL;	/* no slot; the next round tries again */
	MemoryContextSwitchTo(oldcontext);
}

static void
flusher_exit(int code, Datum arg)
{
	pg_atomic_write_u32(&xt_registry->flusher_pgprocno, 0);
}

/* Once in a flusher's life: whoever wonders where the time goes finds it in the log. */
static void
report_io_queue(void)
{
	XtError		why;
	const char *name = xt_io_queue_name(&why);

	if (strcmp(name, "portable") == 0)
		ereport(LOG,
				(errmsg("xtree syncs its logs one by one"),
				 errdetail_internal("%s", why.message)));
	else
		ereport(DEBUG1, (errmsg_internal("xtree flusher uses %s", name)));
}

void
XtFlusherMain(Datum arg)
{
	MemoryContext context;
	TimestampTz swept = GetCurrentTimestamp();

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	CurrentResourceOwner = ResourceOwnerCreate(NULL, "xtree flusher");
	context = AllocSetContextCreate(TopMemoryContext, "xtree flusher", ALLOCSET_DEFAULT_SIZES);
	before_shmem_exit(flusher_exit, (Datum) 0);
	pg_atomic_write_u32(&xt_registry->flusher_pgprocno, 1 + MyProc->pgprocno);
	report_io_queue();

	while (!ShutdownRequestPending)
	{
		FlushState	state;
		MemoryContext oldcontext = MemoryContextSwitchTo(context);

		flush(false, &state);
		if (!XtBackupRunning())
			for (int i = 0; i < state.fold_count; i++)
				launch_fold_worker(state.fold_databases[i]);
		if (TimestampDifferenceExceeds(swept, GetCurrentTimestamp(), SWEEP_INTERVAL_MS))
		{
			XtRegistrySweep();
			swept = GetCurrentTimestamp();
		}
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(context);

		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 xtree_flush_interval_ms > 0 ? xtree_flush_interval_ms : 1000,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		CHECK_FOR_INTERRUPTS();
	}
	flush_the_last();
	/* The postmaster would not start it again after 0, should somebody have terminated it. */
	proc_exit(1);
}

/* --- Fold worker ------------------------------------------------------------------------------ */
typedef struct WantedList
{
	MemoryContext context;
	List	   *keys;			/* palloc'd XtRelKey */
} WantedList;

static bool
collect_wanted(XtShared *shared, void *arg)
{
	WantedList *wanted = arg;
	MemoryContext oldcontext;
	XtRelKey   *key;

	if (shared->key.database != MyDatabaseId || shared->key.backend != InvalidBackendId ||
		pg_atomic_read_u32(&shared->fold_wanted) == 0)
		return true;
	oldcontext = MemoryContextSwitchTo(wanted->context);
	key = palloc(sizeof(XtRelKey));
	*key = shared->key;
	wanted->keys = lappend(wanted->keys, key);
	MemoryContextSwitchTo(oldcontext);
	return true;
}

/* One index that cannot be folded must not keep the worker from the others. */
static void
fold_and_go_on(Relation index, const XtRelKey *key)
{
	XtHandle   *handle = XtOpenNoError(index);
	XtError		error;

	if (handle == NULL)
	{
		XtShared   *shared = XtSharedLookup(key);

		/* Broken. Nobody can append to it, so nobody needs the fold. */
		if (shared != NULL)
		{
			pg_atomic_write_u64(&shared->log_since, 0);
			pg_atomic_write_u32(&shared->fold_wanted, 0);
			XtSharedRelease(shared);
		}
		return;
	}
	if (!XtFoldHandle(handle, &error) && error.code != XT_BUSY)
		XtReportFailedFold(LOG, index, &error);
}

/* Folds one index, if it still has these files and nobody holds it exclusively. */
static void
fold_one(const XtRelKey *key)
{
	Oid			relid;
	Relation	index;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	relid = RelidByRelfilenode(key->tablespace, key->relation);
	if (OidIsValid(relid) && ConditionalLockRelationOid(relid, AccessShareLock))
	{
		index = try_relation_open(relid, NoLock);
		if (index != NULL)
		{
			if (index->rd_rel->relkind == RELKIND_INDEX &&
				index->rd_node.relNode == key->relation &&
				index->rd_node.spcNode == key->tablespace)
			{
				char	   *activity = psprintf("xtree: folding %s",
												RelationGetRelationName(index));

				pgstat_report_activity(STATE_RUNNING, activity);
				fold_and_go_on(index, key);
			}
			relation_close(index, NoLock);
		}
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);
}

/*
 * Locks an index, or gives up after as long as the host waits for other sessions before it copies a
 * database: the session that asked waits for this worker where no deadlock detector sees it.
 */
static bool
lock_to_settle(Oid relid)
{
	for (int tries = 0; !ConditionalLockRelationOid(relid, AccessShareLock); tries++)
	{
		if (tries == SETTLE_TRIES)
			return false;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(SETTLE_PAUSE_US);
	}
	return true;
}

/* Empties the log, and tells the session that waits if that cannot be now, by a mark that an error leaves, too. */
static void
settle_log(Relation index, XtShared *shared)
{
	pg_atomic_write_u32(&shared->unsettled, 1);
	while (xt_log_bytes(XtOpen(index)->index) > 0 && !XtFoldNow(index))
	{
		if (XtBackupRunning())
			return;
		/* Another fold is under way. */
		CHECK_FOR_INTERRUPTS();
		pg_usleep(SETTLE_PAUSE_US);
	}
	pg_atomic_write_u32(&shared->unsettled, 0);
}

/* Folds an index that has a log; see FOLD_ALL. */
static void
settle_one(Oid relid, bool log_it)
{
	Relation	index;
	XtHandle   *handle;

	CHECK_FOR_INTERRUPTS();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	/* One that stays locked is copied with its log, and the copy knows that it is broken. */
	index = lock_to_settle(relid) ? try_relation_open(relid, NoLock) : NULL;
	if (index != NULL)
	{
		if (!RELATION_IS_OTHER_TEMP(index) && (handle = XtOpenNoError(index)) != NULL)
		{
			if (log_it && RelationNeedsWAL(index))
				XtLogFold(index);
			else
				settle_log(index, handle->shared);
			/* The copy may be made through buffers, which know nothing of what was stored since. */
			XtDropHostBuffers(&handle->key);
		}
		relation_close(index, AccessShareLock);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * Before files are copied. Standbys that replay a copying of files must fold theirs first, which they
 * can once a restartpoint has passed what images they have replayed: so they are given a checkpoint.
 */
static void
fold_all(bool standbys)
{
	List	   *indexes;
	MemoryContext oldcontext;
	ListCell   *lc;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	indexes = XtListIndexes(InvalidOid);
	MemoryContextSwitchTo(oldcontext);
	PopActiveSnapshot();
	CommitTransactionCommand();
	foreach(lc, indexes)
		settle_one(lfirst_oid(lc), false);
	if (!standbys || indexes == NIL)
		return;
	RequestCheckpoint(CHECKPOINT_IMMEDIATE | CHECKPOINT_FORCE | CHECKPOINT_WAIT);
	foreach(lc, indexes)
		settle_one(lfirst_oid(lc), true);
}

/* This worker's place in the registry's list, freed at exit. */
static void
fold_worker_exit(int code, Datum arg)
{
	pg_atomic_write_u32(&xt_registry->fold_worker_pids[DatumGetInt32(arg)], 0);
}

static void
announce_fold_worker(Oid database)
{
	for (int i = 0; i < XT_FOLD_WORKERS_MAX; i++)
	{
		uint32		expected = 0;

		if (!pg_atomic_compare_exchange_u32(&xt_registry->fold_worker_pids[i], &expected,
											(uint32) MyProcPid))
			continue;
		pg_atomic_write_u32(&xt_registry->fold_worker_databases[i], database);
		before_shmem_exit(fold_worker_exit, Int32GetDatum(i));
		return;
	}
}

void
XtStopFoldWorkers(Oid database)
{
	for (int i = 0; OidIsValid(database) && i < XT_FOLD_WORKERS_MAX; i++)
	{
		uint32		pid = pg_atomic_read_u32(&xt_registry->fold_worker_pids[i]);

		if (pid != 0 && pg_atomic_read_u32(&xt_registry->fold_worker_databases[i]) == database)
			(void) kill((pid_t) pid, SIGTERM);
	}
}

typedef struct UnsettledSearch
{
	Oid			database;
	bool		found;
} UnsettledSearch;

static bool
find_log(XtShared *shared, void *arg)
{
	UnsettledSearch *search = arg;

	if (shared->key.database == search->database && shared->key.backend == InvalidBackendId &&
		pg_atomic_read_u64(&shared->log_since) != 0)
		search->found = true;
	return !search->found;
}

/* Nobody can look at the logs of a database. Those of indexes that have not been used since the server
 * started are not known of. */
static void
report_no_worker(Oid database)
{
	UnsettledSearch search = {database, false};

	XtRegistryForEach(find_log, &search);
	ereport(search.found ? ERROR : WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("could not start a worker to prepare xtree indexes for copying"),
			 search.found ? errhint("You might need to increase max_worker_processes.") :
			 errhint("If the copy of an xtree index proves broken, rebuild it with REINDEX. You might need to increase max_worker_processes.")));
}

static bool
find_unsettled(XtShared *shared, void *arg)
{
	UnsettledSearch *search = arg;

	if (shared->key.database == search->database &&
		pg_atomic_exchange_u32(&shared->unsettled, 0) != 0)
		search->found = true;
	return true;
}

/* The copies of indexes that have a log would be broken; where the database is moved, they are all there is. */
static void
report_unsettled(Oid database)
{
	UnsettledSearch search = {database, false};

	XtRegistryForEach(find_unsettled, &search);
	if (!search.found)
		return;
	if (XtBackupRunning())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot copy the files of database \"%s\" while a base backup or pg_rewind is running",
						get_database_name(database)),
				 errdetail("The logs of its xtree indexes must be folded first."),
				 errhint("Try again when it has finished.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("could not prepare the xtree indexes of database \"%s\" for copying",
					get_database_name(database)),
			 errhint("See the server's log for what the worker has reported.")));
}

void
XtSettleDatabase(Oid database, bool files)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;

	if (!OidIsValid(database))
		return;
	XtStopFoldWorkers(database);
	describe_fold_worker(&worker, database);
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_extra[0] = files ? FOLD_ALL_EVERYWHERE : FOLD_ALL;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		report_no_worker(database);
		return;
	}
	(void) WaitForBackgroundWorkerShutdown(handle);
	report_unsettled(database);
}

void
XtFoldWorkerMain(Datum arg)
{
	WantedList	wanted;
	ListCell   *lc;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);		/* at the next CHECK_FOR_INTERRUPTS, not in the middle of a change */
	BackgroundWorkerUnblockSignals();
	announce_fold_worker(DatumGetObjectId(arg));
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid,
											  BGWORKER_BYPASS_ALLOWCONN);
	if (MyBgworkerEntry->bgw_extra[0] != 0)
	{
		fold_all(MyBgworkerEntry->bgw_extra[0] == FOLD_ALL_EVERYWHERE);
		proc_exit(0);
	}
	wanted.context = TopMemoryContext;
	wanted.keys = NIL;
	/* Opening the registry needs a resource owner. */
	StartTransactionCommand();
	XtRegistryForEach(collect_wanted, &wanted);
	CommitTransactionCommand();
	foreach(lc, wanted.keys)
	{
		CHECK_FOR_INTERRUPTS();
		fold_one(lfirst(lc));
	}
	proc_exit(0);
}

void
XtWorkerRegister(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "xtree", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "XtFlusherMain", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "xtree flusher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "xtree flusher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}
