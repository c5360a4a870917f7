/* A call under test, which signals hit, and what is found out about it afterwards. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* Whom it is done as; no user of any system. */
#define ONE 30033
#define OTHER 30034
/* What the memory of a call that has returned is filled with. */
#define TAKEN_BACK 0x55
#define AREA 4096
#define AREAS 16

static const char *name;           /* of the call */
static long calls, interrupted, late, failures;
static int timed, with_children, with_parents, has_handler;
static timer_t timer;
static sigset_t every, none;

static void failed(const char *format, ...)
{
    va_list arguments;
    if (failures++)
        return;
    printf("! %s: ", name);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

static void must(int is_true, const char *what)
{
    if (!is_true) {
        fprintf(stderr, "%s: %s: %s\n", name ? name : "storm", what, strerror(errno));
        exit(2);
    }
}

static void make_timer(void)
{
    /* A signal that is ignored by a program that has just been executed. */
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGURG};
    if (timed)
        must(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
}

/* Have a signal come in the midst of the next call, or before it, or after. */
static void aim(void)
{
    static unsigned random = 1;
    struct itimerspec when = {{0, 0}, {0, 0}};
    random = random * 1103515245 + 12345;
    when.it_value.tv_nsec = 1000 + (random >> 8) % 250000;
    must(timer_settime(timer, 0, &when, NULL) == 0, "timer_settime");
}

/* A child that ends soon. */
static pid_t born(void)
{
    static long nanoseconds;
    pid_t child = fork();
    must(child >= 0, "fork");
    nanoseconds = (nanoseconds + 7919) % 150000;
    if (child == 0) {
        nanosleep(&(struct timespec){0, nanoseconds}, NULL);
        _exit(0);
    }
    return child;
}

/* Make a call, and only this, while signals come. */
static long hit(long number, const long *a)
{
    long result;
    int error;
    pid_t nursling = 0;
    if (timed)
        aim();
    if (with_children)
        nursling = born();
    if (with_parents)
        prctl(PR_SET_PDEATHSIG, SIGURG, 0, 0, 0);
    sigprocmask(SIG_SETMASK, &none, NULL);
    errno = 0;
    result = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    error = errno;
    sigprocmask(SIG_SETMASK, &every, NULL);
    if (nursling)
        waitpid(nursling, NULL, 0);
    calls++;
    if (result == -1 && error == EINTR) {
        interrupted++;
        if (!has_handler)
            failed("EINTR without a handler that asks for it");
    }
    errno = error;
    return result;
}

#define ARGUMENTS(...) ((long[6]){__VA_ARGS__})
#define HIT(number, ...) hit(number, ARGUMENTS(__VA_ARGS__))

/* Make a call until it is not interrupted; is_done tells that it should not have been. */
static long hit_until(long number, const long *a, int (*is_done)(const char *), const char *path)
{
    for (;;) {
        long result = hit(number, a);
        if (result != -1 || errno != EINTR)
            return result;
        if (is_done && is_done(path)) {
            failed("EINTR, and it was done");
            return 0;
        }
    }
}

/* Memory for what calls write. Who gets it looks first whether something was written since it
   was taken back the last time. */
static unsigned char *area(void)
{
    static unsigned char all[AREAS][AREA] __attribute__((aligned(AREA)));
    static int next, used;
    unsigned char *found = all[next];
    if (used)
        for (int n = 0; n < AREA; n++)
            if (found[n] != TAKEN_BACK) {
                late++;
                break;
            }
    memset(found, TAKEN_BACK, AREA);
    next = (next + 1) % AREAS;
    used |= next == 0;
    return found;
}

static void take_back(unsigned char *found)
{
    memset(found, TAKEN_BACK, AREA);
}

/* Calls that tell something: always the same, and no more bytes than that are written. */
static struct {
    int is_there, error;
    long result;
    unsigned char bytes[AREA];
} known;

static void reads(long number, void (*fill)(unsigned char *, long *))
{
    unsigned char *found = area();
    long a[6] = {0}, result;
    fill(found, a);
    if (!known.is_there) {
        known.is_there = 1;
        errno = 0;
        known.result = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        known.error = errno;
        memcpy(known.bytes, found, AREA);
        /* What is never carried out is no test. */
        if (known.result < 0 && known.error != ENOSYS)
            failed("%s", strerror(known.error));
    } else {
        result = hit(number, a);
        if (result == -1 && errno == EINTR)
            ;
        else if (result != known.result || errno != known.error)
            failed("%ld (%s) and not %ld", result, strerror(errno), known.result);
        else if (memcmp(found, known.bytes, AREA))
            failed("another answer");
    }
    take_back(found);
}

#define READS(call, ...) \
    static void fill_##call(unsigned char *b, long *a) { (void)b; __VA_ARGS__ } \
    static void do_##call(long number) { reads(number, fill_##call); }

/* A new name. */
static const char *fresh(void)
{
    static char path[32];
    static int n;
    snprintf(path, sizeof path, "new%d", n++);
    return path;
}

static int exists(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

static int is_gone(const char *path)
{
    return !exists(path);
}

static void touch(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    must(fd >= 0, path);
    close(fd);
}

static void is_owned(const char *path, unsigned type, unsigned owner)
{
    struct stat status;
    if (lstat(path, &status))
        failed("done, and not there: %s", strerror(errno));
    else if ((status.st_mode & S_IFMT) != type)
        failed("of another type: %o", status.st_mode);
    else if (status.st_uid != owner || status.st_gid != owner)
        failed("owned by %u:%u", status.st_uid, status.st_gid);
}

static void discard(const char *path)
{
    if (unlink(path) && errno == EISDIR)
        rmdir(path);
}

/* No descriptor may be left over. */
static void is_free(int expected)
{
    int lowest = dup(0);
    close(lowest);
    if (lowest != expected) {
        failed("a descriptor is left over: %d is free, not %d", lowest, expected);
        if (lowest > expected)
            close(expected);
    }
}

static int lowest_free(void)
{
    int lowest = dup(0);
    must(lowest >= 0, "dup");
    close(lowest);
    return lowest;
}
