/*
 * power.h: what the power shim (power.c) and the program that cuts the power (power_cut.c) share: a
 * disk that forgets what was not synced.
 *
 * SHADOW/tree      what would be found after a power cut: a copy of the data directory
 * SHADOW/journal   changes of names and sizes that are not on the disk yet, one a line, in order
 * SHADOW/lock      flock: held over every step below
 * SHADOW/off       the power is off: whoever comes to a sync or changes a name waits to be killed
 * SHADOW/lies      fnmatch pattern, if there: the disk lies about syncs of such files
 * SHADOW/syncs     one byte for each sync that was honored, so that tests see that the shim is there
 * SHADOW/trouble   what should not happen; empty
 *
 * The model is that of ext4 and xfs: names and sizes reach the disk in the order in which they were
 * changed, and every sync of anything carries all earlier ones with it; the contents of a file reach it
 * when that file is synced, and any page may reach it at any time before. The host depends on as much: it
 * does not sync the directory after it has made a relation's file.
 */
#ifndef POWER_H
#define POWER_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define POWER_PATH_MAX 2048
#define POWER_PAGE 4096
#define POWER_CHUNK (64 * 1024)

/* Something that cannot happen in a test that works. */
static inline void
power_die(int line)
{
	fprintf(stderr, "the power shim failed at line %d: %s\n", line, strerror(errno));
	abort();
}

/* The shim defines the functions of these names, so whoever means the kernel's says so. */
static inline int
sys_open(const char *path, int flags, mode_t mode)
{
	return (int) syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, mode);
}

static inline int
sys_ftruncate(int fd, off_t size)
{
	return (int) syscall(SYS_ftruncate, fd, size);
}

static inline int
sys_unlink(const char *path)
{
	return (int) syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

static inline void
power_path(char *out, const char *shadow, const char *name)
{
	if (snprintf(out, POWER_PATH_MAX, "%s/%s", shadow, name) >= POWER_PATH_MAX)
		power_die(__LINE__);
}

static inline void
power_append(const char *shadow, const char *name, const char *format, va_list args)
{
	char		path[POWER_PATH_MAX];
	char		line[2 * POWER_PATH_MAX + 64];
	int			length = vsnprintf(line, sizeof(line), format, args);
	int			fd;

	power_path(path, shadow, name);
	fd = sys_open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 || length >= (int) sizeof(line) || write(fd, line, length) != length)
		power_die(__LINE__);
	close(fd);
}

static inline void
power_trouble(const char *shadow, const char *format, ...)
{
	va_list		args;

	va_start(args, format);
	power_append(shadow, "trouble", format, args);
	va_end(args);
}

/* Takes the lock; returns its descriptor. A signal handler that ends the process releases it. */
static inline int
power_lock(const char *shadow)
{
	char		path[POWER_PATH_MAX];
	int			fd;

	power_path(path, shadow, "lock");
	fd = sys_open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0)
		power_die(__LINE__);
	while (syscall(SYS_flock, fd, 2 /* LOCK_EX */ ) != 0)
		if (errno != EINTR)
			power_die(__LINE__);
	return fd;
}

/* Files that no recovery reads. */
static inline bool
power_ignored(const char *name)
{
	return strncmp(name, "postmaster.", 11) == 0 || strncmp(name, "pg_stat_tmp", 11) == 0 ||
		strstr(name, "pgsql_tmp") != NULL;
}

/* Carries out one line of the journal on the tree. `verb` decides which of the others it has. */
static inline void
power_replay(const char *shadow, char *line)
{
	char		one[POWER_PATH_MAX];
	char		two[POWER_PATH_MAX];
	char		verb = line[0];
	long long	a = 0;
	long long	b = 0;
	int			used = 0;
	char	   *second;
	int			fd = -1;
	int			result = 0;

	if (sscanf(line, "%*c %lld %lld %n", &a, &b, &used) < 2)
		power_die(__LINE__);
	second = strchr(line + used, '\t');
	if (second != NULL)
		*second++ = '\0';
	if (snprintf(one, sizeof(one), "%s/tree/%s", shadow, line + used) >= (int) sizeof(one) ||
		snprintf(two, sizeof(two), "%s/tree/%s", shadow, second ? second : "") >= (int) sizeof(two))
		power_die(__LINE__);
	if (strchr("CSGP", verb) != NULL)
	{
		struct stat st;

		fd = sys_open(one, O_RDWR | (verb == 'C' ? O_CREAT | O_TRUNC : 0), (mode_t) a);
		result = fd;
		if (fd >= 0 && fstat(fd, &st) != 0)
			power_die(__LINE__);
		if (fd >= 0 && verb == 'S')
			result = sys_ftruncate(fd, a);
		if (fd >= 0 && verb == 'G' && st.st_size < a + b)
			result = sys_ftruncate(fd, a + b);
		if (fd >= 0 && verb == 'P')
			result = (int) syscall(SYS_fallocate, fd, 3 /* punch, keep the size */ , a, b);
		if (fd >= 0)
			close(fd);
	}
	else if (verb == 'M')
		result = (int) syscall(SYS_mkdirat, AT_FDCWD, one, (mode_t) a);
	else if (verb == 'D')
		result = (int) syscall(SYS_unlinkat, AT_FDCWD, one, AT_REMOVEDIR);
	else if (verb == 'U')
		result = sys_unlink(one);
	else if (verb == 'R')
		result = (int) syscall(SYS_renameat, AT_FDCWD, one, AT_FDCWD, two);
	else if (verb == 'L')
		result = (int) syscall(SYS_linkat, AT_FDCWD, one, AT_FDCWD, two, 0);
	else
		power_die(__LINE__);
	if (result < 0)
		power_trouble(shadow, "%c %s %s: %s\n", verb, one, two, strerror(errno));
}

/* The journal as a string; NULL if it is empty. */
static inline char *
power_read_journal(const char *shadow)
{
	char		path[POWER_PATH_MAX];
	struct stat st;
	char	   *text;
	int			fd;

	power_path(path, shadow, "journal");
	fd = sys_open(path, O_RDONLY, 0);
	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) != 0)
		power_die(__LINE__);
	text = st.st_size > 0 ? malloc((size_t) st.st_size + 1) : NULL;
	if (text != NULL)
	{
		if (read(fd, text, (size_t) st.st_size) != st.st_size)
			power_die(__LINE__);
		text[st.st_size] = '\0';
	}
	close(fd);
	return text;
}

#endif
