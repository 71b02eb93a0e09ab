/*
 * power.c: for LD_PRELOAD, makes a server keep a second copy of its data directory, with what a power
 * cut would leave: see power.h. POWER_DATA and POWER_SHADOW in the environment name the two.
 *
 * Nothing has to be known of writes and mappings, only of syncs: a sync copies the file as it is now.
 * What is not seen here is not durable, so an oversight makes tests fail, not pass: msync, O_SYNC,
 * syncfs. io_uring is refused, since its syncs cannot be seen; the server then uses plain calls.
 *
 * The syncs themselves are left out: nobody pulls the plug.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fnmatch.h>

#include "power.h"

static const char *data_dir;
static const char *shadow_dir;

__attribute__((constructor)) static void
power_init(void)
{
	/* Copies: the host writes its process titles over the environment. */
	if (getenv("POWER_DATA") == NULL || getenv("POWER_SHADOW") == NULL)
		return;
	data_dir = strdup(getenv("POWER_DATA"));
	shadow_dir = strdup(getenv("POWER_SHADOW"));
}

/* The name of `path` below the data directory; NULL if it is elsewhere or does not matter. */
static const char *
name_of_path(const char *path, char *buffer)
{
	size_t		length;

	if (data_dir == NULL)
		return NULL;
	if (path[0] != '/')
	{
		char		cwd[POWER_PATH_MAX];

		if (getcwd(cwd, sizeof(cwd)) == NULL)
			return NULL;
		if (path[0] == '.' && path[1] == '/')
			path += 2;
		if (snprintf(buffer, POWER_PATH_MAX, "%s/%s", cwd, path) >= POWER_PATH_MAX)
			power_die(__LINE__);
		path = buffer;
	}
	length = strlen(data_dir);
	if (strncmp(path, data_dir, length) != 0 || path[length] != '/')
		return NULL;
	path += length + 1;
	return power_ignored(path) ? NULL : path;
}

static const char *
name_of_fd(int fd, char *buffer)
{
	char		link[64];
	ssize_t		length;

	if (data_dir == NULL)
		return NULL;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, buffer, POWER_PATH_MAX - 1);
	if (length < 0)
		return NULL;
	buffer[length] = '\0';
	if (strcmp(buffer, data_dir) == 0)
		return ".";
	if (length > 10 && strcmp(buffer + length - 10, " (deleted)") == 0)
		return NULL;
	return name_of_path(buffer, buffer);
}

/* Begins a step that reaches the disk, or never does once the power is off. */
static int
begin(void)
{
	char		off[POWER_PATH_MAX];
	int			lock = power_lock(shadow_dir);

	power_path(off, shadow_dir, "off");
	if (syscall(SYS_faccessat, AT_FDCWD, off, F_OK) != 0)
		return lock;
	close(lock);
	for (;;)
		pause();
}

static void
end(int lock)
{
	int			saved = errno;

	close(lock);
	errno = saved;
}

static void
note(const char *format, ...)
{
	int			saved = errno;
	va_list		args;

	va_start(args, format);
	power_append(shadow_dir, "journal", format, args);
	va_end(args);
	errno = saved;
}

/* --- Syncs ------------------------------------------------------------------------------------ */
static void
commit_journal(void)
{
	char		path[POWER_PATH_MAX];
	char	   *text = power_read_journal(shadow_dir);
	char	   *rest = NULL;

	if (text == NULL)
		return;
	for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
		power_replay(shadow_dir, line);
	free(text);
	power_path(path, shadow_dir, "journal");
	close(sys_open(path, O_WRONLY | O_TRUNC, 0));
}

/* Makes the file's shadow equal to it. Under the lock: an older state must not overtake a newer. */
static void
copy_file(int fd, const char *name)
{
	static __thread char live[POWER_CHUNK];
	static __thread char kept[POWER_CHUNK];
	char		path[POWER_PATH_MAX];
	char		own[64];
	off_t		at = 0;
	ssize_t		bytes;
	int			from;
	int			to;

	if (snprintf(path, sizeof(path), "%s/tree/%s", shadow_dir, name) >= (int) sizeof(path))
		power_die(__LINE__);
	snprintf(own, sizeof(own), "/proc/self/fd/%d", fd);
	from = sys_open(own, O_RDONLY, 0);
	/* Who made the file may have been killed before the journal had its name. */
	to = sys_open(path, O_RDWR | O_CREAT, 0600);
	if (from < 0 || to < 0)
	{
		power_trouble(shadow_dir, "sync of %s: %s\n", name, strerror(errno));
		return;
	}
	while ((bytes = pread(from, live, sizeof(live), at)) > 0)
	{
		ssize_t		there = pread(to, kept, (size_t) bytes, at);

		if ((there != bytes || memcmp(live, kept, (size_t) bytes) != 0) &&
			pwrite(to, live, (size_t) bytes, at) != bytes)
			power_die(__LINE__);
		at += bytes;
	}
	if (bytes < 0 || sys_ftruncate(to, at) != 0)
		power_die(__LINE__);
	close(from);
	close(to);
}

static bool
lied_about(const char *name)
{
	char		path[POWER_PATH_MAX];
	char		pattern[256];
	ssize_t		length;
	int			fd;

	power_path(path, shadow_dir, "lies");
	fd = sys_open(path, O_RDONLY, 0);
	if (fd < 0)
		return false;
	length = read(fd, pattern, sizeof(pattern) - 1);
	close(fd);
	pattern[length > 0 ? length : 0] = '\0';
	return fnmatch(pattern, name, 0) == 0;
}

/* True if the file is one of ours, and synced. */
static bool
synced(int fd)
{
	char		buffer[POWER_PATH_MAX];
	const char *name = name_of_fd(fd, buffer);
	struct stat st;
	va_list		none;
	int			lock;

	if (name == NULL)
		return false;
	lock = begin();
	/* Its name may have changed while the lock was waited for. */
	name = name_of_fd(fd, buffer);
	if (name != NULL && !lied_about(name))
	{
		commit_journal();
		if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
			copy_file(fd, name);
		memset(&none, 0, sizeof(none));
		power_append(shadow_dir, "syncs", ".", none);
	}
	end(lock);
	return true;
}

int
fsync(int fd)
{
	return synced(fd) ? 0 : (int) syscall(SYS_fsync, fd);
}

int
fdatasync(int fd)
{
	return synced(fd) ? 0 : (int) syscall(SYS_fdatasync, fd);
}

/* liburing's, which returns a negated errno. */
int
io_uring_queue_init(unsigned entries, void *ring, unsigned flags)
{
	(void) entries;
	(void) ring;
	(void) flags;
	return -EPERM;
}

/* --- Names and sizes -------------------------------------------------------------------------- */
int
open(const char *path, int flags, ...)
{
	char		buffer[POWER_PATH_MAX];
	const char *name;
	mode_t		mode = 0;
	va_list		args;
	bool		existed;
	int			lock;
	int			fd;

	va_start(args, flags);
	if (flags & O_CREAT)
		mode = va_arg(args, mode_t);
	va_end(args);
	name = flags & (O_CREAT | O_TRUNC) ? name_of_path(path, buffer) : NULL;
	if (name == NULL)
		return (int) syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	lock = begin();
	existed = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
	fd = (int) syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	if (fd >= 0 && !existed)
		note("C %lld 0 %s\n", (long long) 0600, name);
	else if (fd >= 0 && (flags & O_TRUNC))
		note("S 0 0 %s\n", name);
	end(lock);
	return fd;
}

FILE *
fopen(const char *path, const char *mode)
{
	FILE	   *(*next) (const char *, const char *) = (FILE * (*)(const char *, const char *))
		dlsym(RTLD_NEXT, "fopen");

	/* Makes or empties the file by a call that is seen, so that the real one only opens it. */
	if (mode[0] == 'w' || mode[0] == 'a')
	{
		int			fd = open(path, O_WRONLY | O_CREAT | (mode[0] == 'w' ? O_TRUNC : 0), 0666);

		if (fd < 0)
			return NULL;
		close(fd);
	}
	return next(path, mode);
}

int
unlink(const char *path)
{
	char		buffer[POWER_PATH_MAX];
	const char *name = name_of_path(path, buffer);
	int			lock;
	int			result;

	if (name == NULL)
		return sys_unlink(path);
	lock = begin();
	result = sys_unlink(path);
	if (result == 0)
		note("U 0 0 %s\n", name);
	end(lock);
	return result;
}

int
mkdir(const char *path, mode_t mode)
{
	char		buffer[POWER_PATH_MAX];
	const char *name = name_of_path(path, buffer);
	int			lock;
	int			result;

	if (name == NULL)
		return (int) syscall(SYS_mkdirat, AT_FDCWD, path, mode);
	lock = begin();
	result = (int) syscall(SYS_mkdirat, AT_FDCWD, path, mode);
	if (result == 0)
		note("M %lld 0 %s\n", (long long) 0700, name);
	end(lock);
	return result;
}

int
rmdir(const char *path)
{
	char		buffer[POWER_PATH_MAX];
	const char *name = name_of_path(path, buffer);
	int			lock;
	int			result;

	if (name == NULL)
		return (int) syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
	lock = begin();
	result = (int) syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
	if (result == 0)
		note("D 0 0 %s\n", name);
	end(lock);
	return result;
}

static int
two_names(char verb, const char *from, const char *to)
{
	char		buffer_from[POWER_PATH_MAX];
	char		buffer_to[POWER_PATH_MAX];
	const char *name_from = name_of_path(from, buffer_from);
	const char *name_to = name_of_path(to, buffer_to);
	bool		seen = name_from != NULL && name_to != NULL;
	int			lock = seen ? begin() : -1;
	int			result;

	if (verb == 'R')
		result = (int) syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
	else
		result = (int) syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
	if (seen)
	{
		if (result == 0)
			note("%c 0 0 %s\t%s\n", verb, name_from, name_to);
		end(lock);
	}
	return result;
}

int
rename(const char *from, const char *to)
{
	return two_names('R', from, to);
}

int
link(const char *from, const char *to)
{
	return two_names('L', from, to);
}

int
truncate(const char *path, off_t size)
{
	char		buffer[POWER_PATH_MAX];
	const char *name = name_of_path(path, buffer);
	int			lock;
	int			result;

	if (name == NULL)
		return (int) syscall(SYS_truncate, path, size);
	lock = begin();
	result = (int) syscall(SYS_truncate, path, size);
	if (result == 0)
		note("S %lld 0 %s\n", (long long) size, name);
	end(lock);
	return result;
}

int
ftruncate(int fd, off_t size)
{
	char		buffer[POWER_PATH_MAX];
	const char *name = name_of_fd(fd, buffer);
	int			lock;
	int			result;

	if (name == NULL)
		return sys_ftruncate(fd, size);
	lock = begin();
	result = sys_ftruncate(fd, size);
	if (result == 0)
		note("S %lld 0 %s\n", (long long) size, name);
	end(lock);
	return result;
}

int
fallocate(int fd, int mode, off_t offset, off_t length)
{
	char		buffer[POWER_PATH_MAX];
	const char *name = name_of_fd(fd, buffer);
	int			lock;
	int			result;

	if (name == NULL)
		return (int) syscall(SYS_fallocate, fd, mode, offset, length);
	lock = begin();
	result = (int) syscall(SYS_fallocate, fd, mode, offset, length);
	if (result == 0 && (mode == 0 || (mode & FALLOC_FL_PUNCH_HOLE)))
		note("%c %lld %lld %s\n", mode == 0 ? 'G' : 'P', (long long) offset, (long long) length, name);
	end(lock);
	return result;
}
