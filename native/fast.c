/* The fast path: an object that is preloaded into the programs of a container, and answers there
 * what the agent would find out about regular files and directories, and about who root is.
 *
 * Why this is not Python: it runs in processes of the container. It has no C library, for it is
 * to work with each of them, before that has begun, in a vfork(2) child, in a signal handler on a
 * small stack; and it keeps nothing, so it needs no lock.
 *
 * The filter lets these calls through where their sixth argument, of which they have none, is
 * this container's number. So the kernel answers, and what it does not know, the record of a
 * file, is read from the attribute that the agent would read. Whatever is not certain is left:
 * then the call is made without the number, as a C library makes it, and the agent answers. The
 * rules are those of loop.c (emulation/files/metadata.py, callers/identity.py). */
#include "fast_calls.h"
#include "record.h"

enum { PAGE = 4096, FILES = 64 };

/* What the agent says of the container: emulation/fast_state.py. It writes that to the file
 * while programs run, and they see it, since their pages are the file's. */
struct state {
	char mark[16];
	uint64_t number; /* lets calls through */
	uint64_t device; /* of the root file system; 0 is for none: nothing is answered here */
	uint64_t count;  /* of files of which more is to be said than what they carry */
	struct { uint64_t device, inode; } files[FILES];
};
static const union { struct state state; char page[PAGE]; } shared
	__attribute__((section(".state"), aligned(PAGE))) = {.state = {.mark = "runrootless fast"}};
#define STATE ((const volatile struct state *)&shared.state)

enum { OUR_FLAGS = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH };
enum { LONGEST = 255 }; /* path from a directory's descriptor, in bytes */
enum { RLIMIT_RTTIME = 15, RECORD_SIZE = 64 };
#define DIRECT (UINT64_C(1) << 62)
#define TABLE (UINT64_C(1) << 63)
#define INFINITE UINT64_MAX

/* What two looks at a file have in common if it is the same one, and has not changed. */
struct seen { uint64_t device, inode; int64_t seconds; uint64_t nanoseconds; uint32_t mode, uid, gid; };

/* Makes a call that the filter is to let through. */
static long pass(long number, long a, long b, long c, long d, long e)
{
	return system_call(number, a, b, c, d, e, (long)STATE->number);
}

/* Makes a call that the agent may answer; the kernel's own would not have been interrupted. */
static long ask(long number, long a, long b, long c, long d, long e)
{
	long result;
	do
		result = system_call(number, a, b, c, d, e, 0);
	while (result == -EINTR);
	return result;
}

static struct seen seen_of(const struct stat *status)
{
	return (struct seen){status->st_dev, status->st_ino, (int64_t)status->st_ctime,
			     status->st_ctime_nsec, status->st_mode, status->st_uid, status->st_gid};
}

static struct seen seen_of_extended(const struct statx *status)
{
	/* As the kernel encodes it in struct stat. */
	uint64_t minor = status->stx_dev_minor;
	uint64_t device = (minor & 0xff) | (uint64_t)status->stx_dev_major << 8 | (minor & ~UINT64_C(0xff)) << 12;
	return (struct seen){device, status->stx_ino, status->stx_ctime.tv_sec, status->stx_ctime.tv_nsec,
			     status->stx_mode, status->stx_uid, status->stx_gid};
}

/* Whether what a file carries is all that there is to say of it. */
static bool is_plain(const struct seen *seen)
{
	uint64_t count = STATE->count;
	if (seen->device != STATE->device || (!S_ISREG(seen->mode) && !S_ISDIR(seen->mode)) || count > FILES)
		return false;
	for (uint64_t i = 0; i < count; i++)
		if (STATE->files[i].device == seen->device &&
		    (!STATE->files[i].inode || STATE->files[i].inode == seen->inode))
			return false;
	return true;
}

static char *put(char *to, const char *text)
{
	while (*text)
		*to++ = *text++;
	return to;
}

/* Writes a path by which calls that know no directory's descriptor find the same. False for a
 * path that is long. */
static bool name_from(int directory, const char *path, char *to)
{
	char digits[12];
	int count = 0;
	for (unsigned number = (unsigned)directory; number || !count; number /= 10)
		digits[count++] = (char)('0' + number % 10);
	to = put(to, "/proc/thread-self/fd/");
	while (count)
		*to++ = digits[--count];
	*to++ = '/';
	for (int i = 0; i <= LONGEST; i++)
		if (!(*to++ = path[i]))
			return true;
	return false;
}

static bool is_same(const struct seen *one, const struct seen *other)
{
	return one->inode == other->inode && one->device == other->device && one->mode == other->mode &&
		one->seconds == other->seconds && one->nanoseconds == other->nanoseconds;
}

/* Reads an attribute, or with no name lists all, of a file that the kernel has just said something
 * of. Returns the size or a negative error; LEFT for a file that may be another one by now, and
 * for one that does not carry what there is to say of it. */
enum { LEFT = -4096 };

static long read_attribute(int directory, const char *path, int flags, const struct seen *seen,
			   const char *attribute, void *value, unsigned long size)
{
	enum { PREFIX = 40 };
	char name[PREFIX + LONGEST + 1];
	bool follows = !(flags & AT_SYMLINK_NOFOLLOW);
	long result;

	if (!is_plain(seen))
		return LEFT;
	if (flags & AT_EMPTY_PATH && (!path || !*path))
		return attribute ? pass(__NR_fgetxattr, directory, (long)attribute, (long)value, size, 0)
				 : pass(__NR_flistxattr, directory, (long)value, size, 0, 0);
	if (*path != '/' && directory != AT_FDCWD) {
		if (directory < 0 || !name_from(directory, path, name))
			return LEFT;
		path = name;
	}
	if (attribute)
		result = pass(follows ? __NR_getxattr : __NR_lgetxattr, (long)path, (long)attribute,
			      (long)value, size, 0);
	else
		result = pass(follows ? __NR_listxattr : __NR_llistxattr, (long)path, (long)value, size, 0, 0);
	struct stat status;
	if (pass(__NR_newfstatat, AT_FDCWD, (long)path, (long)&status, flags & ~AT_EMPTY_PATH, 0))
		return LEFT;
	struct seen again = seen_of(&status);
	return is_same(seen, &again) ? result : LEFT;
}

/* Says whose a file is that the kernel has just said something of. False is for what the agent
 * is to say. */
static bool find(int directory, const char *path, int flags, const struct seen *seen, struct record *record)
{
	uint8_t value[RECORD_SIZE];
	long size = read_attribute(directory, path, flags, seen, "user.rootlesscontainers", value, sizeof value);

	if (size < 0 && size != -ENODATA)
		return false;
	if (!read_record(value, size < 0 ? 0 : (size_t)size, record) || record->type)
		return false;
	/* Without a record root's files are the kernel's to tell, and others have an owner that the
	 * container knows no number of: whether the caller does is a matter of its user namespace. */
	return record->uid || record->gid || (!seen->uid && !seen->gid);
}

/* Errors that are the kernel's whoever is asked. */
static bool is_certain(long error)
{
	return error == -ENOENT || error == -ENOTDIR || error == -EBADF;
}

static long look(int directory, const char *path, struct stat *status, int flags)
{
	if (STATE->device && !(flags & ~OUR_FLAGS)) {
		struct record record;
		long result = pass(__NR_newfstatat, directory, (long)path, (long)status, flags, 0);
		if (is_certain(result))
			return result;
		if (!result) {
			struct seen seen = seen_of(status);
			if (find(directory, path, flags, &seen, &record)) {
				status->st_uid = record.uid;
				status->st_gid = record.gid;
				return 0;
			}
		}
	}
	return ask(__NR_newfstatat, directory, (long)path, (long)status, flags, 0);
}

static long look_at(int file, struct stat *status)
{
	if (file < 0)
		return -EBADF;
	if (STATE->device) {
		struct record record;
		long result = pass(__NR_fstat, file, (long)status, 0, 0, 0);
		if (is_certain(result))
			return result;
		if (!result) {
			struct seen seen = seen_of(status);
			if (find(file, "", AT_EMPTY_PATH, &seen, &record)) {
				status->st_uid = record.uid;
				status->st_gid = record.gid;
				return 0;
			}
		}
	}
	return ask(__NR_newfstatat, file, (long)"", (long)status, AT_EMPTY_PATH, 0);
}

static long look_closely(int directory, const char *path, int flags, unsigned mask, struct statx *status)
{
	if (STATE->device && !(flags & ~(OUR_FLAGS | AT_STATX_SYNC_TYPE))) {
		struct record record;
		long result = pass(__NR_statx, directory, (long)path, flags, mask, (long)status);
		if (is_certain(result))
			return result;
		/* A file system that tells less than it is asked for is left. */
		if (!result && (status->stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS) {
			struct seen seen = seen_of_extended(status);
			if (find(directory, path, flags & OUR_FLAGS, &seen, &record)) {
				status->stx_uid = record.uid;
				status->stx_gid = record.gid;
				return 0;
			}
		}
	}
	return ask(__NR_statx, directory, (long)path, flags, mask, (long)status);
}

/* Returns an ID of this process's, which is where agent/identity.py keeps it. */
static unsigned identify(long number, int shift)
{
	uint64_t limit[2];
	if (STATE->device && !pass(__NR_prlimit64, 0, RLIMIT_RTTIME, 0, (long)limit, 0)) {
		if (limit[0] < DIRECT || limit[0] == INFINITE)
			return 0;
		if (limit[0] < TABLE)
			return (unsigned)(limit[0] >> shift) & INT32_MAX;
	}
	return (unsigned)ask(number, 0, 0, 0, 0, 0);
}

/* The calls of one kind that read attributes: by path, by path without following, by descriptor. */
struct family { int plain, nofollow, open; };
static const struct family getting = {__NR_getxattr, __NR_lgetxattr, __NR_fgetxattr};
static const struct family listing = {__NR_listxattr, __NR_llistxattr, __NR_flistxattr};

/* What a call about attributes is about: a path, or a descriptor. */
struct target { const char *path; int file, flags; };

static long number_of(const struct family *family, const struct target *target)
{
	if (target->flags & AT_EMPTY_PATH)
		return family->open;
	return target->flags & AT_SYMLINK_NOFOLLOW ? family->nofollow : family->plain;
}

static long first_of(const struct target *target)
{
	return target->flags & AT_EMPTY_PATH ? target->file : (long)target->path;
}

/* Reads an attribute of the target if that is what it seems. */
static long read_of(const struct target *target, const char *attribute, void *value, unsigned long size)
{
	struct stat status;
	long result = target->flags & AT_EMPTY_PATH
		? pass(__NR_fstat, target->file, (long)&status, 0, 0, 0)
		: pass(__NR_newfstatat, AT_FDCWD, (long)target->path, (long)&status, target->flags, 0);
	if (result)
		return LEFT;
	struct seen seen = seen_of(&status);
	return read_attribute(target->flags & AT_EMPTY_PATH ? target->file : AT_FDCWD, target->path,
			      target->flags, &seen, attribute, value, size);
}

static bool begins(const char *text, const char *beginning)
{
	while (*beginning)
		if (*text++ != *beginning++)
			return false;
	return true;
}

static bool is_text(const char *text, const char *other)
{
	while (*text && *text == *other)
		text++, other++;
	return *text == *other;
}

/* Says that there is no such attribute, or what the kernel says of one that is its own: the rules
 * of emulation/files/xattrs.py. LEFT is for what the agent is to say. */
static long get_attribute(const struct target *target, const char *name)
{
	static const char kept[] = "user.runrootless.", security[] = "security.";
	char inner[sizeof kept + LONGEST];
	/* The name can be read if the kernel has. */
	long result = pass(number_of(&getting, target), first_of(target), (long)name, 0, 0, 0);

	if (is_certain(result))
		return result;
	if (result < 0 && result != -ENODATA && result != -EOPNOTSUPP)
		return LEFT;
	if (is_text(name, "system.posix_acl_access") || is_text(name, "system.posix_acl_default")) {
		if (result >= 0)
			return LEFT;
		result = read_of(target, name, 0, 0);
		return result < 0 ? result : LEFT;
	}
	if (!begins(name, security) || !name[sizeof security - 1] || is_text(name, "security.capability"))
		return LEFT;
	char *to = put(inner, kept), *end = inner + sizeof inner - sizeof kept;
	while (to < end && *name)
		*to++ = *name++;
	if (*name)
		return LEFT;
	*to = 0;
	return read_of(target, inner, 0, 0) == -ENODATA ? -ENODATA : LEFT;
}

static long get(const struct target *target, const char *name, void *value, unsigned long size)
{
	long result = STATE->device ? get_attribute(target, name) : LEFT;
	if (result != LEFT)
		return result;
	return ask(number_of(&getting, target), first_of(target), (long)name, (long)value, (long)size, 0);
}

/* Says that there are no attributes. */
static long list(const struct target *target, char *names, unsigned long size)
{
	if (STATE->device && !read_of(target, 0, 0, 0))
		return 0;
	return ask(number_of(&listing, target), first_of(target), (long)names, (long)size, 0, 0);
}

#define PUBLIC __attribute__((visibility("default")))
#define ALSO(name, other) extern __typeof__(other) name __attribute__((alias(#other), visibility("default")))

/* Their names in musl, and in glibc from 2.33 on; the others are those of older programs. */
PUBLIC int stat(const char *path, struct stat *status)
{
	return outcome(look(AT_FDCWD, path, status, 0));
}
ALSO(stat64, stat);

PUBLIC int lstat(const char *path, struct stat *status)
{
	return outcome(look(AT_FDCWD, path, status, AT_SYMLINK_NOFOLLOW));
}
ALSO(lstat64, lstat);

PUBLIC int fstat(int file, struct stat *status)
{
	return outcome(look_at(file, status));
}
ALSO(fstat64, fstat);

PUBLIC int fstatat(int directory, const char *path, struct stat *status, int flags)
{
	return outcome(look(directory, path, status, flags));
}
ALSO(fstatat64, fstatat);

PUBLIC int statx(int directory, const char *path, int flags, unsigned mask, struct statx *status)
{
	return outcome(look_closely(directory, path, flags, mask, status));
}

/* What glibc's <bits/stat.h> numbers as the structure that the kernel has. */
static bool is_kernels(int version)
{
#if defined __x86_64__
	return version == 0 || version == 1;
#else
	return version == 0;
#endif
}

PUBLIC int __xstat(int version, const char *path, struct stat *status)
{
	return is_kernels(version) ? stat(path, status) : outcome(-EINVAL);
}
ALSO(__xstat64, __xstat);

PUBLIC int __lxstat(int version, const char *path, struct stat *status)
{
	return is_kernels(version) ? lstat(path, status) : outcome(-EINVAL);
}
ALSO(__lxstat64, __lxstat);

PUBLIC int __fxstat(int version, int file, struct stat *status)
{
	return is_kernels(version) ? fstat(file, status) : outcome(-EINVAL);
}
ALSO(__fxstat64, __fxstat);

PUBLIC int __fxstatat(int version, int directory, const char *path, struct stat *status, int flags)
{
	return is_kernels(version) ? fstatat(directory, path, status, flags) : outcome(-EINVAL);
}
ALSO(__fxstatat64, __fxstatat);

PUBLIC unsigned getuid(void)
{
	return identify(__NR_getuid, 31);
}

PUBLIC unsigned geteuid(void)
{
	return identify(__NR_geteuid, 31);
}

PUBLIC unsigned getgid(void)
{
	return identify(__NR_getgid, 0);
}

PUBLIC unsigned getegid(void)
{
	return identify(__NR_getegid, 0);
}

PUBLIC long getxattr(const char *path, const char *name, void *value, unsigned long size)
{
	return outcome(get(&(struct target){path, -1, 0}, name, value, size));
}

PUBLIC long lgetxattr(const char *path, const char *name, void *value, unsigned long size)
{
	return outcome(get(&(struct target){path, -1, AT_SYMLINK_NOFOLLOW}, name, value, size));
}

PUBLIC long fgetxattr(int file, const char *name, void *value, unsigned long size)
{
	return outcome(get(&(struct target){0, file, AT_EMPTY_PATH}, name, value, size));
}

PUBLIC long listxattr(const char *path, char *names, unsigned long size)
{
	return outcome(list(&(struct target){path, -1, 0}, names, size));
}

PUBLIC long llistxattr(const char *path, char *names, unsigned long size)
{
	return outcome(list(&(struct target){path, -1, AT_SYMLINK_NOFOLLOW}, names, size));
}

PUBLIC long flistxattr(int file, char *names, unsigned long size)
{
	return outcome(list(&(struct target){0, file, AT_EMPTY_PATH}, names, size));
}
