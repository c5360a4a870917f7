/* What a caller names, as a descriptor that is held: the first step of emulation/paths/resolution.py. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { PAGE = 4096, SHORT = 256 }; /* as linux/memory.py */

static bool is_procfs(int file, dev_t device)
{
	struct statfs found;
	/* Those with a device of their own are none, nor is one whose server does not say. */
	return !major(device) && fstatfs(file, &found) == 0 && found.f_type == PROC_SUPER_MAGIC;
}

/* A name, in the agent's /proc, of what one of a thread's descriptors is open for, or of its
 * working directory. It leads there alone, and nowhere where there is no such descriptor. */
struct handle { char name[40]; };

static struct handle handle_of(pid_t pid, int descriptor)
{
	struct handle handle;
	if (descriptor == AT_FDCWD)
		snprintf(handle.name, sizeof handle.name, "%u/cwd", pid);
	else
		snprintf(handle.name, sizeof handle.name, "%u/fd/%d", pid, descriptor);
	return handle;
}

static int resolve(int start, const char *path, int flags, uint64_t how)
{
	struct open_how asked = {.flags = O_PATH | O_CLOEXEC | flags, .resolve = how};
	int file = syscall(SYS_openat2, start, path, &asked, sizeof asked);
	return file < 0 ? -errno : file;
}

/* What a call names: a path from a directory's descriptor, or the descriptor alone. */
struct name { int directory; bool nofollow; char path[SHORT + 1]; };

/* Reads a path of a caller's; false where it is not short, or goes on in another page. */
static bool read_path(pid_t pid, uint64_t address, char path[SHORT + 1])
{
	size_t size = PAGE - address % PAGE;
	if (size > SHORT)
		size = SHORT;
	struct iovec local = {path, size}, remote = {(void *)address, size};
	ssize_t got = process_vm_readv(pid, &local, 1, &remote, 1, 0);
	return got > 0 && memchr(path, 0, got);
}

/* What there is for a descriptor: the path fails for its caller as well, so that the kernel is
 * to tell; or it takes a closer look. */
enum { FAILS = -1, UNCLEAR = -2 };

/* Opens what a path leads to, as O_PATH. It fails for its caller as well where the way leads
 * through no procfs, neither from a mount to another, nor in one. */
static int open_from(int start, const struct name *name)
{
	int flags = name->nofollow ? O_NOFOLLOW : 0;
	int file = resolve(start, name->path, flags, RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV);
	if (file == -EXDEV)
		file = resolve(start, name->path, flags, RESOLVE_NO_MAGICLINKS);
	else if (file == -ENOENT || file == -ENOTDIR || file == -EACCES)
		return start == AT_FDCWD || !is_procfs(start, 0) ? FAILS : UNCLEAR;
	return file < 0 ? UNCLEAR : file;
}

/* Opens what a call names, as O_PATH. */
static int open_named(pid_t pid, const struct name *name)
{
	if (name->path[0] == '/')
		return open_from(AT_FDCWD, name);
	int start = open(handle_of(pid, name->directory).name, O_PATH | O_CLOEXEC);
	if (start < 0)
		return errno == ENOENT ? FAILS : UNCLEAR;
	if (!name->path[0])
		return start;
	int file = open_from(start, name);
	close(start);
	return file;
}
