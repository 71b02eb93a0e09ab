/*
 * xtextent.c: what the logs are known to hold.
 *
 * A log ends where its records end, so one that has lost its last blocks, or its whole file, reads like a
 * shorter log. While the server runs that cannot be, but while it is stopped somebody may remove a file, or
 * restore an older one. So whenever the flusher has synced a log it notes how far it reached, in a file of
 * some bytes for each index, and who loads the index later compares.
 *
 * A note is never wrong, though it may be old: it is written after the sync of what it says, a log only
 * grows, and a note about another capture than the data file's says nothing. Hence notes need no sync of
 * their own. What does shorten a log of the same capture must have the note forgotten first, durably:
 *	- loading, when it erases records that do not count (XT_NEED_FORGET);
 *	- redo of a build, which empties the log;
 *	- a base backup, whose notes may be younger than the logs beside them: all notes go.
 * The reset of an unlogged index to its init fork would do so, too, always to the same capture; so of such an
 * index nothing is said.
 *
 * A note of an index that was dropped goes with its registry entry, or at the next start.
 */
#include "xtregistry.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "common/relpath.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"

#define NOTES_DIRECTORY		"xtree_logs"
#define NOTE_MAGIC			0x58744c31	/* "XtL1" */

/* The content of a note. On disk: DO NOT CHANGE. */
typedef struct XtExtentNote
{
	uint32		magic;
	pg_crc32c	crc;			/* of what follows */
	uint64		system_id;
	Oid			tablespace;
	Oid			database;
	Oid			relation;
	uint32		zero;
	XtLogExtent extent;
} XtExtentNote;

StaticAssertDecl(sizeof(XtExtentNote) == 56, "no padding");

static void
fill_note(const XtRelKey *key, const XtLogExtent *extent, XtExtentNote *note)
{
	note->magic = NOTE_MAGIC;
	note->system_id = GetSystemIdentifier();
	note->tablespace = key->tablespace;
	note->database = key->database;
	note->relation = key->relation;
	note->zero = 0;
	note->extent = *extent;
	INIT_CRC32C(note->crc);
	COMP_CRC32C(note->crc, &note->system_id, sizeof(*note) - offsetof(XtExtentNote, system_id));
	FIN_CRC32C(note->crc);
}

void
XtExtentWrite(const XtRelKey *key, const XtLogExtent *extent)
{
	static int	last_errno = 0;
	char		path[MAXPGPATH];
	XtExtentNote note;
	int			fd;
	bool		ok;

	fill_note(key, extent, &note);
	XtNotePath(NOTES_DIRECTORY, key, path, sizeof(path));
	fd = BasicOpenFile(path, O_CREAT | O_WRONLY | PG_BINARY);
	errno = fd < 0 ? errno : ENOSPC;	/* if a short write does not say */
	ok = fd >= 0 && pg_pwrite(fd, &note, sizeof(note), 0) == sizeof(note);
	/* Not in every round. */
	if (!ok && errno != last_errno)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", path),
				 errdetail("Should the log of this xtree index lose records, that may not be noticed.")));
	last_errno = ok ? 0 : errno;
	if (fd >= 0)
		close(fd);
}

/* Recovery, with or without this library, makes its file and its log those of an empty index. */
static bool
is_unlogged(const XtRelKey *key)
{
	struct stat st;
	char	   *path = XtDataPath(key);
	char	   *init = psprintf("%s_%s", path, forkNames[INIT_FORKNUM]);
	bool		there = lstat(init, &st) == 0;

	pfree(init);
	pfree(path);
	return there;
}

void
XtExtentRead(const XtRelKey *key, XtLogExtent *extent)
{
	char		path[MAXPGPATH];
	XtExtentNote note;
	XtExtentNote expected;
	int			fd;

	memset(extent, 0, sizeof(*extent));
	if (key->backend != InvalidBackendId || is_unlogged(key))
		return;
	XtNotePath(NOTES_DIRECTORY, key, path, sizeof(path));
	fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return;
	if (pg_pread(fd, &note, sizeof(note), 0) == sizeof(note))
	{
		/* One that a power failure has torn is none. */
		fill_note(key, &note.extent, &expected);
		if (memcmp(&note, &expected, sizeof(note)) == 0)
			*extent = note.extent;
	}
	close(fd);
}

bool
XtExtentForget(const XtRelKey *key, XtError *error)
{
	char		path[MAXPGPATH];

	XtNotePath(NOTES_DIRECTORY, key, path, sizeof(path));
	/* Removed, not overwritten, which may take space; and synced also if it is gone, as a try before may have left it. */
	if ((unlink(path) == 0 || errno == ENOENT) && fsync_fname_ext(NOTES_DIRECTORY, true, false, LOG) == 0)
		return true;
	error->code = XT_IO_ERROR;
	snprintf(error->message, sizeof(error->message), "could not remove file \"%s\": %s", path, strerror(errno));
	return false;
}

void
XtExtentRemove(const XtRelKey *key, int elevel)
{
	char		path[MAXPGPATH];

	XtNotePath(NOTES_DIRECTORY, key, path, sizeof(path));
	XtRemoveNote(path, elevel);
}

void
XtExtentStartup(void)
{
	DIR		   *directory;
	struct dirent *entry;
	bool		copied = (xt_registry->start & XT_START_COPIED) != 0;
	bool		removed = false;

	if (MakePGDirectory(NOTES_DIRECTORY) < 0 && errno != EEXIST)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m", NOTES_DIRECTORY)));
	directory = AllocateDir(NOTES_DIRECTORY);
	while ((entry = ReadDir(directory, NOTES_DIRECTORY)) != NULL)
	{
		XtRelKey	key;

		if (!XtNoteKey(entry->d_name, &key))
			continue;
		if (copied || XtFilesAreGone(&key))
		{
			XtExtentRemove(&key, FATAL);
			removed = true;
		}
	}
	FreeDir(directory);
	/* Should a note come back after a power failure, it would be about logs that have been shortened. */
	if (removed)
		fsync_fname(NOTES_DIRECTORY, true);
}
