"""A call that hangs, in a file system that does not answer, holds nobody else up."""

import os
import stat
from pathlib import Path

import pytest

from conftest import MakeBundle
from support.bundles import ADMINISTRATOR, Bundle, Config
from support.containers import Runrootless
from support.processes import read_line
from support.programs import compile_program
from support.trees import Tree
from support.users import AS_ROOT, Unprivileged

SOURCE = Path(__file__).parent / "probes" / "fuse.c"

HANGING = """
/dev/probe hang /mnt >/srv/log 2>&1 & server=$!
until grep -q up /srv/log; do kill -0 $server || { cat /srv/log; exit 1; }; done
"""


@pytest.fixture
def with_fuse(bundle: MakeBundle, unprivileged: Unprivileged, tools_tree: Tree) -> Bundle:
    """A container whose root may mount, with /dev/fuse and the probe."""
    device = "/dev/fuse"
    if AS_ROOT and os.path.exists(device):
        # A node of everybody's, as udev's rules make it on most systems.
        number = os.stat(device).st_rdev
        device = f"{unprivileged.session}/fuse"
        os.mknod(device, stat.S_IFCHR | 0o666, number)
        os.chmod(device, 0o666)
    if not os.access(device, os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/fuse for this user")
    program = compile_program(SOURCE.read_text(), f"{unprivileged.session}/probe", ["-static"])

    def change(config: Config) -> None:
        for path, source in (("/dev/fuse", device), ("/dev/probe", program)):
            config["mounts"].append(
                {"destination": path, "type": "bind", "source": source, "options": ["bind"]}
            )

    return bundle(tools_tree, copy=True).add_capabilities(ADMINISTRATOR).change(change)


def test_others_go_on_while_calls_hang(with_fuse: Bundle, runrootless: Runrootless) -> None:
    """And who hangs can be killed."""
    script = f"""{HANGING}
    for n in 1 2 3 4 5 6 7 8 9 10; do stat /mnt/$n >/dev/null 2>&1 & hung="$hung $!"; done
    for n in $(seq 20); do id -u; done | sort | uniq -c
    chown 3:4 /srv/log; stat -c %u:%g /srv/log
    kill -9 $hung; for pid in $hung; do wait $pid; echo $?; done >/srv/codes
    sort /srv/codes | uniq -c
    kill $server
    """
    done = runrootless.run(with_fuse.script(script)).check()
    words = done.stdout.split()
    assert words == ["20", "0", "3:4", "10", "137"], done


def test_more_calls_hang_than_threads_may(with_fuse: Bundle, runrootless: Runrootless) -> None:
    """Then a new worker takes the place of the one that has them all; these calls fail."""
    many = r"""
    use strict; use POSIX (); my @pids;
    for my $n (1 .. 1000) {
        my $pid = fork() // die "fork: $!"; push @pids, $pid; next if $pid;
        my @found = stat("/mnt/$n"); POSIX::_exit($!{EIO} ? 5 : 1);
    }
    for (1 .. 100) { POSIX::getuid() == 0 or die }
    print "others go on\n"; kill "KILL", @pids; my %codes;
    for (@pids) { waitpid $_, 0; $codes{$?}++ }
    my $other = grep { $_ != 9 && $_ != 5 << 8 } keys %codes; print "$other otherwise\n";
    """
    script = f"""{HANGING}
    perl -e '{many}'
    chown 3:4 /srv/log; stat -c %u:%g /srv/log; kill $server
    """
    done = runrootless.run(with_fuse.script(script), timeout=900).check()
    assert done.stdout == "others go on\n0 otherwise\n3:4\n"


RECEIVED = r"""
/dev/probe pages /mnt >/srv/log 2>&1 & server=$!
until grep -q up /srv/log; do kill -0 $server || { cat /srv/log; exit 1; }; done
python3 - <<'END'
import mmap, os, signal, socket
def pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname()), server.accept()[0]
def start(function):
    pid = os.fork()
    if pid == 0:
        function()
        os._exit(0)
    return pid
def answered():
    return open("/srv/log").read().count("read")
def peer(s):
    s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
for number, (kind, (a, b), ask) in enumerate((
    ("stream", socket.socketpair(), lambda s: s.recvmsg(5, 100)),
    ("packets", socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM), lambda s: s.recvmsg(5, 100)),
    ("tcp", pair(), peer),
)):
    file = open(f"/mnt/{number}", "r+b", buffering=0)
    memory = mmap.mmap(file.fileno(), 4096)
    if kind != "tcp":
        b.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    a.send(b"hello world")
    seen = answered()
    reader = start(lambda: b.recv_into(memory, 5))
    while answered() == seen:
        pass
    other = start(lambda: ask(b))
    # Until it is in a call about the socket, or has ended.
    while open(f"/proc/{other}/stat").read().rpartition(")")[2].split()[0] != "Z":
        try:
            if open(f"/proc/{other}/syscall").read().split()[0] in ("47", "55", "209", "212"):
                break
        except OSError:
            # It has just ended.
            pass
    print(kind, {os.getuid() for _ in range(200)}, flush=True)
    for pid in reader, other:
        os.kill(pid, signal.SIGKILL)
# Python would ask the sockets for their names, and wait.
os._exit(0)
END
kill $server
"""


def test_who_receives_into_memory_that_hangs_holds_nobody_else_up(
    with_fuse: Bundle, runrootless: Runrootless
) -> None:
    """The kernel locks a socket meanwhile, also before those who only ask."""
    done = runrootless.run(with_fuse.script(RECEIVED)).check()
    assert done.stdout == "stream {0}\npackets {0}\ntcp {0}\n"


SERVED = """
/dev/probe serve /mnt /srv/backing >/srv/log 2>&1 & server=$!
until grep -q up /srv/log; do kill -0 $server || { cat /srv/log; exit 1; }; done
touch /srv/backing; chown 7:8 /srv/backing
for n in 1 2 3 4; do
    perl -e 'for my $n (1 .. 500) { my @found = stat("/mnt/$n") or die "stat: $!";
        $found[7] == 4098 + $n or die "size $found[7]" } print "same\n"' & readers="$readers $!"
done
wait $readers; kill $server; cat /srv/log
"""


def test_a_server_of_files_that_makes_calls_itself(
    with_fuse: Bundle, runrootless: Runrootless
) -> None:
    done = runrootless.run(with_fuse.script(SERVED), timeout=900).check()
    assert done.stdout == "same\n" * 4 + "up\n"


def test_a_container_that_is_killed_while_calls_hang(
    with_fuse: Bundle, runrootless: Runrootless
) -> None:
    script = f"{HANGING} stat /mnt/1 & stat /mnt/2 & id -u; sleep 1000"
    name = runrootless.new_id()
    args = runrootless.command("run", "--bundle", with_fuse.script(script).path, name)
    process = runrootless.user.start(args)
    assert read_line(process) == "0\n"
    runrootless("kill", name, "KILL").check()
    process.wait(60)
    runrootless.assert_nothing_left()
