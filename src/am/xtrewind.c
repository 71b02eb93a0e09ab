/*
 * xtrewind.c: what pg_rewind makes of an index.
 *
 * pg_rewind gives a former primary what its replacement has: all files but the main forks of relations as
 * they are there, so our logs and the timeline history too; of main forks only the blocks that this
 * server's WAL names, and the file's size. The WAL then brings the rest. That does not hold for an index
 * whose main fork is changed by folds, which no WAL record describes, and at other times on the other
 * server: the log may build on a capture that is not in the data file.
 *
 * So at the first start after it (backup_label tells) every index is judged by its files, before any
 * process can open one, and marked broken unless they prove to belong together; REINDEX on the new
 * primary mends it here too. A crash before recovery has taken backup_label over repeats that, to the
 * same end.
 *
 * The other server must not fold while pg_rewind reads its files: xthooks.c holds folds as long as
 * there is a session that reads files by parts.
 */
#include "xtregistry.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_tablespace_d.h"
#include "common/relpath.h"
#include "storage/bufpage.h"
#include "storage/fd.h"

static void
judge_file(const char *path)
{
	char	   *log_path = psprintf("%s_%s", path, forkNames[VISIBILITYMAP_FORKNUM]);
	XtError		error;
	XtError		mark_error;
	Oid			tablespace = DEFAULTTABLESPACE_OID;
	Oid			relation = InvalidOid;
	bool		broken;

	/* Going on without knowing could mean short answers. */
	if (!xt_distrust_rewound(path, log_path, &broken, &error))
		ereport(FATAL,
				(errcode(XtSqlState(error.code)),
				 errmsg("could not judge file \"%s\" after pg_rewind", path),
				 errdetail_internal("%s", error.message)));
	pfree(log_path);
	if (!broken)
		return;
	if (sscanf(path, "pg_tblspc/%u/%*[^/]/%*u/%u", &tablespace, &relation) != 2)
		(void) sscanf(path, "base/%*u/%u", &relation);
	/* Marked already, but for the checksums. */
	if (DataChecksumsEnabled() && !XtMarkFile(path, &mark_error))
		ereport(FATAL,
				(errcode(XtSqlState(mark_error.code)),
				 errmsg("could not mark file \"%s\" as broken", path),
				 errdetail_internal("%s", mark_error.message)));
	ereport(WARNING,
			(errcode(ERRCODE_INDEX_CORRUPTED),
			 errmsg("pg_rewind has left the xtree index in file \"%s\" without part of its state", path),
			 errdetail_internal("%s", error.message),
			 errhint(XT_BROKEN_HINT, tablespace, relation)));
}

static bool
is_number(const char *name)
{
	return name[0] != '\0' && strspn(name, "0123456789") == strlen(name);
}

/* Calls `visit` with the path of each entry of `directory` whose name is a number. */
static void
for_each_number(const char *directory, const char *below, void (*visit) (const char *path))
{
	DIR		   *dir = AllocateDir(directory);
	struct dirent *entry;

	if (dir == NULL && errno == ENOENT)
		return;
	/* An error here is FATAL, as anything that fails before the server is up. */
	while ((entry = ReadDirExtended(dir, directory, FATAL)) != NULL)
	{
		char	   *path;

		if (!is_number(entry->d_name))
			continue;
		path = psprintf("%s/%s%s", directory, entry->d_name, below);
		visit(path);
		pfree(path);
	}
	FreeDir(dir);
}

static void
judge_database(const char *directory)
{
	for_each_number(directory, "", judge_file);
}

static void
judge_tablespace(const char *directory)
{
	for_each_number(directory, "", judge_database);
}

void
XtDistrustRewound(void)
{
	judge_tablespace("base");
	for_each_number("pg_tblspc", "/" TABLESPACE_VERSION_DIRECTORY, judge_tablespace);
}
