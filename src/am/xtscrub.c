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
 * A checksum written over a damaged page would hide the damage. So a note says whose it is, cluster, engine
 * timeline and relation, under a CRC, and one that does not fit is removed unheeded. And only pages that say
 * that they are the engine's block of this number get a checksum: never those of a heap, whatever a note says.
 *
 * What a crash leaves amid a scrub: the note. After the note is removed, until the directory is synced: perhaps
 * the note, and a scrub that changes nothing.
 */
#include "xtregistry.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/bufpage.h"
#include "storage/checksum.h"
#include "storage/fd.h"

#define NOTES_DIRECTORY		"xtree_builds"

#define NOTE_MAGIC			0x58744e31	/* "XtN1" */

/* The content of a note. On disk: DO NOT CHANGE. */
typedef struct XtBuildNote
{
	uint32		magic;
	uint32		timeline;		/* the engine's, in which the index was modified */
	uint64		system_id;
	Oid			tablespace;
	Oid			database;
	Oid			relation;
	pg_crc32c	crc;			/* of the above */
} XtBuildNote;

StaticAssertDecl(sizeof(XtBuildNote) == 32, "no padding");

static void
fill_note(const XtRelKey *key, uint32 timeline, XtBuildNote *note)
{
	note->magic = NOTE_MAGIC;
	note->timeline = timeline;
	note->system_id = GetSystemIdentifier();
	note->tablespace = key->tablespace;
	note->database = key->database;
	note->relation = key->relation;
	INIT_CRC32C(note->crc);
	COMP_CRC32C(note->crc, note, offsetof(XtBuildNote, crc));
	FIN_CRC32C(note->crc);
}

static bool
write_note(int fd, const XtRelKey *key)
{
	XtBuildNote note;

	fill_note(key, xt_registry->timeline, &note);
	errno = ENOSPC;				/* if a short write does not say */
	return pg_pwrite(fd, &note, sizeof(note), 0) == sizeof(note);
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
	XtNotePath(NOTES_DIRECTORY, key, path, sizeof(path));
	fd = OpenTransientFile(path, O_CREAT | O_WRONLY | PG_BINARY);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", path)));
	if (!write_note(fd, key) || pg_fsync(fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", path)));
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
	XtNotePath(NOTES_DIRECTORY, key, path, sizeof(path));
	XtRemoveNote(path, LOG);
}

bool
XtScrubNoteChange(XtShared *shared)
{
	char		path[MAXPGPATH];
	int			fd;

	if (likely(shared->noted) || !DataChecksumsEnabled() || shared->key.backend != InvalidBackendId)
		return false;
	XtNotePath(NOTES_DIRECTORY, &shared->key, path, sizeof(path));
	fd = BasicOpenFile(path, O_CREAT | O_WRONLY | PG_BINARY);
	if (fd < 0 && errno == ENOENT && (MakePGDirectory(NOTES_DIRECTORY) == 0 || errno == EEXIST))
		fd = BasicOpenFile(path, O_CREAT | O_WRONLY | PG_BINARY);
	if (fd < 0 || !write_note(fd, &shared->key))
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", path)));
		if (fd >= 0)
			close(fd);
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
 * Whether it was written in this cluster, in a life of the server that is known, for this relation. One that
 * a power failure has left empty is: nobody copies an index's note without what it says.
 */
static bool
note_is_ours(const char *path, const XtRelKey *key)
{
	static const XtBuildNote empty;
	XtBuildNote note = empty;
	XtBuildNote expected;
	int			fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	bool		known;

	if (fd < 0 || pg_pread(fd, &note, sizeof(note), 0) < 0)
		note.magic = 0xffffffff;
	if (fd >= 0)
		CloseTransientFile(fd);
	if (memcmp(&note, &empty, sizeof(note)) == 0)
		return true;
	known = note.timeline == xt_registry->timeline;
	for (uint32 i = 0; i < xt_registry->timeline_count; i++)
		known |= note.timeline == xt_registry->timelines[i].timeline;
	if (!known)
		return false;
	fill_note(key, note.timeline, &expected);
	return memcmp(&note, &expected, sizeof(note)) == 0;
}

/* Whether a page says that it is the engine's block of this number. Its CRC may not be there yet. */
static bool
is_engine_block(const char *page, BlockNumber block)
{
	PageHeader	header = (PageHeader) page;
	uint32		place;

	memcpy(&place, page + XT_BLOCK_NUMBER_OFFSET, sizeof(place));
	return header->pd_lower == BLCKSZ && header->pd_upper == BLCKSZ && header->pd_special == BLCKSZ &&
		place == block;
}

/* Checksums of the blocks of one file. False: it could not be read or written. */
static bool
scrub_file(const char *path, BlockNumber first_block)
{
	PGAlignedBlock buffer;
	int			fd = OpenTransientFile(path, O_RDWR | PG_BINARY);
	bool		ok = true;
	bool		changed = false;

	if (fd < 0)
		return false;
	for (BlockNumber block = 0; ok; block++)
	{
		off_t		offset = (off_t) block * BLCKSZ;
		PageHeader	page;

		if (pg_pread(fd, buffer.data, BLCKSZ, offset) != BLCKSZ)
			break;
		page = (PageHeader) buffer.data;
		if (!is_engine_block(buffer.data, first_block + block) ||
			page->pd_checksum == pg_checksum_page(buffer.data, first_block + block))
			continue;
		page->pd_checksum = pg_checksum_page(buffer.data, first_block + block);
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
	scrub = DataChecksumsEnabled() &&
		(xt_registry->start & (XT_START_CRASHED | XT_START_COPIED)) != 0;
	directory = AllocateDir(NOTES_DIRECTORY);
	while ((entry = ReadDirExtended(directory, NOTES_DIRECTORY, LOG)) != NULL)
	{
		XtRelKey	key;
		char		path[MAXPGPATH];

		if (!XtNoteKey(entry->d_name, &key))
			continue;
		XtNotePath(NOTES_DIRECTORY, &key, path, sizeof(path));
		if (!scrub)
			;
		else if (!note_is_ours(path, &key))
			ereport(LOG,
					(errmsg("file \"%s\" was not written by this server, and is removed", path)));
		else
		{
			XtForEachDataFile(&key, scrub_segment);
			XtForEachLogFile(&key, scrub_segment);
		}
		if (unlink(path) != 0)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not remove file \"%s\": %m", path)));
	}
	FreeDir(directory);
}
