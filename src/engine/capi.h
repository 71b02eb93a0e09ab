/*
 * capi.h: the one header that both the engine (C++) and the access method (C) include.
 *
 * Every function is noexcept. Those that can fail return false (or a negative count) and fill the
 * caller's XtError; nothing is changed then unless said otherwise. The engine never calls back.
 *
 * Locks:   "W" in a comment: the caller holds the index's writer lock exclusively. The engine has no
 *          lock of its own here. Scans need none.
 * Memory:  a call that returns XT_NEED_MEMORY has left a chunk request: get it with
 *          xt_chunk_wanted, allocate zeroed shared memory, hand it over with xt_chunk_provide, and
 *          repeat the call. Before using an index, attach what other processes have provided:
 *          while (xt_chunk_missing(...)) xt_chunk_provide(...).
 * Faults:  where a page of a mapped file is not to be had (the file was cut short, the device fails) the
 *          process gets zeros for it and the call fails with XT_CORRUPTION or XT_IO_ERROR, as does
 *          every further one on this handle: close it, and open the index anew. A fault in a call that
 *          changes the index marks it broken, too, in shared memory. xt_apply, xt_touched_next and
 *          loads and stores of the caller's through pointers of ours cannot fail: look at xt_faulted.
 * Units:   lengths in bytes, blocks of 8192 bytes, LSNs as the host's XLogRecPtr.
 */
#ifndef XTREE_CAPI_H
#define XTREE_CAPI_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
#define XT_NOEXCEPT noexcept
extern "C" {
#else
#define XT_NOEXCEPT
#endif

#define XT_API __attribute__((visibility("default")))

/* Equal to xtree::Code. */
typedef enum XtErrorCode
{
	XT_OK = 0, XT_INVALID_ARGUMENT = 1, XT_NOT_FOUND = 2, XT_CORRUPTION = 3, XT_IO_ERROR = 4,
	XT_NO_SPACE = 5, XT_OUT_OF_MEMORY = 6, XT_NEED_MEMORY = 7, XT_UNSUPPORTED = 8, XT_BROKEN = 9,
	XT_BUSY = 10, XT_INTERNAL = 11, XT_CANCELLED = 12, XT_NEED_FORGET = 13
} XtErrorCode;

typedef struct XtError
{
	int			code;			/* XtErrorCode */
	char		message[500];	/* zero-terminated */
} XtError;

#define XT_DIMS_MAX 32
#define XT_TREES 2
/* Of the files: the blocks that are superblocks, and where a block keeps its own number (uint32). */
#define XT_SUPERBLOCKS 2
#define XT_BLOCK_NUMBER_OFFSET 56
#define XT_TREE_MAIN 0
#define XT_TREE_NULL 1
#define XT_LEVELS_MAX 16
#define XT_SCAN_BATCH_MIN 1024
#define XT_DELETE_BATCH_MAX 900

typedef enum XtCoord { XT_F64 = 0, XT_F32 = 1 } XtCoord;
typedef enum XtKind { XT_BOX = 0, XT_POINT = 1 } XtKind;

typedef struct XtSpec
{
	uint8_t		dims;			/* 1..32 */
	uint8_t		coord;			/* XtCoord */
	uint8_t		kind;			/* XtKind */
	uint8_t		leaf_fill_percent;	/* 10..100 */
} XtSpec;

typedef struct XtIdentity
{
	uint64_t	system_id;
	uint32_t	tablespace;
	uint32_t	database;
	uint32_t	relation;
	uint32_t	backend;
} XtIdentity;

/* See xtree::Predicate: lo_min <= key.lo <= lo_max and hi_min <= key.hi <= hi_max, per dimension. */
typedef struct XtPredicate
{
	double		lo_min[XT_DIMS_MAX];
	double		lo_max[XT_DIMS_MAX];
	double		hi_min[XT_DIMS_MAX];
	double		hi_max[XT_DIMS_MAX];
	bool		nan_matches;	/* NaN key coordinates pass (the caller rechecks) */
} XtPredicate;

typedef struct XtTimelineEnd
{
	uint32_t	timeline;
	uint32_t	reserved;
	uint64_t	end_lsn;		/* records of that timeline count up to here */
} XtTimelineEnd;

/* What the log of a capture holds: `bytes` of records up to a position. */
typedef struct XtLogExtent
{
	uint64_t	capture_id;
	uint64_t	end_mark;
	uint64_t	bytes;
} XtLogExtent;

typedef struct XtLoadPolicy
{
	uint32_t	current_timeline;
	uint32_t	timeline_count;
	const XtTimelineEnd *timelines;
	uint64_t	lsn_max;		/* a capture LSN beyond this is broken */
	XtIdentity	identity;
	XtLogExtent held;			/* what the log was synced with, later than anything that shortened it: if it
								 * holds less, the index is broken; no bytes: nothing is known */
	bool		may_shorten;	/* nobody remembers what the log was synced with */
} XtLoadPolicy;

typedef struct XtRuntime XtRuntime; /* one per process */
typedef struct XtIndex XtIndex;		/* this process's handle of an index */
typedef struct XtScan XtScan;
typedef struct XtBuild XtBuild;

/* --- Process and shared memory ------------------------------------------------------------- */
XT_API uint64_t xt_epoch_shared_bytes(uint32_t slots) XT_NOEXCEPT;
XT_API void xt_epoch_shared_init(void *memory, uint32_t slots) XT_NOEXCEPT;
/* Size of the zeroed shared memory that describes one index, and what its address is a multiple of. */
XT_API uint64_t xt_index_shared_bytes(void) XT_NOEXCEPT;
XT_API uint64_t xt_index_shared_alignment(void) XT_NOEXCEPT;

/* In the process that others are forked from: has the loader resolve once what it otherwise resolves
 * at the first use in each of them. */
XT_API void xt_preload(void) XT_NOEXCEPT;
/* `slot`: this process's reader slot, which no other process uses. */
XT_API XtRuntime *xt_runtime_create(void *epoch_shared, uint32_t slot, uint32_t windows_max,
									XtError *error) XT_NOEXCEPT;
XT_API void xt_runtime_free(XtRuntime *runtime) XT_NOEXCEPT;
XT_API uint32_t xt_runtime_windows_mapped(const XtRuntime *runtime) XT_NOEXCEPT;

/* No I/O. `log_path` NULL: the index has no log (temp relations). */
XT_API XtIndex *xt_index_open(XtRuntime *runtime, void *index_shared, const char *data_path,
							  const char *log_path, XtError *error) XT_NOEXCEPT;
/* Unmaps and frees the handle; scans on it must have been freed. The shared memory stays. */
XT_API void xt_index_close(XtIndex *index) XT_NOEXCEPT;
/* Unmaps the windows; they are mapped again when needed. No scan may be running. */
XT_API void xt_index_drop_windows(XtIndex *index) XT_NOEXCEPT;

typedef struct XtChunkRequest
{
	uint32_t	array;
	uint32_t	level;
	uint64_t	bytes;
	uint64_t	ref;			/* xt_chunk_missing: what was provided elsewhere */
} XtChunkRequest;

XT_API void xt_chunk_wanted(XtIndex *index, XtChunkRequest *request) XT_NOEXCEPT;
XT_API bool xt_chunk_missing(XtIndex *index, XtChunkRequest *request) XT_NOEXCEPT;
XT_API void xt_chunk_provide(XtIndex *index, uint32_t array, uint32_t level, uint64_t ref,
							 void *address) XT_NOEXCEPT;
/* All chunk refs of an index, to free them: fills at most `capacity`, returns how many there are. */
XT_API uint32_t xt_chunk_refs(const void *index_shared, uint64_t *refs, uint32_t capacity)
	XT_NOEXCEPT;

/* --- Create, load, state -------------------------------------------------------------------- */
/* W. Empty index: truncates both files to what an empty index has; superblocks synced. The shared
 * memory must be zero (chunks already provided may stay: zero them). */
XT_API bool xt_create(XtIndex *index, const XtSpec *spec, const XtIdentity *identity,
					  uint32_t timeline, XtError *error) XT_NOEXCEPT;
/* W. Superblock, object table, log; of the log at most `ops_max` operations a call. Call it until `done`,
 * without giving up W. Repeats after XT_NEED_MEMORY. XT_NOT_FOUND: no or empty file. XT_NEED_FORGET: records
 * that do not count are about to be erased; see to it that nothing is said in `held` any more of what the log held
 * before, then repeat with `may_shorten`. */
XT_API bool xt_load(XtIndex *index, const XtLoadPolicy *policy, uint32_t ops_max, bool *done,
					XtError *error) XT_NOEXCEPT;
/* The two superblock pages of an empty index, for an init fork: writes 2 * 8192 bytes. */
XT_API bool xt_empty_image(const XtSpec *spec, const XtIdentity *identity, void *pages,
						   XtError *error) XT_NOEXCEPT;
XT_API bool xt_is_loaded(const XtIndex *index) XT_NOEXCEPT;
/* Whether this handle's xt_load found a copy of another relation's files and made it this one's. */
XT_API bool xt_adopted(const XtIndex *index) XT_NOEXCEPT;
/*
 * Whether a file with these first XT_SUPERBLOCKS blocks is another relation's, or a copy of it that nobody
 * has opened yet. If neither superblock is whole, as may be while one is written, it is not said to be.
 */
XT_API bool xt_is_foreign(const void *superblocks, const XtIdentity *identity) XT_NOEXCEPT;
XT_API bool xt_is_broken(const XtIndex *index) XT_NOEXCEPT;
/* W. In shared memory at once; on disk if it can. */
XT_API bool xt_mark_broken(XtIndex *index, XtError *error) XT_NOEXCEPT;
/*
 * Without a handle, for a file that may be an index: its log has been replaced by another server's
 * (store/rewound.h). Marks it broken on disk unless data file and log prove to belong together; then
 * `error` says why. False, with XT_IO_ERROR and the like: nothing is known.
 */
XT_API bool xt_distrust_rewound(const char *data_path, const char *log_path, bool *broken,
								XtError *error) XT_NOEXCEPT;
/* The same on disk alone, for a file that no handle could be had of. */
XT_API bool xt_mark_file_broken(const char *data_path, XtError *error) XT_NOEXCEPT;
/* Whether a page of this handle's mappings was not to be had, and what to say then. */
XT_API bool xt_faulted(const XtIndex *index) XT_NOEXCEPT;
XT_API void xt_fault(const XtIndex *index, XtError *error) XT_NOEXCEPT;
XT_API void xt_spec(const XtIndex *index, XtSpec *spec) XT_NOEXCEPT;
XT_API uint64_t xt_applied_lsn(const XtIndex *index) XT_NOEXCEPT;
/* Entries of a tree, from shared memory: an insertion that was applied before counts. */
XT_API uint64_t xt_entries(const XtIndex *index, uint32_t tree) XT_NOEXCEPT;
XT_API uint32_t xt_data_blocks(const XtIndex *index) XT_NOEXCEPT;
/* Mapped address of a data block (to log its image); NULL and `error` if it cannot be mapped. */
XT_API void *xt_block_address(XtIndex *index, uint32_t block, XtError *error) XT_NOEXCEPT;

/* --- Changes: prepare may fail, apply cannot -------------------------------------------------- */
/* A key's coordinates as logs have them (tree/packed_coords.h). Writes them to `to`, at most XT_PACKED_BYTES_MAX bytes, and
 * to `packing` what it takes to read them; returns how many bytes. A point's `hi` is neither read nor written. */
#define XT_PACKED_BYTES_MAX (2 * XT_DIMS_MAX * 8)
XT_API uint32_t xt_pack_coords(const double *lo, const double *hi, uint32_t dims, bool point,
							   char *to, uint8_t *packing) XT_NOEXCEPT;
/* Reads them; a point's `hi` becomes its `lo`. False, if that is not the length of a key packed so. dims <= XT_DIMS_MAX. */
XT_API bool xt_unpack_coords(const char *from, uint32_t bytes, uint8_t packing, uint32_t dims,
							 bool point, double *lo, double *hi) XT_NOEXCEPT;
/* W. `lo`, `hi`: dims doubles (hi is ignored for points). lo NULL: the row's key is NULL. A key with a
 * NaN coordinate is *unordered*: no bounds describe it, so it is kept beside the NULL rows and the
 * main tree's keys never hold a NaN. XT_TREE_NULL's keys are one-dimensional: the record id of a
 * NULL row, -1 - record id of an unordered one (see xtree::NullTreeKey). The bulk build, the log and
 * xt_contains route keys in the same way. */
XT_API bool xt_prepare_insert(XtIndex *index, const double *lo, const double *hi,
							  uint64_t record_id, XtError *error) XT_NOEXCEPT;
/* W. Hints: insertions that come soon (`lo` not NULL), XT_EXPECTED_MAX at most; then their paths are walked together, so
 * that what they will read is in the cache. Nothing is read for that which is not mapped and verified, and it does not matter if
 * they never come. A fault in a file is met as by any call: the next one fails. */
#define XT_EXPECTED_MAX 8
XT_API void xt_expect_insert(XtIndex *index, const double *lo, const double *hi, uint64_t record_id)
	XT_NOEXCEPT;
XT_API void xt_walk_ahead(XtIndex *index) XT_NOEXCEPT;
/* xt_prepare_insert for several processes at a time, which hold W shared from here to the end of xt_apply (or
 * xt_discard). True without `prepared`: it takes more than an entry in a leaf that has room; give W up, take it
 * exclusively and use xt_prepare_insert. Who appends to a log first need not have the lower LSN. */
XT_API bool xt_prepare_insert_shared(XtIndex *index, const double *lo, const double *hi,
									 uint64_t record_id, bool *prepared, XtError *error) XT_NOEXCEPT;
/* After that, without W: whether it may go that way now, since others have done what it took. */
XT_API bool xt_may_insert_shared_again(const XtIndex *index) XT_NOEXCEPT;
/* Whether an insertion should be tried that way: others have been met lately. */
XT_API bool xt_take_shared_turn(XtIndex *index) XT_NOEXCEPT;
/* For who had to wait for W to insert. */
XT_API void xt_note_lock_wait(XtIndex *index) XT_NOEXCEPT;
/* Where xt_scan_leaf has seen the record ids of a deletion, which are in the order of these leaves: those of
 * leaf l end before ends[l], and record id i was the one that it gave as number slots[i]. */
typedef struct XtLeafHint
{
	const uint64_t *leaves;
	const uint32_t *ends;
	const uint16_t *slots;
	uint32_t	count;			/* of leaves */
} XtLeafHint;
/* W. Deletes the entries with these record ids whose keys lie within lo..hi. Borrows `record_ids` until
 * apply. `found`: how many apply will remove; 0: nothing to apply. `hint`: or NULL; if they are there no
 * more, they are looked for everywhere. */
XT_API bool xt_prepare_delete(XtIndex *index, uint32_t tree, const double *lo, const double *hi,
							  const uint64_t *record_ids, uint32_t count, const XtLeafHint *hint,
							  uint32_t *found, XtError *error) XT_NOEXCEPT;
/* W, or shared after xt_prepare_insert_shared. Appends the log frame with this end LSN (0: none) and
 * publishes. */
XT_API void xt_apply(XtIndex *index, uint64_t lsn) XT_NOEXCEPT;
XT_API void xt_discard(XtIndex *index) XT_NOEXCEPT;
/* W. 1 GiB segment of the log file that the last apply wrote to, for the host's sync request. */
XT_API uint32_t xt_log_file_segment(const XtIndex *index) XT_NOEXCEPT;
XT_API uint64_t xt_log_bytes(const XtIndex *index) XT_NOEXCEPT;
/* W, shared or not, without a handle, of a loaded index: what its log holds. Once the log's files have been synced after this,
 * that may be said to xt_load. */
XT_API void xt_log_extent(void *index_shared, XtLogExtent *extent) XT_NOEXCEPT;

/* Pages that changes have touched since the last drain, for the host's page checksums. Tracking is
 * off until enabled. The caller sets LSN and checksum; the engine's own CRC covers neither. Until then
 * a page that no capture holds reads as unstamped (its LSN is all ones). W. */
typedef struct XtTouched
{
	uint32_t	block;
	bool		in_log;
	void	   *page;
} XtTouched;
XT_API void xt_track_touched(XtIndex *index, bool enabled) XT_NOEXCEPT;
XT_API bool xt_touched_next(XtIndex *index, XtTouched *touched) XT_NOEXCEPT;

/* --- Scans (no lock) ------------------------------------------------------------------------- */
XT_API XtScan *xt_scan_create(XtIndex *index, XtError *error) XT_NOEXCEPT;
XT_API void xt_scan_free(XtScan *scan) XT_NOEXCEPT;
/* Both take a fresh epoch; a running scan ends first. */
XT_API bool xt_scan_window(XtScan *scan, uint32_t tree, const XtPredicate *predicate,
						   XtError *error) XT_NOEXCEPT;
XT_API bool xt_scan_nearest(XtScan *scan, uint32_t tree, const double *point,
							const XtPredicate *predicate, XtError *error) XT_NOEXCEPT;
/* Next batch: returns how many (0 at the end, -1 on error). keys_lo, keys_hi (dims doubles an entry)
 * and distances (nearest only) may be NULL. Window scans need capacity >= XT_SCAN_BATCH_MIN;
 * one_leaf returns after each leaf with matches. XT_SCAN_AGAIN: nothing yet, after much looking; look for
 * interrupts and call again. */
#define XT_SCAN_AGAIN (-2)
XT_API int xt_scan_next(XtScan *scan, uint64_t *record_ids, double *keys_lo, double *keys_hi,
						double *distances, uint32_t capacity, bool one_leaf, XtError *error)
	XT_NOEXCEPT;
XT_API void xt_scan_end(XtScan *scan) XT_NOEXCEPT;
/* Blocks that the index keeps for readers, if none is older than this process's oldest scan; else 0. */
XT_API uint64_t xt_retained_by_me(XtIndex *index) XT_NOEXCEPT;
/* For bulk deletion, in a window scan of everything: the record ids of the next leaf, how it is called, a
 * box around its keys, and whether it is the first of its parent. Returns as xt_scan_next. */
typedef struct XtLeaf
{
	uint64_t	id;
	bool		new_parent;
	double		lo[XT_DIMS_MAX];
	double		hi[XT_DIMS_MAX];
} XtLeaf;
XT_API int xt_scan_leaf(XtScan *scan, uint64_t *record_ids, uint32_t capacity, XtLeaf *leaf,
						XtError *error) XT_NOEXCEPT;
/* Takes a fresh epoch and goes on, so that space is given back meanwhile. From then on the scan may miss
 * entries that changes by others have moved: it was complete if, at its end, xt_scan_lost is false
 * and xt_published_epoch is the scan's first epoch plus the number of deletions that the caller has
 * applied itself. */
XT_API bool xt_scan_renew(XtScan *scan, XtError *error) XT_NOEXCEPT;
XT_API bool xt_scan_lost(const XtScan *scan) XT_NOEXCEPT;
XT_API uint64_t xt_scan_epoch(const XtScan *scan) XT_NOEXCEPT;
XT_API uint64_t xt_published_epoch(const XtIndex *index) XT_NOEXCEPT;
/* Share of entries that a window is expected to match, from the top levels. */
XT_API bool xt_estimate(XtIndex *index, const XtPredicate *predicate, double *fraction,
						XtError *error) XT_NOEXCEPT;
/* Record ids of up to `capacity` neighbouring entries of a leaf, `place` (0 to 1) of the way through the
 * tree. */
XT_API bool xt_sample(XtIndex *index, double place, uint64_t *record_ids, uint32_t capacity,
					  uint32_t *count, XtError *error) XT_NOEXCEPT;

/* --- Bulk build (W throughout; the index is new and empty) ------------------------------------ */
/* Once one of the `cancel` words is not zero, xt_build_pack returns XT_CANCELLED soon; the build can only be
 * freed then. */
XT_API XtBuild *xt_build_begin(XtIndex *index, uint32_t threads, const volatile int *const cancel[2],
							   XtError *error) XT_NOEXCEPT;
XT_API bool xt_build_add(XtBuild *build, const double *lo, const double *hi,
						 const uint64_t *record_ids, uint32_t count, XtError *error) XT_NOEXCEPT;
XT_API bool xt_build_add_null(XtBuild *build, uint64_t record_id, XtError *error) XT_NOEXCEPT;
XT_API uint64_t xt_build_memory_bytes(const XtBuild *build) XT_NOEXCEPT;
/* Moving to an external sort: take everything added back out, then add in curve order. */
XT_API uint32_t xt_build_take(XtBuild *build, double *lo, double *hi, uint64_t *record_ids,
							  uint32_t capacity) XT_NOEXCEPT;
XT_API void xt_build_curve_keys(XtBuild *build, const double *bounds_lo, const double *bounds_hi,
								const double *lo, const double *hi, uint32_t count, uint64_t *keys)
	XT_NOEXCEPT;
XT_API bool xt_build_add_sorted(XtBuild *build, const double *lo, const double *hi,
								const uint64_t *record_ids, uint32_t count, XtError *error)
	XT_NOEXCEPT;
/* Sorts, packs, publishes in memory; blocks are stamped with `lsn`. Repeats after XT_NEED_MEMORY. */
XT_API bool xt_build_pack(XtBuild *build, uint64_t lsn, XtError *error) XT_NOEXCEPT;
/* Writes the capture (both superblocks, table, stamps), at most `blocks_max` blocks a call, and
 * when `done` has synced the data file, if `synced`; else the caller has it synced, before anything relies on it. */
XT_API bool xt_build_finish(XtBuild *build, bool synced, uint32_t blocks_max, bool *done,
							XtError *error) XT_NOEXCEPT;
/* fdatasync of the data file. */
XT_API bool xt_sync_data(XtIndex *index, XtError *error) XT_NOEXCEPT;
XT_API void xt_build_free(XtBuild *build) XT_NOEXCEPT;

/* --- Folds: begin and end under W, write and publish without ---------------------------------- */
XT_API bool xt_fold_begin(XtIndex *index, uint64_t *capture_lsn, XtError *error) XT_NOEXCEPT;
XT_API bool xt_fold_write(XtIndex *index, uint32_t blocks_max, bool *done, XtError *error)
	XT_NOEXCEPT;
XT_API bool xt_fold_publish(XtIndex *index, XtError *error) XT_NOEXCEPT;
/* W, but nothing of what other processes have provided need be attached. Call it before attaching, where that
 * may fail, and xt_fold_end after: if that is never reached, the index stays whole but is not folded
 * again until the next xt_fold_begin on this handle, or a restart. */
XT_API void xt_fold_suspend(XtIndex *index, bool published) XT_NOEXCEPT;
XT_API void xt_fold_end(XtIndex *index, bool published) XT_NOEXCEPT;
/* W. After a published fold: gives back up to so many node versions that it has set free, at a few
 * microseconds each. Returns true when all is done. */
XT_API bool xt_fold_tidy(XtIndex *index, uint64_t versions_max) XT_NOEXCEPT;
/* Where the data file could end if nodes were moved, in blocks; UINT32_MAX: where it ends now. */
XT_API uint32_t xt_compact_limit(const XtIndex *index) XT_NOEXCEPT;
/* W. Moves some nodes from beyond `limit` before it; the next fold cuts the file. `position`: 0 at first,
 * kept between the steps. */
XT_API bool xt_compact_step(XtIndex *index, uint32_t nodes_max, uint64_t *position, uint32_t limit,
							bool *done, XtError *error) XT_NOEXCEPT;

/* Batch sync of files over many indexes (io_uring where permitted). status[i] is an XtErrorCode. */
XT_API void xt_sync_files(const char *const *paths, int *status, uint32_t count) XT_NOEXCEPT;
/* "io_uring" or "portable"; in the latter case `why`, which may be NULL, says why. */
XT_API const char *xt_io_queue_name(XtError *why) XT_NOEXCEPT;

/* --- Inspection ------------------------------------------------------------------------------ */
typedef struct XtLevelStats
{
	uint64_t	nodes;
	uint64_t	supernodes;
	uint64_t	entries;
	uint64_t	capacity;
	uint64_t	blocks;
} XtLevelStats;

typedef struct XtStats
{
	uint64_t	entries;		/* keys */
	uint64_t	null_entries;	/* NULL and unordered rows */
	uint32_t	height;
	uint32_t	levels;			/* filled below */
	XtLevelStats level[XT_LEVELS_MAX];	/* 0: leaves */
	uint32_t	file_blocks;
	uint32_t	used_blocks;
	uint64_t	log_bytes;
	uint64_t	log_file_blocks;
	uint64_t	published_epoch;
	uint64_t	capture_epoch;
	uint64_t	capture_lsn;
	uint64_t	applied_lsn;
	uint64_t	retired_versions;	/* kept for readers or a capture */
	uint64_t	folds;
	uint32_t	active_shards;
	uint32_t	windows_mapped; /* in this process */
	uint64_t	retained_blocks;	/* kept for readers, about */
	bool		has_reader;		/* of any index of the server; if so: */
	uint32_t	oldest_reader;	/* the slot of the one that keeps most, */
	uint64_t	oldest_reader_lag;	/* and how many changes have been published since it began */
	uint64_t	shared_inserts; /* insertions done beside others since the index was loaded, */
	uint64_t	exclusive_retries;	/* tried so, and then done alone; */
	uint64_t	lock_waits;		/* how often one found the writer lock taken, */
	uint64_t	latch_waits;	/* a leaf's or the log's latch */
} XtStats;

/*
 * A walk over all nodes, from the epoch at which it began, in steps. `verify`: everything is verified, CRCs of
 * stamped blocks included; xt_walk_begin and xt_walk_finish need W then, the steps never do. Other
 * processes may change the index meanwhile: what looks wrong for their doing is looked at again under W.
 *
 *		walk = xt_walk_begin(...)
 *		do { step until done; xt_walk_finish(walk, &again) } while (again)
 *		xt_walk_stats, xt_walk_problem
 *		xt_walk_free
 */
typedef struct XtWalk XtWalk;
XT_API XtWalk *xt_walk_begin(XtIndex *index, bool verify, XtError *error) XT_NOEXCEPT;
/* Some milliseconds of it. */
XT_API bool xt_walk_step(XtWalk *walk, bool *done, XtError *error) XT_NOEXCEPT;
/* Only a walk that verifies. */
XT_API bool xt_walk_finish(XtWalk *walk, bool *again, XtError *error) XT_NOEXCEPT;
XT_API void xt_walk_stats(const XtWalk *walk, XtStats *stats) XT_NOEXCEPT;
/* The text of problem `i`, until the walk is freed; NULL: there are no more. */
XT_API const char *xt_walk_problem(const XtWalk *walk, uint32_t i) XT_NOEXCEPT;
XT_API uint32_t xt_walk_problems(const XtWalk *walk) XT_NOEXCEPT;
XT_API void xt_walk_free(XtWalk *walk) XT_NOEXCEPT;
/* W. Whether exactly this entry exists (lo NULL: in the NULL tree). */
XT_API bool xt_contains(XtIndex *index, const double *lo, const double *hi, uint64_t record_id,
						bool *found, XtError *error) XT_NOEXCEPT;
/* Boxes of the nodes of a level: returns a malloc'd array of count * 2 * dims doubles (lo, hi). A count above
 * `boxes_max` says that there are more than that. */
XT_API bool xt_level_boxes(XtIndex *index, uint32_t level, uint64_t boxes_max, double **boxes,
						   uint64_t *count, XtError *error) XT_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif							/* XTREE_CAPI_H */
