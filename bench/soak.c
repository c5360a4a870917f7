/* Makes intercepted calls of all sorts, each about new files or new IDs, for a long time.
 *
 *   soak COUNT PARTS    makes COUNT calls; after each of PARTS equal parts it says how many
 *                       it has made, and waits for a line of its input
 *
 * Fails where a call fails, but for a call that the engine takes part in only.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static long made;

#define MUST(call) do { if ((call) < 0) err(1, "%s", #call); made++; } while (0)

/* A symlink, a fifo and a device in a directory, owned, looked at, and removed. */
static void special_files(const char *directory, unsigned round)
{
	char name[64];
	struct stat status;
	uid_t id = 1 + round % 60000;
	snprintf(name, sizeof name, "%s/soak-link", directory);
	if (symlink("nowhere", name))
		err(1, "symlink");
	MUST(lchown(name, id, id));
	MUST(lstat(name, &status));
	if (status.st_uid != id)
		errx(1, "%s is of %u, not of %u", name, status.st_uid, id);
	MUST(lsetxattr(name, "trusted.soak", &round, sizeof round, 0));
	MUST(lremovexattr(name, "trusted.soak"));
	unlink(name);
	snprintf(name, sizeof name, "%s/soak-fifo", directory);
	if (mkfifo(name, 0600))
		err(1, "mkfifo");
	MUST(chown(name, id, id));
	unlink(name);
	snprintf(name, sizeof name, "%s/soak-device", directory);
	MUST(mknod(name, S_IFBLK | 0600, makedev(7, round % 256)));
	MUST(stat(name, &status));
	if (!S_ISBLK(status.st_mode))
		errx(1, "%s is no device", name);
	unlink(name);
}

/* One symlink whose owner changes all the time. */
static void one_link(const char *name, unsigned round)
{
	struct stat status;
	MUST(lchown(name, round % 50000, round % 40000));
	MUST(lstat(name, &status));
	if (status.st_uid != round % 50000)
		errx(1, "%s has another owner", name);
}

static void regular_files(const char *directory, unsigned round)
{
	char name[64], value[64];
	snprintf(name, sizeof name, "%s/soak-file", directory);
	int file = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (file < 0)
		err(1, "%s", name);
	made++;
	MUST(fchown(file, round % 65536, 1));
	struct stat status;
	MUST(fstat(file, &status));
	MUST(fsetxattr(file, "trusted.soak", &round, sizeof round, 0));
	MUST(fgetxattr(file, "trusted.soak", value, sizeof value));
	close(file);
	unlink(name);
}

/* A process that becomes somebody else, and sends a message that says so. */
static void somebody(unsigned round)
{
	int pair[2], on = 1;
	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair))
		err(1, "socketpair");
	MUST(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	uid_t id = 1 + round % 60000;
	pid_t child = fork();
	if (child == 0) {
		MUST(setresgid(id, id, id));
		MUST(setresuid(id, id, id));
		_exit(send(pair[0], "x", 1, 0) != 1);
	}
	int status;
	if (waitpid(child, &status, 0) != child || status)
		errx(1, "the child failed");
	char data[8], control[CMSG_SPACE(sizeof(struct ucred))];
	struct iovec vector = {data, sizeof data};
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof control};
	MUST(recvmsg(pair[1], &message, 0));
	made += 3;
	close(pair[0]);
	close(pair[1]);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(1, "usage: soak COUNT PARTS");
	long count = atol(argv[1]), parts = atol(argv[2]);
	const char *places[] = {"/dev/shm", "/srv"};
	const char *links[] = {"/dev/shm/soak-one", "/srv/soak-one"};
	for (int i = 0; i < 2; i++)
		if (symlink("nowhere", links[i]))
			err(1, "%s", links[i]);
	unsigned round = 0;
	for (long part = 1; part <= parts; part++) {
		while (made < count / parts * part) {
			round++;
			for (int i = 0; i < 2; i++) {
				special_files(places[i], round);
				regular_files(places[i], round);
				for (int j = 0; j < 4; j++)
					one_link(links[i], round * 4 + j);
			}
			if (round % 20 == 0)
				somebody(round / 20);
		}
		printf("%ld\n", made);
		fflush(stdout);
		if (getchar() == EOF)
			errx(1, "nobody is there any more");
	}
	return 0;
}
