/*
 * xtbuild.c: ambuild and ambuildempty.
 *
 * The heap scan feeds keys in batches to the engine, which sorts and packs them in memory with several
 * threads. When they outgrow maintenance_work_mem they are taken back out and go through the host's
 * external sort by curve key, then stream into the packer.
 *
 * The finished file's blocks are logged as full-page images straight from the mapping, and a "built" record
 * ends the sequence (xtwal.c, redo_built). A crash before that record leaves a file that no committed catalog
 * row names. The file itself is synced by the next checkpoint.
 */
#include "xtregistry.h"

#include <math.h>

#include "access/tableam.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/index.h"
#include "catalog/pg_control.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "catalog/storage.h"
#include "commands/progress.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/smgr.h"
#include "utils/float.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"

#define BUILD_BATCH			1024
/* Blocks written between two looks for interrupts. */
#define BUILD_FINISH_BLOCKS	1024

typedef struct BuildState
{
	Relation	index;
	XtHandle   *handle;
	XtBuild    *build;
	int			dims;
	double		index_tuples;
	MemoryContext tuple_context;	/* reset after each batch */

	/* Bounds of the finite coordinates seen so far, for the external sort's curve. */
	double		bounds_lo[XT_DIMS_MAX];
	double		bounds_hi[XT_DIMS_MAX];

	/* One batch. */
	uint32		count;
	double	   *lo;				/* BUILD_BATCH * dims */
	double	   *hi;
	uint64		record_ids[BUILD_BATCH];
	uint64		curve_keys[BUILD_BATCH];

	/* External sort; null while everything fits in memory. */
	Tuplesortstate *sort;
	TupleDesc	sort_desc;		/* curve key int8, entry bytea: record id, lo, hi */
	TupleTableSlot *put_slot;
	bytea	   *entry;
} BuildState;

/* --- External sort ---------------------------------------------------------------------------- */
static Size
entry_bytes(const BuildState *state)
{
	return sizeof(uint64) + 2 * state->dims * sizeof(double);
}

/* Puts the batch into the external sort. */
static void
sort_batch(BuildState *state)
{
	TupleTableSlot *slot = state->put_slot;
	Size		corner = state->dims * sizeof(double);

	xt_build_curve_keys(state->build, state->bounds_lo, state->bounds_hi, state->lo, state->hi,
						state->count, state->curve_keys);
	for (uint32 i = 0; i < state->count; i++)
	{
		char	   *p = VARDATA(state->entry);

		memcpy(p, &state->record_ids[i], sizeof(uint64));
		memcpy(p + sizeof(uint64), state->lo + i * state->dims, corner);
		memcpy(p + sizeof(uint64) + corner, state->hi + i * state->dims, corner);
		ExecClearTuple(slot);
		/* The curve key is unsigned; flipping the top bit keeps its order as a signed number. */
		slot->tts_values[0] = Int64GetDatum((int64) (state->curve_keys[i] ^ ((uint64) 1 << 63)));
		slot->tts_values[1] = PointerGetDatum(state->entry);
		slot->tts_isnull[0] = slot->tts_isnull[1] = false;
		ExecStoreVirtualTuple(slot);
		tuplesort_puttupleslot(state->sort, slot);
	}
	ExecClearTuple(slot);
	state->count = 0;
}

/*
 * Moves everything so far to an external sort. The curve's bounds are those of the keys seen until now:
 * later keys outside are clamped onto its edge, which costs packing quality and nothing else.
 */
static void
start_external_sort(BuildState *state)
{
	AttrNumber	column = 1;
	Oid			operator = Int8LessOperator;
	Oid			collation = InvalidOid;
	bool		nulls_first = false;

	Assert(state->count == 0 && state->sort == NULL);
	state->sort_desc = CreateTemplateTupleDesc(2);
	TupleDescInitEntry(state->sort_desc, 1, "curve", INT8OID, -1, 0);
	TupleDescInitEntry(state->sort_desc, 2, "entry", BYTEAOID, -1, 0);
	state->put_slot = MakeSingleTupleTableSlot(state->sort_desc, &TTSOpsVirtual);
	state->entry = palloc0(VARHDRSZ + entry_bytes(state));
	SET_VARSIZE(state->entry, VARHDRSZ + entry_bytes(state));
	state->sort = tuplesort_begin_heap(state->sort_desc, 1, &column, &operator, &collation,
									   &nulls_first, maintenance_work_mem, NULL,
									   TUPLESORT_NONE);
	while ((state->count = xt_build_take(state->build, state->lo, state->hi, state->record_ids,
										 BUILD_BATCH)) > 0)
	{
		sort_batch(state);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Streams the sorted entries into the packer. */
static void
pack_sorted(BuildState *state)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(state->sort_desc, &TTSOpsMinimalTuple);
	Size		corner = state->dims * sizeof(double);
	bool		more;

	pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, XTREE_PHASE_SORT);
	tuplesort_performsort(state->sort);
	pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, XTREE_PHASE_PACK);
	do
	{
		XtError		error;

		CHECK_FOR_INTERRUPTS();
		state->count = 0;
		while (state->count < BUILD_BATCH &&
			   (more = tuplesort_gettupleslot(state->sort, true, false, slot, NULL)))
		{
			bool		isnull;
			char	   *p = VARDATA_ANY(DatumGetPointer(slot_getattr(slot, 2, &isnull)));
			uint32		i = state->count++;

			memcpy(&state->record_ids[i], p, sizeof(uint64));
			memcpy(state->lo + i * state->dims, p + sizeof(uint64), corner);
			memcpy(state->hi + i * state->dims, p + sizeof(uint64) + corner, corner);
		}
		while (state->count > 0 &&
			   !xt_build_add_sorted(state->build, state->lo, state->hi, state->record_ids,
									state->count, &error))
			if (!XtProvideMemory(state->handle, &error))
				XtReportError(state->index, &error);
	} while (more);
	ExecDropSingleTupleTableSlot(slot);
	tuplesort_end(state->sort);
}

/* --- The heap scan ---------------------------------------------------------------------------- */
static void
flush_batch(BuildState *state)
{
	XtError		error;

	if (state->count == 0)
		return;
	for (uint32 i = 0; i < state->count; i++)
	{
		for (int d = 0; d < state->dims; d++)
		{
			double		lo = state->lo[i * state->dims + d];
			double		hi = state->hi[i * state->dims + d];

			if (isfinite(lo))
				state->bounds_lo[d] = Min(state->bounds_lo[d], lo);
			if (isfinite(hi))
				state->bounds_hi[d] = Max(state->bounds_hi[d], hi);
		}
	}
	if (state->sort != NULL)
	{
		sort_batch(state);
		return;
	}
	while (!xt_build_add(state->build, state->lo, state->hi, state->record_ids, state->count,
						 &error))
		if (!XtProvideMemory(state->handle, &error))
			XtReportError(state->index, &error);
	state->count = 0;
	if (xt_build_memory_bytes(state->build) > (uint64) maintenance_work_mem * 1024)
		start_external_sort(state);
}

static void
build_callback(Relation index, ItemPointer tid, Datum *values, bool *isnull, bool tupleIsAlive,
			   void *arg)
{
	BuildState *state = arg;
	MemoryContext oldcontext = MemoryContextSwitchTo(state->tuple_context);
	uint32		i = state->count;
	bool		has_key;

	has_key = XtFormKey(index, values, isnull, state->lo + i * state->dims,
						state->hi + i * state->dims);
	MemoryContextSwitchTo(oldcontext);
	state->index_tuples++;
	if (!has_key)
	{
		XtError		error;

		while (!xt_build_add_null(state->build, XtRecordId(tid), &error))
			if (!XtProvideMemory(state->handle, &error))
				XtReportError(index, &error);
		return;
	}
	state->record_ids[i] = XtRecordId(tid);
	if (++state->count == BUILD_BATCH)
	{
		flush_batch(state);
		MemoryContextReset(state->tuple_context);
	}
}

/* --- After packing ---------------------------------------------------------------------------- */
/*
 * Logs the file's blocks, free ones too (zeros, between used ones), so that replay over a later state
 * gives exactly this one. Blocks reserved beyond the last used one are not part of the image.
 *
 * Not by log_newpages, which gives each page the LSN of its record: that would be a store, and often a fault,
 * for each, and nobody asks for that LSN. The blocks have an earlier one already.
 */
static void
log_blocks(BuildState *state)
{
	Relation	index = state->index;
	uint32		end = xt_data_blocks(state->handle->index);
	uint32		count = 0;
	XtError		error;

	pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, XTREE_PHASE_LOG);
	for (; end > 0; end--)
	{
		Page		page = xt_block_address(state->handle->index, end - 1, &error);

		if (page == NULL)
			XtReportError(index, &error);
		if (!PageIsNew(page))
			break;
	}
	XLogEnsureRecordSpace(XLR_MAX_BLOCK_ID - 1, 0);
	for (uint32 block = 0; block < end; block++)
	{
		Page		page = xt_block_address(state->handle->index, block, &error);

		if (page == NULL)
			XtReportError(index, &error);
		if (count == 0)
			XLogBeginInsert();
		XLogRegisterBlock(count++, &index->rd_node, MAIN_FORKNUM, block, page,
						  REGBUF_FORCE_IMAGE | REGBUF_STANDARD);
		if (count == XLR_MAX_BLOCK_ID || block + 1 == end)
		{
			XLogInsert(RM_XLOG_ID, XLOG_FPI);
			count = 0;
			CHECK_FOR_INTERRUPTS();
		}
	}
	if (xt_faulted(state->handle->index))
	{
		xt_fault(state->handle->index, &error);
		XtReportError(index, &error);
	}
	XtHaltAt(XT_HALT_BUILD_IMAGES);
	pg_atomic_write_u64(&state->handle->shared->images_lsn, XtLogBuilt(index, end));
	XtHaltAt(XT_HALT_BUILT);
}

/*
 * Has the file synced by the next checkpoint: until then the images are replayed. A checkpoint that has begun
 * since the first of them, when the redo point was `redo`, may leave some out, and may be past its syncs.
 */
static void
request_sync(BuildState *state, XLogRecPtr redo)
{
	XtError		error;
	bool		requested;

	/* A checkpoint that begins now waits for the request. */
	MyProc->delayChkptFlags |= DELAY_CHKPT_START;
	requested = GetRedoRecPtr() == redo && XtRequestDataSync(state->handle);
	MyProc->delayChkptFlags &= ~DELAY_CHKPT_START;
	if (!requested && !xt_sync_data(state->handle->index, &error))
		XtReportError(state->index, &error);
}

/* An error or exit during the build: the file goes with the transaction, shared memory here. */
static void
build_cleanup(int code, Datum arg)
{
	BuildState *state = (BuildState *) DatumGetPointer(arg);

	/* An error may have come with locks held that what follows is going to take. */
	LWLockReleaseAll();
	if (state->build != NULL)
		xt_build_free(state->build);
	state->build = NULL;
	state->handle->scans--;
	XtBuildDone(state->handle, false);
}

static double
run_build(BuildState *state, Relation heap, struct IndexInfo *indexInfo)
{
	Relation	index = state->index;
	double		heap_tuples;
	XtError		error;
	const volatile int *const cancel[2] = {(const volatile int *) &QueryCancelPending,
	(const volatile int *) &ProcDiePending};
	const bool	wal = RelationNeedsWAL(index);
	XLogRecPtr	redo;
	bool		done = false;

	state->build = xt_build_begin(state->handle->index, xtree_build_threads, cancel, &error);
	if (state->build == NULL)
		XtReportError(index, &error);
	pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, XTREE_PHASE_SCAN);
	heap_tuples = table_index_build_scan(heap, index, indexInfo, true, true, build_callback, state,
										 NULL);
	flush_batch(state);
	if (state->sort != NULL)
		pack_sorted(state);
	pgstat_progress_update_param(PROGRESS_CREATEIDX_SUBPHASE, XTREE_PHASE_PACK);
	/* Operations on the index get later LSNs than whatever has been written so far. */
	while (!xt_build_pack(state->build, wal ? GetXLogInsertRecPtr() : InvalidXLogRecPtr, &error))
	{
		/* Where the request has been withdrawn meanwhile there is no way back either. */
		CHECK_FOR_INTERRUPTS();
		if (error.code == XT_CANCELLED)
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("canceling the build of xtree index \"%s\"",
							RelationGetRelationName(index))));
		if (!XtProvideMemory(state->handle, &error))
			XtReportError(index, &error);
	}
	while (!done)
	{
		CHECK_FOR_INTERRUPTS();
		if (!xt_build_finish(state->build, !wal, BUILD_FINISH_BLOCKS, &done, &error) &&
			!XtProvideMemory(state->handle, &error))
			XtReportError(index, &error);
	}
	xt_build_free(state->build);
	state->build = NULL;

	redo = GetRedoRecPtr();
	if (wal)
		log_blocks(state);
	if (DataChecksumsEnabled())
	{
		XtLock(state->handle, LW_EXCLUSIVE);
		XtStampTouched(state->handle);
		XtUnlock(state->handle);
	}
	if (wal)
		request_sync(state, redo);
	return heap_tuples;
}

IndexBuildResult *
xtbuild(Relation heap, Relation index, struct IndexInfo *indexInfo)
{
	IndexBuildResult *result = palloc0(sizeof(IndexBuildResult));
	BuildState *state = palloc0(sizeof(BuildState));
	XtSpec		spec;

	XtRequirePreloaded();
	if (RelationGetNumberOfBlocks(index) != 0)
		elog(ERROR, "index \"%s\" already contains data", RelationGetRelationName(index));

	XtFillSpec(index, &spec);
	state->index = index;
	state->dims = spec.dims;
	state->lo = palloc(sizeof(double) * BUILD_BATCH * spec.dims);
	state->hi = palloc(sizeof(double) * BUILD_BATCH * spec.dims);
	for (int d = 0; d < spec.dims; d++)
	{
		state->bounds_lo[d] = get_float8_infinity();
		state->bounds_hi[d] = -get_float8_infinity();
	}
	state->tuple_context = AllocSetContextCreate(CurrentMemoryContext, "xtree build keys",
												 ALLOCSET_DEFAULT_SIZES);
	state->handle = XtOpenForBuild(index, &spec);
	state->handle->scans++;		/* keeps the handle and its mappings */
	PG_ENSURE_ERROR_CLEANUP(build_cleanup, PointerGetDatum(state));
	{
		result->heap_tuples = run_build(state, heap, indexInfo);
	}
	PG_END_ENSURE_ERROR_CLEANUP(build_cleanup, PointerGetDatum(state));
	state->handle->scans--;
	XtBuildDone(state->handle, true);
	result->index_tuples = state->index_tuples;
	MemoryContextDelete(state->tuple_context);
	return result;
}

/* The init fork of an unlogged index: what an empty index has. It is copied at each reset. */
void
xtbuildempty(Relation index)
{
	SMgrRelation reln = RelationGetSmgr(index);
	XtRelKey	key;
	XtSpec		spec;
	XtIdentity	identity;
	XtError		error;
	char	   *pages = palloc_extended(2 * BLCKSZ, MCXT_ALLOC_ZERO);

	XtRequirePreloaded();
	XtFillSpec(index, &spec);
	XtKeyOfRelation(index, &key);
	XtFillIdentity(&key, &identity);
	if (!xt_empty_image(&spec, &identity, pages, &error))
		XtReportError(index, &error);
	for (BlockNumber block = 0; block < 2; block++)
	{
		Page		page = pages + block * BLCKSZ;

		log_newpage(&reln->smgr_rnode.node, INIT_FORKNUM, block, page, true);
		PageSetChecksumInplace(page, block);
		smgrextend(reln, INIT_FORKNUM, block, page, true);
	}
	/* Not through shared buffers, so a checkpoint since the log records would not sync it. */
	smgrimmedsync(reln, INIT_FORKNUM);
	pfree(pages);
}
