/* What comes while calls are made. */
#include <pthread.h>

#define PARENTS 300
#define NANOSECONDS 1000000000L

static const char *kind;

static int is_kind(const char *which) { return !strcmp(kind, which); }

static void handle(int number) { (void)number; }

static void have_handler(int number, int flags)
{
    struct sigaction action = {.sa_handler = handle, .sa_flags = flags};
    must(sigaction(number, &action, NULL) == 0, "sigaction");
    has_handler |= !(flags & SA_RESTART);
}

static void pass_some_time(long most)
{
    static unsigned random = 7, turn;
    struct timespec time = {0, 1000};
    random = random * 1103515245 + 12345;
    time.tv_nsec += (random >> 8) % most;
    /* Or fork(2) would be restarted for ever, where there is much else to do. */
    if (++turn % 16 == 0)
        time.tv_nsec = 10000000;
    nanosleep(&time, NULL);
}

/* Another process stops all of a group, and has them go on. */
static void stop(pid_t group)
{
    while (kill(-group, SIGSTOP) == 0) {
        pass_some_time(100000);
        kill(-group, SIGCONT);
        pass_some_time(200000);
    }
}

/* Another process interrupts it. */
static void trace(pid_t child)
{
    if (ptrace(PTRACE_SEIZE, child, NULL, NULL))
        return;
    for (;;) {
        int status;
        pass_some_time(400000);
        ptrace(PTRACE_INTERRUPT, child, NULL, NULL);
        if (waitpid(child, &status, __WALL) != child || !WIFSTOPPED(status))
            return;
        ptrace(PTRACE_CONT, child, NULL, status >> 16 ? 0L : (long)WSTOPSIG(status));
    }
}

/* A thread that ends in its turn: it is the parent then, since those before it have ended. */
static void *be_parent(void *turn)
{
    long nanoseconds = (long)turn * 1000000;
    struct timespec time = {nanoseconds / NANOSECONDS, nanoseconds % NANOSECONDS};
    nanosleep(&time, NULL);
    syscall(SYS_exit, 0);
    return NULL;
}

static void be_parents(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 16);
    for (long turn = 1; turn <= PARENTS; turn++)
        pthread_create(&thread, &attributes, be_parent, (void *)turn);
    syscall(SYS_exit, 0);
}

static pid_t start(void (*work)(int, long), int group, long rounds)
{
    pid_t child = fork();
    must(child >= 0, "fork");
    if (child)
        return child;
    setpgid(0, 0);
    if (timed || is_kind("death"))
        have_handler(SIGURG, is_kind("restart") ? SA_RESTART : 0);
    if (is_kind("children"))
        have_handler(SIGCHLD, SA_NOCLDSTOP);
    make_timer();
    work(group, rounds);
    fflush(stdout);
    _exit(0);
}

/* Have a process work while signals come; return how it has ended. */
static int under_signals(const char *which, void (*work)(int, long), int group, long rounds)
{
    int status;
    pid_t child, other = 0;
    kind = which;
    sigemptyset(&none);
    sigfillset(&every);
    sigprocmask(SIG_SETMASK, &every, NULL);
    timed = is_kind("timer") || is_kind("restart");
    with_children = is_kind("children");
    with_parents = is_kind("death");
    if (is_kind("death")) {
        int channel[2];
        must(pipe(channel) == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, "pipe");
        other = fork();
        must(other >= 0, "fork");
        if (other == 0) {
            child = start(work, group, rounds);
            must(write(channel[1], &child, sizeof child) == sizeof child, "write");
            be_parents();
        }
        must(read(channel[0], &child, sizeof child) == sizeof child, "read");
        /* Only then this process is the parent. */
        must(waitpid(other, &status, 0) == other, "waitpid");
        close(channel[0]);
        close(channel[1]);
        other = 0;
    } else {
        child = start(work, group, rounds);
        if (is_kind("stop") || is_kind("trace")) {
            other = fork();
            must(other >= 0, "fork");
            if (other == 0) {
                (is_kind("stop") ? stop : trace)(child);
                _exit(0);
            }
        }
    }
    must(waitpid(child, &status, 0) == child, "waitpid");
    if (other) {
        int unused;
        kill(other, SIGKILL);
        waitpid(other, &unused, 0);
        kill(-child, SIGKILL);
    }
    return status;
}
