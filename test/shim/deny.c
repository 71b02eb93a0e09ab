/*
 * deny.c: deny CALL... -- COMMAND...: runs a command in which system calls fail, as in a container:
 *   io_uring_setup  with EPERM
 *   fallocate       with EOPNOTSUPP, as on a file system that does not have it
 * Exit status 77: the kernel does not let us (no seccomp).
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int
deny(int number, int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned) number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned) error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int
main(int argc, char **argv)
{
	int			i;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return 77;
	for (i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
	{
		int			result = -1;

		if (strcmp(argv[i], "io_uring_setup") == 0)
			result = deny(SYS_io_uring_setup, EPERM);
		else if (strcmp(argv[i], "fallocate") == 0)
			result = deny(SYS_fallocate, EOPNOTSUPP);
		if (result != 0)
			return 77;
	}
	if (i + 1 >= argc)
		return 2;
	execvp(argv[i + 1], argv + i + 1);
	perror(argv[i + 1]);
	return 127;
}
