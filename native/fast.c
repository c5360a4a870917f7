/* The fast path: an object that is preloaded into the programs of a container, and answers there
 * what the agent would find out about regular files and directories, and about who root is.
 *
 * Why this is not Python: it runs in processes of the container. It has no C library, for it is
 * to work with each of them, before that has begun, in a vfork(2) child, in a signal handler on a
 * small stack; and it keeps nothing, so it needs no lock.
 *
 * The filter lets these calls through where their sixth argument, of which they have none, is
 * this container's number (or two that are an int have its halves, fast_attributes.c). So the
 * kernel answers, and what it does not know, the record of a file, is read from the attribute that
 * the agent would read. Whatever is not certain is left: then the call is made without the number,
 * as a C library makes it, and the agent answers. The rules are those of loop_answers.h
 * (emulation/files/metadata.py, emulation/callers/identity.py). */
#include "fast_state.h"
#include "record.h"

const union page shared __attribute__((section(".state"), aligned(PAGE))) = {.state = {.mark = "runrootless fast"}};

/* The arguments of a function, of which the first is a call's number, as that call takes them. */
#if defined __x86_64__
#define ARGUMENTS "mov %rdi, %rax\n mov %rsi, %rdi\n mov %rdx, %rsi\n mov %rcx, %rdx\n" \
	"mov %r8, %r10\n mov %r9, %r8\n mov 8(%rsp), %r9\n"
#elif defined __aarch64__
#define ARGUMENTS "mov x8, x0\n mov x0, x1\n mov x1, x2\n mov x2, x3\n mov x3, x4\n mov x4, x5\n" \
	"mov x5, x6\n"
#endif

/* The number is in a register when a signal's handler begins, and calls of a C library leave that
 * one alone. So the filter lets no call through but from this place in a page
 * (emulation/seccomp_filter.py), and the registers are cleared. */
__asm__(".pushsection .text.through, \"ax\", %progbits\n"
	".balign 4096\n"
#if defined __x86_64__
	".skip 0xa5a, 0xcc\n"
	".cfi_startproc\n"
	"1: syscall\n" /* ends at 0xa5c */
	"xor %edi, %edi\n"
	"xor %edx, %edx\n"
	"xor %r9d, %r9d\n"
	"ret\n"
	".globl let_through\n"
	".hidden let_through\n"
	".type let_through, %function\n"
	"let_through:" ARGUMENTS
	"jmp 1b\n"
	".cfi_endproc\n"
#elif defined __aarch64__
	".skip 0xa58\n"
	".cfi_startproc\n"
	"1: svc 0\n"
	"mov x2, xzr\n"
	"mov x5, xzr\n"
	"ret\n"
	".globl let_through\n"
	".hidden let_through\n"
	".type let_through, %function\n"
	"let_through:" ARGUMENTS
	"b 1b\n"
	".cfi_endproc\n"
#endif
	".popsection\n");

enum { OUR_FLAGS = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH };

static struct seen seen_of_extended(const struct statx *status)
{
	/* As the kernel encodes it in struct stat. */
	uint64_t minor = status->stx_dev_minor;
	uint64_t device = (minor & 0xff) | (uint64_t)status->stx_dev_major << 8 | (minor & ~UINT64_C(0xff)) << 12;
	return (struct seen){device, status->stx_ino, status->stx_ctime.tv_sec, status->stx_ctime.tv_nsec,
			     status->stx_mode, status->stx_uid, status->stx_gid};
}

/* Says whose a file is that the kernel has just said something of. False is for what the agent
 * is to say. */
static bool find(int directory, const char *path, int flags, const struct seen *seen, struct record *record)
{
	uint8_t value[RECORD_SIZE];
	long size = read_attribute(directory, path, flags, seen, RECORD, value, sizeof value);

	if (size < 0 && size != -ENODATA)
		return false;
	if (!read_record(value, size < 0 ? 0 : (size_t)size, record) || record->type)
		return false;
	/* Without a record root's files are the kernel's to tell, and others have an owner that the
	 * container knows no number of: whether the caller does is a matter of its user namespace. */
	return record->uid || record->gid || (!seen->uid && !seen->gid);
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

/* Returns an ID of this process's. */
static unsigned identify(long number, int shift)
{
	uint64_t who;
	if (STATE->device && read_identity(&who)) {
		if (who < DIRECT)
			return 0;
		if (who < TABLE)
			return (unsigned)(who >> shift) & INT32_MAX;
	}
	return (unsigned)ask(number, 0, 0, 0, 0, 0);
}

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

typedef int testing(const char *path, int mode);
static testing *next_euidaccess;

__attribute__((constructor)) static void find_next(void)
{
	if (dlsym)
		next_euidaccess = (testing *)dlsym(NEXT, "euidaccess");
}

extern int group_member(unsigned group) __attribute__((weak));

/* What glibc says where there is no way to its own function: where the IDs differ, it looks. */
static int look_for_access(const char *path, unsigned mode)
{
	enum { EXECUTE = 1, OWNERS = 6, GROUPS = 3 };
	struct stat status;
	unsigned user = geteuid(), group = getegid();

	if (user == getuid() && group == getgid())
		return outcome(system_call(__NR_faccessat, AT_FDCWD, (long)path, mode, 0, 0, 0));
	if (stat(path, &status))
		return -1;
	if (!user && (!(mode & EXECUTE) || status.st_mode & 0111))
		return 0;
	bool is_groups = group == status.st_gid || (group_member && group_member(status.st_gid));
	unsigned granted = status.st_mode >> (user == status.st_uid ? OWNERS : is_groups ? GROUPS : 0);
	return outcome(mode & ~granted ? -EACCES : 0);
}

/* Shells look for programs by this, and glibc asks for all four IDs each time: where they are two,
 * it is access(2). */
PUBLIC int euidaccess(const char *path, int mode)
{
	enum { ALL = 7 };
	uint64_t who;
	if (!(mode & ~ALL) && STATE->device && read_identity(&who) && who < TABLE)
		return outcome(system_call(__NR_faccessat, AT_FDCWD, (long)path, mode, 0, 0, 0));
	return next_euidaccess ? next_euidaccess(path, mode) : look_for_access(path, mode & ALL);
}
ALSO(eaccess, euidaccess);

/* syscall(3), since there is no other way to some calls. All but these are made as C libraries make
 * them: the caller's stack, which holds a sixth argument if there is one, is not written to. */
#define NR_OPENAT2 437 /* since Linux 5.6, <linux/openat2.h> */
struct how { uint64_t flags, mode, resolve; };
#define HIDDEN __attribute__((visibility("hidden")))
HIDDEN long look_by_number(long number, int directory, const char *path, int flags, unsigned mask,
			   struct statx *status);
HIDDEN long open_by_number(long number, int directory, const char *path, const struct how *how,
			   unsigned long size);
HIDDEN long fail(long error);

/* By node. */
long look_by_number(long number, int directory, const char *path, int flags, unsigned mask,
		    struct statx *status)
{
	(void)number;
	return outcome(look_closely(directory, path, flags, mask, status));
}

/* By rsync: what is resolved in a special way is the kernel's. */
long open_by_number(long number, int directory, const char *path, const struct how *how,
		    unsigned long size)
{
	if (STATE->device && size == sizeof *how && is_readable(how) && is_readable(&how->resolve)) {
		const volatile struct how *given = how;
		struct how copy = {given->flags, given->mode, given->resolve};
		if (copy.resolve)
			return outcome(pass(number, directory, (long)path, (long)&copy, sizeof copy, 0));
	}
	return outcome(system_call(number, directory, (long)path, (long)how, (long)size, 0, 0));
}

long fail(long error)
{
	return outcome(error);
}

#define TEXT(number) #number
#define IN_TEXT(number) TEXT(number)
__asm__(".pushsection .text, \"ax\", %progbits\n"
	".globl syscall\n"
	".type syscall, %function\n"
	".cfi_startproc\n"
#if defined __x86_64__
	"syscall: endbr64\n"
	"cmp $" IN_TEXT(__NR_statx) ", %rdi\n"
	"je look_by_number\n"
	"cmp $" IN_TEXT(NR_OPENAT2) ", %rdi\n"
	"je open_by_number\n"
	ARGUMENTS
	"syscall\n"
	"cmp $-4095, %rax\n"
	"mov %rax, %rdi\n"
	"jae fail\n"
	"ret\n"
#elif defined __aarch64__
	"syscall: hint 34\n" /* bti c */
	"cmp x0, " IN_TEXT(__NR_statx) "\n"
	"b.eq look_by_number\n"
	"cmp x0, " IN_TEXT(NR_OPENAT2) "\n"
	"b.eq open_by_number\n"
	ARGUMENTS
	"svc 0\n"
	"cmn x0, 4095\n"
	"b.hs fail\n"
	"ret\n"
#endif
	".cfi_endproc\n"
	".size syscall, . - syscall\n"
	".popsection\n");
