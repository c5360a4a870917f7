/* New files, opened ones, modes and times, for the fast path (fast.c): what loop_answers.h lets the kernel
 * carry out is carried out here at once, by the same rules, and likewise after a look at the file. */
#include "fast_state.h"

enum { NEW = O_TMPFILE & ~O_DIRECTORY, ASKED = O_CREAT | O_TRUNC | O_RDWR | O_NOCTTY };
/* As directories are opened to be listed: the filter lets that through. */
enum { LISTED = O_DIRECTORY | O_NOCTTY };

typedef int opening(const char *path, int flags, ...);
typedef int opening_at(int directory, const char *path, int flags, ...);
typedef int creating(const char *path, unsigned mode);
typedef int moding(int directory, const char *path, unsigned mode, int flags);
typedef int timing(int directory, const char *path, const void *times, int flags);
typedef int moding_open(int file, unsigned mode);
typedef int timing_open(int file, const void *times);

/* The C library's own functions, which wait where threads can be cancelled. */
static struct {
	opening *open, *open_2;
	opening_at *openat, *openat_2;
	creating *creat;
	moding *fchmodat;
	timing *utimensat;
	moding_open *fchmod;
	timing_open *futimens;
} next;

extern const char *gnu_get_libc_version(void) __attribute__((weak));
extern void pthread_testcancel(void) __attribute__((weak));

/* Before this, and where there is no dlsym (glibc before 2.34, in programs without libdl), system
 * calls are made in place of them. */
__attribute__((constructor)) static void find_next(void)
{
	if (!dlsym)
		return;
	next.open = (opening *)dlsym(NEXT, "open");
	next.openat = (opening_at *)dlsym(NEXT, "openat");
	next.creat = (creating *)dlsym(NEXT, "creat");
	next.fchmodat = (moding *)dlsym(NEXT, "fchmodat");
	next.utimensat = (timing *)dlsym(NEXT, "utimensat");
	next.fchmod = (moding_open *)dlsym(NEXT, "fchmod");
	next.futimens = (timing_open *)dlsym(NEXT, "futimens");
	if (gnu_get_libc_version) {
		next.open_2 = (opening *)dlsym(NEXT, "__open_2");
		next.openat_2 = (opening_at *)dlsym(NEXT, "__openat_2");
	}
}

/* Finds where a path's last part begins; NULL for a path that is long, or has none that is a name. */
static const char *last_part(const char *path)
{
	int end = 0;
	while (path[end])
		if (++end > LONGEST)
			return 0;
	while (end && path[end - 1] == '/')
		end--;
	int begin = end;
	while (begin && path[begin - 1] != '/')
		begin--;
	int length = end - begin;
	bool is_name = length > 2 || (length == 2 && (path[begin] != '.' || path[begin + 1] != '.')) ||
		(length == 1 && path[begin] != '.');
	return is_name ? path + begin : 0;
}

/* Whether new files in the directory that a path leads to are their maker's in all. The path can
 * be read: the kernel has. */
static bool has_plain_parent(int directory, const char *path)
{
	static const char list[] = "system.posix_acl_default";
	char parent[LONGEST + 1];
	const char *last = last_part(path);
	struct seen seen;
	long listed;

	if (!last)
		return false;
	if (last == path && directory != AT_FDCWD) {
		if (see_open(directory, &seen))
			return false;
		listed = pass(__NR_fgetxattr, directory, (long)list, 0, 0, 0);
	} else {
		char *to = parent;
		if (last == path)
			*to++ = '.';
		while (path < last)
			*to++ = *path++;
		*to = 0;
		if (see(directory, parent, 0, &seen))
			return false;
		listed = read_by_path(directory, parent, 0, list, 0, 0);
	}
	return is_plain(&seen) && S_ISDIR(seen.mode) && !(seen.mode & S_ISGID) &&
		(listed == -ENODATA || listed == -EOPNOTSUPP);
}

/* Whether what is made by this path, of which the kernel has been asked, is root's in all, so that
 * there is nothing to record. */
static bool makes_plain(int directory, const char *path)
{
	return is_root() && has_plain_parent(directory, path);
}

/* Whether the kernel may be asked to make what is not to be there. */
static bool makes_new(int directory, const char *path)
{
	struct seen seen;
	if (!STATE->device)
		return false;
	long result = see(directory, path, AT_SYMLINK_NOFOLLOW, &seen);
	return (!result || result == -ENOENT) && makes_plain(directory, path);
}

/* Whether the agent would be asked, and would let the kernel open a file. */
static bool opens_plain(int directory, const char *path, int flags)
{
	struct seen seen;
	bool is_asked = flags & ASKED && (flags & (ASKED | O_DIRECTORY)) != LISTED;
	if (!STATE->device || !is_asked || flags & (O_PATH | NEW))
		return false;
	if (flags & O_CREAT && flags & O_EXCL)
		return makes_new(directory, path);
	long result = see(directory, path, flags & O_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0, &seen);
	if (!result)
		return is_plain(&seen);
	if (result != -ENOENT)
		return false;
	/* What is missing is the kernel's to tell, as compilers ask for in many directories. A symlink
	 * that leads nowhere is where a file would be made. */
	return !(flags & O_CREAT) ||
		(see(directory, path, AT_SYMLINK_NOFOLLOW, &seen) == -ENOENT && makes_plain(directory, path));
}

static int open_plain(int directory, const char *path, int flags, unsigned mode)
{
	if (pthread_testcancel)
		pthread_testcancel();
	return outcome(pass(__NR_openat, directory, (long)path, flags, mode, 0));
}

/* C libraries take the mode as a variable argument, which is passed as any other one. */
PUBLIC int open(const char *path, int flags, unsigned mode)
{
	if (opens_plain(AT_FDCWD, path, flags))
		return open_plain(AT_FDCWD, path, flags, mode);
	return next.open ? next.open(path, flags, mode)
			 : outcome(system_call(__NR_openat, AT_FDCWD, (long)path, flags, mode, 0, 0));
}
ALSO(open64, open);

PUBLIC int openat(int directory, const char *path, int flags, unsigned mode)
{
	if (opens_plain(directory, path, flags))
		return open_plain(directory, path, flags, mode);
	return next.openat ? next.openat(directory, path, flags, mode)
			   : outcome(system_call(__NR_openat, directory, (long)path, flags, mode, 0, 0));
}
ALSO(openat64, openat);

PUBLIC int creat(const char *path, unsigned mode)
{
	int flags = O_CREAT | O_WRONLY | O_TRUNC;
	if (opens_plain(AT_FDCWD, path, flags))
		return open_plain(AT_FDCWD, path, flags, mode);
	return next.creat ? next.creat(path, mode)
			  : outcome(system_call(__NR_openat, AT_FDCWD, (long)path, flags, mode, 0, 0));
}
ALSO(creat64, creat);

/* glibc's for programs that are compiled with _FORTIFY_SOURCE. It ends those that leave out a mode
 * that is needed. */
PUBLIC int __open_2(const char *path, int flags)
{
	bool needs_mode = flags & (O_CREAT | NEW);
	return needs_mode && next.open_2 ? next.open_2(path, flags) : open(path, flags, 0);
}
ALSO(__open64_2, __open_2);

PUBLIC int __openat_2(int directory, const char *path, int flags)
{
	bool needs_mode = flags & (O_CREAT | NEW);
	return needs_mode && next.openat_2 ? next.openat_2(directory, path, flags)
					   : openat(directory, path, flags, 0);
}
ALSO(__openat64_2, __openat_2);

/* Makes a file that "path" is the name of, by a call of up to three arguments. */
static int make(int directory, const char *path, long number, long a, long b, long c)
{
	bool is_plain = makes_new(directory, path);
	return outcome(is_plain ? pass(number, a, b, c, 0, 0) : ask(number, a, b, c, 0, 0));
}

PUBLIC int mkdir(const char *path, unsigned mode)
{
#ifdef __NR_mkdir
	return make(AT_FDCWD, path, __NR_mkdir, (long)path, mode, 0);
#else
	return make(AT_FDCWD, path, __NR_mkdirat, AT_FDCWD, (long)path, mode);
#endif
}

PUBLIC int mkdirat(int directory, const char *path, unsigned mode)
{
	return make(directory, path, __NR_mkdirat, directory, (long)path, mode);
}

PUBLIC int symlink(const char *target, const char *path)
{
#ifdef __NR_symlink
	return make(AT_FDCWD, path, __NR_symlink, (long)target, (long)path, 0);
#else
	return make(AT_FDCWD, path, __NR_symlinkat, (long)target, AT_FDCWD, (long)path);
#endif
}

PUBLIC int symlinkat(const char *target, int directory, const char *path)
{
	return make(directory, path, __NR_symlinkat, (long)target, directory, (long)path);
}

static bool is_plain_at(int file, const char *path, int flags)
{
	struct seen seen;
	return STATE->device && !see(file, path, flags, &seen) && is_plain(&seen);
}

static bool is_plain_open(int file)
{
	struct seen seen;
	return STATE->device && !see_open(file, &seen) && is_plain(&seen);
}

/* Whether somebody may let a file pass on its group is the agent's to say. */
PUBLIC int chmod(const char *path, unsigned mode)
{
	bool is_passed = !(mode & S_ISGID) && is_plain_at(AT_FDCWD, path, 0);
#ifdef __NR_chmod
	return outcome(is_passed ? pass(__NR_chmod, (long)path, mode, 0, 0, 0)
				 : ask(__NR_chmod, (long)path, mode, 0, 0, 0));
#else
	return outcome(is_passed ? pass(__NR_fchmodat, AT_FDCWD, (long)path, mode, 0, 0)
				 : ask(__NR_fchmodat, AT_FDCWD, (long)path, mode, 0, 0));
#endif
}

/* musl's has another way to change what an O_PATH descriptor is of. */
PUBLIC int fchmod(int file, unsigned mode)
{
	if (!(mode & S_ISGID) && is_plain_open(file) && !pass(__NR_fchmod, file, mode, 0, 0, 0))
		return 0;
	return next.fchmod ? next.fchmod(file, mode) : outcome(ask(__NR_fchmod, file, mode, 0, 0, 0));
}

#ifndef __NR_fchmodat2
#define __NR_fchmodat2 452
#endif

/* Flags are the kernel's matter since Linux 6.6, and the C library's before. */
PUBLIC int fchmodat(int directory, const char *path, unsigned mode, int flags)
{
	if (!(mode & S_ISGID) && !(flags & ~AT_SYMLINK_NOFOLLOW) && is_plain_at(directory, path, flags)) {
		long result = flags ? pass(__NR_fchmodat2, directory, (long)path, mode, flags, 0)
				    : pass(__NR_fchmodat, directory, (long)path, mode, 0, 0);
		if (!result)
			return 0;
	}
	if (next.fchmodat)
		return next.fchmodat(directory, path, mode, flags);
	return outcome(flags ? ask(__NR_fchmodat2, directory, (long)path, mode, flags, 0)
			     : ask(__NR_fchmodat, directory, (long)path, mode, 0, 0));
}

PUBLIC int lchmod(const char *path, unsigned mode)
{
	return fchmodat(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW);
}

PUBLIC int utimensat(int directory, const char *path, const void *times, int flags)
{
	if (path && !(flags & ~AT_SYMLINK_NOFOLLOW) && is_plain_at(directory, path, flags))
		return outcome(pass(__NR_utimensat, directory, (long)path, (long)times, flags, 0));
	/* Without a path, libraries differ. */
	return next.utimensat ? next.utimensat(directory, path, times, flags)
			      : outcome(ask(__NR_utimensat, directory, (long)path, (long)times, flags, 0));
}

PUBLIC int futimens(int file, const void *times)
{
	if (file >= 0 && is_plain_open(file))
		return outcome(pass(__NR_utimensat, file, 0, (long)times, 0, 0));
	if (next.futimens)
		return next.futimens(file, times);
	return outcome(file < 0 ? -EBADF : ask(__NR_utimensat, file, 0, (long)times, 0, 0));
}
