/* Calls about who a process is. */

READS(getuid, (void)a;)
#define do_geteuid do_getuid
#define do_getgid do_getuid
#define do_getegid do_getuid
#define do_getuid32 do_getuid
#define do_geteuid32 do_getuid
#define do_getgid32 do_getuid
#define do_getegid32 do_getuid
READS(getresuid, a[0] = (long)b; a[1] = (long)b + 64; a[2] = (long)b + 128;)
#define do_getresgid do_getresuid
#define do_getresuid32 do_getresuid
#define do_getresgid32 do_getresuid
READS(getgroups, a[0] = 32; a[1] = (long)b;)
#define do_getgroups32 do_getgroups

/* Real, effective and saved ID, by turns. */
static void becomes(long number, const long *a, int is_group, unsigned effective)
{
    unsigned ids[3] = {0};
    if (hit_until(number, a, NULL, NULL)) {
        failed("%s", strerror(errno));
        return;
    }
    must((is_group ? getresgid : getresuid)(ids, ids + 1, ids + 2) == 0, "getresuid");
    if (ids[1] != effective)
        failed("done, and %u is still %u", effective, ids[1]);
}
static unsigned first, second;
static void swap(void)
{
    first = another();
    second = first == ONE ? OTHER : ONE;
}
#define SETS(call, is_group, ...) \
    static void do_##call(long number) \
    { \
        swap(); \
        becomes(number, ARGUMENTS(__VA_ARGS__), is_group, second); \
    }
SETS(setuid, 0, second)
static void do_setreuid(long number)
{
    swap();
    must(setresuid(second, first, first) == 0, "setresuid");
    becomes(number, ARGUMENTS(first, second), 0, second);
}
SETS(setresuid, 0, first, second, first)
SETS(setgid, 1, second)
SETS(setregid, 1, first, second)
SETS(setresgid, 1, first, second, first)
#define do_setuid32 do_setuid
#define do_setreuid32 do_setreuid
#define do_setresuid32 do_setresuid
#define do_setgid32 do_setgid
#define do_setregid32 do_setregid
#define do_setresgid32 do_setresgid

/* The answer is what it was before. */
static void do_setfsuid(long number)
{
    long former;
    swap();
    must(syscall(number, first) >= 0, "setfsuid");
    former = hit_until(number, ARGUMENTS(second), NULL, NULL);
    if (interrupted) {
        /* Where EINTR is an answer it may be that of a call that was carried out. */
        if (former != first && former != second)
            failed("from %ld", former);
    } else if (former != first)
        failed("from %ld and not %u", former, first);
    if (syscall(number, -1) != second)
        failed("done, and not %u", second);
    syscall(number, ONE);
}
#define do_setfsuid32 do_setfsuid
#define do_setfsgid do_setfsuid
#define do_setfsgid32 do_setfsuid

static void groups_are(long number, const long *a)
{
    gid_t found[8];
    if (hit_until(number, a, NULL, NULL))
        failed("%s", strerror(errno));
    else if (getgroups(8, found) != 2 || found[1] != 100 + turn)
        failed("done, and others");
}
static void do_setgroups32(long number)
{
    uint32_t groups[2] = {7, 100 + ++turn};
    groups_are(number, ARGUMENTS(2, (long)groups));
}
static void do_setgroups(long number)
{
#ifdef __i386__
    uint16_t groups[2] = {7, 100 + ++turn};
    groups_are(number, ARGUMENTS(2, (long)groups));
#else
    do_setgroups32(number);
#endif
}

static struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
READS(capget, a[0] = (long)&header; a[1] = (long)b;)
static void do_capset(long number)
{
    struct __user_cap_data_struct wanted[2], found[2];
    must(syscall(SYS_capget, &header, wanted) == 0, "capget");
    wanted[0].effective ^= 1 << CAP_FSETID;
    if (hit_until(number, ARGUMENTS((long)&header, (long)wanted), NULL, NULL))
        failed("%s", strerror(errno));
    must(syscall(SYS_capget, &header, found) == 0, "capget");
    if (memcmp(wanted, found, sizeof found))
        failed("done, and others");
}
static void do_prctl(long number)
{
    int wanted = ++turn % 2, dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
    if (hit_until(number, ARGUMENTS(PR_SET_KEEPCAPS, wanted), NULL, NULL))
        failed("%s", strerror(errno));
    if (prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0) != wanted)
        failed("done, and not %d", wanted);
    if (HIT(number, PR_GET_DUMPABLE) != dumpable && errno != EINTR)
        failed("not %d", dumpable);
    prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
}

/* The limit of which runrootless makes something else. */
#define RTTIME 15
READS(getrlimit, a[0] = RTTIME; a[1] = (long)b;)
#define do_ugetrlimit do_getrlimit
static void do_setrlimit(long number)
{
    unsigned long wanted[2] = {1000 + ++turn % 2, 5000};
    uint64_t found[2];
    if (hit_until(number, ARGUMENTS(RTTIME, (long)wanted), NULL, NULL))
        failed("%s", strerror(errno));
    must(syscall(SYS_prlimit64, 0, RTTIME, NULL, found) == 0, "prlimit64");
    if (found[0] != wanted[0] || found[1] != wanted[1])
        failed("done, and others");
}
static void do_prlimit64(long number)
{
    uint64_t wanted[2] = {2000 + ++turn % 2, 5000}, former[2];
    unsigned char *found = area();
    must(syscall(number, 0, RTTIME, NULL, former) == 0, "prlimit64");
    if (hit_until(number, ARGUMENTS(0, RTTIME, (long)wanted, (long)found), NULL, NULL))
        failed("%s", strerror(errno));
    else if (memcmp(found, former, sizeof former) && (!interrupted || memcmp(found, wanted, sizeof wanted)))
        failed("another one before");
    take_back(found);
}
