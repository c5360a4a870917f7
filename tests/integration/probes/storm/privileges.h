/* Calls that take a privilege: users are refused it, root gets what the kernel gives. */

/* What a kernel without the call, and one that allows it, may say to arguments that mean nothing. */
static void refused(long number, const long *a)
{
    long result = hit(number, a);
    if (result >= 0)
        failed("not refused");
    else if (errno != EPERM && errno != EINTR && errno != ENOSYS)
        failed("%s", strerror(errno));
}
static void do_open_tree(long number) { refused(number, ARGUMENTS(AT_FDCWD, (long)"point", 1)); }
static void do_open_tree_attr(long number)
{
    refused(number, ARGUMENTS(AT_FDCWD, (long)"point", 1, 0, 0));
}
static void do_move_mount(long number)
{
    refused(number, ARGUMENTS(AT_FDCWD, (long)"point", AT_FDCWD, (long)"directory", 0));
}
static void do_fspick(long number) { refused(number, ARGUMENTS(AT_FDCWD, (long)"/", 0)); }
static void do_fsmount(long number) { refused(number, ARGUMENTS(owned_fd, 0, 0)); }
static void do_fsconfig(long number)
{
    /* Of what is no context it is told before any privilege is asked for. */
    if (HIT(number, owned_fd, 6, 0, 0, 0) >= 0)
        failed("not refused");
    else if (errno != EINVAL && errno != EINTR && errno != ENOSYS)
        failed("%s", strerror(errno));
}
static void do_mount_setattr(long number)
{
    uint64_t attributes[4] = {1};
    refused(number, ARGUMENTS(AT_FDCWD, (long)"/", 0, (long)attributes, sizeof attributes));
}
static void do_sethostname(long number) { refused(number, ARGUMENTS((long)"storm", 5)); }
static void do_setdomainname(long number) { refused(number, ARGUMENTS((long)"storm", 5)); }
/* LINUX_REBOOT_CMD_CAD_OFF: to root of a pid namespace an invalid argument. */
static void do_reboot(long number) { refused(number, ARGUMENTS(0xfee1dead, 672274793, 0, 0)); }
#if defined(__i386__)
static void do_umount(long number)
{
    must(mount("none", "point", "tmpfs", 0, "size=64k") == 0, "mount");
    if (hit_until(number, ARGUMENTS((long)"point"), is_not_mounted, "point"))
        failed("%s", strerror(errno));
    else if (is_mounted("point"))
        failed("done, and still mounted");
    while (umount2("point", MNT_DETACH) == 0) ;
}
#endif
