/*
 * xtscrub.c: host checksums of what a crash in the middle of a build leaves behind.
 *
 * A build stores blocks through a mapping, in an order of its own, and gives them their host checksums at its
 * end. The kernel may write any of them before. Where the build does not end, nobody reads them again: the
 * file goes with the transaction, or belongs to an index that is invalid (CREATE INDEX CONCURRENTLY), or is an
 * orphan as the host leaves them too. But a tool that verifies all files of the cluster would report them. So,
 * where data checksums are on, a build leaves a note on disk while it runs; a server that starts and finds
 * notes gives the blocks of these files checksums, before anybody can use them. The engine's own CRC covers
 * neither checksum nor LSN, so that is right for whatever the file holds, a whole index included.
 *
 * What a crash leaves: before the note's fsync: nothing of the build. Amid a scrub: the note. After the note is
 * removed, until the directory is synced: perhaps the note, and a scrub that changes nothing.
 */
#include "xtregistry.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "storage/bufpage.h"
#include "storage/checksum.h"
#include "storage/fd.h"

#define NOTES_DIRECTORY		"xtree_builds"

static void
note_path(const XtRelKey *key, char *path, Size bytes)
{
	snprintf(path, bytes, NOTES_DIRECTORY "/%u_%u_%u", key->tablespace, key->database, key->relation);
}

void
XtScrubNote(const XtRelKey *key)
{
	char		path[MAXPGPATH];
	int			fd;

	if (!DataChecksumsEnabled() || key->backend != InvalidBackendId)
		return;
	if (MakePGDirectory(NOTES_DIRECTORY) < 0 && errno != EEXIST)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m", NOTES_DIRECTORY)));
	note_path(key, path, sizeof(path));
	fd = OpenTransientFile(path, O_CREAT | O_WRONLY | PG_BINARY);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", path)));
	if (pg_fsync(fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not fsync file \"%s\": %m", path)));
	CloseTransientFile(fd);
	fsync_fname(NOTES_DIRECTORY, true);
	fsync_fname(".", true);
}

void
XtScrubForget(const XtRelKey *key)
{
	char		path[MAXPGPATH];

	if (!DataChecksumsEnabled() || key->backend != InvalidBackendId)
		return;
	note_path(key, path, sizeof(path));
	if (unlink(path) != 0 && errno != ENOENT)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", path)));
}

/* Checksums of the blocks of one file. False: it could not be read or written. */
static bool
scrub_file(const char *path, BlockNumber first_block)
{
	PGAlignedBlock buffer;
	Page		page = (Page) buffer.data;
	int			fd = OpenTransientFile(path, O_RDWR | PG_BINARY);
	bool		ok = true;

	if (fd < 0)
		return false;
	for (BlockNumber block = 0; ok; block++)
	{
		off_t		offset = (off_t) block * BLCKSZ;

		if (pg_pread(fd, buffer.data, BLCKSZ, offset) != BLCKSZ)
			break;
		if (PageIsNew(page) ||
			((PageHeader) page)->pd_checksum == pg_checksum_page(buffer.data, first_block + block))
			continue;
		((PageHeader) page)->pd_checksum = pg_checksum_page(buffer.data, first_block + block);
		ok = pg_pwrite(fd, buffer.data, BLCKSZ, offset) == BLCKSZ;
	}
	ok = ok && pg_fsync(fd) == 0;
	CloseTransientFile(fd);
	return ok;
}

static void
scrub_segment(const char *name, int segment)
{
	if (!scrub_file(name, (BlockNumber) segment * RELSEG_SIZE))
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write checksums to file \"%s\", whose build was cut short: %m",
						name)));
}

/* In the postmaster, before any other process can use the files. */
void
XtScrubStartup(void)
{
	struct stat st;
	DIR		   *directory;
	struct dirent *entry;

	if (stat(NOTES_DIRECTORY, &st) != 0)
		return;
	directory = AllocateDir(NOTES_DIRECTORY);
	while ((entry = ReadDirExtended(directory, NOTES_DIRECTORY, LOG)) != NULL)
	{
		XtRelKey	key;
		char		path[MAXPGPATH];

		if (sscanf(entry->d_name, "%u_%u_%u", &key.tablespace, &key.database, &key.relation) != 3)
			continue;
		key.backend = InvalidBackendId;
		if (DataChecksumsEnabled())
			XtForEachDataFile(&key, scrub_segment);
		note_path(&key, path, sizeof(path));
		if (unlink(path) != 0)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not remove file \"%s\": %m", path)));
	}
	FreeDir(directory);
}
