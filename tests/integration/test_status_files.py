"""Programs that ask stat(2) for PID in /proc and then read PID/status, as ps(1) does."""

from conftest import MakeBundle, both_runtimes
from support.bundles import ADMINISTRATOR, Config
from support.containers import Runrootless
from support.trees import Tree

# Some processes of different users, and readers of all of them at once: whoever asks reads
# the IDs of the one that was asked for. In the end the shell's redirection, which executes
# nothing, sees what is mounted.
READERS = r"""
use strict; use POSIX ();
my (@users, @readers); pipe(my $ready, my $writer) or die; pipe(my $end, my $holder) or die;
for my $n (1 .. 6) {
    my $pid = fork() // die "fork: $!"; push @users, [$pid, $n * 1000]; next if $pid;
    close $holder; POSIX::setgid($n); POSIX::setuid($n * 1000);
    syswrite $writer, "x"; sysread $end, my $byte, 1; POSIX::_exit(0);
}
for (@users) { sysread $ready, my $byte, 1 }
for my $reader (1 .. 4) {
    my $pid = fork() // die "fork: $!"; push @readers, $pid; next if $pid;
    for (1 .. 100) {
        for my $user (@users) {
            my ($pid, $uid) = @$user; my @stat = stat "/proc/$pid";
            open(my $file, "<", "/proc/$pid/status") or POSIX::_exit(1); my @lines = <$file>;
            $stat[4] == $uid or POSIX::_exit(2);
            my ($line) = grep { /^Uid/ } @lines;
            $line eq "Uid:" . "\t$uid" x 4 . "\n" or POSIX::_exit(3);
            $lines[-1] =~ /^nonvoluntary_ctxt_switches:\t\d+\n$/ or POSIX::_exit(4);
        }
    }
    POSIX::_exit(0);
}
for (@readers) { waitpid $_, 0; print "$?\n" }
stat "/"; open(my $mounts, "<", "/proc/self/mountinfo"); print grep { m{ /proc/\d} } <$mounts>;
"""


@both_runtimes
def test_many_readers_at_once(bundle: MakeBundle, runrootless: Runrootless) -> None:
    """With few descriptors, of which none may be lost."""
    ours = bundle().set(["perl", "-e", READERS])
    args = runrootless.command("run", "--bundle", ours.path, runrootless.new_id())
    done = runrootless.user.run(["sh", "-c", 'ulimit -n 128; exec "$@"', "sh", *args])
    assert done.check().stdout == "0\n" * 4


@both_runtimes
def test_no_mount_is_left(bundle: MakeBundle, runrootless: Runrootless, tools_tree: Tree) -> None:
    script = """
    setpriv --reuid 33 --regid 33 --clear-groups sleep 60 & pid=$!
    until [ "$(ps -o user= -p $pid)" = www-data ]; do :; done
    for n in 1 2 3 4; do ps -eo user=,comm= >/tmp/$n & done; wait %2 %3 %4 %5
    grep -h www-data /tmp/[1-4]; grep -c /status /proc/self/mountinfo; kill $pid
    """
    done = runrootless.run(bundle(tools_tree, copy=True).script(script))
    assert done.check().stdout.split() == ["www-data", "sleep"] * 4 + ["0"]


def test_without_shared_memory(bundle: MakeBundle, runrootless: Runrootless) -> None:
    """The copies lie in /dev then. The builtin ``[`` asks, and another program reads."""

    def leave_out(config: Config) -> None:
        mounts = config["mounts"]
        config["mounts"] = [one for one in mounts if one["destination"] != "/dev/shm"]

    script = """
    setpriv --reuid 33 --regid 33 --clear-groups sleep 60 & pid=$!
    until [ "$(stat -c %u /proc/$pid)" = 33 ]; do :; done
    [ -d /proc/$pid ] && /bin/sed -n /^Uid/p /proc/$pid/status; ls -A /dev | grep ^[.]run; kill $pid
    """
    done = runrootless.run(bundle().change(leave_out).script(script))
    assert done.check().stdout.split() == ["Uid:", "33", "33", "33", "33"]


# Other programs see the mount as long as this one does not ask for something else.
IN_THE_WAY = r"""
use strict; use POSIX (); $| = 1;
pipe(my $ready, my $writer) or die; my ($proc, $pid) = "/proc"; start();
sub start {
    $pid = fork() // die "fork: $!";
    if (!$pid) { POSIX::setuid(33); syswrite $writer, "x"; sleep 100; POSIX::_exit(0); }
    sysread $ready, my $byte, 1;
}
sub ask { my @stat = stat "$proc/$pid"; print "$stat[4]: " }
sub mounts { system "/bin/grep -c /$pid/status /proc/self/mountinfo" }
ask(); system "/bin/sed", "-n", "/^Uid/p", "/proc/$pid/status"; ask(); mounts();
ask(); kill "KILL", $pid; waitpid $pid, 0; mounts(); start();
ask(); system "/bin/mount", "--rbind", "/proc", "/mnt"; mounts(); system "/bin/umount -R /mnt";
system "/bin/mount -t proc proc /mnt"; $proc = "/mnt";
ask(); print system("/bin/umount", "/mnt"), "\n"; $proc = "/proc";
ask(); system "/usr/bin/unshare -m /bin/grep -c /$pid/status /proc/self/mountinfo";
ask(); system "/bin/sed", "-n", "/^Uid/p", "/proc/$pid/status";
kill "KILL", $pid;
"""


def test_what_a_mount_may_be_in_the_way_of(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().set(["perl", "-e", IN_THE_WAY]).add_capabilities(ADMINISTRATOR)
    assert runrootless.run(ours).check().stdout.splitlines() == [
        "33: Uid:\t33\t33\t33\t33",
        "33: 1",
        # The process ends.
        "33: 0",
        # /proc is bound elsewhere, and unmounted where it is mounted a second time.
        "33: 1",
        "33: 0",
        # Namespaces would be made with copies of the mounts: there are none from then on.
        "33: 0",
        "33: Uid:\t0\t0\t0\t0",
    ]


def test_under_emulate(runrootless: Runrootless) -> None:
    script = """
    setpriv --reuid 33 --regid 33 --clear-groups sleep 60 & pid=$!
    until [ "$(stat -c %u /proc/$pid)" = 33 ]; do :; done
    ps -o ruser=,user=,args= -p $pid; grep -c /status /proc/self/mountinfo; kill $pid
    """
    done = runrootless("emulate", "sh", "-c", script)
    assert done.check().stdout.split() == ["www-data", "www-data", "sleep", "60", "0"]
