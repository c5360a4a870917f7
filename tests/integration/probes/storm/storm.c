/* Makes each call of a table while signals come: is it carried out exactly once?
 *
 * storm KIND ROUNDS: in the working directory, as root. KIND is what comes: "nothing", "timer"
 * (with a handler), "restart" (one with SA_RESTART), "children" (that end), "stop" (SIGSTOP and
 * SIGCONT), "trace" (a tracer that interrupts) or "death" (of parents, PR_SET_PDEATHSIG). Prints
 * a line for each call: its name, how often it was made, how often it failed with EINTR, how
 * often memory was written to after it had returned, and how often it went wrong; before the
 * line of a call that goes wrong one with what the matter was the first time.
 *
 * ROWS, from which the calls come, is generated: ROW(name, number) for each. */
#include "harness.h"

#include "signals.h"
#include "files.h"
#include "identity.h"
#include "messages.h"
#include "processes.h"
#include "privileges.h"
#include "tracing.h"

static const struct row { const char *name; long number; void (*round)(long); } rows[] = {
#define ROW(name, number) {#name, number, do_##name},
#include "rows.h"
};

/* Calls of users; those that take longer; those after which the agent follows processes. */
static const char users[] =
    " mkdir mkdirat mknod mknodat symlink symlinkat link linkat open creat openat openat2 bind "
    " unlink unlinkat rmdir rename renameat renameat2 chmod fchmod fchmodat fchmodat2 utime utimes "
    " futimesat utimensat utimensat_time64 truncate truncate64 access faccessat faccessat2 chdir "
    " fchdir readlink readlinkat statfs statfs64 inotify_add_watch setuid setreuid setresuid "
    " setuid32 setreuid32 setresuid32 setfsuid setfsuid32 sendmsg sendmmsg recvmsg recvmmsg "
    " recvmmsg_time64 socketcall getsockopt setsockopt kill "
    " open_tree open_tree_attr move_mount fspick fsmount fsconfig mount_setattr sethostname "
    " setdomainname reboot ";
static const char views[] = " chroot pivot_root setns unshare clone clone3 mount umount umount2 ";
static const char slow[] = " execve execveat kill chroot pivot_root setns unshare clone clone3 mount "
    "umount umount2 ";

enum { AS_ROOT, AS_USER, WITH_VIEWS, GROUPS };

static int is_in(const char *list)
{
    char word[64];
    snprintf(word, sizeof word, " %s ", name);
    return strstr(list, word) != NULL;
}

static void prepare(void)
{
    touch(owned);
    touch(plain);
    touch("given");
    touch("mine");
    must(mkdir("directory", 0755) == 0 && mkdir("point", 0755) == 0 && mkdir("root", 0755) == 0 &&
         symlink("somewhere", "link") == 0, "files");
    touch("root/in-it");
    must(setxattr(owned, attribute, value, sizeof value, 0) == 0, "setxattr");
    must(chown(owned, ONE, OTHER) == 0 && chown(plain, ONE, ONE) == 0 &&
         chown("mine", ONE, ONE) == 0 && chown(".", ONE, ONE) == 0, "chown");
    owned_fd = open(owned, O_RDONLY);
    directory_fd = open("directory", O_RDONLY);
    here_fd = open(".", O_RDONLY);
    must(owned_fd >= 0 && directory_fd >= 0 && here_fd >= 0, "open");
}

static void become_user(void)
{
    int on = 1;
    must(setgroups(1, (gid_t[]){ONE}) == 0 && setresgid(ONE, ONE, ONE) == 0 &&
         setresuid(ONE, ONE, OTHER) == 0, "setresuid");
    must(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0 &&
         setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0, "socketpair");
}

static void work(int group, long rounds)
{
    if (group == AS_USER)
        become_user();
    for (unsigned n = 0; n < sizeof rows / sizeof *rows; n++) {
        const struct row *row = rows + n;
        name = row->name;
        if (group != (is_in(users) ? AS_USER : is_in(views) ? WITH_VIEWS : AS_ROOT))
            continue;
        calls = interrupted = late = failures = known.is_there = 0;
        if (group == AS_USER)
            must(setresuid(ONE, ONE, OTHER) == 0, "setresuid");
        for (long round = is_in(slow) ? (rounds + 9) / 10 : rounds; round > 0; round--)
            row->round(row->number);
        for (int n = 0; n < AREAS; n++)
            area();
        printf("%s %ld %ld %ld %ld\n", name, calls, interrupted, late, failures);
        fflush(stdout);
    }
}

int main(int count, char **arguments)
{
    if (count == 2)
        return 0;
    must(count == 3, "storm KIND ROUNDS");
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    umask(022);
    prepare();
    for (int group = 0; group < GROUPS; group++) {
        int status = under_signals(arguments[1], work, group, atol(arguments[2]));
        if (status) {
            fprintf(stderr, "storm: a process ended with %x\n", status);
            return 1;
        }
    }
    return 0;
}
