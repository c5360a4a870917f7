/* What the loop answers, or lets the kernel carry out, by kinds of calls: see loop.c. */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80 /* since Linux 5.6 */
#endif

#include "loop_callers.h"
#include "loop_names.h"
#include "loop_records.h"

#if defined __x86_64__
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "the table of calls has no such machine"
#endif

/* What memory Python and this share, as agent/loop.py has it. */
struct readers { uint32_t count, threads[64]; };
struct activity { uint8_t asleep; int wakes; };
struct apart { uint64_t count; struct { uint64_t device, inode; } files[64]; };
struct loop {
	struct seccomp_notif *slot;      /* agent/ledger.py: outlives this process */
	const uint8_t *varied, *unusual; /* views may vary; there is something else to do */
	struct activity *activity;       /* agent/watch.py */
	const struct readers *readers;   /* emulation/processes/status_files.py */
	const struct apart *apart;       /* emulation/apart.py */
	const struct programs *programs; /* emulation/programs.py */
	int listener;
	uint32_t slot_size, flags;
	/* What Python has to look at: an open file, or -1, and what the kernel says of it; whether
	 * that is to be shown to the caller with what Python has changed, and where. */
	int file;
	uint32_t shows;
	uint64_t address;
	struct stat status;
	struct callers callers;
};

enum { OUR_FLAGS = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE };

/* Numbers that say who a process is, as emulation/callers/credential_table.py has them: below DIRECT and
 * without a limit it is root, from TABLE on there is more to it. */
#define DIRECT (UINT64_C(1) << 62)
#define TABLE (UINT64_C(1) << 63)

static uint64_t identity(pid_t pid)
{
	struct rlimit limit;
	return syscall(SYS_prlimit64, pid, RLIMIT_RTTIME, NULL, &limit) ? TABLE : limit.rlim_cur;
}

static bool is_root(uint64_t number)
{
	return number < DIRECT || number == RLIM_INFINITY;
}

/* Whether more is to be said of a file than what it carries. */
static bool is_apart(const struct apart *apart, const struct stat *status)
{
	uint64_t count = __atomic_load_n(&apart->count, __ATOMIC_ACQUIRE);
	if (count > sizeof apart->files / sizeof *apart->files)
		return true;
	for (uint64_t i = 0; i < count; i++)
		if (apart->files[i].device == status->st_dev &&
		    (!apart->files[i].inode || apart->files[i].inode == status->st_ino))
			return true;
	return false;
}

/* Where the record of a file is: with it, where it was found; beside it, or in a way that Python
 * has to look at; it depends on a process. */
enum place { CARRIED, BESIDE, OF_PROCESS };

static enum place find_record(const struct loop *loop, int file, const struct stat *status,
			      struct record *record)
{
	if (is_apart(loop->apart, status))
		return OF_PROCESS;
	if (recall(status, record))
		return CARRIED;
	if (is_procfs(file, status->st_dev))
		return OF_PROCESS;
	if (!S_ISREG(status->st_mode) && !S_ISDIR(status->st_mode))
		return BESIDE;
	char name[24];
	uint8_t value[256];
	snprintf(name, sizeof name, "self/fd/%d", file);
	ssize_t size = getxattr(name, "user.rootlesscontainers", value, sizeof value);
	if (size < 0 && errno != ENODATA)
		return BESIDE;
	if (!decode_record(value, size < 0 ? 0 : size, record))
		return BESIDE;
	remember(status, record);
	return CARRIED;
}

/* Answers. What decides returns true with one, and false where it is Python's to decide. */
static bool pass(struct seccomp_notif_resp *answer)
{
	answer->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	return true;
}

static bool result(struct seccomp_notif_resp *answer, int value)
{
	answer->error = value < 0 ? value : 0;
	answer->val = value < 0 ? 0 : value;
	return true;
}

/* Gives the caller what it has asked for. */
static bool fill(const struct loop *loop, uint64_t address, void *data, size_t size,
		 struct seccomp_notif_resp *answer)
{
	const struct seccomp_notif *call = loop->slot;
	uint64_t id = call->id;
	/* Only now: what was looked at was this caller's, and not a later process's of its number. */
	if (ioctl(loop->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) < 0)
		return result(answer, -EINTR);
	struct iovec local = {data, size}, remote = {(void *)address, size};
	bool is_whole = address <= UINT64_MAX - size &&
		process_vm_writev(call->pid, &local, 1, &remote, 1, 0) == (ssize_t)size;
	return result(answer, is_whole ? 0 : -EFAULT);
}

/* The inode of the root of every procfs, which belongs to the host. */
enum { PROC_ROOT_INO = 1 };

/* What a call of the stat family asks for, and where it is to be written. */
struct wanted { uint64_t address; bool is_extended; unsigned sync, mask; };

/* Says what a file looks like: as the kernel does in "status", but for its record. */
static bool tell(struct loop *loop, int file, const struct record *record, const struct wanted *wanted,
		 struct seccomp_notif_resp *answer)
{
	struct stat *status = &loop->status;
	if (status->st_uid == record->uid && status->st_gid == record->gid && !record->type)
		return pass(answer);
	mode_t mode = record->type ? (status->st_mode & ALLPERMS) | record->type : status->st_mode;
	if (wanted->is_extended) {
		struct statx data;
		unsigned mask = wanted->mask | STATX_TYPE | STATX_INO;
		if (syscall(SYS_statx, file, "", AT_EMPTY_PATH | wanted->sync, mask, &data))
			return pass(answer);
		data.stx_uid = record->uid;
		data.stx_gid = record->gid;
		if (record->type) {
			data.stx_mode = mode;
			data.stx_rdev_major = major(record->device);
			data.stx_rdev_minor = minor(record->device);
		}
		return fill(loop, wanted->address, &data, sizeof data, answer);
	}
	status->st_uid = record->uid;
	status->st_gid = record->gid;
	status->st_mode = mode;
	if (record->type)
		status->st_rdev = record->device;
	return fill(loop, wanted->address, status, sizeof *status, answer);
}

/* Shows what a file looks like; leaves it open for Python to look at where that is to. */
static bool show(struct loop *loop, const struct name *name, const struct wanted *wanted,
		 struct seccomp_notif_resp *answer)
{
	pid_t pid = loop->slot->pid;
	struct record record;
	/* A descriptor of what is known by now need not be opened. */
	if (!name->path[0] && !wanted->is_extended &&
	    !syscall(SYS_newfstatat, AT_FDCWD, handle_of(pid, name->directory).name, &loop->status, 0) &&
	    !is_apart(loop->apart, &loop->status) && recall(&loop->status, &record))
		return tell(loop, -1, &record, wanted, answer);
	int file = open_named(pid, name);
	if (file < 0)
		return file == FAILS && pass(answer);
	bool is_decided = false;
	if (syscall(SYS_fstat, file, &loop->status) == 0) {
		enum place place = find_record(loop, file, &loop->status, &record);
		if (place == CARRIED)
			is_decided = tell(loop, file, &record, wanted, answer);
		else if (place == BESIDE && !wanted->is_extended) {
			loop->file = file;
			loop->address = wanted->address;
			return false;
		}
	}
	close(file);
	return is_decided;
}

static bool stat_path(struct loop *loop, int directory, uint64_t path, unsigned flags,
		      struct wanted wanted, struct seccomp_notif_resp *answer)
{
	struct name name = {.directory = directory, .nofollow = flags & AT_SYMLINK_NOFOLLOW};
	if (flags & ~OUR_FLAGS || !read_path(loop->slot->pid, path, name.path))
		return false;
	if (!name.path[0] && !(flags & AT_EMPTY_PATH))
		return pass(answer);
	wanted.sync = flags & AT_STATX_SYNC_TYPE;
	return show(loop, &name, &wanted, answer);
}

/* New files: let through where they are root's in all, so that there is nothing to record. */
static bool make(const struct seccomp_notif *call, struct name *name, struct seccomp_notif_resp *answer)
{
	char *end = name->path + strlen(name->path);
	while (end > name->path && end[-1] == '/')
		end--;
	char *last = end;
	while (last > name->path && last[-1] != '/')
		last--;
	size_t length = end - last;
	if (!length || (length <= 2 && !memcmp(last, "..", length)) || !is_root(identity(call->pid)))
		return false;
	/* The directory, with a slash behind it; nothing stands for where the path begins. */
	*last = 0;
	name->nofollow = false;
	int parent = open_named(call->pid, name);
	if (parent < 0)
		return false;
	struct stat status;
	char attribute[24];
	snprintf(attribute, sizeof attribute, "self/fd/%d", parent);
	bool is_plain = syscall(SYS_fstat, parent, &status) == 0 && !(status.st_mode & S_ISGID) &&
		!is_procfs(parent, status.st_dev) &&
		getxattr(attribute, "system.posix_acl_default", NULL, 0) < 0 && errno != ERANGE;
	close(parent);
	return is_plain && pass(answer);
}

static bool make_path(const struct seccomp_notif *call, int directory, uint64_t path,
		      struct seccomp_notif_resp *answer)
{
	struct name name = {.directory = directory};
	return read_path(call->pid, path, name.path) && make(call, &name, answer);
}

/* Opening: what is there is the kernel's, but for emulated device nodes, which are whiteouts,
 * for /dev/ptmx, of which emulation/files/streams.py makes terminals, and for what is in a procfs. */
static bool open_path(const struct seccomp_notif *call, int directory, uint64_t path, unsigned flags,
		      struct seccomp_notif_resp *answer)
{
	if (flags & O_PATH || (flags & (O_DIRECTORY | O_CREAT | O_TMPFILE)) == O_DIRECTORY)
		return pass(answer);
	struct name name = {.directory = directory, .nofollow = flags & O_NOFOLLOW};
	if (flags & O_TMPFILE & ~O_DIRECTORY || !read_path(call->pid, path, name.path))
		return false;
	if (!name.path[0])
		return pass(answer);
	if (flags & O_CREAT && flags & O_EXCL)
		return make(call, &name, answer);
	int file = open_named(call->pid, &name);
	if (file >= 0) {
		struct stat status;
		bool is_plain = syscall(SYS_fstat, file, &status) == 0 && !is_procfs(file, status.st_dev) &&
			!(S_ISCHR(status.st_mode) &&
			  (!status.st_rdev || status.st_rdev == makedev(5, 2)));
		close(file);
		return is_plain && pass(answer);
	}
	if (file != FAILS || !(flags & O_CREAT))
		return file == FAILS && pass(answer);
	/* A symlink that leads nowhere is where it would be made. */
	name.nofollow = true;
	file = open_named(call->pid, &name);
	if (file >= 0)
		close(file);
	return file == FAILS && make(call, &name, answer);
}

/* Modes and times of what is open: the kernel's, but for devices, which may stand for emulated
 * nodes or be the host's, and for what is in a procfs. */
static bool change_plain(const struct stat *status, unsigned mode, struct seccomp_notif_resp *answer)
{
	bool is_plain = S_ISREG(status->st_mode) ||
		(S_ISDIR(status->st_mode) && status->st_ino != PROC_ROOT_INO);
	/* Whether somebody may pass on a group is Python's to say. */
	return is_plain && !(mode & S_ISGID) && pass(answer);
}

static bool change(const struct loop *loop, int descriptor, unsigned mode,
		   struct seccomp_notif_resp *answer)
{
	struct stat status;
	struct handle handle = handle_of(loop->slot->pid, descriptor);
	if (descriptor < 0 || syscall(SYS_newfstatat, AT_FDCWD, handle.name, &status, 0))
		return false;
	return change_plain(&status, mode, answer);
}

static bool change_path(const struct loop *loop, int directory, uint64_t path, unsigned flags,
			unsigned mode, struct seccomp_notif_resp *answer)
{
	struct name name = {.directory = directory, .nofollow = flags & AT_SYMLINK_NOFOLLOW};
	if (flags & ~AT_SYMLINK_NOFOLLOW || !read_path(loop->slot->pid, path, name.path) || !name.path[0])
		return false;
	int file = open_named(loop->slot->pid, &name);
	if (file < 0)
		return file == FAILS && pass(answer);
	struct stat status;
	bool is_decided = syscall(SYS_fstat, file, &status) == 0 &&
		change_plain(&status, mode, answer);
	close(file);
	return is_decided;
}

static bool tell_id(const struct seccomp_notif *call, int shift, struct seccomp_notif_resp *answer)
{
	uint64_t number = identity(call->pid);
	if (is_root(number))
		return result(answer, 0);
	return number < TABLE && result(answer, number >> shift & INT32_MAX);
}

/* Threads and processes in their maker's namespaces are the kernel's. */
static bool start(const struct seccomp_notif *call, struct seccomp_notif_resp *answer)
{
	const uint64_t namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
		CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWTIME;
	uint64_t flags;
	struct iovec local = {&flags, sizeof flags}, remote = {(void *)call->data.args[0], sizeof flags};
	return process_vm_readv(call->pid, &local, 1, &remote, 1, 0) == sizeof flags &&
		!(flags & namespaces) && pass(answer);
}

static bool reads_status(const struct readers *readers, uint32_t thread)
{
	if (__atomic_load_n(&readers->count, __ATOMIC_RELAXED))
		for (size_t i = 0; i < sizeof readers->threads / sizeof *readers->threads; i++)
			if (__atomic_load_n(&readers->threads[i], __ATOMIC_RELAXED) == thread)
				return true;
	return false;
}
