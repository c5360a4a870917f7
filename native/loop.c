/* The agent's loop: receives the calls of one listener, answers what is common and simple,
 * and returns to Python for everything else, with the notification in the thread's slot.
 *
 * Why this is not Python: trees of many files are read by calls of the stat family, one each,
 * and a process that does little else waits for the agent all the time. Receiving, looking and
 * answering takes the interpreter twice as long as the kernel's two switches between processes,
 * touches ten times the memory, and holds the interpreter's lock, so that threads wait for one
 * another. Every decision that is not here is Python's: the rules are there once, and this is
 * only a short cut to the same answers (emulation/files/metadata.py, identity.py,
 * creation.py).
 *
 * The container may lie, race and flood. So: what it says is copied once, every length is
 * bounded, nothing is allocated, no address of its is followed but by the kernel, and its
 * paths are resolved as emulation/paths/resolution.py does it, from a descriptor, without magic links;
 * what leads through a procfs is left. A descriptor that is opened here is closed here.
 * A result that goes into a caller's memory is written while the caller still waits. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <poll.h>
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
	int listener;
	uint32_t slot_size, flags;
	/* What Python has to look at: an open file, or -1, and what the kernel says of it; whether
	 * that is to be shown to the caller with what Python has changed, and where. */
	int file;
	uint32_t shows;
	uint64_t address;
	struct stat status;
};
enum { POLLS = 1, ROOT_ONLY = 2 };
/* Behind "varied", in agent/ledger.py: something is remembered of calls that were interrupted. */
enum { INTERRUPTED = 4 };
/* What serve returns: somebody is to look at "unusual"; a call is in the slot, as a whole or but
 * for the file that is open; all have ended. */
enum { TURN, LEFT, LOOK, ENDED };

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

static bool reads_status(const struct readers *readers, uint32_t thread)
{
	if (__atomic_load_n(&readers->count, __ATOMIC_RELAXED))
		for (size_t i = 0; i < sizeof readers->threads / sizeof *readers->threads; i++)
			if (__atomic_load_n(&readers->threads[i], __ATOMIC_RELAXED) == thread)
				return true;
	return false;
}

static bool decide(struct loop *loop, struct seccomp_notif_resp *answer)
{
	const struct seccomp_notif *call = loop->slot;
	uint64_t first = call->data.args[0], second = call->data.args[1], third = call->data.args[2];
	unsigned fourth = call->data.args[3];
	int descriptor = first;
	if (call->data.arch != ARCHITECTURE || !call->pid ||
	    __atomic_load_n(loop->varied + INTERRUPTED, __ATOMIC_ACQUIRE))
		return false;
	switch (call->data.nr) {
	case SYS_getuid: case SYS_geteuid: return tell_id(call, 31, answer);
	case SYS_getgid: case SYS_getegid: return tell_id(call, 0, answer);
	}
	if (!(loop->flags & ROOT_ONLY && !is_root(identity(call->pid)))) {
		if (call->data.nr == SYS_fchmod)
			return change(loop, descriptor, second, answer);
		if (call->data.nr == SYS_utimensat && !second)
			return change(loop, descriptor, 0, answer);
	}
	if (__atomic_load_n(loop->varied, __ATOMIC_ACQUIRE) || reads_status(loop->readers, call->pid) ||
	    (loop->flags & ROOT_ONLY && !is_root(identity(call->pid))))
		return false;
	switch (call->data.nr) {
	case SYS_newfstatat:
		return stat_path(loop, descriptor, second, fourth, (struct wanted){.address = third}, answer);
	case SYS_statx: {
		struct wanted wanted = {.address = call->data.args[4], .is_extended = true, .mask = fourth};
		return stat_path(loop, descriptor, second, third, wanted, answer);
	}
	case SYS_fstat:
		/* Of which AT_FDCWD is none. */
		return descriptor < 0 ? pass(answer) : show(loop, &(struct name){.directory = descriptor},
							    &(struct wanted){.address = second}, answer);
	case SYS_openat: return open_path(call, descriptor, second, third, answer);
	case SYS_fchmodat: return change_path(loop, descriptor, second, 0, third, answer);
	case SYS_utimensat: return change_path(loop, descriptor, second, fourth, 0, answer);
	case SYS_mkdirat: return make_path(call, descriptor, second, answer);
	case SYS_symlinkat: return make_path(call, second, third, answer);
#ifdef __x86_64__
	case SYS_stat: return stat_path(loop, AT_FDCWD, first, 0, (struct wanted){.address = second}, answer);
	case SYS_lstat:
		return stat_path(loop, AT_FDCWD, first, AT_SYMLINK_NOFOLLOW,
				 (struct wanted){.address = second}, answer);
	case SYS_open: return open_path(call, AT_FDCWD, first, second, answer);
	case SYS_creat: return open_path(call, AT_FDCWD, first, O_CREAT | O_WRONLY | O_TRUNC, answer);
	case SYS_chmod: return change_path(loop, AT_FDCWD, first, 0, second, answer);
	case SYS_mkdir: return make_path(call, AT_FDCWD, first, answer);
	case SYS_symlink: return make_path(call, AT_FDCWD, second, answer);
#endif
	}
	return false;
}

/* An answer may come too late: the call was interrupted, and is repeated, or its caller killed. */
static void send(const struct loop *loop, struct seccomp_notif_resp *answer)
{
	ioctl(loop->listener, SECCOMP_IOCTL_NOTIF_SEND, answer);
}

/* Answers the call of which Python has looked at the file. */
static void conclude(struct loop *loop)
{
	struct seccomp_notif_resp answer = {.id = loop->slot->id};
	close(loop->file);
	loop->file = -1;
	if (loop->shows)
		fill(loop, loop->address, &loop->status, sizeof loop->status, &answer);
	else
		pass(&answer);
	send(loop, &answer);
}

/* Receives and answers calls until there is something for Python: see the enumeration above.
 * Whenever there is no call in hand, the slot says so before the next one is asked for: else
 * the next worker would answer a call once more. */
int serve(struct loop *loop)
{
	struct seccomp_notif *slot = loop->slot;
	if (loop->file >= 0) {
		conclude(loop);
		if (__atomic_load_n(loop->unusual, __ATOMIC_ACQUIRE))
			return TURN;
	}
	do {
		struct pollfd polled = {.fd = loop->listener, .events = POLLIN};
		__atomic_store_n(&slot->id, 0, __ATOMIC_RELAXED);
		/* What is left behind if this process is killed in between is no call any more. */
		atomic_signal_fence(memory_order_seq_cst);
		memset(slot, 0, loop->slot_size);
		if (loop->flags & POLLS) {
			while (poll(&polled, 1, -1) < 0 && errno == EINTR)
				;
			if (!(polled.revents & POLLIN))
				return ENDED;
		}
		if (ioctl(loop->listener, SECCOMP_IOCTL_NOTIF_RECV, slot) < 0) {
			/* The caller was killed before this could be read, or all are gone. */
			if (poll(&polled, 1, 0) > 0 && polled.revents & (POLLHUP | POLLNVAL))
				return ENDED;
			continue;
		}
		/* Either this is seen, or the thread that falls asleep sees the call in the slot. */
		atomic_thread_fence(memory_order_seq_cst);
		if (__atomic_load_n(&loop->activity->asleep, __ATOMIC_RELAXED)) {
			uint64_t one = 1;
			__atomic_store_n(&loop->activity->asleep, 0, __ATOMIC_RELAXED);
			ssize_t written = write(loop->activity->wakes, &one, sizeof one);
			(void)written; /* If it is full, the main thread is awake. */
		}
		struct seccomp_notif_resp answer = {.id = slot->id};
		if (!decide(loop, &answer))
			return loop->file < 0 ? LEFT : LOOK;
		send(loop, &answer);
	} while (!__atomic_load_n(loop->unusual, __ATOMIC_ACQUIRE));
	return TURN;
}

/* Notes that nobody watches over the calls; what has been received by now can be seen after it. */
void fall_asleep(struct activity *activity)
{
	__atomic_store_n(&activity->asleep, 1, __ATOMIC_SEQ_CST);
	atomic_thread_fence(memory_order_seq_cst);
}
