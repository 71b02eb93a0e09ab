/*
 * xtlost.c: indexes that must not be used though their files may not say so.
 *
 * An index is marked broken in its own superblocks. Where that fails, for want of memory in redo or because
 * the file cannot be written, the index goes on a list in shared memory that exists since the server
 * started, and which every opening asks. And it gets a note in a small file of the data directory, since a
 * later start would know nothing: the WAL record that the index lacks may not be replayed again.
 *
 * The file has a fixed number of places and is only ever overwritten, so that it can be written whenever
 * pg_control can, without which no checkpoint completes. It is made at the first start. A place is 16 bytes,
 * which no power cut tears. Each start tries to mark the noted indexes in their own files, and clears the notes
 * of which it could, or whose index is gone. Base backups carry the file.
 */
#include "xtregistry.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/relpath.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"

#define NOTES_FILE			"xtree_broken"
#define NOTES_TEMP_FILE		"xtree_broken.tmp"

/* One place in the file; zeros if it is free. On disk: DO NOT CHANGE. */
typedef struct XtNote
{
	Oid			tablespace;
	Oid			database;
	Oid			relation;
	pg_crc32c	crc;			/* of the above */
} XtNote;

StaticAssertDecl(sizeof(XtNote) == 16, "a note must not straddle sectors");

/* --- The list ----------------------------------------------------------------------------------- */
/* Its place in the list, or -1. Of a key without relation, a free one. */
static int
find_lost(const XtRelKey *key)
{
	for (int i = 0; i < XT_LOST_MAX; i++)
		if (memcmp(&xt_registry->lost[i], key, sizeof(XtRelKey)) == 0)
			return i;
	return -1;
}

bool
XtIsLost(const XtRelKey *key)
{
	bool		lost;

	if (likely(pg_atomic_read_u32(&xt_registry->lost_count) == 0))
		return false;
	SpinLockAcquire(&xt_registry->lost_mutex);
	lost = find_lost(key) >= 0;
	SpinLockRelease(&xt_registry->lost_mutex);
	return lost;
}

/* The place of `key` in the list, which it gets if it has none; -1 if all are taken. */
static int
lose(const XtRelKey *key, bool *news)
{
	static const XtRelKey none = {InvalidOid, InvalidOid, InvalidOid, 0};
	int			place;

	SpinLockAcquire(&xt_registry->lost_mutex);
	place = find_lost(key);
	*news = place < 0;
	if (*news && (place = find_lost(&none)) >= 0)
	{
		xt_registry->lost[place] = *key;
		pg_atomic_fetch_add_u32(&xt_registry->lost_count, 1);
	}
	SpinLockRelease(&xt_registry->lost_mutex);
	return place;
}

bool
XtLose(const XtRelKey *key)
{
	bool		news;

	(void) lose(key, &news);
	return news;
}

/* --- The file ----------------------------------------------------------------------------------- */
/* Allocates nothing and raises nothing. */
static bool
write_note(int place, const XtNote *note)
{
	int			fd = BasicOpenFile(NOTES_FILE, O_WRONLY | PG_BINARY);
	bool		ok = fd >= 0 &&
		pg_pwrite(fd, note, sizeof(XtNote), (off_t) place * sizeof(XtNote)) == sizeof(XtNote) &&
		pg_fsync(fd) == 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

static pg_crc32c
note_crc(const XtNote *note)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, note, offsetof(XtNote, crc));
	FIN_CRC32C(crc);
	return crc;
}

bool
XtNoteBroken(const XtRelKey *key)
{
	XtNote		note = {key->tablespace, key->database, key->relation, 0};
	bool		news;
	int			place = lose(key, &news);

	note.crc = note_crc(&note);
	if (place < 0 || !write_note(place, &note))
		return false;
	xt_registry->lost_noted[place] = true;
	return true;
}

void
XtFound(const XtRelKey *key)
{
	static const XtNote none = {InvalidOid, InvalidOid, InvalidOid, 0};
	int			place;
	bool		noted = false;

	if (likely(pg_atomic_read_u32(&xt_registry->lost_count) == 0))
		return;
	SpinLockAcquire(&xt_registry->lost_mutex);
	place = find_lost(key);
	if (place >= 0)
		noted = xt_registry->lost_noted[place];
	SpinLockRelease(&xt_registry->lost_mutex);
	if (place < 0)
		return;
	/* Nobody else is at this index. With the note it stays lost, which is safe. */
	if (noted && !write_note(place, &none))
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", NOTES_FILE)));
		return;
	}
	SpinLockAcquire(&xt_registry->lost_mutex);
	xt_registry->lost_noted[place] = false;
	memset(&xt_registry->lost[place], 0, sizeof(XtRelKey));
	pg_atomic_fetch_sub_u32(&xt_registry->lost_count, 1);
	SpinLockRelease(&xt_registry->lost_mutex);
}

/* --- Startup ------------------------------------------------------------------------------------ */
/* The index either says itself that it is broken, or goes on the list. */
static void
read_note(int place, const XtNote *note)
{
	XtRelKey	key = {note->tablespace, note->database, note->relation, InvalidBackendId};
	char	   *path;
	XtError		error;

	if (!OidIsValid(note->relation) && note->crc == 0)
		return;
	if (note->crc != note_crc(note))
		ereport(FATAL,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("invalid data in file \"%s\"", NOTES_FILE),
				 errhint("If the file is removed, xtree indexes that the server's log has reported as broken must be rebuilt with REINDEX.")));
	xt_registry->lost[place] = key;
	xt_registry->lost_noted[place] = true;
	pg_atomic_fetch_add_u32(&xt_registry->lost_count, 1);
	path = XtDataPath(&key);
	if (XtFilesAreGone(&key) || XtMarkFile(path, &error))
		XtFound(&key);
	else
		ereport(WARNING,
				(errcode(ERRCODE_INDEX_CORRUPTED),
				 errmsg("the xtree index in file \"%s\" is broken, and cannot be marked so", path),
				 errdetail_internal("%s", error.message),
				 errhint(XT_BROKEN_HINT, key.tablespace, key.relation)));
	pfree(path);
}

static void
make_file(void)
{
	char		zeros[XT_LOST_MAX * sizeof(XtNote)] = {0};
	int			fd = OpenTransientFile(NOTES_TEMP_FILE, O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);

	if (fd < 0 || pg_pwrite(fd, zeros, sizeof(zeros), 0) != sizeof(zeros) ||
		CloseTransientFile(fd) != 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", NOTES_TEMP_FILE)));
	(void) durable_rename(NOTES_TEMP_FILE, NOTES_FILE, FATAL);
}

/* In the postmaster, or in a single-user server, before any index can be opened. */
void
XtLostStartup(void)
{
	XtNote		notes[XT_LOST_MAX];
	int			fd;

	if (IsBootstrapProcessingMode())
		return;
	fd = OpenTransientFile(NOTES_FILE, O_RDONLY | PG_BINARY);
	if (fd < 0 && errno == ENOENT)
	{
		make_file();
		return;
	}
	if (fd < 0 || pg_pread(fd, notes, sizeof(notes), 0) != sizeof(notes))
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", NOTES_FILE)));
	CloseTransientFile(fd);
	for (int i = 0; i < XT_LOST_MAX; i++)
		read_note(i, &notes[i]);
}
