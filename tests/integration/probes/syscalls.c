/* Makes every system call, each in a process of its own, and prints how it ended.
 *
 *     syscalls                  all of them, with arguments that none can do anything with
 *     syscalls "N A B C" ...    those of these numbers, with these arguments, then zeros
 *
 * A line is "N ok", "N errno E", "N signal S". Left out is what would not come back. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST 470

static const int left_out[] = {
    SYS_exit, SYS_exit_group, SYS_fork, SYS_vfork, SYS_pause, SYS_sync, SYS_rt_sigreturn,
#ifdef SYS_sigreturn
    SYS_sigreturn,
#endif
#ifdef SYS_sigsuspend
    SYS_sigsuspend,
#endif
};

static int is_left_out(int number)
{
    for (unsigned i = 0; i < sizeof left_out / sizeof *left_out; i++)
        if (left_out[i] == number)
            return 1;
    return 0;
}

static void probe(int number, const long *a)
{
    int status;
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        alarm(5);
        errno = 0;
        long result = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        int error = errno;
        if (getppid() != parent)
            _exit(0); /* a child that the call made */
        _exit(result == -1 ? error : 0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        exit(1);
    if (WIFSIGNALED(status))
        printf("%d signal %d\n", number, WTERMSIG(status));
    else if (WEXITSTATUS(status))
        printf("%d errno %d\n", number, WEXITSTATUS(status));
    else
        printf("%d ok\n", number);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    long arguments[6] = {-1, -1, -1, -1, -1, -1};
    if (argc == 1)
        for (int number = 0; number < LAST; number++)
            if (!is_left_out(number))
                probe(number, arguments);
    for (int call = 1; call < argc; call++) {
        char *rest = argv[call];
        int number = strtol(rest, &rest, 0);
        for (int i = 0; i < 6; i++)
            arguments[i] = strtoul(rest, &rest, 0);
        probe(number, arguments);
    }
    return 0;
}
