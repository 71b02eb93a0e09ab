/*
 * scarce.c: for LD_PRELOAD, a server to which space or address space is refused when a test says so.
 *
 * SCARCE_DATA names its data directory; SCARCE_CONTROL a file of six int64, which all its processes and
 * the test share: how many reservations of space (fallocate) below the directory still succeed, how many
 * were asked for, and the same for mappings of its files and of the host's dynamic shared memory. A negative number means: no limit.
 *
 * The engine reserves all space by fallocate, and nothing else in the host does. Syncs are left out: nobody
 * pulls the plug.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct scarce
{
	int64_t		reservations_left;
	int64_t		reservations;
	int64_t		maps_left;
	int64_t		maps;
	int64_t		segments_left;
	int64_t		segments;
};

static const char *data_dir;
static struct scarce *control;

__attribute__((constructor)) static void
scarce_init(void)
{
	const char *path = getenv("SCARCE_CONTROL");
	void	   *memory;
	int			fd;

	if (path == NULL || getenv("SCARCE_DATA") == NULL)
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	memory = (void *) syscall(SYS_mmap, NULL, sizeof(struct scarce), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || memory == MAP_FAILED)
		abort();
	close(fd);
	control = memory;
	/* A copy: the host writes its process titles over the environment. */
	data_dir = strdup(getenv("SCARCE_DATA"));
}

static bool
is_below(int fd, const char *directory)
{
	char		link[64];
	char		path[2048];
	ssize_t		length;

	if (control == NULL || fd < 0)
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	path[length > 0 ? length : 0] = '\0';
	return strncmp(path, directory, strlen(directory)) == 0;
}

static bool
is_data_file(int fd)
{
	return is_below(fd, data_dir);
}

/* Takes one of what is left; false if nothing is. */
static bool
take(int64_t *left, int64_t *asked)
{
	int64_t		now = __atomic_load_n(left, __ATOMIC_SEQ_CST);

	__atomic_fetch_add(asked, 1, __ATOMIC_SEQ_CST);
	while (now > 0 && !__atomic_compare_exchange_n(left, &now, now - 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	return now != 0;
}

int
fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (mode == 0 && is_data_file(fd) && !take(&control->reservations_left, &control->reservations))
	{
		errno = ENOSPC;
		return -1;
	}
	return (int) syscall(SYS_fallocate, fd, mode, offset, length);
}

void *
mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	if (is_data_file(fd) && !take(&control->maps_left, &control->maps))
	{
		errno = ENOMEM;
		return MAP_FAILED;
	}
	if (is_below(fd, "/dev/shm/PostgreSQL.") && !take(&control->segments_left, &control->segments))
	{
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return (void *) syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

int
fsync(int fd)
{
	return control != NULL && is_data_file(fd) ? 0 : (int) syscall(SYS_fsync, fd);
}

int
fdatasync(int fd)
{
	return control != NULL && is_data_file(fd) ? 0 : (int) syscall(SYS_fdatasync, fd);
}
