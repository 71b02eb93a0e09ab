/*
 * power_cut.c: power_cut DATA SHADOW SEED, run when all processes of a server on the power shim (power.h)
 * are gone: makes SHADOW/tree what a disk might hold after the power went off, and tells how.
 *
 * SEED 0: what was synced, and nothing else. Otherwise also a random part of what was not: the first so
 * many changes of names and sizes, and of each file any of the pages, or sectors of a page, that were
 * stored to since its last sync.
 */
#define _GNU_SOURCE
#include <ftw.h>

#include "power.h"

static const char *data_dir;
static const char *shadow_dir;
static uint64_t state;			/* of the random numbers */
static char *lost;				/* changes of names that did not reach the disk, one a line */
static long pages_changed;
static long pages_kept;
static long pages_torn;

/* splitmix64 */
static uint64_t
next_random(void)
{
	uint64_t	z = (state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static bool
one_in_hundred_times(unsigned percent)
{
	return next_random() % 100 < percent;
}

/* Returns how many lines were carried out, of how many. */
static void
replay_some(long *done, long *all)
{
	char	   *text = power_read_journal(shadow_dir);
	char	   *rest = NULL;
	long		count = 0;
	long		keep = 0;

	*done = *all = 0;
	lost = calloc(1, text != NULL ? strlen(text) + 2 : 2);
	if (text == NULL)
		return;
	for (const char *p = text; (p = strchr(p, '\n')) != NULL; p++)
		count++;
	if (state != 0)
		keep = one_in_hundred_times(30) ? count : (long) (next_random() % (uint64_t) (count + 1));
	*all = count;
	for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
	{
		if (*done < keep)
		{
			power_replay(shadow_dir, line);
			(*done)++;
		}
		else if (strchr("CURL", line[0]) != NULL)
			strcat(strcat(lost, line), "\n");
	}
	free(text);
}

/* Lets some of the page's sectors through. `kept` has `there` bytes; both are padded with zeros. */
static void
mix_page(int to, off_t at, const char *live, ssize_t bytes, const char *kept, unsigned percent)
{
	pages_changed++;
	if (one_in_hundred_times(5))
	{
		pages_torn++;
		for (ssize_t sector = 0; sector < bytes; sector += 512)
		{
			ssize_t		length = bytes - sector < 512 ? bytes - sector : 512;

			if (memcmp(live + sector, kept + sector, (size_t) length) != 0 && one_in_hundred_times(50) &&
				pwrite(to, live + sector, (size_t) length, at + sector) != length)
				power_die(__LINE__);
		}
	}
	else if (one_in_hundred_times(percent))
	{
		pages_kept++;
		if (pwrite(to, live, (size_t) bytes, at) != bytes)
			power_die(__LINE__);
	}
}

static int
mix_file(const char *path, const struct stat *st, int type, struct FTW *where)
{
	static const unsigned percents[] = {0, 0, 10, 50, 90, 100};
	const char *name = path + strlen(data_dir) + 1;
	unsigned	percent = percents[next_random() % 6];
	char		shadow_path[POWER_PATH_MAX];
	char		live[POWER_PAGE];
	char		kept[POWER_PAGE];
	off_t		at = 0;
	ssize_t		bytes;
	int			from;
	int			to;

	(void) st;
	(void) where;
	/* Where a change of the name was lost, the two files may be different ones. */
	if (type != FTW_F || power_ignored(name) || strstr(lost, name) != NULL)
		return 0;
	if (snprintf(shadow_path, sizeof(shadow_path), "%s/tree/%s", shadow_dir, name) >= (int) sizeof(shadow_path))
		power_die(__LINE__);
	to = sys_open(shadow_path, O_RDWR, 0);
	if (to < 0)
		return 0;
	from = sys_open(path, O_RDONLY, 0);
	if (from < 0)
		power_die(__LINE__);
	while (memset(live, 0, sizeof(live)), (bytes = pread(from, live, sizeof(live), at)) > 0)
	{
		ssize_t		there;

		memset(kept, 0, sizeof(kept));
		there = pread(to, kept, sizeof(kept), at);
		if (there < bytes || memcmp(live, kept, (size_t) bytes) != 0)
			mix_page(to, at, live, bytes, kept, percent);
		at += bytes;
	}
	close(from);
	close(to);
	return 0;
}

int
main(int argc, char **argv)
{
	long		done;
	long		all;

	if (argc != 4)
		return 2;
	data_dir = argv[1];
	shadow_dir = argv[2];
	state = strtoull(argv[3], NULL, 10);
	replay_some(&done, &all);
	if (state != 0 && nftw(data_dir, mix_file, 64, FTW_PHYS) != 0)
		power_die(__LINE__);
	printf("%ld of %ld changes of names and sizes, %ld of %ld unsynced pages kept, %ld torn\n", done, all,
		   pages_kept, pages_changed, pages_torn);
	return 0;
}
