/*
 * xtfiles.c: an index's files by name: what they are called, marking them as broken, emptying them.
 */
#include "xtregistry.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/catalog.h"
#include "catalog/pg_tablespace_d.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

void
XtKeyOfNode(const RelFileNode *node, XtRelKey *key)
{
	key->tablespace = node->spcNode;
	key->database = node->dbNode;
	key->relation = node->relNode;
	key->backend = InvalidBackendId;
}

void
XtKeyOfRelation(Relation index, XtRelKey *key)
{
	XtKeyOfNode(&index->rd_node, key);
	key->backend = index->rd_backend;
}

static RelFileNodeBackend
node_of(const XtRelKey *key)
{
	RelFileNodeBackend node;

	node.node.spcNode = key->tablespace;
	node.node.dbNode = key->database;
	node.node.relNode = key->relation;
	node.backend = key->backend;
	return node;
}

char *
XtDataPath(const XtRelKey *key)
{
	return relpath(node_of(key), MAIN_FORKNUM);
}

char *
XtLogPath(const XtRelKey *key)
{
	return relpath(node_of(key), VISIBILITYMAP_FORKNUM);
}

void
XtForEachDataFile(const XtRelKey *key, void (*visit) (const char *name, int segment))
{
	char	   *path = XtDataPath(key);
	struct stat st;

	for (int segment = 0;; segment++)
	{
		char	   *name = segment == 0 ? pstrdup(path) : psprintf("%s.%d", path, segment);

		if (stat(name, &st) != 0)
			break;
		visit(name, segment);
		pfree(name);
	}
	pfree(path);
}

static void
empty_file(const char *name, int segment)
{
	if (truncate(name, 0) != 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not truncate file \"%s\": %m", name)));
}

/*
 * The file of a build that failed may stay, as that of an invalid index. What it holds has no checksums yet,
 * and is of no use.
 */
void
XtEmptyFiles(const XtRelKey *key)
{
	XtForEachDataFile(key, empty_file);
}

void
XtRedoBroken(XtHandle *handle, const XtError *error)
{
	XtShared   *shared = handle->shared;
	char	   *path = XtDataPath(&handle->key);
	XtError		mark_error;
	bool		marked = true;

	if (!LWLockHeldByMe(&shared->lock))
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (handle->index != NULL)
	{
		marked = xt_mark_broken(handle->index, &mark_error);
		if (DataChecksumsEnabled())
			XtStampTouched(handle);
	}
	else
		marked = xt_mark_file_broken(path, &mark_error);
	pg_atomic_write_u32(&shared->state, XT_STATE_BROKEN);
	pg_atomic_write_u32(&shared->fold_wanted, 0);
	LWLockRelease(&shared->lock);
	ereport(WARNING,
			(errcode(ERRCODE_INDEX_CORRUPTED),
			 errmsg("WAL replay cannot follow the xtree index in file \"%s\"", path),
			 errdetail_internal("%s", error->message),
			 errhint("Queries that use the index will fail until it is rebuilt with REINDEX.")));
	if (!marked)
		ereport(WARNING,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("could not mark the xtree index in file \"%s\" as broken", path),
				 errdetail_internal("%s", mark_error.message)));
	pfree(path);
}

/*
 * Nothing here may fail, for it is what is left when marking the index in the ordinary way has failed. So
 * the index goes on a list that exists since the server started, and its superblocks are marked by path.
 */
void
XtRedoLost(const RelFileNode *node, const char *why)
{
	XtRelKey	key;
	XtError		error;
	char		path[MAXPGPATH];
	MemoryContext oldcontext = CurrentMemoryContext;
	bool		news;

	XtKeyOfNode(node, &key);
	news = XtLose(&key);
	if (node->spcNode == DEFAULTTABLESPACE_OID)
		snprintf(path, sizeof(path), "base/%u/%u", node->dbNode, node->relNode);
	else
		snprintf(path, sizeof(path), "pg_tblspc/%u/%s/%u/%u", node->spcNode,
				 TABLESPACE_VERSION_DIRECTORY, node->dbNode, node->relNode);
	if (xt_mark_file_broken(path, &error))
		strlcpy(error.message, "It is marked so on disk, too.", sizeof(error.message));
	PG_TRY();
	{
		/* Whoever has the index open learns it from its shared record, if there is one. */
		XtShared   *shared = XtSharedLookup(&key);

		if (shared != NULL)
		{
			pg_atomic_write_u32(&shared->state, XT_STATE_BROKEN);
			XtSharedRelease(shared);
		}
		if (news)
			ereport(WARNING,
					(errcode(ERRCODE_INDEX_CORRUPTED),
					 errmsg("WAL replay cannot follow the xtree index in file \"%s\"", path),
					 errdetail_internal("%s. %s", why, error.message),
					 errhint("Queries that use the index will fail until it is rebuilt with REINDEX.")));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(oldcontext);
		FlushErrorState();
		LWLockReleaseAll();
	}
	PG_END_TRY();
}
