/* Makes calls with paths while other threads change what the paths mean.
 * races DIRECTORY TRIES CANARY DEVICE:INODE...
 *
 * CANARY is a directory of the host, and each DEVICE:INODE one of its files. It prints
 * "warm", waits for a line, makes the calls, prints how often each had which outcome and how
 * many of those files were seen, waits for a line again, and ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#define CALLERS 3
#define SLOT 900
#define LENGTH 256
#define KINDS 16
#define ERRORS 134

static char flipped[LENGTH], good[LENGTH], bad[LENGTH], canary_name[200];
static volatile int stopping;
static long tries, seen, wrong_owner;
static long outcomes[KINDS][ERRORS];
static int canaries;
static struct { dev_t device; ino_t inode; } canary[64];
static const char *const names[KINDS] = {
    "stat", "lstat", "statx", "newfstatat", "chown", "fchownat", "mknod", "mkdir", "open",
    "creat", "symlink", "setxattr", "getxattr", "bind", "openat", "execve",
};

static void look(dev_t device, ino_t inode)
{
    for (int n = 0; n < canaries; n++)
        if (canary[n].device == device && canary[n].inode == inode)
            __atomic_add_fetch(&seen, 1, __ATOMIC_RELAXED);
}

static void put(const char *path)
{
    memcpy(flipped, path, LENGTH);
    /* Others read it meanwhile, of which the compiler knows nothing. */
    __asm__ volatile("" ::: "memory");
    for (volatile int spin = 0; spin < 300; spin++) ;
}

/* The path in memory. */
static void *flip(void *unused)
{
    (void)unused;
    while (!stopping) {
        put(bad);
        put(good);
    }
    return NULL;
}

/* Directories and files for symlinks, and back. */
static void *swap(void *unused)
{
    (void)unused;
    while (!stopping) {
        syscall(SYS_renameat2, AT_FDCWD, "dir", AT_FDCWD, "way", RENAME_EXCHANGE);
        syscall(SYS_renameat2, AT_FDCWD, "x", AT_FDCWD, "y", RENAME_EXCHANGE);
    }
    return NULL;
}

/* What is behind a descriptor, and behind a name. */
static void *replace(void *unused)
{
    int places[4] = {
        open("base", O_RDONLY | O_DIRECTORY), open("/proc/self", O_RDONLY | O_DIRECTORY),
        open("/proc/self/fd", O_RDONLY | O_DIRECTORY), open("gone", O_RDONLY | O_DIRECTORY),
    };
    (void)unused;
    rmdir("gone");
    for (unsigned n = 0; !stopping; n++) {
        dup2(places[n % 4], SLOT);
        if (n % 16 == 0)
            close(SLOT);
        unlink("u");
        rmdir("u");
        close(open("u", O_CREAT | O_WRONLY, 0666));
        unlink("new");
        rmdir("new");
    }
    for (int n = 0; n < 4; n++)
        close(places[n]);
    return NULL;
}

/* The root, of this thread alone; its own calls stay in there. */
static void *enter(void *unused)
{
    struct stat status;
    (void)unused;
    if (syscall(SYS_unshare, CLONE_FS) || chroot("inner") || chdir("/"))
        return NULL;
    while (!stopping) {
        if (stat("/only", &status) == 0)
            look(status.st_dev, status.st_ino);
        if (stat(bad, &status) == 0)
            look(status.st_dev, status.st_ino);
        if (chown("/only", 7, 8) != 0 && errno != EPERM)
            __atomic_add_fetch(&wrong_owner, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static int attempt(unsigned kind, unsigned number)
{
    static const char *const paths[] = {"dir/secret", "x", "u", "dir/new", "new", "dir"};
    const char *path = number % 3 ? paths[number / 3 % 6] : flipped;
    struct stat status = {0};
    struct statx status_x = {0};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char value[64];
    int result = -1, descriptor;

    switch (kind) {
    case 0:
        result = stat(path, &status);
        break;
    case 1:
        result = lstat(path, &status);
        break;
    case 2:
        result = statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &status_x);
        if (result == 0)
            look(makedev(status_x.stx_dev_major, status_x.stx_dev_minor), status_x.stx_ino);
        break;
    case 3:
        result = fstatat(SLOT, number % 2 ? "secret" : "cwd/u", &status, 0);
        break;
    case 4:
        result = chown(path, 33, 44);
        break;
    case 5:
        result = fchownat(SLOT, number % 2 ? "secret" : "../../u", 33, 44, 0);
        break;
    case 6:
        result = mknod(path, S_IFCHR | 0600, makedev(1, 3));
        break;
    case 7:
        result = mkdir(path, 0755);
        break;
    case 8:
        result = descriptor = open(path, O_CREAT | O_RDWR | O_NONBLOCK, 0600);
        goto opened;
    case 9:
        result = descriptor = creat(path, 0600);
        goto opened;
    case 10:
        result = symlink("target", path);
        break;
    case 11:
        result = setxattr(path, "trusted.race", "1", 1, 0);
        break;
    case 12:
        result = getxattr(path, "trusted.race", value, sizeof value);
        break;
    case 13:
        strncpy(address.sun_path, path, sizeof address.sun_path - 1);
        descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
        result = bind(descriptor, (struct sockaddr *)&address, sizeof address);
        if (result)
            result = -errno;
        close(descriptor);
        return result < 0 ? -result : 0;
    case 14:
        result = descriptor = openat(SLOT, number % 2 ? "new" : "cwd/new", O_CREAT | O_RDWR, 0600);
        goto opened;
    case 15:
        /* No program: what is looked at is a set-user-ID bit and an owner. */
        result = syscall(SYS_execve, number % 2 ? path : "base/none", NULL, NULL);
        break;
    opened:
        if (descriptor >= 0) {
            if (fstat(descriptor, &status) == 0)
                look(status.st_dev, status.st_ino);
            close(descriptor);
        }
        break;
    }
    if (result < 0)
        return errno;
    if (kind < 4)
        look(status.st_dev, status.st_ino);
    return 0;
}

static void *make_calls(void *argument)
{
    unsigned seed = (unsigned)(long)argument;
    for (long n = 0; n < tries / CALLERS; n++) {
        seed = seed * 1103515245 + 12345;
        unsigned kind = (seed >> 8) % KINDS;
        int outcome = attempt(kind, seed >> 13);
        __atomic_add_fetch(&outcomes[kind][outcome < ERRORS ? outcome : ERRORS - 1], 1,
                           __ATOMIC_RELAXED);
    }
    return NULL;
}

static void make_file(const char *name, mode_t mode)
{
    int descriptor = open(name, O_CREAT | O_WRONLY, mode);
    if (descriptor < 0 || fchmod(descriptor, mode))
        perror(name), exit(2);
    close(descriptor);
}

static void prepare(const char *directory)
{
    umask(0);
    if (mkdir(directory, 0777) || chdir(directory) || mkdir("base", 0777) || mkdir("dir", 0777)
        || mkdir("inner", 0777) || mkdir("gone", 0777))
        perror(directory), exit(2);
    make_file("a", 0666);
    make_file("x", 0666);
    make_file("dir/secret", 0666);
    make_file("base/secret", 0666);
    make_file("inner/only", 0666);
    snprintf(good, LENGTH, "%s/a", directory);
    snprintf(bad, LENGTH, "/proc/self/../..%s/secret", canary_name);
    char target[LENGTH];
    snprintf(target, LENGTH, "/proc/self/../..%s", canary_name);
    if (symlink(target, "way") || symlink("/proc/self/fd/0", "y"))
        perror("symlink"), exit(2);
    memcpy(flipped, good, LENGTH);
}

static void run(long count)
{
    void *(*others[])(void *) = {flip, swap, replace, enter};
    pthread_t other[4], caller[CALLERS];
    stopping = 0;
    tries = count;
    mkdir("gone", 0777);
    for (int n = 0; n < 4; n++)
        pthread_create(&other[n], NULL, others[n], NULL);
    for (long n = 0; n < CALLERS; n++)
        pthread_create(&caller[n], NULL, make_calls, (void *)(n * 7919 + count));
    for (int n = 0; n < CALLERS; n++)
        pthread_join(caller[n], NULL);
    stopping = 1;
    for (int n = 0; n < 4; n++)
        pthread_join(other[n], NULL);
}

int main(int count, char **arguments)
{
    char line[8];
    if (count < 5)
        return 2;
    snprintf(canary_name, sizeof canary_name, "%s", arguments[3]);
    for (int n = 4; n < count && canaries < 64; n++) {
        unsigned long long device, inode;
        if (sscanf(arguments[n], "%llu:%llu", &device, &inode) != 2)
            return 2;
        canary[canaries].device = device;
        canary[canaries++].inode = inode;
    }
    prepare(arguments[1]);
    run(3000);
    memset(outcomes, 0, sizeof outcomes);
    printf("warm\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 1;
    run(atol(arguments[2]));
    for (int kind = 0; kind < KINDS; kind++)
        for (int error = 0; error < ERRORS; error++)
            if (outcomes[kind][error])
                printf("%s %s %ld\n", names[kind], error ? strerrorname_np(error) : "0",
                       outcomes[kind][error]);
    struct stat status;
    make_file("last", 0644);
    int answered = chown("last", getuid(), getgid()) == 0 && stat("last", &status) == 0
                   && status.st_uid == getuid();
    printf("seen %ld wrong %ld answered %d\nend\n", seen, wrong_owner, answered);
    fflush(stdout);
    return fgets(line, sizeof line, stdin) ? 0 : 1;
}
