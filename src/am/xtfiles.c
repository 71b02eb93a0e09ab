/*
 * xtfiles.c: an index's files by name: what they are called, marking them as broken, emptying them.
 */
#include "xtregistry.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/catalog.h"
#include "catalog/pg_tablespace_d.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/bufpage.h"
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

bool
XtIdentifyFile(const XtRelKey *key, XtFileId *file)
{
	char	   *path = XtDataPath(key);
	struct statx sx;
	struct stat st;
	bool		found = false;

	if (statx(AT_FDCWD, path, 0, STATX_INO | STATX_SIZE | STATX_BTIME, &sx) == 0)
	{
		found = sx.stx_size > 0;
		file->inode = sx.stx_ino;
		file->device = makedev(sx.stx_dev_major, sx.stx_dev_minor);
		file->born_ns = (sx.stx_mask & STATX_BTIME) ?
			(uint64) sx.stx_btime.tv_sec * 1000000000 + sx.stx_btime.tv_nsec : 0;
	}
	else if (errno != ENOENT && stat(path, &st) == 0)
	{
		/* Where a filter of system calls does not know the newer one. */
		found = st.st_size > 0;
		file->inode = st.st_ino;
		file->device = st.st_dev;
		file->born_ns = 0;
	}
	pfree(path);
	return found;
}

static void
for_each_file(char *path, void (*visit) (const char *name, int segment))
{
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

void
XtForEachDataFile(const XtRelKey *key, void (*visit) (const char *name, int segment))
{
	for_each_file(XtDataPath(key), visit);
}

void
XtForEachLogFile(const XtRelKey *key, void (*visit) (const char *name, int segment))
{
	for_each_file(XtLogPath(key), visit);
}

static bool
is_there(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

bool
XtFilesAreGone(const XtRelKey *key)
{
	char		place[MAXPGPATH];
	char	   *path = XtDataPath(key);
	bool		there = is_there(path);

	pfree(path);
	if (there)
		return false;
	if (key->tablespace == DEFAULTTABLESPACE_OID)
		return true;
	snprintf(place, sizeof(place), "pg_tblspc/%u", key->tablespace);
	if (!is_there(place))
		return !is_there(TABLESPACE_MAP);
	strlcat(place, "/" TABLESPACE_VERSION_DIRECTORY, sizeof(place));
	return is_there(place);
}

void
XtNotePath(const char *directory, const XtRelKey *key, char *path, Size bytes)
{
	snprintf(path, bytes, "%s/%u_%u_%u", directory, key->tablespace, key->database, key->relation);
}

bool
XtNoteKey(const char *name, XtRelKey *key)
{
	key->backend = InvalidBackendId;
	return sscanf(name, "%u_%u_%u", &key->tablespace, &key->database, &key->relation) == 3;
}

void
XtRemoveNote(const char *path, int elevel)
{
	if (unlink(path) != 0 && errno != ENOENT)
		ereport(elevel,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", path)));
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

bool
XtFileIsForeign(const XtRelKey *key)
{
	char	   *path = XtDataPath(key);
	int			fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
	char		pages[XT_SUPERBLOCKS * BLCKSZ];
	XtIdentity	identity;
	bool		read;

	read = fd >= 0 && pg_pread(fd, pages, sizeof(pages), 0) == sizeof(pages);
	if (fd >= 0)
		close(fd);
	pfree(path);
	XtFillIdentity(key, &identity);
	return read && xt_is_foreign(pages, &identity);
}

/* The engine wrote the superblocks; they get the host's checksums. False: `errno` says why. */
static bool
stamp_superblocks(const char *path)
{
	int			fd = BasicOpenFile(path, O_RDWR | PG_BINARY);
	PGAlignedBlock page;
	bool		ok = fd >= 0;

	for (BlockNumber block = 0; ok && block < XT_SUPERBLOCKS; block++)
	{
		off_t		offset = (off_t) block * BLCKSZ;

		ok = pg_pread(fd, page.data, BLCKSZ, offset) == BLCKSZ;
		if (!ok)
			break;
		XtStampPage(page.data, block, PageGetLSN(page.data));
		ok = pg_pwrite(fd, page.data, BLCKSZ, offset) == BLCKSZ;
	}
	ok = ok && pg_fsync(fd) == 0;
	if (fd >= 0)
		close(fd);
	return ok;
}

/* After the engine has, or has not, marked the superblocks. */
static bool
finish_mark(bool marked, const char *path, XtError *error)
{
	if (!marked || !DataChecksumsEnabled() || stamp_superblocks(path))
		return marked;
	error->code = XT_IO_ERROR;
	snprintf(error->message, sizeof(error->message),
			 "could not write checksums of file \"%s\": %s", path, strerror(errno));
	return false;
}

bool
XtMarkFile(const char *path, XtError *error)
{
	return finish_mark(xt_mark_file_broken(path, error), path, error);
}

/* XtDataPath of what is not temporary, without memory. */
static void
put_path(const XtRelKey *key, char *path, Size bytes)
{
	if (key->tablespace == DEFAULTTABLESPACE_OID)
		snprintf(path, bytes, "base/%u/%u", key->database, key->relation);
	else
		snprintf(path, bytes, "pg_tblspc/%u/%s/%u/%u", key->tablespace,
				 TABLESPACE_VERSION_DIRECTORY, key->database, key->relation);
}

bool
XtMarkBroken(const XtRelKey *key, XtIndex *index, XtError *error)
{
	char		path[MAXPGPATH];

	/* A later start knows nothing of what is temporary. */
	if (key->backend != InvalidBackendId)
		return index == NULL || xt_mark_broken(index, error);
	put_path(key, path, sizeof(path));
	if (index == NULL)
		return XtMarkFile(path, error) || XtNoteBroken(key);
	return finish_mark(xt_mark_broken(index, error), path, error) || XtNoteBroken(key);
}

void
XtRedoBroken(XtHandle *handle, const XtError *error)
{
	XtShared   *shared = handle->shared;
	char	   *path = XtDataPath(&handle->key);
	XtError		mark_error;
	bool		marked;

	if (!LWLockHeldByMe(&shared->lock))
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	marked = XtMarkBroken(&handle->key, handle->index, &mark_error);
	if (handle->index != NULL && DataChecksumsEnabled())
		XtStampTouched(handle);
	pg_atomic_write_u32(&shared->state, XT_STATE_BROKEN);
	pg_atomic_write_u32(&shared->fold_wanted, 0);
	LWLockRelease(&shared->lock);
	ereport(WARNING,
			(errcode(ERRCODE_INDEX_CORRUPTED),
			 errmsg("WAL replay cannot follow the xtree index in file \"%s\"", path),
			 errdetail_internal("%s", error->message),
			 errhint(XT_BROKEN_HINT, handle->key.tablespace, handle->key.relation)));
	if (!marked)
		ereport(WARNING,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("could not mark the xtree index in file \"%s\" as broken", path),
				 errdetail_internal("%s", mark_error.message),
				 errhint("Rebuild it with REINDEX before the server is stopped.")));
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
	put_path(&key, path, sizeof(path));
	if (XtMarkBroken(&key, NULL, &error))
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
					 errhint(XT_BROKEN_HINT, key.tablespace, key.relation)));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(oldcontext);
		FlushErrorState();
		LWLockReleaseAll();
	}
	PG_END_TRY();
}
