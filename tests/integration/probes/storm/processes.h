/* Calls about processes, and what they see. */

static const char self[] = "/proc/self/exe";

/* Returns what a child's function does, in a process of its own, that signals hit as well. */
static void in_child(void (*function)(long, long), long number, long argument)
{
    int status;
    pid_t child;
    long shared[3];
    int channel[2];
    must(pipe(channel) == 0, "pipe");
    child = fork();
    must(child >= 0, "fork");
    if (child == 0) {
        calls = interrupted = failures = 0;
        make_timer();
        function(number, argument);
        fflush(stdout);
        must(write(channel[1], (long[]){calls, interrupted, failures}, sizeof shared) > 0, "write");
        _exit(0);
    }
    close(channel[1]);
    must(waitpid(child, &status, 0) == child, "waitpid");
    if (status)
        failed("its process ended with %x", status);
    else if (read(channel[0], shared, sizeof shared) == sizeof shared) {
        calls += shared[0];
        interrupted += shared[1];
        failures += shared[2];
    } else
        /* It has executed itself. */
        calls++;
    close(channel[0]);
}

static void executes(long number, long is_at)
{
    char *const arguments[] = {"storm", "nothing", NULL}, *const environment[] = {NULL};
    for (;;) {
        long result = is_at ? HIT(number, AT_FDCWD, (long)self, (long)arguments, (long)environment)
                            : HIT(number, (long)self, (long)arguments, (long)environment);
        if (result != -1 || errno != EINTR)
            break;
    }
    failed("%s", strerror(errno));
}
static void do_execve(long number) { in_child(executes, number, 0); }
static void do_execveat(long number) { in_child(executes, number, 1); }

/* A signal that is counted, to all of a user's processes. */
static void do_kill(long number)
{
    struct timespec at_once = {0, 0};
    int counted = SIGRTMIN + 3, status, ready[2], over[2];
    char byte = 0;
    pid_t child;
    must(pipe(ready) == 0 && pipe(over) == 0, "pipe");
    child = fork();
    must(child >= 0, "fork");
    if (child == 0) {
        int count = 0;
        sigset_t wanted;
        sigemptyset(&wanted);
        sigaddset(&wanted, counted);
        close(over[1]);
        if (write(ready[1], "", 1) != 1 || read(over[0], &byte, 1) < 0)
            _exit(99);
        while (sigtimedwait(&wanted, NULL, &at_once) > 0)
            count++;
        _exit(count);
    }
    close(over[0]);
    must(read(ready[0], &byte, 1) == 1, "read");
    if (hit_until(number, ARGUMENTS(-1, counted), NULL, NULL))
        failed("%s", strerror(errno));
    close(over[1]);
    must(waitpid(child, &status, 0) == child, "waitpid");
    if (WEXITSTATUS(status) != 1)
        failed("sent %d times", WEXITSTATUS(status));
    close(ready[0]);
    close(ready[1]);
}

static int mounts_at(const char *path)
{
    char line[4096], wanted[64];
    int count = 0;
    FILE *file = fopen("/proc/self/mountinfo", "r");
    snprintf(wanted, sizeof wanted, "/%s ", path);
    must(file != NULL, "mountinfo");
    while (fgets(line, sizeof line, file))
        count += strstr(line, wanted) != NULL;
    fclose(file);
    return count;
}
static int is_mounted(const char *path) { return mounts_at(path) > 0; }
static int is_not_mounted(const char *path) { return !is_mounted(path); }
static void do_mount(long number)
{
    const long a[6] = {(long)"none", (long)"point", (long)"tmpfs", 0, (long)"uid=30033,size=64k"};
    if (hit_until(number, a, is_mounted, "point"))
        failed("%s", strerror(errno));
    else if (mounts_at("point") != 1)
        failed("mounted %d times", mounts_at("point"));
    while (umount2("point", MNT_DETACH) == 0) ;
}
static void do_umount2(long number)
{
    must(mount("none", "point", "tmpfs", 0, "size=64k") == 0, "mount");
    if (hit_until(number, ARGUMENTS((long)"point", MNT_DETACH), is_not_mounted, "point"))
        failed("%s", strerror(errno));
    else if (is_mounted("point"))
        failed("done, and still mounted");
    while (umount2("point", MNT_DETACH) == 0) ;
}
static void do_fsopen(long number)
{
    long result = HIT(number, (long)"tmpfs", 0);
    if (result >= 0)
        close(result);
    else if (errno != ENOSYS && errno != EINTR)
        failed("%s", strerror(errno));
}
static void do_io_uring_setup(long number)
{
    char parameters[256] = {0};
    long result = HIT(number, 1, (long)parameters);
    if (result >= 0)
        close(result);
    else if (errno != ENOSYS && errno != EINTR && errno != EPERM)
        failed("%s", strerror(errno));
}

static void enters(long number, long unused)
{
    (void)unused;
    if (hit_until(number, ARGUMENTS((long)"root"), NULL, NULL))
        failed("%s", strerror(errno));
    else if (access("/in-it", F_OK))
        failed("done, and not there");
}
static void do_chroot(long number) { in_child(enters, number, 0); }

static void pivots(long number, long unused)
{
    (void)unused;
    must(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
         mount("none", "point", "tmpfs", 0, "size=64k") == 0 && chdir("point") == 0 &&
         mkdir("old", 0755) == 0 && mkdir("new", 0755) == 0, "a root");
    if (hit_until(number, ARGUMENTS((long)".", (long)"old"), NULL, NULL))
        failed("%s", strerror(errno));
    else if (chdir("/") || access("new", F_OK))
        failed("done, and not there");
}
static void do_pivot_root(long number) { in_child(pivots, number, 0); }

static void joins(long number, long fd)
{
    if (hit_until(number, ARGUMENTS(fd, CLONE_NEWNS), NULL, NULL))
        failed("%s", strerror(errno));
}
static void do_setns(long number)
{
    int fd = open("/proc/self/ns/mnt", O_RDONLY);
    in_child(joins, number, fd);
    close(fd);
}

static ino_t namespace(void)
{
    struct stat status;
    must(stat("/proc/self/ns/mnt", &status) == 0, "/proc/self/ns/mnt");
    return status.st_ino;
}
static void leaves(long number, long unused)
{
    ino_t former = namespace();
    (void)unused;
    if (hit_until(number, ARGUMENTS(CLONE_NEWNS), NULL, NULL))
        failed("%s", strerror(errno));
    else if (namespace() == former)
        failed("done, and in the same one");
}
static void do_unshare(long number) { in_child(leaves, number, 0); }

static void forks(long number, const long *a)
{
    int status;
    long child = hit_until(number, a, NULL, NULL);
    if (child == 0)
        _exit(7);
    if (child < 0)
        failed("%s", strerror(errno));
    else if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 7)
        failed("another child");
    if (waitpid(-1, &status, WNOHANG | __WALL) > 0)
        failed("more than one child");
}
static void do_clone(long number) { forks(number, ARGUMENTS(CLONE_NEWNS | SIGCHLD)); }
static void do_clone3(long number)
{
    uint64_t arguments[8] = {CLONE_NEWNS, 0, 0, 0, SIGCHLD};
    forks(number, ARGUMENTS((long)arguments, sizeof arguments));
}
