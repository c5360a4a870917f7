/* Asks for owners wherever a preloaded object might not be ready for it, and prints what it is
 * told: the same with the fast path and without. The arguments are a file, and a library that
 * asks. Sanitizers end programs with addresses that are wrong, and need larger stacks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifdef OLD_NAMES
/* As programs call them that were linked with glibc before 2.33. */
int old_stat(int version, const char *path, struct stat *status);
int old_lstat(int version, const char *path, struct stat *status);
int old_fstat(int version, int file, struct stat *status);
int old_fstatat(int version, int directory, const char *path, struct stat *status, int flags);
__asm__(".symver old_stat,__xstat@GLIBC_2.2.5");
__asm__(".symver old_lstat,__lxstat@GLIBC_2.2.5");
__asm__(".symver old_fstat,__fxstat@GLIBC_2.2.5");
__asm__(".symver old_fstatat,__fxstatat@GLIBC_2.4");
#define stat(path, status) old_stat(1, path, status)
#define lstat(path, status) old_lstat(1, path, status)
#define fstat(file, status) old_fstat(1, file, status)
#define fstatat(directory, path, status, flags) old_fstatat(1, directory, path, status, flags)
#endif

static const char *file;
static struct stat early, on_alternate_stack, in_thread;
static int early_error, early_result = 1;

__attribute__((constructor)) static void before_main(void)
{
	early_result = stat("/etc", &early);
	early_error = errno;
}

static void on_signal(int number)
{
	(void)number;
	int before = errno = 77;
	stat(file, &on_alternate_stack);
	if (errno != before)
		_exit(9);
}

static void *thread(void *unused)
{
	stat(file, &in_thread);
	return unused;
}

static void show(const char *what, const struct stat *status)
{
	printf("%s: %u:%u %o %llu %lld\n", what, status->st_uid, status->st_gid, status->st_mode,
	       (unsigned long long)status->st_ino, (long long)status->st_size);
}

static void try(const char *what, int result)
{
	printf("%s: %d %s\n", what, result, result < 0 ? strerrorname_np(errno) : "");
}

static void do_nothing(int number)
{
	(void)number;
}

/* Without a path, though with a directory. */
static void leave_out_path(int directory)
{
	struct stat status;
	struct statx extended;
	struct timespec times[2] = {{0}};
	char *volatile none = NULL;
	char value[64];
	try("mkdirat without path", mkdirat(directory, none, 0700));
	try("mkdir", mkdir(none, 0700));
	try("symlinkat", symlinkat("x", directory, none));
	try("symlinkat of nothing", symlinkat(none, directory, "new"));
	try("openat new", openat(directory, none, O_CREAT | O_EXCL | O_RDWR, 0600));
	try("openat", openat(directory, none, O_CREAT | O_RDWR, 0600));
	try("openat plain", openat(directory, none, O_RDWR));
	try("creat", creat(none, 0600));
	try("fstatat", fstatat(directory, none, &status, 0));
	try("statx", statx(directory, none, 0, STATX_BASIC_STATS, &extended));
	try("fchmodat", fchmodat(directory, none, 0700, 0));
	try("chmod", chmod(none, 0700));
	try("fchownat", fchownat(directory, none, 1, 2, 0));
	try("fchownat of itself", fchownat(directory, none, 1, 2, AT_SYMLINK_NOFOLLOW));
	try("chown", chown(none, 1, 2));
	try("lchown", lchown(none, 1, 2));
	try("getxattr", getxattr(none, "security.own", value, sizeof value));
	try("listxattr", llistxattr(none, value, sizeof value));
	try("eaccess", eaccess(none, R_OK));
	try("utimensat", utimensat(directory, none, times, 0));
}

/* Calls that programs make by their numbers, with up to six arguments. */
static void make_by_number(int directory)
{
	struct statx extended;
	struct open_how plain = {.flags = O_RDONLY}, beneath = {.flags = O_RDWR | O_CREAT, .mode = 0640, .resolve = RESOLVE_BENEATH};
	enum { PAGE = 4096 };

	try("statx", syscall(SYS_statx, directory, "given", 0, STATX_BASIC_STATS, &extended));
	printf("its owner: %u:%u\n", extended.stx_uid, extended.stx_gid);
	try("statx of nothing", syscall(SYS_statx, directory, "missing", 0, STATX_BASIC_STATS, &extended));
	try("openat2", syscall(SYS_openat2, directory, "given", &plain, sizeof plain) < 0 ? -1 : 0);
	try("openat2 beneath", syscall(SYS_openat2, directory, "beneath", &beneath, sizeof beneath) < 0 ? -1 : 0);
	try("openat2 of what is not", syscall(SYS_openat2, directory, "../x", &beneath, sizeof beneath));
	try("openat2 of a wrong size", syscall(SYS_openat2, directory, "given", &plain, 8));
#ifndef SANITIZED
	try("openat2 of a wrong address", syscall(SYS_openat2, directory, "given", 1, sizeof plain));
#endif
	struct sigaction ending = {.sa_handler = do_nothing};
	struct itimerval soon = {.it_value.tv_usec = 50000};
	sigaction(SIGALRM, &ending, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	try("openat2 of a fifo that nobody writes to", syscall(SYS_openat2, directory, "fifo", &plain, sizeof plain));
	void *memory = (void *)syscall(SYS_mmap, NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	printf("mmap: %d\n", memory != MAP_FAILED && !*(char *)memory);
	try("mmap of a wrong sixth", syscall(SYS_mmap, NULL, PAGE, PROT_READ, MAP_PRIVATE, directory, 1));
	try("no call", syscall(4095));
	printf("by number: %d\n", syscall(SYS_getpid) == getpid());
}

static void test_access(const char *who)
{
	static const char *const names[] = {"given", "plain", "owned", "link", "directory", "missing", "given/x"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char path[64];
		snprintf(path, sizeof path, "/srv/fast/%s", names[i]);
		for (int mode = 0; mode <= 9; mode++) {
			printf("%s %d ", who, mode);
			try(names[i], mode & 1 ? eaccess(path, mode) : euidaccess(path, mode));
		}
	}
}

int main(int count, char **arguments)
{
	struct stat status;
	struct statx extended;
	char value[64];

	if (count != 3)
		return 2;
	file = arguments[1];
	printf("before main %d %d %u:%u\n", early_result, early_error, early.st_uid, early.st_gid);

	stat(file, &status), show("stat", &status);
	lstat(file, &status), show("lstat", &status);
	int open_file = open(file, O_RDONLY), directory = open("/srv/fast", O_PATH | O_DIRECTORY);
	fstat(open_file, &status), show("fstat", &status);
	int path_only = open(file, O_PATH);
	fstat(path_only, &status), show("fstat of O_PATH", &status);
	fstat(0, &status), show("fstat of a stream", &(struct stat){.st_uid = status.st_uid});
	fstatat(directory, "given", &status, AT_SYMLINK_NOFOLLOW), show("fstatat", &status);
	fstatat(directory, "link", &status, 0), show("fstatat of a link", &status);
	fstatat(directory, "link", &status, AT_SYMLINK_NOFOLLOW), show("fstatat of a link itself", &status);
	fstatat(open_file, "", &status, AT_EMPTY_PATH), show("fstatat of nothing", &status);
	statx(directory, "given", AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &extended);
	printf("statx: %u:%u %o %x\n", extended.stx_uid, extended.stx_gid, extended.stx_mode,
	       extended.stx_mask);
	statx(directory, "given", 0, STATX_UID, &extended);
	printf("statx of little: %u:%u %x\n", extended.stx_uid, extended.stx_gid, extended.stx_mask);
	for (int i = 0; i < 6; i++) {
		static const char *const names[] = {"node", "fifo", "plain", "set-id", "directory", "odd"};
		try(names[i], fstatat(directory, names[i], &status, 0)), show(names[i], &status);
	}

	try("missing", stat("/srv/fast/missing", &status));
	try("not a directory", stat("/etc/passwd/x", &status));
#ifndef SANITIZED
	try("no path", stat((char *)1, &status));
	try("nowhere to write", stat(file, (struct stat *)1));
	try("no name", getxattr(file, (char *)1, value, sizeof value));
#endif
	try("an empty path", stat("", &status));
	try("no file", fstat(-1, &status));
	try("no such file", fstat(999, &status));
	try("unknown flags", fstatat(directory, "given", &status, 0x40000000));
	try("a long name", lstat(memset((char[9999]){0}, 'a', 9998), &status));
	errno = 55;
	stat(file, &status);
	printf("errno is kept: %d\n", errno);

	try("label", getxattr(file, "security.selinux", value, sizeof value));
	try("label of a directory", lgetxattr("/srv/fast", "security.selinux", value, sizeof value));
	try("own label", fgetxattr(open_file, "security.own", value, sizeof value));
	try("trusted", getxattr(file, "trusted.own", value, sizeof value));
	try("list", getxattr(file, "system.posix_acl_access", value, sizeof value));
	try("hidden", getxattr(file, "user.rootlesscontainers", value, sizeof value));
	try("user", getxattr(file, "user.own", value, sizeof value));
	try("capability", getxattr(file, "security.capability", value, sizeof value));
	try("beginning", getxattr(file, "security.", value, sizeof value));
	try("of a link", lgetxattr("/srv/fast/link", "security.own", value, sizeof value));
	try("of nothing", getxattr("/srv/fast/missing", "security.own", value, sizeof value));
	try("names", listxattr(file, value, sizeof value));
	try("names of another", listxattr("/srv/fast/plain", value, sizeof value));
	try("names of a link", llistxattr("/srv/fast/link", value, sizeof value));
	try("number of names", flistxattr(open_file, NULL, 0));
	try("names where there is an owner", listxattr("/srv/fast/owned", value, sizeof value));
	try("number of those", llistxattr("/srv/fast/owned", NULL, 0));

	try("mkdir of a directory", mkdir("/srv/fast/directory", 0700));
	try("mkdir of a file", mkdirat(directory, "given", 0700));
	try("mkdir of a link", mkdir("/srv/fast/link", 0700));
	try("mkdir of itself", mkdir("/srv/fast/.", 0700));
	try("symlink there", symlinkat("x", directory, "given"));
	try("new file there", openat(directory, "link", O_CREAT | O_EXCL | O_RDWR, 0600));
	make_by_number(directory);
#ifndef SANITIZED
	leave_out_path(directory);
#endif
	test_access("root");

#ifndef SANITIZED
	stack_t stack = {.ss_sp = malloc(MINSIGSTKSZ), .ss_size = MINSIGSTKSZ};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
	sigaltstack(&stack, NULL);
	sigaction(SIGUSR1, &action, NULL);
	raise(SIGUSR1);
	show("on a small stack", &on_alternate_stack);

	pthread_attr_t small;
	pthread_t running;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, PTHREAD_STACK_MIN);
	pthread_create(&running, &small, thread, NULL);
	pthread_join(running, NULL);
	show("in a thread", &in_thread);
#endif

	static struct stat in_child;
	static unsigned id;
	pid_t child = vfork();
	if (!child) {
		setresgid(44, 44, 44);
		setresuid(33, 33, 33);
		stat(file, &in_child);
		id = getuid() + 1000 * getegid();
		_exit(0);
	}
	waitpid(child, NULL, 0);
	show("in a child", &in_child);
	printf("its IDs %u, mine %u %u %u %u\n", id, getuid(), geteuid(), getgid(), getegid());

	void *library = dlopen(arguments[2], RTLD_NOW);
	int (*of_library)(const char *, struct stat *) = library ? dlsym(library, "look") : NULL;
	if (of_library)
		of_library(file, &status), show("in a library", &status);

	seteuid(33);
	printf("users %u %u\n", getuid(), geteuid());
	stat(file, &status), show("as a user", &status);
	test_access("in part a user");
	setresuid(33, 33, 33);
	test_access("a user");
	return 0;
}
