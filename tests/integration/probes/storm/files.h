/* Calls about files. */

static const char *const owned = "owned", *const plain = "plain", *const attribute = "trusted.t";
static const char value[] = "value";
static int owned_fd, directory_fd, here_fd;

/* What they look like. */
READS(stat, a[0] = (long)owned; a[1] = (long)b;)
#define do_lstat do_stat
#define do_stat64 do_stat
#define do_lstat64 do_stat
READS(fstat, a[0] = owned_fd; a[1] = (long)b;)
#define do_fstat64 do_fstat
READS(newfstatat, a[0] = AT_FDCWD; a[1] = (long)owned; a[2] = (long)b;)
#define do_fstatat64 do_newfstatat
READS(statx, a[0] = AT_FDCWD; a[1] = (long)owned; a[3] = 0x7ff; a[4] = (long)b;)
READS(readlink, a[0] = (long)"link"; a[1] = (long)b; a[2] = 100;)
READS(readlinkat, a[0] = AT_FDCWD; a[1] = (long)"link"; a[2] = (long)b; a[3] = 100;)
/* How much is free is another number each time: what is in front of that is looked at. */
static void do_statfs(long number)
{
    unsigned char *found = area();
    if (HIT(number, (long)owned, (long)found) && errno != EINTR)
        failed("%s", strerror(errno));
    take_back(found);
}
static void do_statfs64(long number)
{
    unsigned char *found = area();
    if (HIT(number, (long)owned, 84, (long)found) && errno != EINTR)
        failed("%s", strerror(errno));
    take_back(found);
}
READS(access, a[0] = (long)owned; a[1] = R_OK;)
READS(faccessat, a[0] = AT_FDCWD; a[1] = (long)owned; a[2] = R_OK;)
#define do_faccessat2 do_faccessat

/* Attributes. */
struct xattr_arguments { uint64_t value; uint32_t size, flags; };
READS(getxattr, a[0] = (long)owned; a[1] = (long)attribute; a[2] = (long)b; a[3] = 100;)
#define do_lgetxattr do_getxattr
READS(fgetxattr, a[0] = owned_fd; a[1] = (long)attribute; a[2] = (long)b; a[3] = 100;)
static struct xattr_arguments get_arguments;
READS(getxattrat,
    get_arguments = (struct xattr_arguments){(uintptr_t)b, 100, 0};
    a[0] = AT_FDCWD; a[1] = (long)owned; a[3] = (long)attribute;
    a[4] = (long)&get_arguments; a[5] = sizeof get_arguments;)
READS(listxattr, a[0] = (long)owned; a[1] = (long)b; a[2] = 1000;)
#define do_llistxattr do_listxattr
READS(flistxattr, a[0] = owned_fd; a[1] = (long)b; a[2] = 1000;)
READS(listxattrat, a[0] = AT_FDCWD; a[1] = (long)owned; a[3] = (long)b; a[4] = 1000;)

static int is_set(const char *path) { return getxattr(path, "trusted.new", NULL, 0) >= 0; }
static int is_not_set(const char *path) { return !is_set(path); }
/* XATTR_CREATE fails when it is carried out twice. */
static void sets(long number, const long *a)
{
    char found[16];
    removexattr(plain, "trusted.new");
    if (hit_until(number, a, is_set, plain) == 0) {
        if (getxattr(plain, "trusted.new", found, sizeof found) != sizeof value)
            failed("done, and not there");
    } else if (errno != ENOSYS)
        failed("%s", strerror(errno));
}
static void removes(long number, const long *a)
{
    setxattr(plain, "trusted.new", value, sizeof value, 0);
    if (hit_until(number, a, is_not_set, plain) == 0) {
        if (is_set(plain))
            failed("done, and still there");
    } else if (errno != ENOSYS)
        failed("%s", strerror(errno));
}
static void do_setxattr(long number)
{
    sets(number, ARGUMENTS((long)plain, (long)"trusted.new", (long)value, sizeof value, 1));
}
#define do_lsetxattr do_setxattr
static void do_fsetxattr(long number)
{
    int fd = open(plain, O_RDONLY);
    sets(number, ARGUMENTS(fd, (long)"trusted.new", (long)value, sizeof value, 1));
    close(fd);
}
static void do_setxattrat(long number)
{
    struct xattr_arguments arguments = {(uintptr_t)value, sizeof value, 1};
    sets(number, ARGUMENTS(AT_FDCWD, (long)plain, 0, (long)"trusted.new",
        (long)&arguments, sizeof arguments));
}
static void do_removexattr(long number)
{
    removes(number, ARGUMENTS((long)plain, (long)"trusted.new"));
}
#define do_lremovexattr do_removexattr
static void do_fremovexattr(long number)
{
    int fd = open(plain, O_RDONLY);
    removes(number, ARGUMENTS(fd, (long)"trusted.new"));
    close(fd);
}
static void do_removexattrat(long number)
{
    removes(number, ARGUMENTS(AT_FDCWD, (long)plain, 0, (long)"trusted.new"));
}

/* Owners, modes, times, sizes: another one each time. */
static unsigned turn;
static void changes(long number, const long *a, const char *path, int is_owner)
{
    struct stat before, after;
    must(lstat(path, &before) == 0, path);
    if (hit_until(number, a, NULL, path)) {
        if (errno != ENOSYS)
            failed("%s", strerror(errno));
        return;
    }
    must(lstat(path, &after) == 0, path);
    if (before.st_uid == after.st_uid && before.st_mode == after.st_mode &&
        before.st_size == after.st_size && before.st_mtime == after.st_mtime)
        failed("done, and nothing has changed");
    if (is_owner && (after.st_uid != ONE + turn % 2 || after.st_gid != OTHER))
        failed("given to %u:%u", after.st_uid, after.st_gid);
}
static unsigned another(void) { return ONE + ++turn % 2; }
static void do_chown(long number)
{
    changes(number, ARGUMENTS((long)"given", another(), OTHER), "given", 1);
}
#define do_chown32 do_chown
#define do_lchown do_chown
#define do_lchown32 do_chown
static void do_fchown(long number)
{
    int fd = open("given", O_RDONLY);
    changes(number, ARGUMENTS(fd, another(), OTHER), "given", 1);
    close(fd);
}
#define do_fchown32 do_fchown
static void do_fchownat(long number)
{
    changes(number, ARGUMENTS(AT_FDCWD, (long)"given", another(), OTHER), "given", 1);
}
static void do_chmod(long number)
{
    changes(number, ARGUMENTS((long)plain, 0600 + ++turn % 2 * 040), plain, 0);
}
static void do_fchmod(long number)
{
    int fd = open(plain, O_RDONLY);
    changes(number, ARGUMENTS(fd, 0600 + ++turn % 2 * 040), plain, 0);
    close(fd);
}
static void do_fchmodat(long number)
{
    changes(number, ARGUMENTS(AT_FDCWD, (long)plain, 0600 + ++turn % 2 * 040), plain, 0);
}
#define do_fchmodat2 do_fchmodat
static void do_truncate(long number)
{
    changes(number, ARGUMENTS((long)plain, 1 + ++turn % 2), plain, 0);
}
#define do_truncate64 do_truncate
static void do_utime(long number)
{
    changes(number, ARGUMENTS((long)plain, (long)(long[2]){1, ++turn}), plain, 0);
}
static void do_utimes(long number)
{
    changes(number, ARGUMENTS((long)plain, (long)(long[4]){1, 0, ++turn, 0}), plain, 0);
}
static void do_futimesat(long number)
{
    long times[4] = {1, 0, ++turn, 0};
    changes(number, ARGUMENTS(AT_FDCWD, (long)plain, (long)times), plain, 0);
}
#define do_utimensat do_futimesat
static void do_utimensat_time64(long number)
{
    int64_t times[4] = {1, 0, ++turn, 0};
    changes(number, ARGUMENTS(AT_FDCWD, (long)plain, (long)times), plain, 0);
}

/* New files. */
static void creates(long number, const long *a, const char *path, unsigned type, int is_opened)
{
    int lowest = lowest_free();
    long result = hit_until(number, a, exists, path);
    if (result < 0 || (result && !is_opened))
        failed("%s", strerror(errno));
    else
        is_owned(path, type, ONE);
    if (is_opened && result >= 0) {
        if (result != lowest)
            failed("descriptor %ld and not %d", result, lowest);
        close(result);
    }
    is_free(lowest);
    discard(path);
}
static void do_mkdir(long number)
{
    const char *path = fresh();
    creates(number, ARGUMENTS((long)path, 0755), path, S_IFDIR, 0);
}
static void do_mkdirat(long number)
{
    const char *path = fresh();
    creates(number, ARGUMENTS(AT_FDCWD, (long)path, 0755), path, S_IFDIR, 0);
}
/* As mkfifo(3). */
static void do_mknod(long number)
{
    const char *path = fresh();
    creates(number, ARGUMENTS((long)path, S_IFIFO | 0600), path, S_IFIFO, 0);
}
static void do_mknodat(long number)
{
    const char *path = fresh();
    creates(number, ARGUMENTS(AT_FDCWD, (long)path, S_IFREG | 0600), path, S_IFREG, 0);
}
static void do_symlink(long number)
{
    const char *path = fresh();
    creates(number, ARGUMENTS((long)"to", (long)path), path, S_IFLNK, 0);
}
static void do_symlinkat(long number)
{
    const char *path = fresh();
    creates(number, ARGUMENTS((long)"to", AT_FDCWD, (long)path), path, S_IFLNK, 0);
}
static void do_link(long number)
{
    const char *path = fresh();
    creates(number, ARGUMENTS((long)"mine", (long)path), path, S_IFREG, 0);
}
static void do_linkat(long number)
{
    const char *path = fresh();
    creates(number, ARGUMENTS(AT_FDCWD, (long)"mine", AT_FDCWD, (long)path), path, S_IFREG, 0);
}
#define EXCLUSIVE (O_CREAT | O_EXCL | O_RDWR)
static void do_open(long number)
{
    const char *path = fresh();
    creates(number, ARGUMENTS((long)path, EXCLUSIVE, 0644), path, S_IFREG, 1);
}
static void do_creat(long number)
{
    const char *path = fresh();
    creates(number, ARGUMENTS((long)path, 0644), path, S_IFREG, 1);
}
static void do_openat(long number)
{
    const char *path = fresh();
    creates(number, ARGUMENTS(AT_FDCWD, (long)path, EXCLUSIVE, 0644), path, S_IFREG, 1);
}
static void do_openat2(long number)
{
    const char *path = fresh();
    uint64_t how[3] = {EXCLUSIVE, 0644, 0};
    creates(number, ARGUMENTS(AT_FDCWD, (long)path, (long)how, sizeof how), path, S_IFREG, 1);
}

/* Removed and renamed ones. */
static void takes_away(long number, const long *a, const char *path)
{
    if (hit_until(number, a, is_gone, path))
        failed("%s", strerror(errno));
    else if (exists(path))
        failed("done, and still there");
    discard(path);
}
static void do_unlink(long number)
{
    const char *path = fresh();
    touch(path);
    takes_away(number, ARGUMENTS((long)path), path);
}
static void do_unlinkat(long number)
{
    const char *path = fresh();
    touch(path);
    takes_away(number, ARGUMENTS(AT_FDCWD, (long)path), path);
}
static void do_rmdir(long number)
{
    const char *path = fresh();
    mkdir(path, 0755);
    takes_away(number, ARGUMENTS((long)path), path);
}
static void renames(long number, const long *a, const char *path)
{
    takes_away(number, a, path);
    is_owned("renamed", S_IFREG, ONE);
    discard("renamed");
}
static void do_rename(long number)
{
    const char *path = fresh();
    touch(path);
    renames(number, ARGUMENTS((long)path, (long)"renamed"), path);
}
static void do_renameat(long number)
{
    const char *path = fresh();
    touch(path);
    /* RENAME_NOREPLACE, for those that take it. */
    renames(number, ARGUMENTS(AT_FDCWD, (long)path, AT_FDCWD, (long)"renamed", 1), path);
}
#define do_renameat2 do_renameat

/* Where a process is, and what it watches. */
static void moves(long number, const long *a, const char *to)
{
    char path[PATH_MAX];
    if (hit_until(number, a, NULL, NULL))
        failed("%s", strerror(errno));
    else if (!getcwd(path, sizeof path) || strcmp(strrchr(path, '/') + 1, to))
        failed("in %s", path);
    must(fchdir(here_fd) == 0, "fchdir");
}
static void do_chdir(long number) { moves(number, ARGUMENTS((long)"directory"), "directory"); }
static void do_fchdir(long number) { moves(number, ARGUMENTS(directory_fd), "directory"); }
static void do_inotify_add_watch(long number)
{
    static int inotify = -1;
    if (inotify < 0)
        inotify = syscall(SYS_inotify_init1, 0);
    if (hit_until(number, ARGUMENTS(inotify, (long)owned, 2), NULL, NULL) != 1)
        failed("%s", strerror(errno));
}
