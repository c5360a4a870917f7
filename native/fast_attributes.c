/* Extended attributes, for the fast path (fast.c): the record of a file, and what programs ask for. */
#include "fast_state.h"

/* Whether what a file carries is all that there is to say of it. */
bool is_plain(const struct seen *seen)
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

enum { NAME_SIZE = 40 + LONGEST + 1 };

/* Returns a path by which calls that know no directory's descriptor find the same, "name" where
 * that is written. NULL for a path that is long, and for no directory. */
static const char *reach(int directory, const char *path, char *name)
{
	char digits[12], *to = name;
	int count = 0;
	if (*path == '/' || directory == AT_FDCWD)
		return path;
	if (directory < 0)
		return 0;
	for (unsigned number = (unsigned)directory; number || !count; number /= 10)
		digits[count++] = (char)('0' + number % 10);
	to = put(to, "/proc/thread-self/fd/");
	while (count)
		*to++ = digits[--count];
	*to++ = '/';
	for (int i = 0; i <= LONGEST; i++)
		if (!(*to++ = path[i]))
			return name;
	return 0;
}

/* <linux/xattr.h> and <asm/unistd.h> since Linux 6.13. */
struct attribute { uint64_t value; uint32_t size, flags; };
enum { NR_SETXATTRAT = 463, NR_GETXATTRAT = 464 };

/* Reads or writes an attribute by a directory's descriptor. All six arguments are in use:
 * emulation/table.py says where the number is. Returns a negative error, of which some kernels and
 * profiles know none: see is_refused. */
static long call_at(long call, int directory, const char *path, int flags, const char *name,
		    const struct attribute *attribute)
{
	uint64_t number = STATE->number;
	uint64_t first = (uint32_t)directory | number << 32, third = (uint32_t)flags | (number >> 32) << 32;
	return let_through(call, (long)first, (long)path, (long)third, (long)name, (long)attribute,
			   sizeof *attribute);
}

static bool is_refused(long error)
{
	return error == -ENOSYS || error == -EPERM;
}

static bool is_same(const struct seen *one, const struct seen *other)
{
	return one->inode == other->inode && one->device == other->device && one->mode == other->mode &&
		one->seconds == other->seconds && one->nanoseconds == other->nanoseconds;
}

long read_by_path(int directory, const char *path, int flags, const char *attribute, void *value,
		  unsigned long size)
{
	char name[NAME_SIZE];
	bool follows = !(flags & AT_SYMLINK_NOFOLLOW);

	if (attribute && directory >= 0) {
		struct attribute to = {(uint64_t)value, (uint32_t)size, 0};
		long result = call_at(NR_GETXATTRAT, directory, path, flags & AT_SYMLINK_NOFOLLOW, attribute, &to);
		if (!is_refused(result))
			return result;
	}
	if (!(path = reach(directory, path, name)))
		return LEFT;
	if (attribute)
		return pass(follows ? __NR_getxattr : __NR_lgetxattr, (long)path, (long)attribute, (long)value,
			    size, 0);
	return pass(follows ? __NR_listxattr : __NR_llistxattr, (long)path, (long)value, size, 0, 0);
}

long make_by_path(int directory, const char *path, int flags, const char *attribute, const void *value,
		  unsigned long size)
{
	char name[NAME_SIZE];
	bool follows = !(flags & AT_SYMLINK_NOFOLLOW);

	if (directory >= 0) {
		struct attribute from = {(uint64_t)value, (uint32_t)size, XATTR_CREATE};
		long result = call_at(NR_SETXATTRAT, directory, path, flags & AT_SYMLINK_NOFOLLOW, attribute, &from);
		if (!is_refused(result))
			return result;
	}
	if (!(path = reach(directory, path, name)))
		return LEFT;
	return pass(follows ? __NR_setxattr : __NR_lsetxattr, (long)path, (long)attribute, (long)value, size,
		    XATTR_CREATE);
}

/* Reads an attribute of a file that the kernel has just said something of. Returns the size or a negative
 * error; LEFT for a file that may be another one by now, and for one that does not carry what
 * there is to say of it. */
long read_attribute(int directory, const char *path, int flags, const struct seen *seen,
		    const char *attribute, void *value, unsigned long size)
{
	struct seen again;

	if (!is_plain(seen))
		return LEFT;
	if (flags & AT_EMPTY_PATH && (!path || !*path))
		return attribute ? pass(__NR_fgetxattr, directory, (long)attribute, (long)value, size, 0)
				 : pass(__NR_flistxattr, directory, (long)value, size, 0, 0);
	long result = read_by_path(directory, path, flags, attribute, value, size);
	if (result == LEFT || see(directory, path, flags & ~AT_EMPTY_PATH, &again) || !is_same(seen, &again))
		return LEFT;
	return result;
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
	int file = target->flags & AT_EMPTY_PATH ? target->file : AT_FDCWD;
	struct seen seen;
	if (target->flags & AT_EMPTY_PATH ? see_open(file, &seen) : see(file, target->path, target->flags, &seen))
		return LEFT;
	return read_attribute(file, target->path, target->flags, &seen, attribute, value, size);
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

/* Says that there are no attributes but for the record, which is none. */
static long list(const struct target *target, char *names, unsigned long size)
{
	char record[sizeof RECORD];
	if (STATE->device) {
		long listed = read_of(target, 0, record, sizeof record);
		if (!listed || (listed == sizeof record && is_text(record, RECORD)))
			return 0;
	}
	return ask(number_of(&listing, target), first_of(target), (long)names, (long)size, 0, 0);
}

/* Whether the kernel can read some bytes of a program's: it copies them before it finds that there
 * is no such thing to do with them. */
bool is_readable(const void *at)
{
	enum { NOTHING_TO_DO = -1, SIZE = 8 };
	return system_call(__NR_rt_sigprocmask, NOTHING_TO_DO, (long)at, 0, SIZE, 0, 0) == -EINVAL;
}

/* Sets an access control list that is no more than a mode, as cp -a does: that is the kernel's, if
 * the file has no list that it does not know all of (emulation/files/access_lists.py). */
static bool set_mode_list(int file, const char *name, const uint8_t *value, unsigned long size, int flags)
{
	enum { HEAD = 4, ENTRY = 8, ALL = HEAD + 3 * ENTRY };
	enum { USER_OBJ = 1, GROUP_OBJ = 4, OTHER = 0x20 };
	static const char access[] = "system.posix_acl_access";
	static const uint8_t tags[] = {USER_OBJ, GROUP_OBJ, OTHER};
	struct seen seen;

	if (!STATE->device || size != ALL || flags || see_open(file, &seen))
		return false;
	if (!is_plain(&seen) || seen.mode & S_ISGID ||
	    pass(__NR_fgetxattr, file, (long)"user.runrootless.system.posix_acl_access", 0, 0, 0) != -ENODATA)
		return false;
	/* The name can be read if the kernel has. */
	long result = pass(__NR_fgetxattr, file, (long)name, 0, 0, 0);
	if ((result < 0 && result != -ENODATA) || !is_text(name, access) || !is_readable(value) ||
	    !is_readable(value + ALL - ENTRY))
		return false;
	/* Of lists the kernel heeds no flags. What it is given cannot change meanwhile. */
	uint8_t list[ALL];
	for (int i = 0; i < ALL; i++)
		list[i] = ((const volatile uint8_t *)value)[i];
	if (list[0] != 2 || list[1] || list[2] || list[3])
		return false;
	for (int i = 0; i < 3; i++)
		if (list[HEAD + ENTRY * i] != tags[i] || list[HEAD + ENTRY * i + 1])
			return false;
	return !pass(__NR_fsetxattr, file, (long)access, (long)list, ALL, XATTR_CREATE);
}

PUBLIC int fsetxattr(int file, const char *name, const void *value, unsigned long size, int flags)
{
	if (set_mode_list(file, name, value, size, flags))
		return 0;
	return outcome(ask(__NR_fsetxattr, file, (long)name, (long)value, (long)size, flags));
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
