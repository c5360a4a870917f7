/* What calls of C library functions take: microseconds each, the least of fifteen tries. The
 * program is dynamic, as nearly all are. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 15 };

extern char **environ;

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static void execute(void)
{
	pid_t child;
	char *arguments[] = {"true", NULL};
	if (!posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ))
		waitpid(child, NULL, 0);
}

#define TIME(name, count, call) \
	do { \
		double least = 1e9; \
		for (int try = 0; try < TRIES; try++) { \
			double begin = now(); \
			for (int i = 0; i < count; i++) \
				call; \
			double taken = (now() - begin) / count; \
			least = taken < least ? taken : least; \
		} \
		printf("%s\t%.3f\n", name, least); \
	} while (0)

int main(void)
{
	struct stat status;
	struct statx extended;
	int directory = open("/etc", O_RDONLY);

	TIME("stat", 500, stat("/etc/passwd", &status));
	TIME("stat, recorded owner", 500, stat("/srv/given", &status));
	TIME("stat, no such file", 500, stat("/etc/missing", &status));
	TIME("fstatat", 500, fstatat(directory, "passwd", &status, AT_SYMLINK_NOFOLLOW));
	TIME("fstat", 500, fstat(directory, &status));
	TIME("statx", 500, statx(AT_FDCWD, "/etc/passwd", 0, STATX_BASIC_STATS, &extended));
	TIME("getxattr, no such label", 200, getxattr("/etc/passwd", "security.selinux", NULL, 0));
	TIME("getuid", 500, getuid());
	TIME("executing /bin/true", 20, execute());
	return 0;
}
