/*
 * xtscrub.c: host checksums of what a crash leaves behind.
 *
 * A transaction gives the blocks that it has modified their host checksums before it ends, and a build at its
 * end. Where they do not end, nobody reads these blocks again: they hold what a redo point covers already, or
 * what is free by now, or the file goes with the transaction, or is an orphan as the host leaves them too. But
 * a tool that verifies all files of the cluster would report them. So, where data checksums are on, a note on
 * disk names each index that has been modified since the server started; one that starts after a crash, or from
 * a backup, and finds notes gives the blocks of these indexes checksums, before anybody can use them. The
 * engine's own CRC covers neither checksum nor LSN, so that is right for whatever the files hold.
 *
 * A build makes its note durable before it stores anything, since it stores much. The others are left to the
 * kernel: killed processes lose no file, and after a power failure a note of some seconds may be missing.
 *
 * What a crash leaves amid a scrub: the note. After the note is removed, until the directory is synced: perhaps
 * the note, and a scrub that changes nothing.
 */
#include "xtregistry.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
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

bool
XtScrubNoteChange(XtShared *shared)
{
	char		path[MAXPGPATH];
	int			fd;

	if (likely(shared->noted) || !DataChecksumsEnabled() || shared->key.backend != InvalidBackendId)
		return false;
	note_path(&shared->key, path, sizeof(path));
	fd = BasicOpenFile(path, O_CREAT | O_WRONLY | PG_BINARY);
	if (fd < 0 && errno == ENOENT && (MakePGDirectory(NOTES_DIRECTORY) == 0 || errno == EEXIST))
		fd = BasicOpenFile(path, O_CREAT | O_WRONLY | PG_BINARY);
	if (fd < 0)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", path)));
		return false;
	}
	close(fd);
	shared->noted = true;
	return true;
}

void
XtScrubForgetChange(XtShared *shared)
{
	XtScrubForget(&shared->key);
	shared->noted = false;
}

/*
 * Whether the relation is one of ours, by its first block: the note of one that is gone may have outlived it,
 * and its number have been given away. (A build may not have got there.)
 */
static bool
is_ours(const XtRelKey *key)
{
	PGAlignedBlock buffer;
	PageHeader	page = (PageHeader) buffer.data;
	char	   *path = XtDataPath(key);
	int			fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	bool		ours;

	pfree(path);
	if (fd < 0)
		return false;
	ours = pg_pread(fd, buffer.data, BLCKSZ, 0) == BLCKSZ &&
		(PageIsNew(buffer.data) ||
		 (page->pd_lower == BLCKSZ && page->pd_upper == BLCKSZ && page->pd_special == BLCKSZ));
	CloseTransientFile(fd);
	return ours;
}

/* Checksums of the blocks of one file. False: it could not be read or written. */
static bool
scrub_file(const char *path, BlockNumber first_block)
{
	PGAlignedBlock buffer;
	Page		page = (Page) buffer.data;
	int			fd = OpenTransientFile(path, O_RDWR | PG_BINARY);
	bool		ok = true;
	bool		changed = false;

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
		changed = true;
	}
	ok = ok && (!changed || pg_fsync(fd) == 0);
	CloseTransientFile(fd);
	return ok;
}

static void
scrub_segment(const char *name, int segment)
{
	if (!scrub_file(name, (BlockNumber) segment * RELSEG_SIZE))
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write checksums to file \"%s\": %m", name)));
}

/* Whether the server was stopped in good order, and is not a copy: then all transactions have ended. */
static bool
stopped_in_order(void)
{
	struct stat st;
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		stopped = crc_ok && (control->state == DB_SHUTDOWNED ||
									 control->state == DB_SHUTDOWNED_IN_RECOVERY);

	pfree(control);
	return stopped && stat(BACKUP_LABEL_FILE, &st) != 0;
}

/* In the postmaster, before any other process can use the files. */
void
XtScrubStartup(void)
{
	struct stat st;
	DIR		   *directory;
	struct dirent *entry;
	bool		scrub;

	if (stat(NOTES_DIRECTORY, &st) != 0)
		return;
	scrub = DataChecksumsEnabled() && !stopped_in_order();
	directory = AllocateDir(NOTES_DIRECTORY);
	while ((entry = ReadDirExtended(directory, NOTES_DIRECTORY, LOG)) != NULL)
	{
		XtRelKey	key;
		char		path[MAXPGPATH];

		if (sscanf(entry->d_name, "%u_%u_%u", &key.tablespace, &key.database, &key.relation) != 3)
			continue;
		key.backend = InvalidBackendId;
		if (scrub && is_ours(&key))
		{
			XtForEachDataFile(&key, scrub_segment);
			XtForEachLogFile(&key, scrub_segment);
		}
		note_path(&key, path, sizeof(path));
		if (unlink(path) != 0)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not remove file \"%s\": %m", path)));
	}
	FreeDir(directory);
}
