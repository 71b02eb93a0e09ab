/*
 * xttimeline.c: engine timelines, which tell log records whose WAL was lost from those that count.
 *
 * The engine's log may reach the disk before the WAL of the same operations. After a crash it can then
 * hold records that never happened as far as the host knows (ghosts), and the host will give their
 * LSNs to other operations. So every start that will replay WAL begins a new engine timeline, and notes
 * up to which LSN records of the ended one count: the redo point R of that start. Whatever came after R
 * is brought back by the host's WAL, and only by it.
 *
 * The history is a small text file in the data directory, replaced atomically before anything may append
 * to a log, so base backups carry it. A start that replays nothing (clean shutdown) continues the
 * last timeline. Numbers grow and are at least the time of their start, so that a cluster whose history
 * was lost (pg_upgrade) or copied does not reuse a number for something else.
 */
#include "xtregistry.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"

#define HISTORY_FILE		"xtree_timelines"
#define HISTORY_TEMP_FILE	"xtree_timelines.tmp"
#define HISTORY_HEADER		"xtree timelines 1"

/* File that asks for archive recovery or standby mode (xlogrecovery.c). */
#define STANDBY_SIGNAL		"standby.signal"
#define RECOVERY_SIGNAL		"recovery.signal"

static bool
file_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

/*
 * Reads the history: a header line, a "timeline end-LSN" line for each timeline (the last, current one
 * has end 0/0), and a CRC of all that. False if there is none.
 */
static bool
read_history(void)
{
	FILE	   *file = AllocateFile(HISTORY_FILE, "r");
	char		line[256];
	pg_crc32c	crc;
	bool		complete = false;
	bool		first = true;

	if (file == NULL)
	{
		if (errno != ENOENT)
			ereport(FATAL,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", HISTORY_FILE)));
		return false;
	}
	INIT_CRC32C(crc);
	while (!complete && fgets(line, sizeof(line), file) != NULL)
	{
		uint32		timeline,
					stored,
					hi,
					lo;

		if (first)
		{
			if (strcmp(line, HISTORY_HEADER "\n") != 0)
				break;
			first = false;
		}
		else if (sscanf(line, "crc %X", &stored) == 1)
		{
			pg_crc32c	sum = crc;

			FIN_CRC32C(sum);
			if (!EQ_CRC32C(sum, stored))
				break;
			complete = true;
		}
		else if (sscanf(line, "%u %X/%X", &timeline, &hi, &lo) == 3 &&
				 xt_registry->timeline_count < XT_TIMELINES_MAX)
		{
			XtTimelineEnd *end = &xt_registry->timelines[xt_registry->timeline_count++];

			end->timeline = timeline;
			end->end_lsn = ((uint64) hi) << 32 | lo;
		}
		else
			break;
		COMP_CRC32C(crc, line, strlen(line));
	}
	FreeFile(file);
	if (!complete || xt_registry->timeline_count == 0)
		ereport(FATAL,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("invalid data in file \"%s\"", HISTORY_FILE),
				 errhint("If the file is removed, xtree indexes that were changed since their last checkpoint must be rebuilt with REINDEX.")));
	/* The last line is the timeline that was current, which has not ended. */
	xt_registry->timeline = xt_registry->timelines[--xt_registry->timeline_count].timeline;
	return true;
}

static void
append_line(FILE *file, pg_crc32c *crc, const char *line)
{
	if (fputs(line, file) < 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", HISTORY_TEMP_FILE)));
	COMP_CRC32C(*crc, line, strlen(line));
}

static void
write_history(void)
{
	FILE	   *file = AllocateFile(HISTORY_TEMP_FILE, "w");
	char		line[256];
	pg_crc32c	crc;
	pg_crc32c	sum;

	if (file == NULL)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", HISTORY_TEMP_FILE)));
	INIT_CRC32C(crc);
	append_line(file, &crc, HISTORY_HEADER "\n");
	for (uint32 i = 0; i < xt_registry->timeline_count; i++)
	{
		snprintf(line, sizeof(line), "%u %X/%X\n", xt_registry->timelines[i].timeline,
				 LSN_FORMAT_ARGS((XLogRecPtr) xt_registry->timelines[i].end_lsn));
		append_line(file, &crc, line);
	}
	snprintf(line, sizeof(line), "%u 0/0\n", xt_registry->timeline);
	append_line(file, &crc, line);
	sum = crc;
	FIN_CRC32C(sum);
	snprintf(line, sizeof(line), "crc %08X\n", sum);
	append_line(file, &crc, line);
	if (FreeFile(file) != 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", HISTORY_TEMP_FILE)));
	/* Syncs the file, renames it and syncs the directory. */
	(void) durable_rename(HISTORY_TEMP_FILE, HISTORY_FILE, FATAL);
}

/*
 * The redo point in backup_label, and whether pg_rewind has written it; false if there is no such file.
 */
static bool
read_backup_label(uint64 *redo, bool *rewound)
{
	FILE	   *file = AllocateFile(BACKUP_LABEL_FILE, "r");
	char		line[MAXPGPATH];
	uint32		hi,
				lo;
	bool		ok;

	if (file == NULL)
		return false;
	ok = fscanf(file, "START WAL LOCATION: %X/%X", &hi, &lo) == 2;
	while (ok && fgets(line, sizeof(line), file) != NULL)
	{
		if (strcmp(line, "BACKUP METHOD: pg_rewind\n") == 0)
			*rewound = true;
	}
	FreeFile(file);
	if (!ok)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("invalid data in file \"%s\"", BACKUP_LABEL_FILE)));
	*redo = ((uint64) hi) << 32 | lo;
	return true;
}

/* How this start is, from where it will replay WAL, and whether on files that pg_rewind has mixed. */
static uint32
kind_of_start(uint64 *redo, bool *rewound)
{
	ControlFileData *control;
	bool		crc_ok;
	uint32		start = 0;

	control = get_controlfile(DataDir, &crc_ok);
	if (!crc_ok)
		ereport(FATAL,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("incorrect checksum in control file")));
	*redo = control->checkPointCopy.redo;
	if (control->state != DB_SHUTDOWNED ||
		file_exists(STANDBY_SIGNAL) || file_exists(RECOVERY_SIGNAL))
		start |= XT_START_REPLAYS;
	if (control->state != DB_SHUTDOWNED && control->state != DB_SHUTDOWNED_IN_RECOVERY)
		start |= XT_START_CRASHED;
	pfree(control);
	if (read_backup_label(redo, rewound))
		start |= XT_START_REPLAYS | XT_START_COPIED;
	return start;
}

/* shmem_startup_hook, before any process can append: in the postmaster, or in a single-user server. */
void
XtTimelineStartup(void)
{
	uint64		redo = 0;
	uint32		now = (uint32) time(NULL);
	bool		rewound = false;
	bool		known;

	if (IsBootstrapProcessingMode())
		return;
	known = read_history();
	xt_registry->start = kind_of_start(&redo, &rewound);
	if (rewound)
		XtDistrustRewound();
	if (!known)
		xt_registry->timeline = now;
	else if (xt_registry->start & XT_START_REPLAYS)
	{
		XtTimelineEnd *end;

		if (xt_registry->timeline_count == XT_TIMELINES_MAX - 1)
		{
			/* Forget the oldest: its records have long been folded. */
			xt_registry->timeline_count--;
			memmove(&xt_registry->timelines[0], &xt_registry->timelines[1],
					xt_registry->timeline_count * sizeof(XtTimelineEnd));
		}
		end = &xt_registry->timelines[xt_registry->timeline_count++];
		end->timeline = xt_registry->timeline;
		end->end_lsn = redo;
		xt_registry->timeline = Max(xt_registry->timeline + 1, now);
	}
	else
		return;
	write_history();
}

void
XtFillIdentity(const XtRelKey *key, XtIdentity *identity)
{
	identity->system_id = GetSystemIdentifier();
	identity->tablespace = key->tablespace;
	identity->database = key->database;
	identity->relation = key->relation;
	identity->backend = key->backend == InvalidBackendId ? 0 : key->backend;
}

void
XtFillLoadPolicy(const XtRelKey *key, XtLoadPolicy *policy)
{
	policy->current_timeline = xt_registry->timeline;
	policy->timeline_count = xt_registry->timeline_count;
	policy->timelines = xt_registry->timelines;
	/*
	 * A capture's WAL was flushed before it was published, so its LSN lies within the WAL. During
	 * recovery nobody knows yet where that ends.
	 */
	policy->lsn_max = RecoveryInProgress() ? PG_UINT64_MAX : GetXLogInsertRecPtr();
	XtFillIdentity(key, &policy->identity);
	XtExtentRead(key, &policy->held);
	policy->may_shorten = false;
}
