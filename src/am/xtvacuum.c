/*
 * xtvacuum.c: ambulkdelete and amvacuumcleanup.
 *
 * A lock-free scan hands out the record ids leaf by leaf; the host's callback is asked about them with no
 * engine frame on the stack; the dead ones of neighbouring leaves are deleted in one logged operation that
 * names a box around them and their TIDs, so it finds them wherever they have moved to meanwhile. Entries
 * inserted after the scan's epoch are not seen, and need not be: VACUUM's dead TIDs were in the index before
 * it began, and cannot be given to other rows before it ends.
 *
 * Asking the callback costs a binary search in all dead TIDs, for entries in the order of the index. So
 * where the callback is VACUUM's own, a bitmap of its dead TIDs tells which entries are alive; if the
 * bitmap had to be folded, the callback has the last word on the others.
 *
 * Space: the scan takes a fresh epoch again and again, so that what it has replaced is used again at once.
 * Entries that others move meanwhile may escape such a scan; if there were any changes but its own, another
 * scan follows that keeps its epoch, and finds what is left.
 */
#include "xtregistry.h"

#include <dlfcn.h>
#include <math.h>

#include "access/genam.h"
#include "access/xlog.h"
#include "commands/vacuum.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"

/* Entries of one leaf, or as many as one call of the engine hands out. */
#define BATCH_CAPACITY		XT_SCAN_BATCH_MIN
/* The scan takes a fresh epoch after so many deletions. */
#define DELETIONS_PER_EPOCH	2
/* Bits of the filter: so many at least for each dead TID, and as many as this if that makes it exact. */
#define FILTER_BITS_PER_TID	16
#define FILTER_BITS_EXACT	(UINT64CONST(1) << 23)
#define CALLBACK_SAMPLES	32

/* Which TIDs may be dead: or are, if there is a bit for each offset of each block. */
typedef struct DeadFilter
{
	uint64	   *words;			/* NULL: every TID may be */
	uint64		mask;			/* number of bits - 1 */
	uint64		first_block;	/* of those that have dead TIDs, */
	uint64		blocks;			/* and how many from there to the last */
	int			stride_log2;	/* bits for each heap block */
	bool		exact;
} DeadFilter;

typedef struct VacuumState
{
	Relation	index;
	XtHandle   *handle;
	IndexBulkDeleteResult *stats;
	IndexBulkDeleteCallback callback;
	void	   *callback_state;
	DeadFilter	filter;
	XLogRecPtr	last_lsn;
	uint64		deletions;		/* applied by this vacuum_tree */

	/* What to delete next, the leaves that hold it, and a box around it. */
	uint64		dead[XT_DELETE_BATCH_MAX];
	uint32		dead_count;
	uint16		slots[XT_DELETE_BATCH_MAX];	/* of each, in its leaf */
	uint64		leaves[XT_DELETE_BATCH_MAX];
	uint32		leaf_ends[XT_DELETE_BATCH_MAX];	/* of each leaf's, among the dead */
	uint32		leaf_count;
	double		bound_lo[XT_DIMS_MAX];
	double		bound_hi[XT_DIMS_MAX];

	/* The leaf just scanned. */
	uint64		record_ids[BATCH_CAPACITY];
	uint16		record_slots[BATCH_CAPACITY];	/* of those of them that are dead */
	XtLeaf		leaf;
} VacuumState;

/* --- Which entries are dead ------------------------------------------------------------------- */
/*
 * The dead TIDs of VACUUM, if that is who calls: its callback is a function of the server itself, and
 * it is the only one there that comes with a buffer access strategy.
 */
static VacDeadItems *
dead_items_of(IndexVacuumInfo *info, IndexBulkDeleteCallback callback, void *callback_state)
{
	Dl_info		of_callback;
	Dl_info		of_server;

	if (info->strategy == NULL || callback_state == NULL ||
		dladdr((void *) callback, &of_callback) == 0 ||
		dladdr((void *) vac_bulkdel_one_index, &of_server) == 0 ||
		of_callback.dli_fbase != of_server.dli_fbase)
		return NULL;
	return (VacDeadItems *) callback_state;
}

/* Asks for some dead TIDs, and for neighbours that are none, so that no assumption goes untested. */
static bool
callback_agrees(VacuumState *state, VacDeadItems *dead, OffsetNumber offset_max)
{
	int			step = Max(dead->num_items / CALLBACK_SAMPLES, 1);

	for (int i = 0; i < dead->num_items; i += step)
	{
		ItemPointerData alive = dead->items[i];

		ItemPointerSetOffsetNumber(&alive, offset_max + 1);
		if (!state->callback(&dead->items[i], state->callback_state) ||
			state->callback(&alive, state->callback_state))
			return false;
	}
	return true;
}

static inline uint64
filter_bit(const DeadFilter *filter, uint64 record_id)
{
	/* A record id is block << 16 | offset. */
	return ((((record_id >> 16) - filter->first_block) << filter->stride_log2) +
			(record_id & 0xffff)) & filter->mask;
}

/* Without branches: which of a leaf's entries are dead cannot be foreseen. */
static inline bool
may_be_dead(const DeadFilter *filter, uint64 record_id)
{
	uint64		bit = filter_bit(filter, record_id);

	/* Blocks before the first have huge numbers here. */
	return (filter->words[bit / 64] >> (bit % 64) & 1) &
		((record_id >> 16) - filter->first_block < filter->blocks) &
		((record_id & 0xffff) >> filter->stride_log2 == 0);
}

static void
build_filter(VacuumState *state, VacDeadItems *dead)
{
	DeadFilter *filter = &state->filter;
	OffsetNumber offset_max = 1;
	uint64		bits;

	if (dead == NULL || dead->num_items <= 0)
		return;
	for (int i = 0; i < dead->num_items; i++)
		offset_max = Max(offset_max, ItemPointerGetOffsetNumberNoCheck(&dead->items[i]));
	if (!callback_agrees(state, dead, offset_max))
		return;
	/* They are sorted. */
	filter->first_block = ItemPointerGetBlockNumberNoCheck(&dead->items[0]);
	filter->blocks = ItemPointerGetBlockNumberNoCheck(&dead->items[dead->num_items - 1]) -
		filter->first_block + 1;
	filter->stride_log2 = pg_leftmost_one_pos32(offset_max) + 1;
	bits = Max(FILTER_BITS_EXACT, (uint64) dead->num_items * FILTER_BITS_PER_TID);
	bits = Max(Min(bits, filter->blocks << filter->stride_log2), 64);
	bits = pg_nextpower2_64(bits);
	filter->words = MemoryContextAllocExtended(CurrentMemoryContext, bits / 8,
											   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO |
											   MCXT_ALLOC_NO_OOM);
	if (filter->words == NULL)
		return;
	filter->mask = bits - 1;
	filter->exact = bits >= filter->blocks << filter->stride_log2;
	for (int i = 0; i < dead->num_items; i++)
	{
		uint64		bit = filter_bit(filter, XtRecordId(&dead->items[i]));

		filter->words[bit / 64] |= UINT64CONST(1) << (bit % 64);
	}
}

static bool
is_dead(VacuumState *state, uint64 record_id)
{
	ItemPointerData tid;

	XtRecordTid(record_id, &tid);
	return state->callback(&tid, state->callback_state);
}

/* Moves the dead of the leaf's entries to the front, and notes which they were; returns how many there are. */
static int
pick_dead(VacuumState *state, int count)
{
	uint64	   *ids = state->record_ids;
	uint16	   *slots = state->record_slots;
	int			maybe = 0;
	int			dead = 0;

	if (state->filter.words != NULL)
	{
		const DeadFilter filter = state->filter;

		for (int i = 0; i < count; i++)
		{
			uint64		record_id = ids[i];

			ids[maybe] = record_id;
			slots[maybe] = i;
			maybe += may_be_dead(&filter, record_id);
		}
		if (filter.exact)
			return maybe;
	}
	else
		for (maybe = 0; maybe < count; maybe++)
			slots[maybe] = maybe;
	for (int i = 0; i < maybe; i++)
		if (is_dead(state, ids[i]))
		{
			slots[dead] = slots[i];
			ids[dead++] = ids[i];
		}
	return dead;
}

/* --- Deleting them ---------------------------------------------------------------------------- */
static void
delete_dead(VacuumState *state, uint32 tree)
{
	XtHandle   *handle = state->handle;
	XtError		error;
	XtLeafHint	hint = {state->leaves, state->leaf_ends, state->slots, state->leaf_count};
	uint32		found = 0;
	bool		prepared;

	if (state->dead_count == 0)
		return;
	XtLock(handle, LW_EXCLUSIVE);
	do
		prepared = xt_prepare_delete(handle->index, tree, state->bound_lo, state->bound_hi,
									 state->dead, state->dead_count, &hint, &found, &error);
	while (!prepared && XtProvideMemory(handle, &error));
	if (!prepared)
	{
		XtUnlock(handle);
		XtReportError(state->index, &error);
	}
	if (found > 0)
	{
		XLogRecPtr	lsn = XtLogAndApplyDelete(state->index, handle, tree, state->bound_lo,
											  state->bound_hi, state->dead, state->dead_count);

		XtNoteRemoval(handle->shared);
		state->last_lsn = Max(state->last_lsn, lsn);
		state->deletions++;
	}
	XtUnlock(handle);
	state->stats->tuples_removed += found;
	state->dead_count = state->leaf_count = 0;
	XtStampWhenMany(handle);
	XtAfterChange(state->index, handle);
}

/* Adds the first `dead` entries of the leaf to what will be deleted. */
static void
add_dead(VacuumState *state, uint32 tree, int dims, int dead)
{
	int			done = 0;

	if (state->dead_count + dead > XT_DELETE_BATCH_MAX)
		delete_dead(state, tree);
	while (done < dead)
	{
		int			some = Min(dead - done, XT_DELETE_BATCH_MAX);
		const XtLeaf *leaf = &state->leaf;
		bool		first = state->dead_count == 0;

		for (int d = 0; d < dims; d++)
		{
			state->bound_lo[d] = first ? leaf->lo[d] : Min(state->bound_lo[d], leaf->lo[d]);
			state->bound_hi[d] = first ? leaf->hi[d] : Max(state->bound_hi[d], leaf->hi[d]);
		}
		memcpy(state->dead + state->dead_count, state->record_ids + done, some * sizeof(uint64));
		memcpy(state->slots + state->dead_count, state->record_slots + done, some * sizeof(uint16));
		state->dead_count += some;
		state->leaves[state->leaf_count] = leaf->id;
		state->leaf_ends[state->leaf_count++] = state->dead_count;
		done += some;
		if (done < dead)
			delete_dead(state, tree);
	}
}

/* Everything matches. */
static void
match_all(XtPredicate *predicate)
{
	memset(predicate, 0, sizeof(*predicate));
	for (int d = 0; d < XT_DIMS_MAX; d++)
	{
		predicate->lo_min[d] = predicate->hi_min[d] = -INFINITY;
		predicate->lo_max[d] = predicate->hi_max[d] = INFINITY;
	}
	predicate->nan_matches = true;
}

/*
 * One pass over a tree. Returns whether it may have missed entries, which takes both: that it gave up its
 * first epoch, and that others have changed the tree's structure.
 */
static bool
vacuum_pass(VacuumState *state, uint32 tree, bool renew)
{
	XtHandle   *handle = state->handle;
	int			dims = tree == XT_TREE_NULL ? 1 : handle->spec.dims;
	XtScanRef  *ref = XtScanBegin(state->index, handle);
	uint64		first_epoch;
	uint64		renewed_at = 0;
	bool		renewed = false;
	bool		missed;
	XtPredicate predicate;
	XtError		error;

	match_all(&predicate);
	state->deletions = 0;
	while (!xt_scan_window(ref->scan, tree, &predicate, &error))
		if (!XtProvideMemory(handle, &error))
			XtReportError(state->index, &error);
	first_epoch = xt_scan_epoch(ref->scan);
	for (;;)
	{
		int			dead;
		int			count = xt_scan_leaf(ref->scan, state->record_ids, BATCH_CAPACITY,
										 &state->leaf, &error);

		if (count < 0)
		{
			if (XtProvideMemory(handle, &error))
				continue;
			XtReportError(state->index, &error);
		}
		if (count == 0)
			break;
		dead = pick_dead(state, count);
		/* A box around leaves of different parents may be a large part of the whole. */
		if (state->leaf.new_parent)
			delete_dead(state, tree);
		if (dead > 0)
			add_dead(state, tree, dims, dead);
		if (renew && state->deletions >= renewed_at + DELETIONS_PER_EPOCH)
		{
			while (!xt_scan_renew(ref->scan, &error))
				if (!XtProvideMemory(handle, &error))
					XtReportError(state->index, &error);
			renewed_at = state->deletions;
			renewed = true;
		}
		if (VacuumCostActive)
			VacuumCostBalance += VacuumCostPageHit + (dead > 0 ? VacuumCostPageDirty : 0);
		vacuum_delay_point();
	}
	delete_dead(state, tree);
	missed = renewed && (xt_scan_lost(ref->scan) ||
						 xt_published_epoch(handle->index) != first_epoch + state->deletions);
	XtScanEnd(ref);
	return missed;
}

static void
vacuum_tree(VacuumState *state, uint32 tree)
{
	if (vacuum_pass(state, tree, true))
		(void) vacuum_pass(state, tree, false);
}

static void
fill_stats(XtHandle *handle, IndexBulkDeleteResult *stats)
{
	stats->num_pages = xt_data_blocks(handle->index);
	stats->num_index_tuples = xt_entries(handle->index, XT_TREE_MAIN) +
		xt_entries(handle->index, XT_TREE_NULL);
	stats->estimated_count = false;
}

IndexBulkDeleteResult *
xtbulkdelete(IndexVacuumInfo *info, IndexBulkDeleteResult *stats,
			 IndexBulkDeleteCallback callback, void *callback_state)
{
	VacuumState *state = palloc0(sizeof(VacuumState));

	if (stats == NULL)
		stats = palloc0(sizeof(IndexBulkDeleteResult));
	state->index = info->index;
	state->handle = XtOpen(info->index);
	state->stats = stats;
	state->callback = callback;
	state->callback_state = callback_state;
	build_filter(state, dead_items_of(info, callback, callback_state));

	vacuum_tree(state, XT_TREE_MAIN);
	vacuum_tree(state, XT_TREE_NULL);

	/*
	 * The heap's line pointers may be reused as soon as this returns. Were a deletion lost then, an
	 * entry would point to a row that it does not belong to.
	 */
	if (!XLogRecPtrIsInvalid(state->last_lsn))
		XLogFlush(state->last_lsn);
	XtAwaitPins(state->handle->shared);
	fill_stats(state->handle, stats);
	if (state->filter.words != NULL)
		pfree(state->filter.words);
	pfree(state);
	return stats;
}

IndexBulkDeleteResult *
xtvacuumcleanup(IndexVacuumInfo *info, IndexBulkDeleteResult *stats)
{
	if (info->analyze_only)
		return stats;
	if (stats == NULL)
		stats = palloc0(sizeof(IndexBulkDeleteResult));
	fill_stats(XtOpen(info->index), stats);
	return stats;
}
