/*
 * xtrestore.c: the links to the tablespaces of a restored backup.
 *
 * A backup that lists its tablespaces in tablespace_map is restored without the links in pg_tblspc; recovery
 * makes them. But what is to be known or done before any process opens an index is so earlier: notes of broken
 * indexes (xtlost.c) and checksums (xtscrub.c). So links that are missing are made here, by the same rule. Recovery
 * makes all of them anew.
 */
#include "xtregistry.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "storage/fd.h"

static void
link_tablespace(const char *oid, const char *path)
{
	char		link[MAXPGPATH];
	struct stat st;

	if (strspn(oid, "0123456789") != strlen(oid))
		return;
	snprintf(link, sizeof(link), "pg_tblspc/%s", oid);
	if (lstat(link, &st) != 0 && errno == ENOENT && symlink(path, link) != 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not create symbolic link \"%s\": %m", link)));
}

/* One line: an OID, a space, a path; a backslash takes the next character as it is. False at the end. */
static bool
read_line(FILE *file, char *line, Size bytes)
{
	Size		length = 0;
	bool		escaped = false;
	int			c;

	while ((c = fgetc(file)) != EOF)
	{
		if (!escaped && (c == '\n' || c == '\r'))
			break;
		escaped = !escaped && c == '\\';
		if (!escaped && length < bytes - 1)
			line[length++] = (char) c;
	}
	line[length] = '\0';
	return c != EOF || length > 0;
}

/* In the postmaster, or in a single-user server, before anything looks for files of indexes. */
void
XtRestoreLinks(void)
{
	struct stat st;
	char		line[MAXPGPATH];
	FILE	   *file;

	/* Otherwise the host does not heed the map either. */
	if (stat(BACKUP_LABEL_FILE, &st) != 0)
		return;
	file = AllocateFile(TABLESPACE_MAP, "r");
	if (file == NULL)
		return;
	while (read_line(file, line, sizeof(line)))
	{
		char	   *space = strchr(line, ' ');

		if (space == NULL)
			continue;
		*space = '\0';
		link_tablespace(line, space + 1);
	}
	FreeFile(file);
}
