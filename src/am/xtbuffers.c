/*
 * xtbuffers.c: what the host's shared buffers may hold of an index's files.
 *
 * The engine stores through mappings and never through buffers; the host does the opposite when it
 * replays page images or copies a database. Before an index is mapped for the first time, after either,
 * nothing of it may stay in buffers.
 */
#include "xtregistry.h"

#include "access/xlogutils.h"
#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "storage/smgr.h"

/* As the host: up to this share of the buffers it is cheaper to look each block up than to scan them. */
#define LOOK_UP_BLOCKS_MAX	((uint64) NBuffers / 32)

static bool
block_is_buffered(const RelFileNode *node, ForkNumber fork, BlockNumber block)
{
	BufferTag	tag;
	uint32		hash;
	LWLock	   *lock;
	int			buffer;

	INIT_BUFFERTAG(tag, *node, fork, block);
	hash = BufTableHashCode(&tag);
	lock = BufMappingPartitionLock(hash);
	LWLockAcquire(lock, LW_SHARED);
	buffer = BufTableLookup(&tag, hash);
	LWLockRelease(lock);
	return buffer >= 0;
}

/*
 * Whether a buffer may hold a block of the relation. Nothing is in buffers behind the end of a file: what
 * extends a relation through buffers extends the file first. Only the startup process knows sizes by
 * hearsay, so it does not ask.
 */
static bool
may_be_buffered(SMgrRelation reln, const RelFileNode *node)
{
	uint64		blocks[MAX_FORKNUM + 1] = {0};
	uint64		total = 0;

	if (InRecovery)
		return true;
	for (ForkNumber fork = 0; fork <= MAX_FORKNUM; fork++)
	{
		if (smgrexists(reln, fork))
			blocks[fork] = smgrnblocks(reln, fork);
		total += blocks[fork];
	}
	if (total > LOOK_UP_BLOCKS_MAX)
		return true;
	for (ForkNumber fork = 0; fork <= MAX_FORKNUM; fork++)
	{
		for (BlockNumber block = 0; block < blocks[fork]; block++)
			if (block_is_buffered(node, fork, block))
				return true;
	}
	return false;
}

void
XtDropHostBuffers(const XtRelKey *key)
{
	RelFileNode node = {key->tablespace, key->database, key->relation};
	SMgrRelation reln = smgropen(node, key->backend);

	if (key->backend != InvalidBackendId)
	{
		DropRelFileNodesAllBuffers(&reln, 1);
		return;
	}
	/*
	 * Nearly always there is none, and both calls below go through all buffers: for a thousand indexes
	 * after a start that would be a thousand times all of memory.
	 */
	if (!may_be_buffered(reln, &node))
		return;
	/*
	 * Dirty ones are newer than the file: redo of page images, or the copy that CREATE DATABASE makes
	 * through buffers. Until an index is opened nobody stores into its file by a mapping.
	 */
	FlushRelationsAllBuffers(&reln, 1);
	DropRelFileNodesAllBuffers(&reln, 1);
}
