/* What the parts of the fast path share: what the agent says, and calls of the kernel. See fast.c. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fast_calls.h"

enum { PAGE = 4096, FILES = 64 };

/* What the agent says of the container: emulation/fast_state.py. It writes that to the file
 * while programs run, and they see it, since their pages are the file's. */
struct state {
	char mark[16];
	uint64_t number;       /* lets calls through */
	uint64_t device;       /* of the root file system; 0 is for none: nothing is answered here */
	uint64_t capabilities; /* that the container's first process may have */
	uint64_t count;        /* of files of which more is to be said than what they carry */
	struct { uint64_t device, inode; } files[FILES];
};
union page { struct state state; char page[PAGE]; };
extern const union page shared __attribute__((visibility("hidden")));
#define STATE ((const volatile struct state *)&shared.state)

enum { LONGEST = 255 }; /* path from a directory's descriptor, in bytes */
enum { RLIMIT_RTTIME = 15, RECORD_SIZE = 64 };
#define DIRECT (UINT64_C(1) << 62)
#define TABLE (UINT64_C(1) << 63)
#define INFINITE UINT64_MAX

/* What two looks at a file have in common if it is the same one, and has not changed. */
struct seen { uint64_t device, inode; int64_t seconds; uint64_t nanoseconds; uint32_t mode, uid, gid; };

/* Makes a call that the filter is to let through: fast.c. */
long let_through(long number, long a, long b, long c, long d, long e, long f) __attribute__((visibility("hidden")));

static inline long pass(long number, long a, long b, long c, long d, long e)
{
	return let_through(number, a, b, c, d, e, (long)STATE->number);
}

/* Makes a call that the agent may answer; the kernel's own would not have been interrupted. */
static inline long ask(long number, long a, long b, long c, long d, long e)
{
	long result;
	do
		result = system_call(number, a, b, c, d, e, 0);
	while (result == -EINTR);
	return result;
}

static inline struct seen seen_of(const struct stat *status)
{
	return (struct seen){status->st_dev, status->st_ino, (int64_t)status->st_ctime,
			     status->st_ctime_nsec, status->st_mode, status->st_uid, status->st_gid};
}

/* Looks at a file by its path, as the kernel has it. Returns a negative error. */
static inline long see(int directory, const char *path, int flags, struct seen *seen)
{
	struct stat status;
	long result = pass(__NR_newfstatat, directory, (long)path, (long)&status, flags, 0);
	if (!result)
		*seen = seen_of(&status);
	return result;
}

/* Does so by its descriptor. */
static inline long see_open(int file, struct seen *seen)
{
	struct stat status;
	long result = pass(__NR_fstat, file, (long)&status, 0, 0, 0);
	if (!result)
		*seen = seen_of(&status);
	return result;
}

/* Errors that are the kernel's whoever is asked. After a part of an answer has been written, the path
 * may be another. */
static inline bool is_certain(long error)
{
	return error == -ENOENT || error == -ENOTDIR || error == -EBADF || error == -EFAULT;
}

/* Reads who this process is, where emulation/callers/identity.py keeps it. */
static inline bool read_identity(uint64_t *number)
{
	uint64_t limit[2];
	if (pass(__NR_prlimit64, 0, RLIMIT_RTTIME, 0, (long)limit, 0))
		return false;
	*number = limit[0] == INFINITE ? 0 : limit[0];
	return true;
}

/* Whether this process is root, with all that root has. */
static inline bool is_root(void)
{
	uint64_t number;
	return read_identity(&number) && number < DIRECT;
}

/* fast_attributes.c. LEFT is for what the agent is to say. */
enum { LEFT = -4096, XATTR_CREATE = 1 };
#define RECORD "user.rootlesscontainers"
bool is_plain(const struct seen *seen);
bool is_readable(const void *at);
/* Reads an attribute, or with no name lists all, of what a path leads to. */
long read_by_path(int directory, const char *path, int flags, const char *attribute, void *value,
		  unsigned long size);
/* Makes one, which is not to be there. */
long make_by_path(int directory, const char *path, int flags, const char *attribute, const void *value,
		  unsigned long size);
long read_attribute(int directory, const char *path, int flags, const struct seen *seen,
		    const char *attribute, void *value, unsigned long size);

/* Finds a C library's own function behind the one here. Programs without libdl have none before
 * glibc 2.34. */
extern void *dlsym(void *handle, const char *name) __attribute__((weak));
#define NEXT ((void *)-1) /* RTLD_NEXT */

#define PUBLIC __attribute__((visibility("default")))
#define ALSO(name, other) extern __typeof__(other) name __attribute__((alias(#other), visibility("default")))
