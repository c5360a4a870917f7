"""The agent stays: whatever ends the process that answers, the container does not notice."""

import os
import signal
import subprocess

import pytest

from conftest import MakeBundle
from support.agents import Killer, agents, named, the_supervisor, the_worker
from support.bundles import Bundle
from support.containers import Runrootless
from support.processes import Result, eventually, read_line
from support.trees import Tree

# What a user makes may fail with EIO if the worker ends while it is made, which is all that may
# fail; what is there is never wrong. As root, and as a user.
LOOP = r"""
use strict; use POSIX (); use Errno ();
my ($rounds, $who, $end) = @ARGV; my %failed; my $dir = "/srv/loop-$who"; mkdir $dir or die;
chown $who, $who, $dir; if ($who) { POSIX::setgid($who); POSIX::setuid($who) }
sub tried { my ($name, $done) = @_; return 1 if $done; die "$name: $!" unless $!{EIO};
    $failed{$name}++; return 0 }
for (my $n = 1; $n <= $rounds || !-e $end; $n++) {
    POSIX::getuid() == $who or die "getuid";
    my $made = tried("mkdir", mkdir "$dir/d$n");
    if ($made) {
        my @stat = stat "$dir/d$n" or die "stat: $!"; $stat[4] == $who or die "owner $stat[4]";
        if (!$who) {
            chown $n, $n + 1, "$dir/d$n" or die "chown: $!"; @stat = lstat "$dir/d$n";
            "$stat[4]:$stat[5]" eq $n . ":" . ($n + 1) or die "owner $stat[4]:$stat[5]";
        }
        rename "$dir/d$n", "$dir/e$n" or die "rename: $!";
        @stat = stat "$dir/e$n" or die "stat: $!";
        $stat[4] == ($who || $n) or die "owner after rename $stat[4]";
        rmdir "$dir/e$n" or die "rmdir: $!";
    } elsif (-d "$dir/d$n") { rmdir "$dir/d$n" or die "rmdir: $!" }
    if (tried("symlink", symlink "target", "$dir/l$n")) {
        my @stat = lstat "$dir/l$n" or die "lstat: $!"; $stat[4] == $who or die "link of $stat[4]";
    }
    unlink "$dir/l$n"; !stat("$dir/l$n") && $!{ENOENT} or die "still there";
}
print "done\n"; print STDERR map { "$_ $failed{$_}\n" } keys %failed;
"""


@pytest.mark.parametrize("user", [0, 33])
def test_a_worker_killed_every_few_milliseconds(
    bundle: MakeBundle, runrootless: Runrootless, user: int
) -> None:
    ours = bundle(copy=True).set(["perl", "-e", LOOP, "25", str(user), "/srv/end"])
    with Killer(runrootless.user.account, 0.005, 20, f"{ours.rootfs}/srv/end") as killer:
        done = runrootless.run(ours, timeout=900).check()
    assert done.stdout == "done\n"
    assert killer.kills >= 20
    if user == 0:
        assert done.stderr == ""


SCRIPT = "echo up; while read line; do chown 7:8 /srv; stat -c %u:%g /srv; id -u; done"
ANSWER = "7:8\n0\n"


class Container:
    """A container that says when it is up, and does something emulated for a line that it gets."""

    def __init__(self, runrootless: Runrootless, bundle: Bundle, name: str = "") -> None:
        command = runrootless.command("run", "--bundle", bundle.path, name or runrootless.new_id())
        self.process = runrootless.user.start(command, stdin=subprocess.PIPE)
        assert read_line(self.process) == "up\n"

    def ask(self) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return read_line(self.process) + self.process.stdout.readline()

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def test_every_signal_to_all_of_the_agent(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle(copy=True).script(SCRIPT)
    container = Container(runrootless, ours)
    account = runrootless.user.account
    supervisor, worker = the_supervisor(account), the_worker(account)
    for number in range(1, 65):
        if number in (signal.SIGKILL, signal.SIGSTOP):
            continue
        for pid in (supervisor, worker):
            os.kill(pid, number)
    assert container.ask() == ANSWER
    # None of them has ended it.
    assert [the_supervisor(account), the_worker(account)] == [supervisor, worker]
    os.killpg(os.getpgid(supervisor), signal.SIGSTOP)
    os.killpg(os.getpgid(supervisor), signal.SIGCONT)
    assert container.ask() == ANSWER
    assert container.end() == (0, "")


def test_another_worker_takes_the_place_of_one_that_is_killed(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    ours = bundle(copy=True).script(SCRIPT)
    container = Container(runrootless, ours)
    account = runrootless.user.account
    for _ in range(5):
        worker = the_worker(account)
        os.kill(worker, signal.SIGKILL)
        assert container.ask() == ANSWER
        assert the_worker(account) != worker
    assert container.end() == (0, "")


def test_memory_that_is_too_little_for_a_worker(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    """What it cannot do fails; the next one has all that there is again."""
    ours = bundle(copy=True).script(SCRIPT)
    container = Container(runrootless, ours)
    account = runrootless.user.account
    worker = the_worker(account)
    runrootless.user.run(["prlimit", "--pid", str(worker), f"--as={1 << 20}"]).check()
    assert container.ask().endswith("\n0\n")
    os.kill(worker, signal.SIGKILL)
    assert container.ask() == ANSWER
    assert container.end() == (0, "")


def run_limited(
    runrootless: Runrootless, bundle: Bundle, limit: str, timeout: float = 60
) -> Result:
    """Run a container under a limit, as an argument of the shell's ulimit."""
    args = runrootless.command("run", "--bundle", bundle.path, runrootless.new_id())
    script = f'ulimit {limit}; exec "$@"'
    return runrootless.user.run(["sh", "-c", script, "sh", *args], timeout=timeout)


def test_a_limit_of_processor_time(bundle: MakeBundle, runrootless: Runrootless) -> None:
    """Far less than the calls take that each process of the container makes."""
    script = (
        "for n in 1 2 3 4; do perl -e 'my $end = time + 4;"
        ' while (time < $end) { stat "/etc/passwd" for 1 .. 1000 }\' & done;'
        " wait; chown 3:4 /srv; stat -c %u:%g /srv"
    )
    ours = bundle(copy=True).script(script)
    done = run_limited(runrootless, ours, "-t 3", timeout=900)
    assert done.check().stdout == "3:4\n"


def test_a_limit_of_memory_that_is_too_low(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script("true")
    done = run_limited(runrootless, ours, "-v 150000")
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "RLIMIT_AS" in done.stderr


def test_the_end_of_the_supervisor(bundle: MakeBundle, runrootless: Runrootless) -> None:
    name = runrootless.new_id()
    ours = bundle(copy=True).script(SCRIPT)
    container = Container(runrootless, ours, name)
    account = runrootless.user.account
    supervisor, worker = the_supervisor(account), the_worker(account)
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: not named(account, "runrootless-sup"), "the end of the supervisor")
    assert container.ask() == ANSWER
    assert the_worker(account) == worker
    refused = runrootless("exec", name, "true").check(255)
    assert "has ended" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert '"status": "running"' in runrootless("state", name).check().stdout
    code, errors = container.end()
    assert code == 0
    assert errors.startswith("runrootless: the process that supervises the container's agent")
    assert errors.count("\n") == 1
    eventually(lambda: not agents(account), "the end of the worker")
    # Nobody is left to remove the directory but the next call.
    runrootless.run(ours.script("true")).check()


def test_the_end_of_the_supervisor_of_a_container_in_the_background(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    name = runrootless.new_id()
    ours = bundle().script("sleep 1000")
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    os.kill(the_supervisor(runrootless.user.account), signal.SIGKILL)
    runrootless("kill", name, "KILL").check()
    eventually(
        lambda: '"status": "stopped"' in runrootless("state", name).check().stdout, "its end"
    )
    runrootless("delete", name).check()
    runrootless.assert_nothing_left()


COVERED = """
mkdir -p /srv/r/dev; mknod /srv/r/dev/zero c 1 5
perl -e '$| = 1; chroot "/srv/r" or die; open F, "</dev/zero" or die "open: $!"; close F;
    print "up\\n"; <STDIN>'
grep -c /srv/r/dev /proc/self/mountinfo; rm -r /srv/r && echo removed
"""


def test_no_cover_of_a_device_is_left(bundle: MakeBundle, runrootless: Runrootless) -> None:
    """It goes with the root, whichever worker has mounted it."""
    ours = bundle(copy=True).script(COVERED)
    container = Container(runrootless, ours)
    os.kill(the_worker(runrootless.user.account), signal.SIGKILL)
    assert container.ask() == "0\nremoved\n"
    assert container.end() == (0, "")


# Of the senders that have ended, one has chosen IDs, and one has just had them.
SENDERS = """
import os, socket, struct
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); b.setsockopt(1, 16, 1)
for send in (
    lambda: a.sendmsg([b"x"], [(1, 2, struct.pack("3i", os.getpid(), 35, 36))]),
    lambda: (os.setgid(34), os.setuid(33), a.send(b"y")),
):
    pid = os.fork()
    if not pid:
        send()
        os._exit(0)
    os.waitpid(pid, 0)
print("up", flush=True); input()
for _ in range(2):
    print(struct.unpack("3i", b.recvmsg(10, 64)[1][0][2])[1:], flush=True)
"""


def test_senders_are_known_to_the_next_worker(
    bundle: MakeBundle, runrootless: Runrootless, tools_tree: Tree
) -> None:
    ours = bundle(tools_tree, copy=True).set(["python3", "-c", SENDERS])
    container = Container(runrootless, ours)
    os.kill(the_worker(runrootless.user.account), signal.SIGKILL)
    assert container.ask() == "(35, 36)\n(33, 34)\n"
    assert container.end() == (0, "")


# ps(1) has one shown, and the worker that mounted it is killed before it removes it.
STATUS = """
setpriv --reuid 33 --regid 33 --clear-groups sleep 1000 & pid=$!
until [ "$(ps -o user= -p $pid)" = www-data ]; do :; done
echo up; read line; chown 3:4 /srv; grep -c /status /proc/self/mountinfo; id -u; kill $pid
"""


def test_no_mount_of_a_killed_worker_is_left(
    bundle: MakeBundle, runrootless: Runrootless, tools_tree: Tree
) -> None:
    ours = bundle(tools_tree, copy=True).script(STATUS)
    container = Container(runrootless, ours)
    os.kill(the_worker(runrootless.user.account), signal.SIGKILL)
    assert container.ask() == "0\n0\n"
    container.end()
