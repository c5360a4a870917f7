/* What a user may do to root's files: every call's errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include <utime.h>

#define TRY(call)                                                        \
	do {                                                             \
		errno = 0;                                               \
		long result = (long)(call);                              \
		printf("%s: %d\n", #call, result < 0 ? errno : 0);       \
	} while (0)

int main(void)
{
	struct stat status;
	struct stat64 status64;
	struct timeval micro[2] = {{1, 2}, {3, 4}}, wrong[2] = {{1, 2}, {3, 4000000}};
	struct timespec nano[2] = {{1, 2}, {3, 4}}, now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
	struct utimbuf seconds = {1, 2};
	char text[8];

	if (mkdir("d", 0700) || symlink("x", "d/l") || chmod(".", 0755))
		return 1;
	close(open("d/f", O_CREAT | O_WRONLY, 0666));
	close(open("f", O_CREAT | O_WRONLY, 0600));
	close(open("w", O_CREAT | O_WRONLY, 0666));
	if (setgroups(0, NULL) || setresgid(5, 5, 5) || setresuid(5, 5, 5))
		return 1;
	TRY(open("f", O_RDONLY));
	TRY(open64("f", O_RDWR));
	TRY(open("w", O_RDWR));
	TRY(open("d/f", O_RDONLY));
	TRY(open("new", O_CREAT | O_WRONLY, 0600));
	TRY(stat("d/f", &status));
	TRY(lstat64("d/f", &status64));
	TRY(readlink("d/l", text, sizeof text));
	TRY(access("f", R_OK));
	TRY(access("w", R_OK));
	TRY(chdir("d"));
	TRY(chmod("w", 0600));
	TRY(truncate("f", 3));
	TRY(truncate64("f", 3));
	TRY(truncate64("w", 3));
	TRY(utime("w", &seconds));
	TRY(utime("w", NULL));
	TRY(utimes("w", micro));
	TRY(utimes("w", wrong));
	TRY(utimensat(AT_FDCWD, "w", nano, 0));
	TRY(utimensat(AT_FDCWD, "w", now, 0));
	TRY(utimensat(AT_FDCWD, "f", now, 0));
	TRY(futimesat(AT_FDCWD, "w", micro));
	TRY(chown("d/f", 5, 5));
	TRY(lchown("d/f", 5, 5));
	TRY(mkdir("x", 0755));
	TRY(mknod("n", S_IFIFO | 0600, 0));
	TRY(symlink("f", "s"));
	TRY(link("w", "s"));
	TRY(rename("w", "s"));
	TRY(rmdir("d"));
	TRY(unlink("w"));
	TRY(execl("f", "f", (char *)NULL));
	return 0;
}
