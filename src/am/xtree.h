/*
 * xtree.h: what the files of the access method share. The engine is behind capi.h; nothing here is
 * seen by it.
 *
 * Names:  xt_* is the engine (capi.h); Xt* is the access method; xt* without underscore are the
 *         callbacks of IndexAmRoutine.
 * Errors: functions raise by ereport, and only when no engine call is on the stack.
 * Locks:  relation lock, then the index's writer lock (XtLock), then registry partition locks.
 *         Scans take no lock of ours.
 */
#ifndef XTREE_H
#define XTREE_H

#include "postgres.h"

#include "access/amapi.h"
#include "access/reloptions.h"
#include "access/skey.h"
#include "access/xlogdefs.h"
#include "nodes/execnodes.h"
#include "nodes/pathnodes.h"
#include "storage/lwlock.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "capi.h"
#include "xtcompat.h"

/* Support functions and strategies are decided by operator class (xtopclass.c). */
#define XTREE_NPROC				0
#define XTREE_NSTRATEGIES		0	/* any: the operator class's own numbers, those of core GiST */

#define XTREE_FILLFACTOR_MIN	10
#define XTREE_FILLFACTOR_DEFAULT 85

/* CREATE INDEX progress, after PROGRESS_CREATEIDX_SUBPHASE_INITIALIZE. */
#define XTREE_PHASE_SCAN		2
#define XTREE_PHASE_SORT		3
#define XTREE_PHASE_PACK		4
#define XTREE_PHASE_LOG			5

/* --- Settings (xthandler.c) ------------------------------------------------------------------- */
extern int	xtree_max_log_size_kb;	/* a worker folds an index from here on, */
extern int	xtree_log_size_limit_kb;	/* the writing backend itself from here on */
extern int	xtree_recovery_target_s;	/* or from here on: estimated time to replay the log; 0 is off */
extern int	xtree_max_log_age_s;	/* or when its oldest operation is this old; 0 is off */
extern int	xtree_file_copy_timeout_s;	/* how long who has copied files holds up folds */
extern int	xtree_flush_interval_ms;
extern int	xtree_max_retained_kb;	/* -1: readers may keep any amount of space */
extern int	xtree_window_budget;
extern int	xtree_build_threads;
extern int	xtree_debug_halt;		/* an XtHaltPoint */

/*
 * Places at which a session can be told to stop itself (xtree.debug_halt), as if it had been frozen there.
 * Whatever the rest of the server does meanwhile, a crash must find every such state recoverable.
 */
typedef enum XtHaltPoint
{
	XT_HALT_NEVER,
	XT_HALT_RECORD,				/* the WAL record is inserted, the operation not applied */
	XT_HALT_APPLIED,			/* applied and in the log, its sync not requested */
	XT_HALT_FOLD_BEGUN,			/* the log is rotated, nothing written */
	XT_HALT_FOLD_WRITTEN,		/* all but the superblock is synced */
	XT_HALT_FOLD_PUBLISHED,		/* the superblock is synced, nothing recycled */
	XT_HALT_BUILD_IMAGES,		/* the images of a build are logged, BUILT is not */
	XT_HALT_BUILT				/* BUILT is logged, its transaction has not committed */
} XtHaltPoint;

extern void XtHalt(void);

static inline void
XtHaltAt(XtHaltPoint point)
{
	if (unlikely(xtree_debug_halt == (int) point))
		XtHalt();
}
extern int	xtree_shared_memory_limit_kb;	/* 0: none */

typedef struct XtreeOptions
{
	int32		vl_len_;		/* varlena header (do not touch directly!) */
	int			fillfactor;
} XtreeOptions;

/* --- Handles (xtregistry.c) ------------------------------------------------------------------- */
/* Names the files of an index; the key of the registry and of the process's handles. */
typedef struct XtRelKey
{
	Oid			tablespace;
	Oid			database;
	Oid			relation;		/* relfilenode */
	int32		backend;		/* InvalidBackendId unless temporary */
} XtRelKey;

typedef struct XtShared XtShared;	/* the registry's record of an index; see xtregistry.c */

/* Which file it is that has a name. */
typedef struct XtFileId
{
	uint64		inode;
	uint64		device;
	uint64		born_ns;		/* when it was made; 0: the file system does not say */
} XtFileId;

/*
 * This process's handle of one index. Owned by xtregistry.c and valid until the transaction ends, or
 * longer while a scan refers to it. Constant after opening except where noted.
 */
typedef struct XtHandle
{
	XtRelKey	key;			/* hash key: must be first */
	XtShared   *shared;
	XtIndex    *index;			/* the engine's handle */
	XtSpec		spec;
	uint64		generation;		/* of the shared state that `index` is attached to */
	XtFileId	file;
	Oid			relid;			/* of the relation, InvalidOid in the startup process */
	uint32		blocks_seen;	/* data blocks when redo last told the host's smgr */
	uint64		expected_lsn;	/* startup process only: the last record that the engine was told to expect */
	uint64		fold_retry_bytes;	/* log size at which a fold that could not run is tried again */
	uint32		touched;		/* changes since blocks were stamped with checksums */
	int			scans;			/* live scans and builds; the handle stays open for them */
	bool		check;			/* verify the file before the next use */
	bool		logged;			/* has a log: everything but temporary relations */
	struct SMgrRelationData *smgr;	/* startup process only: the host's; NULL after it has closed it */
} XtHandle;

/*
 * Opens an index: attaches its shared state, loads it if nobody has since the server started, and
 * attaches chunks. ERROR if the library was not preloaded, or if the index is broken or corrupt
 * (ERRCODE_INDEX_CORRUPTED, with a REINDEX hint). The caller holds a lock on the relation.
 */
extern XtHandle *XtOpen(Relation index);
/* As XtOpen but returns NULL instead of raising, for the planner. */
extern XtHandle *XtOpenNoError(Relation index);

/* The writer lock. Engine calls marked "W" in capi.h need it exclusively. */
extern void XtLock(XtHandle *handle, LWLockMode mode);
/* Does not wait: false if it would have to. */
extern bool XtTryLock(XtHandle *handle, LWLockMode mode);
extern void XtUnlock(XtHandle *handle);

/*
 * After an engine call failed: if it failed with XT_NEED_MEMORY, provides the memory (attaches what
 * other processes have provided, or allocates what is wanted; the latter only under the writer lock)
 * and returns true: repeat the call. False for any other error, and, as XT_OUT_OF_MEMORY in `error`, when
 * there is none to provide. Scans meet it too:
 *
 *		while (!xt_scan_window(ref->scan, tree, &predicate, &error))
 *			if (!XtProvideMemory(ref->handle, &error))
 *				XtReportError(index, &error);
 */
extern bool XtProvideMemory(XtHandle *handle, XtError *error);

/* Raises ERROR with SQLSTATE, index name, the engine's message as detail and a hint. */
extern void XtReportError(Relation index, const XtError *error) pg_attribute_noreturn();
extern int	XtSqlState(int code);

/*
 * An engine scan that is freed by the current resource owner if XtScanEnd is never reached (on abort
 * amendscan is not called). Allocated in TopMemoryContext.
 */
typedef struct XtScanRef
{
	XtScan	   *scan;
	XtHandle   *handle;
	void	   *owner;			/* ResourceOwner that frees it */
	int			pin;			/* private to xtgrace.c; 0: none */
	struct XtScanRef *prev;
	struct XtScanRef *next;
} XtScanRef;

extern XtScanRef *XtScanBegin(Relation index, XtHandle *handle);
extern void XtScanEnd(XtScanRef *ref);

/*
 * xtgrace.c: while a scan has a pin, no row id that it may read from the index is given to another
 * row. Before the engine's scan begins; goes with the scan. One is enough for several engine scans in
 * turn.
 */
extern void XtPinTake(XtScanRef *ref);
/*
 * After an engine scan has begun: fails if entries that `snapshot` sees may have been removed already, as
 * old_snapshot_threshold allows VACUUM to do.
 */
extern void XtTestForOldSnapshot(XtScanRef *ref, Relation index, Snapshot snapshot);
/* When the row ids that were read have been used. Nothing if there is no pin. */
extern void XtPinRelease(XtScanRef *ref);

/* --- Keys (xtopclass.c) ----------------------------------------------------------------------- */
/* What the index's columns store; leaf_fill_percent from reloptions. */
extern void XtFillSpec(Relation index, XtSpec *spec);
/*
 * Key of a row: fills spec.dims doubles each (hi also for points). False: the key is NULL. May raise;
 * allocates only in the current memory context.
 */
extern bool XtFormKey(Relation index, const Datum *values, const bool *isnull, double *lo, double *hi);

/* --- Queries (xtquery.c, xtorder.c) ----------------------------------------------------------- */
/* Only operators of two dimensions leave rows that are sure. */
#define XT_SURE_DIMS			2

/*
 * What the conjunction of a scan's keys asks for. Rows are of three kinds: ordered (no coordinate of
 * the key is NaN; the main tree), unordered (some is) and NULL; a query may want any of them.
 */
typedef struct XtQuery
{
	XtPredicate predicate;		/* which ordered rows */
	bool		ordered;		/* false: none of them */
	bool		unordered;		/* these must be rechecked always: the engine cannot tell */
	bool		nulls;
	bool		filter;			/* the predicate lets through more than some keys, for XtFilter */
	bool		recheck;		/* the predicate lets through more than the other keys do, */
	double		sure_lo[XT_SURE_DIMS];	/* but not where the row's box lies within these bounds by more */
	double		sure_hi[XT_SURE_DIMS];	/* than EPSILON */
} XtQuery;

/* REQUIRES: the keys are on the index's only column. Unknown functions restrict nothing. */
extern void XtBuildQuery(const XtSpec *spec, ScanKey keys, int nkeys, XtQuery *query);
/* No row is sure. */
extern void XtRecheckAll(XtQuery *query);
/* Whether some row that must be rechecked otherwise may be sure. */
extern bool XtMayBeSure(const XtSpec *spec, const XtQuery *query);
/* Marks the rows of a batch that need no recheck, in XT_RECORD_SURE of their record ids. */
extern void XtMarkSure(const XtQuery *query, const double *lo, const double *hi, uint64 *record_ids,
					   int count);
/* The interval of one-dimensional XT_TREE_NULL that holds the unordered or the NULL rows. */
extern void XtNullTreePredicate(bool unordered, XtPredicate *predicate);

/* xtfilter.c: point <@ polygon and point <@ circle, decided by the key. As many keys as are usual. */
#define XT_FILTER_KEYS_MAX		4
typedef struct XtFilter XtFilter;

/* In the current memory context. */
extern XtFilter *XtFilterCreate(void);
/* For the keys of a new rescan; the index is of points. False: some need a recheck nevertheless. */
extern bool XtFilterSet(XtFilter *filter, ScanKey keys, int nkeys);
/* Keeps the rows of a batch that match, in their order; returns how many. distances may be NULL. */
extern int	XtFilterApply(XtFilter *filter, uint64 *record_ids, double *keys, double *distances,
						  int count);

typedef enum XtOrderKind
{
	XT_ORDER_EXACT,				/* the engine's distance is the operator's, bit for bit */
	XT_ORDER_BOX,				/* as XtDistanceBound says, and mostly exact */
	XT_ORDER_BOUND,				/* it bounds it from below, after XtDistanceBound */
	XT_ORDER_CONSTANT,			/* nothing is known but that it is not negative */
	XT_ORDER_NULL				/* the argument is NULL, so every distance is */
} XtOrderKind;

typedef struct XtOrder
{
	XtOrderKind kind;
	double		point[XT_DIMS_MAX];
} XtOrder;

/*
 * Divides what `all` matches by where keys are infinite: parts 0 to 2 * dims - 1 hold the keys that are
 * in some direction, each key in one part, and part 2 * dims the finite ones. False: surely empty.
 */
extern bool XtUnboundedPart(const XtSpec *spec, const XtPredicate *all, int part,
							XtPredicate *predicate);
extern void XtBuildOrder(const XtSpec *spec, ScanKey key, XtOrder *order);
/*
 * The operator's distance, if `exact`, or a lower bound of it, given the engine's and the key. For
 * XT_ORDER_BOX and XT_ORDER_BOUND.
 */
extern double XtDistanceBound(const XtSpec *spec, const XtOrder *order, double distance,
							  const double *lo, const double *hi, bool *exact);

/* xtsort.c: by heap page, whatever the marks. `spare` has room for `count`, at most XT_SCAN_BATCH_MIN. */
extern void XtSortByBlock(uint64 *record_ids, uint64 *spare, int count);

/* --- Index-only scans (xtreturn.c) ------------------------------------------------------------- */
typedef struct XtReturn XtReturn;

/* In the current memory context. */
extern XtReturn *XtReturnCreate(Relation index);
/* Set scan->xs_itup, valid until the next row, for the row in scan->xs_heaptid: with this key; NULL; */
extern void XtReturnKey(XtReturn *ret, IndexScanDesc scan, const double *lo, const double *hi);
extern void XtReturnNull(XtReturn *ret, IndexScanDesc scan);
/* or with a value that only the heap has. False: the snapshot does not see the row. */
extern bool XtReturnFromHeap(XtReturn *ret, IndexScanDesc scan);
extern void XtReturnFree(XtReturn *ret);

/* --- Record ids: a heap TID as 48 bits, block << 16 | offset; sorts as TIDs do ----------------- */
static inline uint64
XtRecordId(ItemPointer tid)
{
	return ((uint64) ItemPointerGetBlockNumberNoCheck(tid) << 16) |
		ItemPointerGetOffsetNumberNoCheck(tid);
}

/* A mark on a record id in a scan's batch: the row needs no recheck. */
#define XT_RECORD_SURE		(UINT64CONST(1) << 63)

/* Takes no notice of the mark. */
static inline void
XtRecordTid(uint64 record_id, ItemPointer tid)
{
	ItemPointerSet(tid, (BlockNumber) (record_id >> 16), (OffsetNumber) (record_id & 0xffff));
}

/* --- Folds (xtfold.c, xtworker.c) -------------------------------------------------------------- */
/* Makes the present state durable in the data file and empties the log. False: could not run now
 * (another fold or a base backup is running). Not under the writer lock. */
extern bool XtFold(Relation index);
/* As XtFold, but makes the host checkpoint first where a new build or copy must be settled by one. */
extern bool XtFoldNow(Relation index);
/* As XtFold; what cannot be done now, for want of a checkpoint even, is left to a worker. */
extern bool XtFoldSoon(Relation index);

/* --- IndexAmRoutine ---------------------------------------------------------------------------- */
/* xtbuild.c */
extern IndexBuildResult *xtbuild(Relation heap, Relation index, struct IndexInfo *indexInfo);
extern void xtbuildempty(Relation index);
/* xtinsert.c */
extern bool xtinsert(Relation index, Datum *values, bool *isnull, ItemPointer heap_tid,
					 Relation heap, IndexUniqueCheck checkUnique, bool indexUnchanged,
					 struct IndexInfo *indexInfo);
/* xtvacuum.c */
extern IndexBulkDeleteResult *xtbulkdelete(IndexVacuumInfo *info, IndexBulkDeleteResult *stats,
										   IndexBulkDeleteCallback callback, void *callback_state);
extern IndexBulkDeleteResult *xtvacuumcleanup(IndexVacuumInfo *info, IndexBulkDeleteResult *stats);
/* xtcost.c */
extern void xtcostestimate(struct PlannerInfo *root, struct IndexPath *path, double loop_count,
						   Cost *indexStartupCost, Cost *indexTotalCost,
						   Selectivity *indexSelectivity, double *indexCorrelation,
						   double *indexPages);
/* xthandler.c */
extern bytea *xtoptions(Datum reloptions, bool validate);
extern char *xtbuildphasename(int64 phasenum);
/* xtopclass.c */
extern bool xtvalidate(Oid opclassoid);
extern void xtadjustmembers(Oid opfamilyoid, Oid opclassoid, List *operators, List *functions);
/* xtreturn.c */
extern bool xtcanreturn(Relation index, int attno);
/* xtscan.c */
extern IndexScanDesc xtbeginscan(Relation index, int nkeys, int norderbys);
extern void xtrescan(IndexScanDesc scan, ScanKey keys, int nkeys, ScanKey orderbys, int norderbys);
extern bool xtgettuple(IndexScanDesc scan, ScanDirection dir);
extern int64 xtgetbitmap(IndexScanDesc scan, TIDBitmap *tbm);
extern void xtendscan(IndexScanDesc scan);

#endif							/* XTREE_H */
