/* What a program sees of its files and of itself, through the structures of its own ABI. */
#define _FILE_OFFSET_BITS 64
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static void show(const char *path)
{
    struct stat s;

    if (lstat(path, &s)) {
        printf("%s: %s\n", path, strerror(errno));
        return;
    }
    printf("%s %o %u:%u size %lld links %d rdev %x now %d\n", path, s.st_mode, s.st_uid, s.st_gid,
           (long long)s.st_size, (int)s.st_nlink, (int)s.st_rdev, s.st_mtime > 1600000000);
}

static void told(const char *what, int result)
{
    printf("%s: %d %s\n", what, result, result < 0 ? strerror(errno) : "");
}

#ifdef __i386__
#include <sys/syscall.h>

/* Calls with 16-bit IDs, which no C library makes any more. */
static void old_calls(void)
{
    struct {
        unsigned int device, inode;
        unsigned short mode, links, uid, gid;
        unsigned int node, size, block_size, blocks, times[6], unused[2];
    } s;
    unsigned short ids[3], groups[2] = {70, 65534}, no_groups[1] = {65535}, found[4];
    struct rlimit limit;
    int count;

    told("chown16", syscall(SYS_chown, "f", 5, 65535));
    show("f");
    told("chown", chown("f", 70000, 6));
    told("stat", syscall(SYS_stat, "f", &s));
    printf("%o %u:%u %u %d\n", s.mode, s.uid, s.gid, s.size, s.times[2] > 1600000000);
    told("lstat", syscall(SYS_lstat, "l", &s));
    printf("%o %u:%u %u\n", s.mode, s.uid, s.gid, s.size);
    told("getrlimit", syscall(SYS_getrlimit, RLIMIT_RTTIME, &limit));
    printf("%lx\n", *(unsigned long *)&limit);
    told("setgroups16", syscall(SYS_setgroups, 2, groups));
    told("setgroups16", syscall(SYS_setgroups, 1, no_groups));
    count = syscall(SYS_getgroups, 4, found);
    for (int i = 0; i < count; i++)
        printf("group %u\n", found[i]);
    told("setfsuid16", syscall(SYS_setfsuid, 9));
    told("setfsuid16", syscall(SYS_setfsuid, 0));
    told("setresgid16", syscall(SYS_setresgid, 1, 2, 3));
    told("setresuid16", syscall(SYS_setresuid, 7, 65535, 0));
    told("getresuid16", syscall(SYS_getresuid, &ids[0], &ids[1], &ids[2]));
    printf("%u %u %u\n", ids[0], ids[1], ids[2]);
    told("getresgid16", syscall(SYS_getresgid, &ids[0], &ids[1], &ids[2]));
    printf("%u %u %u\n", ids[0], ids[1], ids[2]);
    told("setreuid16", syscall(SYS_setreuid, 0, 0));
    told("setresuid", setresuid(100000, 0, 0));
    printf("%ld %ld %ld %ld\n", syscall(SYS_getuid), syscall(SYS_geteuid), syscall(SYS_getgid),
           syscall(SYS_getegid));
    told("setuid16", syscall(SYS_setuid, 65535));
    told("setresuid", setresuid(0, 0, 0));
    told("setresgid", setresgid(0, 0, 0));
}
#else
static void old_calls(void)
{
}
#endif

int main(void)
{
    struct stat s;
    struct rlimit limit;
    gid_t groups[3] = {100000, 7, 3}, found[5];
    uid_t r, e, v;
    int count, fd;

    fd = open("f", O_CREAT | O_RDWR, 06755);
    told("write", write(fd, "hello", 5));
    told("fchown", fchown(fd, 70000, 80000));
    show("f");
    told("chown", chown("f", -1, 5));
    show("f");
    told("lchown", lchown("f", 1, 2));
    told("fstat", fstat(fd, &s));
    printf("%u %u\n", s.st_uid, s.st_gid);
    told("fchownat", fchownat(fd, "", 3, 4, AT_EMPTY_PATH));
    told("fstatat", fstatat(AT_FDCWD, "f", &s, 0));
    printf("%u %u\n", s.st_uid, s.st_gid);
    told("fstatat", fstatat(AT_FDCWD, "missing", &s, 0));
    told("symlink", symlink("f", "l"));
    told("lchown", lchown("l", 9, 8));
    show("l");
    told("mknod", mknod("n", S_IFCHR | 0600, makedev(4, 64)));
    show("n");
    told("mkdir", mkdir("d", 0777));
    told("chmod", chmod("d", 0777));
    told("getrlimit", getrlimit(RLIMIT_RTTIME, &limit));
    printf("%d\n", limit.rlim_cur == RLIM_INFINITY);
    old_calls();
    told("setgroups", setgroups(3, groups));
    told("setresgid", setresgid(70, 71, 72));
    told("setresuid", setresuid(60, 61, 62));
    count = getgroups(5, found);
    for (int i = 0; i < count; i++)
        printf("group %u\n", found[i]);
    told("getresuid", getresuid(&r, &e, &v));
    printf("%u %u %u %u %u\n", r, e, v, getuid(), geteuid());
    told("getresgid", getresgid(&r, &e, &v));
    printf("%u %u %u %u %u\n", r, e, v, getgid(), getegid());
    told("setuid", setuid(5));
    told("seteuid", seteuid(60));
    told("mkdir", mkdir("d/m", 0755));
    show("d/m");
    told("getrlimit", getrlimit(RLIMIT_RTTIME, &limit));
    printf("%d\n", limit.rlim_cur == RLIM_INFINITY);
    return 0;
}
