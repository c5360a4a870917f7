/* Calls about other processes: their priorities, and looking into them. */
#include <sys/uio.h>

/* PRIO_USER and IOPRIO_WHO_USER: those of all of root's processes. */
READS(getpriority, a[0] = 2;)
READS(setpriority, (void)a;)
READS(ioprio_get, a[0] = 3;)
READS(ioprio_set, a[0] = 1; a[2] = 2 << 13 | 4;)

static char told[64] = "what another process is to read";
static struct iovec from, to;
static void move(unsigned char *b, long *a, int is_written)
{
    struct iovec text = {told, sizeof told}, empty = {b, sizeof told};
    from = text;
    to = empty;
    a[0] = getpid();
    a[1] = (long)(is_written ? &from : &to);
    a[2] = a[4] = 1;
    a[3] = (long)(is_written ? &to : &from);
}
READS(process_vm_readv, move(b, a, 0);)
READS(process_vm_writev, move(b, a, 1);)
READS(kcmp, a[0] = a[1] = getpid();)

static void do_pidfd_getfd(long number)
{
    int other = syscall(SYS_pidfd_open, getpid(), 0), lowest = lowest_free();
    long found;
    must(other >= 0, "pidfd_open");
    found = hit_until(number, ARGUMENTS(other, 0), NULL, NULL);
    if (found != lowest)
        failed("%ld (%s) and not %d", found, strerror(errno), lowest);
    if (found >= 0)
        close(found);
    is_free(lowest);
    close(other);
}

static void do_ptrace(long number)
{
    pid_t child = fork();
    must(child >= 0, "fork");
    if (child == 0)
        for (;;)
            pause();
    /* One that is traced already would be refused. */
    if (hit_until(number, ARGUMENTS(PTRACE_SEIZE, child), NULL, NULL))
        failed("%s", strerror(errno));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}
