/*
 * xtwal.c: WAL records of the index, and their redo.
 *
 * The host's WAL is what makes an operation durable, replicates it and brings it back after a crash;
 * the engine's log only shortens the replay to what came after the host's last checkpoint. Records are
 * logical, and carry no block references. BUILT and ADOPTED carry XLR_SPECIAL_REL_UPDATE, which makes
 * pg_rewind refuse: their images name blocks, so it would mix this server's blocks with the other's.
 * After the others it may go on, since what it makes of the files is judged (xtrewind.c).
 *
 * Redo never stops the server. An index that it cannot follow is marked broken, which costs a REINDEX.
 */
#include "xtregistry.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "catalog/storage.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "storage/bufmgr.h"
#include "storage/proc.h"
#include "storage/smgr.h"
#include "storage/sync.h"
#include "utils/memutils.h"

/* In the WAL: DO NOT CHANGE. */
#define XLOG_XTREE_INSERT	0x00
#define XLOG_XTREE_DELETE	0x10
#define XLOG_XTREE_BUILT	0x20
#define XLOG_XTREE_FOLD		0x30
#define XLOG_XTREE_ADOPTED	0x40

/* What a key looks like. In the WAL: DO NOT CHANGE. */
#define XL_SHAPE_DIMS		0x3f	/* 0: the row's key is NULL */
#define XL_SHAPE_POINT		0x40	/* lo only */

/*
 * An insertion. The coordinates follow, packed (xt_pack_coords), unaligned. In the WAL: DO NOT CHANGE.
 * A box takes 36 bytes if its float8 have few digits, 52 if not.
 */
typedef struct xl_xtree_insert
{
	RelFileNode node;
	uint16		block_hi;		/* the heap TID */
	uint16		block_lo;
	uint16		offset;
	uint8		shape;
	uint8		packing;
} xl_xtree_insert;

#define SizeOfXtreeInsert	(offsetof(xl_xtree_insert, packing) + sizeof(uint8))

/*
 * A deletion: the entries of `tree` within the bounds that have these TIDs. 2 * dims float8 follow, then
 * 6 bytes for each TID. In the WAL: DO NOT CHANGE.
 */
typedef struct xl_xtree_delete
{
	RelFileNode node;
	uint16		count;
	uint8		tree;
	uint8		dims;
} xl_xtree_delete;

#define SizeOfXtreeDelete	(offsetof(xl_xtree_delete, dims) + sizeof(uint8))

/* A build has ended: its block images came before. In the WAL: DO NOT CHANGE. */
typedef struct xl_xtree_built
{
	RelFileNode node;
	BlockNumber blocks;
} xl_xtree_built;

#define SizeOfXtreeBuilt	(offsetof(xl_xtree_built, blocks) + sizeof(BlockNumber))

/* The index was folded before its files are copied; redo does the same. In the WAL: DO NOT CHANGE. */
typedef struct xl_xtree_fold
{
	RelFileNode node;
} xl_xtree_fold;

/* A copy that the host has made of an index's files, and logged as images, was made an index of its
 * own. Nothing to redo. In the WAL: DO NOT CHANGE. */
typedef struct xl_xtree_adopted
{
	RelFileNode node;
} xl_xtree_adopted;

#define XL_TID_BYTES		6
/* Redo of a fold waits so long for another fold of the same index to end. */
#define REDO_FOLD_WAITS_MAX	6000

/* Redo looks up so many insertions into an index together, which are found among so many records. */
#define AHEAD_RECORDS		32
#define AHEAD_INSERTIONS	XT_EXPECTED_MAX

/* --- Writing ---------------------------------------------------------------------------------- */
static bool
request_sync(XtHandle *handle, ForkNumber fork, uint32 segment, bool wait)
{
	FileTag		tag;

	memset(&tag, 0, sizeof(tag));
	tag.handler = SYNC_HANDLER_MD;
	tag.forknum = fork;
	tag.rnode.spcNode = handle->key.tablespace;
	tag.rnode.dbNode = handle->key.database;
	tag.rnode.relNode = handle->key.relation;
	tag.segno = segment;
	return RegisterSyncRequest(&tag, SYNC_REQUEST, wait);
}

bool
XtRequestDataSync(XtHandle *handle)
{
	const uint32 segments = (xt_data_blocks(handle->index) + RELSEG_SIZE - 1) / RELSEG_SIZE;

	for (uint32 segment = 0; segment < segments; segment++)
	{
		if (!request_sync(handle, MAIN_FORKNUM, segment, false))
			return false;
	}
	return true;
}

/*
 * The host's checkpointer syncs the log file before the next checkpoint completes. Never skipped as
 * "already requested": a checkpoint that is running may have taken the earlier request.
 */
static void
request_log_sync(XtHandle *handle)
{
	if (!handle->logged)
		return;
	(void) request_sync(handle, VISIBILITYMAP_FORKNUM, xt_log_file_segment(handle->index), true);
	if (pg_atomic_read_u32(&handle->shared->log_dirty) == 0)
		pg_atomic_write_u32(&handle->shared->log_dirty, 1);
}

/*
 * The record is inserted, applied and its sync requested while DELAY_CHKPT_START is set, so that a
 * checkpoint whose redo point lies after the record waits for the request: either the record is
 * replayed, or the log that holds the operation is synced before the checkpoint completes.
 */
static XLogRecPtr
log_and_apply(Relation index, XtHandle *handle, uint8 info)
{
	XLogRecPtr	lsn = InvalidXLogRecPtr;
	bool		wal = RelationNeedsWAL(index);

	Assert((MyProc->delayChkptFlags & DELAY_CHKPT_START) == 0);
	/* Who is killed between change and note would leave blocks of which nobody knows that they lack checksums. */
	XtScrubNoteChange(handle->shared);
	MyProc->delayChkptFlags |= DELAY_CHKPT_START;
	START_CRIT_SECTION();
	if (wal)
		lsn = XLogInsert(RM_XTREE_ID, info);
	if (info == XLOG_XTREE_DELETE)
		pg_atomic_write_u64(&handle->shared->removed_lsn, lsn);
	XtHaltAt(XT_HALT_RECORD);
	xt_apply(handle->index, lsn);
	END_CRIT_SECTION();
	XtHaltAt(XT_HALT_APPLIED);
	request_log_sync(handle);
	if (unlikely(xt_faulted(handle->index)))
	{
		XtError		fault;
		XtError		error;

		/*
		 * What was stored may be lost, and a checkpoint that completes now would let it be missed. No
		 * checkpoint completes before the mark is on disk. Two who share the lock must not mark at once.
		 */
		if (!LWLockHeldByMeInMode(&handle->shared->lock, LW_EXCLUSIVE))
		{
			LWLockRelease(&handle->shared->lock);
			LWLockAcquire(&handle->shared->lock, LW_EXCLUSIVE);
		}
		xt_fault(handle->index, &fault);
		if (!XtMarkBroken(&handle->key, handle->index, &error))
			ereport(WARNING,
					(errcode(XtSqlState(error.code)),
					 errmsg("could not mark xtree index \"%s\" as broken",
							RelationGetRelationName(index)),
					 errdetail_internal("%s", error.message)));
		MyProc->delayChkptFlags &= ~DELAY_CHKPT_START;
		XtReportError(index, &fault);
	}
	XtNoteTouched(handle);
	MyProc->delayChkptFlags &= ~DELAY_CHKPT_START;
	return lsn;
}

static uint8
shape_of(const XtSpec *spec)
{
	return spec->dims | (spec->kind == XT_POINT ? XL_SHAPE_POINT : 0);
}

/* Dimensions of a deletion's bounds. */
static uint8
bound_dims(const XtHandle *handle, uint32 tree)
{
	return tree == XT_TREE_NULL ? 1 : handle->spec.dims;
}

void
XtLogAndApplyInsert(Relation index, XtHandle *handle, const double *lo, const double *hi,
					uint64 record_id)
{
	struct
	{
		xl_xtree_insert head;
		char		key[XT_PACKED_BYTES_MAX];
	}			record;
	const XtSpec *spec = &handle->spec;
	uint32		bytes = 0;

	if (RelationNeedsWAL(index))
	{
		record.head.node = index->rd_node;
		record.head.block_hi = (uint16) (record_id >> 32);
		record.head.block_lo = (uint16) (record_id >> 16);
		record.head.offset = (uint16) record_id;
		record.head.shape = 0;
		record.head.packing = 0;
		if (lo != NULL)
		{
			record.head.shape = shape_of(spec);
			bytes = xt_pack_coords(lo, hi, spec->dims, spec->kind == XT_POINT, record.key,
								   &record.head.packing);
		}
		XLogBeginInsert();
		StaticAssertStmt(sizeof(record.head) == SizeOfXtreeInsert, "the key follows");
		XLogRegisterData((char *) &record, SizeOfXtreeInsert + bytes);
	}
	log_and_apply(index, handle, XLOG_XTREE_INSERT);
}

XLogRecPtr
XtLogAndApplyDelete(Relation index, XtHandle *handle, uint32 tree, const double *lo,
					const double *hi, const uint64 *record_ids, uint32 count)
{
	xl_xtree_delete head;
	char		tids[XT_DELETE_BATCH_MAX * XL_TID_BYTES];

	Assert(count <= XT_DELETE_BATCH_MAX);
	if (RelationNeedsWAL(index))
	{
		head.node = index->rd_node;
		head.count = count;
		head.tree = tree;
		head.dims = bound_dims(handle, tree);
		/* The low 48 bits, little-endian. */
		for (uint32 i = 0; i < count; i++)
			memcpy(tids + i * XL_TID_BYTES, &record_ids[i], XL_TID_BYTES);
		XLogBeginInsert();
		XLogRegisterData((char *) &head, SizeOfXtreeDelete);
		XLogRegisterData((char *) lo, head.dims * sizeof(double));
		XLogRegisterData((char *) hi, head.dims * sizeof(double));
		XLogRegisterData(tids, count * XL_TID_BYTES);
	}
	return log_and_apply(index, handle, XLOG_XTREE_DELETE);
}

XLogRecPtr
XtLogBuilt(Relation index, uint32 blocks)
{
	xl_xtree_built record;

	record.node = index->rd_node;
	record.blocks = blocks;
	XLogBeginInsert();
	XLogRegisterData((char *) &record, SizeOfXtreeBuilt);
	return XLogInsert(RM_XTREE_ID, XLOG_XTREE_BUILT | XLR_SPECIAL_REL_UPDATE);
}

void
XtLogFold(Relation index)
{
	xl_xtree_fold record;

	record.node = index->rd_node;
	XLogBeginInsert();
	XLogRegisterData((char *) &record, sizeof(record));
	XLogInsert(RM_XTREE_ID, XLOG_XTREE_FOLD);
}

void
XtLogAdopted(const XtRelKey *key)
{
	xl_xtree_adopted record;

	record.node.spcNode = key->tablespace;
	record.node.dbNode = key->database;
	record.node.relNode = key->relation;
	XLogBeginInsert();
	XLogRegisterData((char *) &record, sizeof(record));
	XLogInsert(RM_XTREE_ID, XLOG_XTREE_ADOPTED | XLR_SPECIAL_REL_UPDATE);
}

/* --- Redo ------------------------------------------------------------------------------------- */
/*
 * A worker folds a long log, as everywhere, but there is none before a consistent state is reached, and
 * never where hot_standby is off. From xtree.log_size_limit on the startup process folds by itself.
 */
static void
redo_limit_log(XtHandle *handle)
{
	XtError		error;

	if (!XtLimitLog(handle, &error))
		ereport(WARNING,
				(errcode(XtSqlState(error.code)),
				 errmsg("could not fold the xtree index of file %u/%u/%u", handle->key.tablespace,
						handle->key.database, handle->key.relation),
				 errdetail_internal("%s", error.message)));
}

/* Applies what was prepared, or marks the index broken. Writer lock held; released here. */
static void
redo_finish(XtHandle *handle, bool prepared, bool anything, XLogRecPtr lsn, const XtError *error)
{
	if (!prepared)
	{
		XtRedoBroken(handle, error);
		return;
	}
	if (anything)
	{
		XtScrubNoteChange(handle->shared);
		xt_apply(handle->index, lsn);
		request_log_sync(handle);
		if (unlikely(xt_faulted(handle->index)))
		{
			XtError		fault;

			xt_fault(handle->index, &fault);
			XtRedoBroken(handle, &fault);
			return;
		}
		XtNoteTouched(handle);
	}
	XtUnlock(handle);

	/* The host believes in its own idea of a file's size during recovery. */
	if (handle->blocks_seen != xt_data_blocks(handle->index))
	{
		RelFileNodeBackend node;

		node.node.spcNode = handle->key.tablespace;
		node.node.dbNode = handle->key.database;
		node.node.relNode = handle->key.relation;
		node.backend = InvalidBackendId;
		smgrclosenode(node);
		handle->blocks_seen = xt_data_blocks(handle->index);
	}
	redo_limit_log(handle);
}

/* Opens the record's index and takes its writer lock. NULL if the record has nothing to do. */
static XtHandle *
redo_begin(const RelFileNode *node, XLogRecPtr lsn)
{
	XtHandle   *handle = XtOpenForRedo(node);

	if (handle == NULL)
		return NULL;
	XtLock(handle, LW_EXCLUSIVE);
	if (lsn > xt_applied_lsn(handle->index))
		return handle;
	XtUnlock(handle);
	return NULL;
}

static void
say_malformed(XLogReaderState *record, XtError *error)
{
	error->code = XT_CORRUPTION;
	snprintf(error->message, sizeof(error->message), "the WAL record at %X/%X is malformed, or not of this index",
			 LSN_FORMAT_ARGS(record->ReadRecPtr));
}

/*
 * Reads the key behind the head of an insertion, of whose record these are the data. False if what follows is no key
 * of the head's shape.
 */
static bool
get_key(const char *data, uint32 length, const xl_xtree_insert *head, double *lo, double *hi)
{
	int			dims = head->shape & XL_SHAPE_DIMS;

	return dims <= XT_DIMS_MAX &&
		xt_unpack_coords(data + SizeOfXtreeInsert, length - SizeOfXtreeInsert, head->packing, dims,
						 (head->shape & XL_SHAPE_POINT) != 0, lo, hi);
}

static uint64
record_id_of(const xl_xtree_insert *head)
{
	return ((uint64) head->block_hi << 32) | ((uint64) head->block_lo << 16) | head->offset;
}

/*
 * Has the engine look up where this insertion and the next ones into the same index go, as far as the host has decoded
 * them: their misses of the cache then overlap. Writer lock held.
 */
static void
look_ahead(XLogReaderState *record, XtHandle *handle)
{
	DecodedXLogRecord *next = record->record;
	int			insertions = 0;

	if (next->lsn <= handle->expected_lsn)
		return;					/* one of those that were looked up together */
	for (int i = 0; i < AHEAD_RECORDS && insertions < AHEAD_INSERTIONS && next != NULL;
		 i++, next = XtDecodedNext(next))
	{
		xl_xtree_insert head;
		double		lo[XT_DIMS_MAX];
		double		hi[XT_DIMS_MAX];

		if (next->header.xl_rmid != RM_XTREE_ID ||
			(next->header.xl_info & ~XLR_INFO_MASK) != XLOG_XTREE_INSERT ||
			next->main_data_len < SizeOfXtreeInsert)
			continue;
		memcpy(&head, next->main_data, SizeOfXtreeInsert);
		if (head.node.relNode != handle->key.relation || head.node.dbNode != handle->key.database ||
			head.node.spcNode != handle->key.tablespace || head.shape != shape_of(&handle->spec) ||
			!get_key(next->main_data, next->main_data_len, &head, lo, hi))
			continue;
		xt_expect_insert(handle->index, lo, hi, record_id_of(&head));
		handle->expected_lsn = next->lsn;
		insertions++;
	}
	if (insertions > 1)
		xt_walk_ahead(handle->index);
}

static void
redo_insert(XLogReaderState *record)
{
	xl_xtree_insert head;
	XtHandle   *handle;
	XtError		error;
	double		lo[XT_DIMS_MAX];
	double		hi[XT_DIMS_MAX];
	uint64		record_id;
	bool		ok;

	memcpy(&head, XLogRecGetData(record), SizeOfXtreeInsert);
	handle = redo_begin(&head.node, record->EndRecPtr);
	if (handle == NULL)
		return;
	look_ahead(record, handle);
	record_id = record_id_of(&head);
	ok = head.shape == 0 ||
		(head.shape == shape_of(&handle->spec) &&
		 get_key(XLogRecGetData(record), XLogRecGetDataLen(record), &head, lo, hi));
	if (!ok)
		say_malformed(record, &error);
	else
	{
		do
			ok = xt_prepare_insert(handle->index, head.shape ? lo : NULL, head.shape ? hi : NULL,
								   record_id, &error);
		while (!ok && XtProvideMemory(handle, &error));
	}
	redo_finish(handle, ok, true, record->EndRecPtr, &error);
}

static void
redo_delete(XLogReaderState *record)
{
	xl_xtree_delete head;
	XtHandle   *handle;
	XtError		error;
	double		lo[XT_DIMS_MAX];
	double		hi[XT_DIMS_MAX];
	uint64		record_ids[XT_DELETE_BATCH_MAX];
	const char *p = XLogRecGetData(record);
	uint32		found = 0;
	bool		ok = false;

	memcpy(&head, p, SizeOfXtreeDelete);
	handle = redo_begin(&head.node, record->EndRecPtr);
	if (handle == NULL)
		return;
	p += SizeOfXtreeDelete;
	if (head.dims != bound_dims(handle, head.tree) || head.count > XT_DELETE_BATCH_MAX ||
		XLogRecGetDataLen(record) != SizeOfXtreeDelete + 2 * head.dims * sizeof(double) +
		head.count * XL_TID_BYTES)
		say_malformed(record, &error);
	else
	{
		memcpy(lo, p, head.dims * sizeof(double));
		p += head.dims * sizeof(double);
		memcpy(hi, p, head.dims * sizeof(double));
		p += head.dims * sizeof(double);
		for (uint32 i = 0; i < head.count; i++, p += XL_TID_BYTES)
		{
			record_ids[i] = 0;
			memcpy(&record_ids[i], p, XL_TID_BYTES);
		}
		do
			ok = xt_prepare_delete(handle->index, head.tree, lo, hi, record_ids, head.count, NULL,
								   &found, &error);
		while (!ok && XtProvideMemory(handle, &error));
	}
	redo_finish(handle, ok, found > 0, record->EndRecPtr, &error);
}

/*
 * The build's images lie in the host's buffers now. They go to the file, which is then cut to the built
 * size, and the log is emptied: the index is what it was when the build ended, whatever the files held
 * before (a later state, if this is replay after a crash).
 */
static void
redo_built(XLogReaderState *record)
{
	xl_xtree_built built;
	XtRelKey	key;
	SMgrRelation reln;
	ForkNumber	forks[2] = {MAIN_FORKNUM, VISIBILITYMAP_FORKNUM};
	BlockNumber blocks[2];
	RelFileNodeBackend node;
	XtError		error;

	memcpy(&built, XLogRecGetData(record), SizeOfXtreeBuilt);
	node.node = built.node;
	node.backend = InvalidBackendId;
	XtKeyOfNode(&built.node, &key);
	/* What is cut must not be needed by a recovery that ends before this record. */
	XLogFlush(record->EndRecPtr);
	if (!XtExtentForget(&key, &error))
		ereport(ERROR,
				(errcode(XtSqlState(error.code)), errmsg_internal("%s", error.message)));

	/* Nobody can be using the index: the build holds an exclusive lock on it, or it is new. */
	XtForget(&key);
	reln = smgropen(built.node, InvalidBackendId);
	smgrcreate(reln, MAIN_FORKNUM, true);
	XtDropHostBuffers(&key);
	/* The engine may have changed the sizes behind the host's back. */
	smgrclosenode(node);
	reln = smgropen(built.node, InvalidBackendId);
	blocks[0] = built.blocks;
	blocks[1] = 0;
	smgrtruncate(reln, forks, smgrexists(reln, VISIBILITYMAP_FORKNUM) ? 2 : 1, blocks);
	smgrclosenode(node);
	pg_atomic_write_u64(&XtHandleForRedo(&built.node)->shared->images_lsn, record->EndRecPtr);
}

static void
redo_fold(XLogReaderState *record)
{
	xl_xtree_fold fold;
	XtHandle   *handle;
	XtError		error;
	bool		done = false;

	memcpy(&fold, XLogRecGetData(record), sizeof(fold));
	handle = XtOpenForRedo(&fold.node);
	if (handle == NULL)
		return;
	/* A single-user server has nobody who could make one during recovery; nor has it standbys. */
	if (IsPostmasterEnvironment && xt_log_bytes(handle->index) > 0 && XtImagesMayReplay(handle->shared))
		RequestCheckpoint(CHECKPOINT_IMMEDIATE | CHECKPOINT_FORCE | CHECKPOINT_WAIT);
	for (int i = 0; !done && i < REDO_FOLD_WAITS_MAX; i++)
	{
		done = xt_log_bytes(handle->index) == 0 || XtFoldHandle(handle, &error);
		if (done || error.code != XT_BUSY || XtBackupRunning() ||
			XtImagesMayReplay(handle->shared))
			break;
		pg_usleep(10000L);
	}
	if (!done)
		ereport(LOG,
				(errmsg("could not fold the xtree index of file %u/%u/%u",
						fold.node.spcNode, fold.node.dbNode, fold.node.relNode),
				 errdetail_internal("%s", error.message)));
}

static void
redo_record(XLogReaderState *record)
{
	uint8		info = XLogRecGetInfo(record) & ~XLR_INFO_MASK;

	switch (info)
	{
		case XLOG_XTREE_INSERT:
			redo_insert(record);
			break;
		case XLOG_XTREE_DELETE:
			redo_delete(record);
			break;
		case XLOG_XTREE_BUILT:
			redo_built(record);
			break;
		case XLOG_XTREE_FOLD:
			redo_fold(record);
			break;
		case XLOG_XTREE_ADOPTED:
			break;
		default:
			elog(ERROR, "unknown xtree WAL record type %u", info);
	}
}

/* In a PG_CATCH: takes the message of the error, and the error itself out of the way. */
static void
swallow_error(MemoryContext oldcontext, char *why, Size bytes)
{
	MemoryContextSwitchTo(oldcontext);
	/* The copy takes memory, and want of that may be what the error is about. */
	PG_TRY();
	{
		ErrorData  *data = CopyErrorData();

		strlcpy(why, data->message, bytes);
		FreeErrorData(data);
	}
	PG_CATCH();
	{
		strlcpy(why, "out of memory", bytes);
	}
	PG_END_TRY();
	FlushErrorState();
	LWLockReleaseAll();
}

/*
 * No error leaves here: for the startup process it would be the end of the server. What an error keeps
 * from following the WAL is marked broken; if even that raises, by means that cannot.
 */
static void
xtree_redo(XLogReaderState *record)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	RelFileNode node;
	XtRelKey	key;
	XtError		error;
	volatile bool failed = false;

	/* Every record begins with the relation. */
	memcpy(&node, XLogRecGetData(record), sizeof(node));
	XtKeyOfNode(&node, &key);
	if (XtIsLost(&key) && (XLogRecGetInfo(record) & ~XLR_INFO_MASK) != XLOG_XTREE_BUILT)
		return;
	PG_TRY();
	{
		redo_record(record);
	}
	PG_CATCH();
	{
		swallow_error(oldcontext, error.message, sizeof(error.message));
		error.code = XT_INTERNAL;
		failed = true;
	}
	PG_END_TRY();
	if (!failed)
		return;

	failed = false;
	PG_TRY();
	{
		XtRedoBroken(XtHandleForRedo(&node), &error);
	}
	PG_CATCH();
	{
		char		again[sizeof(error.message)];

		/* The first error is the one to report. */
		swallow_error(oldcontext, again, sizeof(again));
		failed = true;
	}
	PG_END_TRY();
	if (failed)
		XtRedoLost(&node, error.message);
}

/* --- Descriptions ----------------------------------------------------------------------------- */
static void
xtree_desc(StringInfo buf, XLogReaderState *record)
{
	char	   *data = XLogRecGetData(record);
	RelFileNode node;

	memcpy(&node, data, sizeof(node));
	appendStringInfo(buf, "rel %u/%u/%u", node.spcNode, node.dbNode, node.relNode);
	switch (XLogRecGetInfo(record) & ~XLR_INFO_MASK)
	{
		case XLOG_XTREE_INSERT:
			{
				xl_xtree_insert head;
				double		lo[XT_DIMS_MAX];
				double		hi[XT_DIMS_MAX];

				memcpy(&head, data, SizeOfXtreeInsert);
				appendStringInfo(buf, "; tid (%u,%u)",
								 ((uint32) head.block_hi << 16) | head.block_lo, head.offset);
				if (head.shape == 0)
					appendStringInfoString(buf, "; null");
				else if (get_key(data, XLogRecGetDataLen(record), &head, lo, hi))
					for (int d = 0; d < (head.shape & XL_SHAPE_DIMS); d++)
						appendStringInfo(buf, "%s%g..%g", d == 0 ? "; key " : ", ", lo[d], hi[d]);
				break;
			}
		case XLOG_XTREE_DELETE:
			{
				xl_xtree_delete head;

				memcpy(&head, data, SizeOfXtreeDelete);
				appendStringInfo(buf, "; tree %u; %u entries", head.tree, head.count);
				break;
			}
		case XLOG_XTREE_BUILT:
			{
				xl_xtree_built built;

				memcpy(&built, data, SizeOfXtreeBuilt);
				appendStringInfo(buf, "; %u blocks", built.blocks);
				break;
			}
	}
}

static const char *
xtree_identify(uint8 info)
{
	switch (info & ~XLR_INFO_MASK)
	{
		case XLOG_XTREE_INSERT:
			return "INSERT";
		case XLOG_XTREE_DELETE:
			return "DELETE";
		case XLOG_XTREE_BUILT:
			return "BUILT";
		case XLOG_XTREE_FOLD:
			return "FOLD";
		case XLOG_XTREE_ADOPTED:
			return "ADOPTED";
	}
	return NULL;
}

void
XtWalRegister(void)
{
	static RmgrData rmgr = {
		.rm_name = "xtree",
		.rm_redo = xtree_redo,
		.rm_desc = xtree_desc,
		.rm_identify = xtree_identify,
		.rm_startup = NULL,
		.rm_cleanup = NULL,
		.rm_mask = NULL,
		.rm_decode = NULL
	};

	RegisterCustomRmgr(RM_XTREE_ID, &rmgr);
}
