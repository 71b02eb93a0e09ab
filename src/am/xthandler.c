/*
 * xthandler.c: the access method's table of contents: library initialization, settings, and which
 * function serves which phase.
 */
#include "xtregistry.h"

#include "access/xlog.h"

#include <limits.h>
#include <signal.h>

#include "commands/progress.h"
#include "commands/vacuum.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(xthandler);

void		_PG_init(void);

/* Settings */
int			xtree_max_log_size_kb = 64 * 1024;
int			xtree_max_retained_kb = -1;
int			xtree_log_size_limit_kb = 512 * 1024;
int			xtree_recovery_target_s = 10;
int			xtree_max_log_age_s = 600;
int			xtree_file_copy_timeout_s = 300;
int			xtree_flush_interval_ms = 200;
int			xtree_window_budget = 1024;
int			xtree_build_threads = 2;
int			xtree_debug_halt = XT_HALT_NEVER;

static const struct config_enum_entry halt_points[] = {
	{"never", XT_HALT_NEVER, false},
	{"record", XT_HALT_RECORD, false},
	{"applied", XT_HALT_APPLIED, false},
	{"fold_begun", XT_HALT_FOLD_BEGUN, false},
	{"fold_written", XT_HALT_FOLD_WRITTEN, false},
	{"fold_published", XT_HALT_FOLD_PUBLISHED, false},
	{"build_images", XT_HALT_BUILD_IMAGES, false},
	{"built", XT_HALT_BUILT, false},
	{NULL, 0, false}
};
int			xtree_shared_memory_limit_kb = 0;

static relopt_kind xtree_relopt_kind;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
xtree_shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	XtRegistryRequest();
}

static void
xtree_shmem_startup(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	XtRegistryStartup();
	if (!IsUnderPostmaster)
	{
		XtRestoreLinks();
		XtTimelineStartup();
		XtLostStartup();
		XtScrubStartup();
		XtExtentStartup();
	}
	LWLockRelease(AddinShmemInitLock);
}

static void
define_settings(void)
{
	DefineCustomIntVariable("xtree.max_log_size",
							"Size of an index's log from which a worker folds it into the data file.",
							NULL, &xtree_max_log_size_kb, 64 * 1024, 64, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("xtree.log_size_limit",
							"Size of an index's log from which the writing session folds it itself.",
							NULL, &xtree_log_size_limit_kb, 512 * 1024, 128, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("xtree.recovery_target_time",
							"Estimated time to replay an index's log from which a worker folds it.",
							"Estimated from what replay last took. Zero turns it off.",
							&xtree_recovery_target_s, 10, 0, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("xtree.max_log_age",
							"Age of an index's log from which a worker folds it, however short it is.",
							"Zero turns it off.",
							&xtree_max_log_age_s, 600, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("xtree.file_copy_timeout",
							"Time after which a session that has copied files holds up folds no longer.",
							"Counted from its last call of pg_read_binary_file for part of a file, as pg_rewind makes it.",
							&xtree_file_copy_timeout_s, 300, 1, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("xtree.flush_interval",
							"Time between write-backs of index logs, so that checkpoints find little to do.",
							"Zero turns them off. Durability does not depend on it.",
							&xtree_flush_interval_ms, 200, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("xtree.max_retained_size",
							"Space of an index that its oldest scan may keep from being used again.",
							"A scan that keeps more fails when it reads on. -1 sets no limit.",
							&xtree_max_retained_kb, -1, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("xtree.window_budget",
							"Windows of 1 GB of index files that a process keeps mapped.",
							NULL, &xtree_window_budget, 1024, 4, 65536,
							PGC_BACKEND, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("xtree.build_threads",
							"Threads that sort and pack an index during CREATE INDEX.",
							NULL, &xtree_build_threads, 2, 1, 64,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("xtree.debug_halt",
							 "Place at which this session stops itself, for tests of recovery.",
							 NULL, &xtree_debug_halt, XT_HALT_NEVER, halt_points,
							 PGC_SUSET, GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL, NULL, NULL, NULL);
	/* Only a preloaded library may have such settings. */
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("xtree.shared_memory_limit",
							"Shared memory that all indexes together may take.",
							"Zero means no limit. An operation that would exceed it is an error.",
							&xtree_shared_memory_limit_kb, 0, 0, INT_MAX,
							PGC_POSTMASTER, GUC_UNIT_KB, NULL, NULL, NULL);
	MarkGUCPrefixReserved("xtree");
}

void
XtHalt(void)
{
	(void) raise(SIGSTOP);
}

void
_PG_init(void)
{
	xtree_relopt_kind = add_reloption_kind();
	add_int_reloption(xtree_relopt_kind, "fillfactor",
					  "Packs leaf nodes only to this percentage when the index is built",
					  XTREE_FILLFACTOR_DEFAULT, XTREE_FILLFACTOR_MIN, 100, AccessExclusiveLock);
	define_settings();

	/*
	 * Without preloading the library only serves its SQL definitions: whatever needs shared memory says
	 * so (XtRequirePreloaded).
	 */
	if (!process_shared_preload_libraries_in_progress)
		return;
	xt_preload();
	XtWalRegister();
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = xtree_shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = xtree_shmem_startup;
	XtHooksInit();
	XtWorkerRegister();
}

bytea *
xtoptions(Datum reloptions, bool validate)
{
	static const relopt_parse_elt table[] = {
		{"fillfactor", RELOPT_TYPE_INT, offsetof(XtreeOptions, fillfactor)}
	};

	return (bytea *) build_reloptions(reloptions, validate, xtree_relopt_kind,
									  sizeof(XtreeOptions), table, lengthof(table));
}

char *
xtbuildphasename(int64 phasenum)
{
	switch (phasenum)
	{
		case PROGRESS_CREATEIDX_SUBPHASE_INITIALIZE:
			return "initializing";
		case XTREE_PHASE_SCAN:
			return "scanning table";
		case XTREE_PHASE_SORT:
			return "sorting keys";
		case XTREE_PHASE_PACK:
			return "packing nodes";
		case XTREE_PHASE_LOG:
			return "writing WAL";
		default:
			return NULL;
	}
}

int
XtSqlState(int code)
{
	switch (code)
	{
		case XT_INVALID_ARGUMENT:
			return ERRCODE_INVALID_PARAMETER_VALUE;
		case XT_NOT_FOUND:
		case XT_CORRUPTION:
		case XT_BROKEN:
			return ERRCODE_INDEX_CORRUPTED;
		case XT_IO_ERROR:
			return ERRCODE_IO_ERROR;
		case XT_NO_SPACE:
			return ERRCODE_DISK_FULL;
		case XT_OUT_OF_MEMORY:
		case XT_NEED_MEMORY:
			return ERRCODE_OUT_OF_MEMORY;
		case XT_UNSUPPORTED:
			return ERRCODE_FEATURE_NOT_SUPPORTED;
		case XT_BUSY:
			return ERRCODE_OBJECT_IN_USE;
		default:
			return ERRCODE_INTERNAL_ERROR;
	}
}

void
XtReportError(Relation index, const XtError *error)
{
	bool		rebuild = XtSqlState(error->code) == ERRCODE_INDEX_CORRUPTED;

	ereport(ERROR,
			(errcode(XtSqlState(error->code)),
			 rebuild ? errmsg("xtree index \"%s\" is broken", RelationGetRelationName(index)) :
			 errmsg("could not use xtree index \"%s\"", RelationGetRelationName(index)),
			 errdetail_internal("%s", error->message),
			 !rebuild && error->code != XT_UNSUPPORTED ? 0 : RecoveryInProgress() ?
			 errhint("Rebuild it with REINDEX INDEX on the primary.") :
			 errhint("Rebuild it with REINDEX INDEX.")));
}

Datum
xthandler(PG_FUNCTION_ARGS)
{
	IndexAmRoutine *amroutine = makeNode(IndexAmRoutine);

	amroutine->amstrategies = XTREE_NSTRATEGIES;
	amroutine->amsupport = XTREE_NPROC;
	amroutine->amoptsprocnum = 0;	/* no operator class options */
	amroutine->amcanorder = false;
	amroutine->amcanorderbyop = true;
	amroutine->amcanbackward = false;
	amroutine->amcanunique = false;
	amroutine->amcanmulticol = false;
	amroutine->amoptionalkey = true;
	amroutine->amsearcharray = false;
	amroutine->amsearchnulls = true;
	amroutine->amstorage = false;
	amroutine->amclusterable = true;
	amroutine->ampredlocks = false; /* the host locks the whole relation */
	amroutine->amcanparallel = false;
	amroutine->amcaninclude = false;
	amroutine->amusemaintenanceworkmem = false;
	amroutine->amparallelvacuumoptions =
		VACUUM_OPTION_PARALLEL_BULKDEL | VACUUM_OPTION_PARALLEL_COND_CLEANUP;
	amroutine->amkeytype = InvalidOid;

	amroutine->ambuild = xtbuild;
	amroutine->ambuildempty = xtbuildempty;
	amroutine->aminsert = xtinsert;
	amroutine->ambulkdelete = xtbulkdelete;
	amroutine->amvacuumcleanup = xtvacuumcleanup;
	amroutine->amcanreturn = xtcanreturn;
	amroutine->amcostestimate = xtcostestimate;
	amroutine->amoptions = xtoptions;
	amroutine->amproperty = NULL;
	amroutine->ambuildphasename = xtbuildphasename;
	amroutine->amvalidate = xtvalidate;
	amroutine->amadjustmembers = xtadjustmembers;
	amroutine->ambeginscan = xtbeginscan;
	amroutine->amrescan = xtrescan;
	amroutine->amgettuple = xtgettuple;
	amroutine->amgetbitmap = xtgetbitmap;
	amroutine->amendscan = xtendscan;
	amroutine->ammarkpos = NULL;
	amroutine->amrestrpos = NULL;

	amroutine->amestimateparallelscan = NULL;
	amroutine->aminitparallelscan = NULL;
	amroutine->amparallelrescan = NULL;

	PG_RETURN_POINTER(amroutine);
}
