/*
 * xtregistry.h: the shared half of the access method: registry of indexes, engine timelines, backups.
 * Only am/ files that change shared state include it; scans need xtree.h alone.
 */
#ifndef XTREGISTRY_H
#define XTREGISTRY_H

#include "xtree.h"

#include "port/atomics.h"
#include "storage/relfilenode.h"
#include "storage/spin.h"
#include "lib/dshash.h"
#include "utils/dsa.h"

/* The resource manager's number in WAL: DO NOT CHANGE. */
#define RM_XTREE_ID				158
#define XTREE_LWLOCK_TRANCHE	"xtree"

/* Engine timelines kept; older ones are forgotten, and logs that still name them are broken. */
#define XT_TIMELINES_MAX		2048
#define XT_FOLD_WORKERS_MAX		16
/* Before any replay has been measured: 16,000 insertions of boxes, 3 us each. */
#define XT_REPLAY_US_PER_MB_GUESS	50000
/* How the server starts: */
#define XT_START_REPLAYS		1	/* it will replay WAL */
#define XT_START_CRASHED		2	/* transactions may not have ended: it was not stopped in good order */
#define XT_START_COPIED			4	/* from a backup_label */
/* Indexes that are broken without being marked so: places in a file, DO NOT CHANGE. */
#define XT_LOST_MAX				1024

typedef enum XtState
{
	XT_STATE_EMPTY = 0,			/* nothing in shared memory */
	XT_STATE_BUILDING,			/* one process is filling it; nobody else may use it */
	XT_STATE_LOADED,
	XT_STATE_BROKEN				/* redo could not follow; every use errors until it is rebuilt */
} XtState;

/*
 * One index in the registry. Lives in the registry's DSA while `refs` is positive: the hash table holds
 * one reference and each process with a handle one.
 */
struct XtShared
{
	/* Constant. */
	XtRelKey	key;
	dsa_pointer self;
	dsa_pointer index_shared;	/* the engine's IndexShared, behind this in the same allocation */

	/* Atomics, read without the lock. */
	pg_atomic_uint32 refs;
	pg_atomic_uint32 gone;		/* removed from the hash table: the file is gone */
	pg_atomic_uint32 state;		/* XtState; changed under the lock */
	pg_atomic_uint64 generation;	/* bumped whenever the engine's shared memory is emptied */
	pg_atomic_uint32 log_dirty; /* appended to since the flusher last looked */
	pg_atomic_uint32 fold_wanted;	/* the log is too long, or too old */
	pg_atomic_uint32 unsettled; /* has a log that keeps its database from being copied (xtworker.c) */
	pg_atomic_uint64 log_since; /* TimestampTz of its first operation, about; 0 if it is empty */
	pg_atomic_uint64 heap_order;	/* how well neighbours in space lie together in the heap, as
								 * last sampled (xtcost.c); 0: not yet */
	pg_atomic_uint64 removals;	/* operations of VACUUM that removed entries (xtgrace.c), */
	pg_atomic_uint64 removed_lsn;	/* and the last one's LSN; written before it is published */
	pg_atomic_uint64 images_lsn;	/* end of the WAL that has images of the files; 0 if no redo point
								 * can lie before it any more (XtImagesMayReplay) */

	/*
	 * The writer lock, which all who insert store to, on a cache line of its own wherever this lies; and what
	 * it guards: the file that the state was loaded from.
	 */
	char		before_lock[PG_CACHE_LINE_SIZE];
	LWLock		lock;
	char		after_lock[PG_CACHE_LINE_SIZE];
	XtFileId	file;
	bool		opened;			/* host buffers have been dropped in this server's life */
	bool		partial;		/* being filled: an error left it so, and it must be emptied first */
	bool		noted;			/* xtscrub.c has a note of it */
};

typedef struct XtRegistry
{
	Size		dsa_bytes;		/* of the DSA's part in main shared memory */
	dshash_table_handle hash;
	int			tranche_id;

	pg_atomic_uint64 created;	/* entries ever made, to pace the sweep */
	pg_atomic_uint32 flusher_pgprocno;	/* 1 + number, 0 if it is not running */
	pg_atomic_uint32 low_level_backups; /* sessions between pg_backup_start and its end, or copying files */
	pg_atomic_uint32 file_copiers;	/* sessions that have copied files, which hold folds until */
	pg_atomic_uint64 files_copied_until;	/* this TimestampTz, or their end */
	pg_atomic_uint32 folds_running;
	pg_atomic_uint64 publications;	/* captures that folds have published */
	pg_atomic_uint32 replay_us_per_mb;	/* what the last load of a log took; a guess before */

	/* Fold workers that run: process ids (0: free), and their databases. */
	pg_atomic_uint32 fold_worker_pids[XT_FOLD_WORKERS_MAX];
	pg_atomic_uint32 fold_worker_databases[XT_FOLD_WORKERS_MAX];

	/* Indexes that are broken, whatever their files say (xtlost.c); free places are zeros. */
	slock_t		lost_mutex;
	pg_atomic_uint32 lost_count;
	XtRelKey	lost[XT_LOST_MAX];
	bool		lost_noted[XT_LOST_MAX];

	/* Constant after startup: how the server started, and engine timelines (xttimeline.c). */
	uint32		start;			/* XT_START_* */
	uint32		timeline;
	uint32		timeline_count;
	XtTimelineEnd timelines[XT_TIMELINES_MAX];
} XtRegistry;

extern XtRegistry *xt_registry;

/* xtregistry.c */
extern Size XtRegistryBytes(void);
extern void XtRegistryRequest(void);
extern void XtRegistryStartup(void);
extern void XtRequirePreloaded(void);
extern XtRuntime *XtGetRuntime(void);
extern dsa_area *XtGetArea(void);
/* Finds or makes the entry of `key`, with a reference for the caller. */
extern XtShared *XtSharedAttach(const XtRelKey *key);
/* As XtSharedAttach, NULL if there is none. */
extern XtShared *XtSharedLookup(const XtRelKey *key);
extern void XtSharedRelease(XtShared *shared);
/* Empties the engine's shared memory. Writer lock held exclusively; no scan may be running. */
extern void XtSharedReset(XtShared *shared);
/* Drops entries whose files are gone. Not under any writer lock. */
extern void XtRegistrySweep(void);
/* Calls `callback` with a reference to each entry, holding no registry lock; it must not release it. */
extern void XtRegistryForEach(bool (*callback) (XtShared *shared, void *arg), void *arg);

/* xtlost.c */
/* Whether the index is on the list of what must not be used. */
extern bool XtIsLost(const XtRelKey *key);
/* Puts it there, without memory and without an error. False: it was there before. */
extern bool XtLose(const XtRelKey *key);
/* Puts it there for later starts, too: its own file cannot be marked. Raises nothing; false: failed. */
extern bool XtNoteBroken(const XtRelKey *key);
/* The index is made anew. */
extern void XtFound(const XtRelKey *key);
extern void XtLostStartup(void);

/* xtgrace.c */
extern Size XtGraceBytes(void);
extern void XtGraceStartup(void);
/* Right after entries were removed for VACUUM and published. Writer lock held. */
extern void XtNoteRemoval(XtShared *shared);
/*
 * Returns when no scan with a pin (XtPinTake) is left that may have read an entry removed before.
 * May take as long as the scan's transaction. No LWLock held.
 */
extern void XtAwaitPins(XtShared *shared);

/* The hint where an index is known by its files alone: arguments tablespace, relfilenode. */
#define XT_BROKEN_HINT \
	"Queries that use the index will fail until it is rebuilt with REINDEX. In its database, pg_filenode_relation(%u, %u) is its name."

/* xtfiles.c */
extern void XtKeyOfRelation(Relation index, XtRelKey *key);
extern void XtKeyOfNode(const RelFileNode *node, XtRelKey *key);
/* palloc'd paths of the data file and the log, relative to the data directory. */
extern char *XtDataPath(const XtRelKey *key);
extern char *XtLogPath(const XtRelKey *key);
/* Which file the data file is. False: it is missing or empty. */
extern bool XtIdentifyFile(const XtRelKey *key, XtFileId *file);
/* Visit the files of the data fork, of the log, that there are, in order. */
extern void XtForEachDataFile(const XtRelKey *key, void (*visit) (const char *name, int segment));
extern void XtForEachLogFile(const XtRelKey *key, void (*visit) (const char *name, int segment));
/* Whether the data file's superblocks name another relation, or place: nobody has opened it here yet. */
extern bool XtFileIsForeign(const XtRelKey *key);
/*
 * Whether the index was dropped, and not its device left unmounted. In a restored backup recovery makes the links to
 * tablespaces, later than a start asks this, from a file that it then removes.
 */
extern bool XtFilesAreGone(const XtRelKey *key);
/* Notes about indexes, each a file in a directory of its kind (xtextent.c, xtscrub.c): where it is, */
extern void XtNotePath(const char *directory, const XtRelKey *key, char *path, Size bytes);
/* whose it is by its name (false: it is none), */
extern bool XtNoteKey(const char *name, XtRelKey *key);
/* and without it, if it is there. */
extern void XtRemoveNote(const char *path, int elevel);
/* Truncates the data files to nothing: those of a build that failed. */
extern void XtEmptyFiles(const XtRelKey *key);
/* Marks the superblocks broken, with their checksums; durable when it returns true. Raises nothing. */
extern bool XtMarkFile(const char *path, XtError *error);
/*
 * Sees to it that the index is known to be broken, also after a restart: by its file, else by a note.
 * `index` may be NULL. Raises nothing; false, with the reason, if neither could be written.
 */
extern bool XtMarkBroken(const XtRelKey *key, XtIndex *index, XtError *error);
/* Redo could not follow: marks the index broken in shared memory and on disk, with a WARNING. */
extern void XtRedoBroken(XtHandle *handle, const XtError *error);
/* The same where XtRedoBroken itself has failed: needs no memory, and raises nothing. */
extern void XtRedoLost(const RelFileNode *node, const char *why);

/* xtopen.c */
/* Maps what other processes have added to the index's shared memory. May raise. */
extern void XtAttachChunks(XtHandle *handle);
/* For CREATE INDEX: an empty index, state XT_STATE_BUILDING, not locked. */
extern XtHandle *XtOpenForBuild(Relation index, const XtSpec *spec);
/* Ends a build: `ok` publishes the state, else it is emptied. */
extern void XtBuildDone(XtHandle *handle, bool ok);
/*
 * For redo: NULL if the file is gone or empty, or the index is broken (said once, with a WARNING).
 */
extern XtHandle *XtOpenForRedo(const RelFileNode *node);
/* The handle of an index, brought up to date or not. */
extern XtHandle *XtHandleForRedo(const RelFileNode *node);
/* Forgets all that is known of an index whose files have been rewritten. */
extern void XtForget(const XtRelKey *key);
/* Writes back and drops what the host's buffers hold of the relation. */
extern void XtDropHostBuffers(const XtRelKey *key);

/* Visits all handles of this process, of which there is at least one. */
extern void XtForEachHandle(void (*visit) (XtHandle *handle));

/* xtstamp.c */
/* Gives a page its LSN and checksum. */
extern void XtStampPage(void *page, BlockNumber block, XLogRecPtr lsn);
/* The same for the blocks that this process has touched. Writer lock held. */
extern void XtStampTouched(XtHandle *handle);
/* After a change was applied, for which XtScrubNoteChange came first. Writer lock held. */
extern void XtNoteTouched(XtHandle *handle);
/* Bounds the list of a long transaction. Not under the writer lock. */
extern void XtStampWhenMany(XtHandle *handle);
/* Before the transaction ends: the blocks of all handles. Under no writer lock. */
extern bool XtStampIsPending(void);
extern void XtStampAll(void);

/* xtrewind.c */
/* Marks broken what pg_rewind has mixed. In the postmaster, before anything is opened. */
extern void XtDistrustRewound(void);

/* xtrestore.c */
extern void XtRestoreLinks(void);

/* xttimeline.c */
extern void XtTimelineStartup(void);
extern void XtFillIdentity(const XtRelKey *key, XtIdentity *identity);
extern void XtFillLoadPolicy(const XtRelKey *key, XtLoadPolicy *policy);

/* xtwal.c */
extern void XtWalRegister(void);
/* Logs, applies and asks for the sync of what was prepared. Writer lock held, shared or not; cannot fail. */
extern void XtLogAndApplyInsert(Relation index, XtHandle *handle, const double *lo, const double *hi,
								uint64 record_id);
extern XLogRecPtr XtLogAndApplyDelete(Relation index, XtHandle *handle, uint32 tree,
									  const double *lo, const double *hi,
									  const uint64 *record_ids, uint32 count);
/* Returns where the images end in the WAL. */
extern XLogRecPtr XtLogBuilt(Relation index, uint32 blocks);
/* The host's checkpointer syncs the data file before the next checkpoint completes. False: it could not be asked. */
extern bool XtRequestDataSync(XtHandle *handle);
/* Standbys fold here too, so that their copies of the files are at rest as well. */
extern void XtLogFold(Relation index);
extern void XtLogAdopted(const XtRelKey *key);

/* xtfold.c, xtworker.c */
extern void XtWorkerRegister(void);
/* After a change, not under the writer lock: folds, or wakes who does, if the log is long. */
extern void XtAfterChange(Relation index, XtHandle *handle);
/* Asks for a fold without doing it: redo. */
extern void XtWantFold(XtHandle *handle);
/* A loaded index with a log: it ages from now on, and took so long to replay. */
extern void XtNoteLoadedLog(XtHandle *handle, uint64 micros);
/* Whether the log is as old as xtree.max_log_age. Needs no handle. */
extern bool XtLogIsOld(XtShared *shared);
extern bool XtBackupRunning(void);
/* Folds an open index. False with XT_BUSY if it cannot be done now. Not under the writer lock. */
extern bool XtFoldHandle(XtHandle *handle, XtError *error);
/*
 * After a change: asks for a fold of a log that is long, and folds one that is too long. False: that failed
 * for a reason that should be said; what only must wait (a backup, another fold) is tried again later.
 */
extern bool XtLimitLog(XtHandle *handle, XtError *error);
/* Reports a fold that failed; the changes are done all the same, and safe in the log. */
extern void XtReportFailedFold(int elevel, Relation index, const XtError *error);
extern bool XtImagesMayReplay(XtShared *shared);
/* Empties the logs of all indexes of a database that nobody is connected to. `files`: its files are going
 * to be copied as such, on standbys too, and not through the WAL. */
extern void XtSettleDatabase(Oid database, bool files);
extern void XtStopFoldWorkers(Oid database);

/* xtextent.c: notes on disk of what logs have been synced with */
/* What the log held when all its files were synced after that. Raises nothing. */
extern void XtExtentWrite(const XtRelKey *key, const XtLogExtent *extent);
/* What is known; no bytes: nothing. Raises nothing. */
extern void XtExtentRead(const XtRelKey *key, XtLogExtent *extent);
/* Before the log is shortened: durable when it returns true. Raises nothing. */
extern bool XtExtentForget(const XtRelKey *key, XtError *error);
/* The index is gone. */
extern void XtExtentRemove(const XtRelKey *key, int elevel);
extern void XtExtentStartup(void);

/* xtscrub.c */
/* A build is about to store blocks without checksums; has ended. */
extern void XtScrubNote(const XtRelKey *key);
extern void XtScrubForget(const XtRelKey *key);
/* A change does; at its first sight a note is made, and true returned. Raises nothing. */
extern bool XtScrubNoteChange(XtShared *shared);
/* It did not, after all, or the file is gone. */
extern void XtScrubForgetChange(XtShared *shared);
extern void XtScrubStartup(void);

/* xthooks.c */
extern void XtHooksInit(void);
extern bool XtIsXtreeIndex(Relation relation);
extern List *XtListIndexes(Oid tablespace);

#endif							/* XTREGISTRY_H */
