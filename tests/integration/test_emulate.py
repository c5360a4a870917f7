"""``emulate``: commands of the host to which their user is root, without any container."""

import errno
import os
import pwd
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.agents import agents, the_supervisor, the_worker
from support.containers import COMMAND, Runrootless
from support.oracle import (
    ENVIRONMENT,
    Comparison,
    RealRoot,
    case_output,
    chroot_command,
    read_cases,
    write_cases,
)
from support.processes import Result, Terminal, eventually, read_line
from support.programs import compiler
from support.trees import SUITE, Trees, debian_archive, debootstrap_archive, mirror
from support.users import AS_ROOT

PROBE = Path(__file__).with_name("probes") / "ownership.c"
XATTRS_AT = Path(__file__).with_name("probes") / "xattrs_at.py"
IDENTITY = "id -u; id -g; id -G"
needs_root = pytest.mark.skipif(not AS_ROOT, reason="the oracle is the real root")

Emulate = Callable[..., Result]


@pytest.fixture
def place(trees: Trees) -> Iterator[str]:
    """A directory of the user's."""
    directory = trees.new_directory("emulate", for_user=True)
    yield directory
    trees.discard(directory)


@pytest.fixture
def emulate(runrootless: Runrootless, place: str) -> Emulate:
    """Run a shell script in that directory, with root emulated."""

    def emulate(script: str, **options: object) -> Result:
        command = ["emulate", "--", "sh", "-c", script]
        return runrootless(*command, **{"cwd": place, **options})  # type: ignore[arg-type]

    return emulate


def as_root(script: str, cwd: str) -> str:
    """Return what a script prints that the real root runs."""
    done = subprocess.run(
        ["sh", "-c", f"umask 022; {script}"], cwd=cwd, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_who_the_command_is(emulate: Emulate) -> None:
    assert emulate(IDENTITY).check().stdout.split() == ["0", "0", "0"]


def test_root_becomes_another_user(emulate: Emulate) -> None:
    script = "setpriv --reuid 33 --regid 34 --clear-groups sh -c 'id -u; id -g; touch a'; ls -n a"
    *identity, listing = emulate(script).check().stdout.splitlines()
    assert identity == ["33", "34"]
    assert listing.split()[2:4] == ["33", "34"]


OWNERS = "stat -c '%n %F %a %u:%g %t:%T' *"
MAKE_FILES = """
umask 022
touch file; chown 5:6 file; ln -s nowhere link; chown -h 7:8 link; mkfifo pipe; chown 9 pipe
mkdir directory; chown 10:11 directory; chmod 2755 directory; touch directory/inside
mknod character c 1 3; mknod block b 8 1; chown :12 block; mv block moved
"""


@needs_root
def test_owners_are_the_same_as_the_real_roots_and_stay(
    emulate: Emulate, place: str, trees: Trees
) -> None:
    oracle = trees.new_directory("oracle", for_user=False)
    as_root(MAKE_FILES, oracle)
    script = f"{OWNERS} directory/*"
    expected = as_root(script, oracle)
    assert "link symbolic link 777 7:8" in expected
    emulate(MAKE_FILES).check()
    # Another agent, hours later perhaps.
    assert emulate(script).check().stdout == expected
    trees.discard(oracle)


def test_what_is_removed_is_forgotten(emulate: Emulate) -> None:
    emulate("ln -s a link; chown -h 7:8 link").check()
    assert emulate("rm link; ln -s b link; stat -c %u:%g link").check().stdout == "0:0\n"


MAKEFILE = """\
install:
\tinstall -d -o 33 -g 0 -m 2750 $(DESTDIR)/srv
\tinstall -o 33 -g 44 -m 640 Makefile $(DESTDIR)/srv/file
\tinstall -m 4755 Makefile $(DESTDIR)/srv/program
\tln -s file $(DESTDIR)/srv/link
\tchown -h 55:66 $(DESTDIR)/srv/link
\tmknod $(DESTDIR)/srv/device b 7 9
"""
MAKE = "make --silent install DESTDIR=x && tar -C x -cf x.tar srv"


def members(archive: str) -> list[tuple[object, ...]]:
    with tarfile.open(archive) as tar:
        return [
            (m.name, m.type, m.mode, m.uid, m.gid, m.devmajor, m.devminor, m.linkname) for m in tar
        ]


@needs_root
@pytest.mark.parametrize("calls", [[MAKE], MAKE.split(" && ")], ids=["at-once", "two-calls"])
def test_make_install_and_tar(calls: list[str], emulate: Emulate, place: str, trees: Trees) -> None:
    oracle = trees.new_directory("oracle", for_user=False)
    for directory in (oracle, place):
        Path(directory, "Makefile").write_text(MAKEFILE)
    as_root(MAKE, oracle)
    for call in calls:
        emulate(f"umask 022; {call}").check()
    expected = sorted(members(f"{oracle}/x.tar"))
    assert ("srv/file", tarfile.REGTYPE, 0o640, 33, 44, 0, 0, "") in expected
    assert sorted(members(f"{place}/x.tar")) == expected
    trees.discard(oracle)


PACKAGE = {
    "debian/control": """\
Source: sample
Maintainer: Nobody <nobody@example.org>
Standards-Version: 4.6.2
Rules-Requires-Root: binary-targets

Package: sample
Architecture: all
Description: package of a test
""",
    "debian/changelog": """\
sample (1.0) unstable; urgency=low

  * Made.

 -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 00:00:00 +0000
""",
    "debian/source/format": "3.0 (native)\n",
    "debian/rules": """\
#!/usr/bin/make -f
clean:
\trm -rf debian/sample debian/files
build build-indep build-arch:
binary: binary-indep
binary-arch:
binary-indep:
\tinstall -d debian/sample/DEBIAN debian/sample/srv
\tinstall -o www-data -g shadow -m 640 debian/control debian/sample/srv/file
\tdpkg-gencontrol -Pdebian/sample
\tdpkg-deb --build debian/sample ..
""",
}


@needs_root
def test_dpkg_buildpackage(runrootless: Runrootless, place: str, trees: Trees) -> None:
    oracle = trees.new_directory("oracle", for_user=False)
    for directory in (oracle, place):
        for name, text in PACKAGE.items():
            path = Path(directory, "sample", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if name == "debian/rules" else 0o644)
    for directory, _, files in os.walk(place):
        for name in (*files, "."):
            runrootless.user.give(os.path.join(directory, name))
    build = ["dpkg-buildpackage", "-b", "-d", "-us", "-uc"]
    subprocess.run(build, cwd=f"{oracle}/sample", check=True, capture_output=True)
    env = {"PATH": f"{os.path.dirname(COMMAND)}:{runrootless.user.env['PATH']}"}
    built = runrootless.user.run(
        [*build, "-rrunrootless emulate --"], cwd=f"{place}/sample", env=env
    )
    built.check()
    listings = [
        subprocess.run(
            ["dpkg-deb", "--contents", f"{directory}/sample_1.0_all.deb"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()
        for directory in (oracle, place)
    ]
    # Mode, owner and name; the time differs.
    expected, found = ([line.split()[:2] + line.split()[5:] for line in text] for text in listings)
    assert ["-rw-r-----", "www-data/shadow", "./srv/file"] in expected
    assert found == expected
    trees.discard(oracle)


@needs_root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86_64 runs i386's programs")
@pytest.mark.parametrize("flag", ["-m64", "-m32"])
def test_static_programs(flag: str, emulate: Emulate, place: str, trees: Trees) -> None:
    oracle = trees.new_directory("oracle", for_user=False)
    for directory in (oracle, place):
        program = f"{directory}/probe"
        subprocess.run([*compiler(flag), "-static", "-O2", "-o", program, PROBE], check=True)
    script = "umask 0; mkdir files; cd files; setpriv --clear-groups ../probe"
    expected = as_root(script, oracle)
    assert "70000:80000" in expected
    assert emulate(script).check().stdout == expected
    trees.discard(oracle)


@pytest.mark.parametrize(("script", "code"), [("exit 23", 23), ("kill -TERM $$", -signal.SIGTERM)])
def test_exit_codes_are_the_commands(script: str, code: int, emulate: Emulate) -> None:
    assert emulate(script).returncode == code


def test_a_command_that_is_not_found(runrootless: Runrootless) -> None:
    done = runrootless("emulate", "--", "no-such-command").check(127)
    assert done.stderr == "runrootless: no-such-command is not found\n"
    assert "not found" in runrootless("emulate", "./no/such/command").check(127).stderr


SBIN = ["/usr/local/sbin", "/usr/sbin", "/sbin"]


@pytest.mark.parametrize("engine", ["notify", "zero", "none"])
@pytest.mark.parametrize(
    ("path", "lacking"),
    [
        ("/usr/local/bin:/usr/bin:/bin", SBIN),
        ("/sbin:/usr/bin:/bin", SBIN[:2]),
        (":".join(["/usr/bin:/bin", *SBIN]), []),
        ("/usr/bin:/bin:", SBIN),
    ],
)
def test_the_directories_of_roots_programs_are_searched(
    engine: str, path: str, lacking: list[str], runrootless: Runrootless
) -> None:
    # Of Debian's libc-bin, without which there is no Debian.
    command = ["--engine", engine, "emulate", "--", "ldconfig", "--version"]
    assert "ldconfig" in runrootless(*command, env={"PATH": path}).check().stdout
    command = ["--engine", engine, "emulate", "--", "/usr/bin/printenv", "PATH"]
    expected = ":".join([path, *lacking])
    assert runrootless(*command, env={"PATH": path}).check().stdout == f"{expected}\n"


@pytest.mark.skipif(not AS_ROOT, reason="only root becomes a user that /etc/passwd has not")
def test_a_user_without_any_home(runrootless: Runrootless, place: str, trees: Trees) -> None:
    uid = 54321
    with pytest.raises(KeyError):
        pwd.getpwuid(uid)
    os.chown(place, uid, uid)
    words = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    words += ["env", "-i", f"PATH={os.environ['PATH']}"]
    emulate = [COMMAND, "emulate", "--", "id", "-u"]
    done = subprocess.run([*words, *emulate], cwd=place, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n")
    assert len(done.stderr.splitlines()) == 1
    assert "HOME is not set" in done.stderr
    assert "XDG_DATA_HOME" in done.stderr
    assert os.listdir(place) == []
    for variable in ("HOME", "XDG_DATA_HOME"):
        named = [*words, f"{variable}={place}", *emulate]
        done = subprocess.run(named, cwd=place, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    # Where the command keeps its state without XDG_RUNTIME_DIR.
    shutil.rmtree(f"/tmp/runrootless-{uid}")


def test_a_command_that_cannot_be_executed(runrootless: Runrootless, place: str) -> None:
    Path(place, "text").write_text("echo $0 $1\n")
    done = runrootless("emulate", "--", f"{place}/text").check(126)
    assert done.stderr == f"runrootless: cannot execute {place}/text: Permission denied\n"
    # As execvp(3) does, the shell runs what does not say what runs it.
    Path(place, "text").chmod(0o755)
    done = runrootless("emulate", "--", f"{place}/text", "an argument").check()
    assert done.stdout == f"{place}/text an argument\n"


def test_bad_flags_and_engines(runrootless: Runrootless) -> None:
    for arguments in (["--no-such-flag", "true"], ["--engine", "steam", "true"]):
        done = runrootless("emulate", *arguments).check(125)
        assert len(done.stderr.splitlines()) == 1
    runrootless("emulate", "--engine", "auto", "true").check()
    runrootless("emulate", "--engine=notify", "--", "true").check()
    assert "runrootless emulate - " in runrootless("emulate", "--help").check().stdout


def test_without_a_command_it_is_the_shell(runrootless: Runrootless) -> None:
    done = runrootless("emulate", input="id -u\n", env={"SHELL": "/bin/sh"})
    assert done.check().stdout == "0\n"


def test_pipes(runrootless: Runrootless, place: str) -> None:
    script = f"echo text | {COMMAND} emulate cat | {COMMAND} emulate sh -c 'cat; id -u' | cat"
    done = runrootless.user.run(["sh", "-c", script], cwd=place)
    assert done.check().stdout == "text\n0\n"


def test_within_itself(emulate: Emulate) -> None:
    script = f"touch a; {COMMAND} emulate -- sh -c 'id -u; chown 3:4 a'; stat -c %u:%g a"
    assert emulate(script).check().stdout == "0\n3:4\n"


def test_without_runtime_directory_and_data_home(emulate: Emulate, place: str) -> None:
    env = {"XDG_RUNTIME_DIR": "", "XDG_DATA_HOME": "", "HOME": f"{place}/home"}
    script = "ln -s a link; chown -h 7:8 link; stat -c %u:%g link"
    assert emulate(script, env=env).check().stdout == "7:8\n"
    assert os.path.exists(f"{place}/home/.local/share/runrootless/ownership")


def test_attributes_of_symlinks_last(emulate: Emulate) -> None:
    names = 'os.listxattr("link", follow_symlinks=False)'
    make = 'os.symlink("a", "link"); os.setxattr("link", "trusted.a", b"1", follow_symlinks=False)'
    emulate(f"python3 -c 'import os; {make}'").check()
    assert emulate(f"python3 -c 'import os; print({names})'").check().stdout == "['trusted.a']\n"


def test_ctrl_c(runrootless: Runrootless) -> None:
    script = 'trap "echo caught; exit 5" INT; echo started; while :; do sleep 0.05; done'
    terminal = runrootless.user.terminal(runrootless.command("emulate", "sh", "-c", script))
    try:
        terminal.expect("started")
        terminal.send("\x03")
        terminal.expect("caught")
        assert terminal.wait() == 5
    finally:
        terminal.close()


def test_ctrl_c_without_a_trap(runrootless: Runrootless) -> None:
    args = runrootless.command("emulate", "sh", "-c", "echo started; exec sleep 60")
    terminal: Terminal = runrootless.user.terminal(args)
    try:
        terminal.expect("started")
        terminal.send("\x03")
        assert terminal.wait() == -signal.SIGINT
    finally:
        terminal.close()


def test_what_stays_behind_stays_emulated(emulate: Emulate, place: str) -> None:
    os.mkfifo(f"{place}/gate")
    os.chmod(f"{place}/gate", 0o666)
    emulate("(read line <gate; touch late; chown 3:4 late; id -u >done) >/dev/null 2>&1 &").check()
    with open(f"{place}/gate", "w") as gate:
        gate.write("go\n")
    eventually(lambda: os.path.exists(f"{place}/done"), "the end of the background process")
    eventually(lambda: Path(place, "done").read_text() == "0\n", "what it printed")
    assert emulate("stat -c %u:%g late").check().stdout == "3:4\n"


def test_without_the_agent_calls_fail_and_do_not_hang(runrootless: Runrootless) -> None:
    script = "echo up; read line; chown 1 . && echo chowned; read line; :"
    args = runrootless.command("emulate", "sh", "-c", script)
    process = runrootless.user.start(args, stdin=subprocess.PIPE)
    assert read_line(process) == "up\n"
    account = runrootless.user.account
    # The supervisor first, or it would start another worker.
    for pid in (the_supervisor(account), the_worker(account)):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not agents(account), "their end")
    output, _ = process.communicate("\n\n", timeout=60)
    assert output == ""
    # Nobody is left to remove it but the next call.
    runrootless("emulate", "true").check()


def test_proc(emulate: Emulate) -> None:
    script = """
    mkdir proc sys
    mount -t proc proc proc && test proc/1 -ef /proc/1 && umount proc && ls proc
    mount -t sysfs sysfs sys && test -d sys/kernel && umount sys && ls sys
    setpriv --reuid 33 --regid 33 --clear-groups sh -c '
        cd /proc; stat -c %u /proc/self/status $$/status /proc/$$/status /proc/1
        readlink /proc/self/exe >/dev/null && mount -t proc proc proc 2>/dev/null || echo refused'
    """
    assert emulate(script).check().stdout.split() == ["33", "33", "33", "0", "refused"]


def test_mounts_are_the_commands_own(emulate: Emulate, place: str) -> None:
    script = (
        "mkdir here; mount -t tmpfs none here; touch here/file; chown 5:6 here/file; ls -n here"
    )
    assert emulate(script).check().stdout.split()[4:6] == ["5", "6"]
    assert os.listdir(f"{place}/here") == []


def test_an_emulated_null_device_swallows_all(emulate: Emulate) -> None:
    script = "mknod null c 1 3; echo a >null; echo b >>null; cat null; stat -c %F null; rm null; ls"
    assert emulate(script).check().stdout == "character special file\n"


@needs_root
def test_attributes_by_the_newer_calls(emulate: Emulate, trees: Trees) -> None:
    oracle = trees.new_directory("oracle", for_user=False)
    script = f"python3 -I - <<'END'\n{XATTRS_AT.read_text()}END\n"
    expected = as_root(script, oracle)
    if "Function not implemented" in expected:
        pytest.skip("this kernel has not got them: they came with Linux 6.13")
    assert emulate(script).check().stdout == expected
    trees.discard(oracle)


def test_what_goes_by_the_filter_is_not_there(emulate: Emulate) -> None:
    setup = "import ctypes; c = ctypes.CDLL(None, use_errno=True); c.syscall(425, 1, bytes(120))"
    done = emulate(f"python3 -I -c '{setup}; print(ctypes.get_errno())'").check()
    assert done.stdout == f"{errno.ENOSYS}\n"


CASES = Path(__file__).with_name("cases")


@needs_root
def test_a_chroot_is_the_same_as_the_real_roots(
    real_root: RealRoot, runrootless: Runrootless, trees: Trees
) -> None:
    """The cases of the containers, in what ``emulate`` makes of the oracle's own chroot."""
    groups = {group: read_cases(str(CASES / f"{group}.cases")) for group in ("ownership", "roots")}
    together = {name: case for cases in groups.values() for name, case in cases.items()}
    directory = trees.new_directory("differential", for_user=True)
    root = trees.copy(trees.rootless(debian_archive("tools")), f"{directory}/rootfs")
    write_cases(together, root, trees.user)
    # The kernel knows no group 5 of the user's.
    variables = [f"{name}={value}" for name, value in {**ENVIRONMENT, "TTY_GID": ""}.items()]
    command = ["env", "-i", *variables, *chroot_command(root, ["/bin/sh", "/.cases/run"])]
    done = runrootless("emulate", "--", *command, timeout=900 + 10 * len(together))
    for group, cases in groups.items():
        expected = real_root.outputs(group, cases)
        for name, case in cases.items():
            found = Comparison(name, expected[name], case_output(root, name, done))
            assert case.limit or not found.diff(), f"{name}: {found.diff()}"
    trees.discard(directory)


DESCRIBE = """
cd rootfs
find . -printf '%P\\t%y\\t%U\\t%G\\t%m\\t%l\\n' | LC_ALL=C sort
find . \\( -type f -o -type c -o -type b \\) -exec stat -c '%n %F %t:%T' {} + |
    sed 's/regular empty/regular/' | LC_ALL=C sort
"""


@needs_root
def test_debootstrap(emulate: Emulate, place: str, trees: Trees) -> None:
    """Owner, group, mode, type and device of all files are the real root's."""
    oracle = trees.new_directory("oracle", for_user=False)
    # dpkg is not to wait for the disk, which takes most of the time.
    script = (
        "umask 022; DPKG_FORCE=unsafe-io"
        f" debootstrap --variant=minbase --unpack-tarball={debootstrap_archive()}"
        f" {SUITE} ./rootfs {mirror()}"
    )
    # Both at once: there are two processors.
    with ThreadPoolExecutor(1) as executor:
        made = executor.submit(as_root, script, oracle)
        emulate(script, timeout=900).check()
        made.result()
    expected = as_root(DESCRIBE, oracle).splitlines()
    found = emulate(DESCRIBE, timeout=900).check().stdout.splitlines()
    assert len(expected) > 5000
    assert sorted(set(expected) ^ set(found)) == []
    trees.discard(oracle)


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("notify", "0 0 1:2\n"),
        ("thorough", "0 0 1:2\n"),
        ("proot", "0 0 0:0\n"),
        ("zero", "0 0 0:0\n"),
        ("none", "0 1 0:0\n"),
    ],
)
def test_engines(runrootless: Runrootless, engine: str, expected: str) -> None:
    script = "touch x; chown 1:2 x 2>/dev/null; echo $(id -u) $? $(stat -c %u:%g x)"
    words = ["emulate", "--engine", engine, "--", "sh", "-c", script]
    assert runrootless(*words, cwd=runrootless.user.home).check().stdout == expected


def test_the_command_has_no_children_but_its_own(runrootless: Runrootless) -> None:
    for _ in range(5):
        done = runrootless("emulate", "--", "perl", "-e", 'print wait, "\\n"')
        assert done.check().stdout == "-1\n"


BUS = """\
<busconfig>
  <type>custom</type>
  <listen>unix:path={path}</listen>
  <policy context="default">
    <allow user="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""

ASK_THE_BUS = """\
dbus-daemon --config-file=bus.conf --nofork 2>/dev/null & daemon=$!
until [ -S bus ]; do kill -0 $daemon || exit; done
number=0
for user in 0 33 65534; do
    setpriv --reuid $user --regid $user --clear-groups gdbus call --address unix:path=$PWD/bus \
        --dest org.freedesktop.DBus --object-path / \
        --method org.freedesktop.DBus.GetConnectionUnixUser :1.$number
    number=$((number + 1))
done
kill $daemon
"""


def test_users_of_the_message_bus_by_glib(emulate: Emulate, place: str) -> None:
    """GLib sends its IDs as credentials, whatever the bus makes of them."""
    with open(f"{place}/bus.conf", "w") as file:
        file.write(BUS.format(path=f"{place}/bus"))
    os.chmod(file.name, 0o644)
    answers = emulate(ASK_THE_BUS).check().stdout.splitlines()
    assert answers == ["(uint32 0,)", "(uint32 33,)", "(uint32 65534,)"]


# More wait than the agent lets, and all that are gone count for nothing.
RECEIVERS = """\
import os, signal, socket
started, start = os.pipe()
def receive():
    end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0]
    end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    os.write(start, b"x")
    end.recvmsg(1, 100)
def child(function):
    pid = os.fork()
    if pid == 0:
        try: function()
        finally: os._exit(1)
    return pid
for _ in range(3):
    receivers = [child(receive) for _ in range(250)]
    for _ in receivers: os.read(started, 1)
    for pid in receivers: os.kill(pid, signal.SIGKILL)
    print({os.waitpid(pid, 0)[1] for pid in receivers})
"""


def test_receivers_that_are_killed(emulate: Emulate, place: str) -> None:
    with open(f"{place}/receivers.py", "w") as file:
        file.write(RECEIVERS)
    os.chmod(file.name, 0o644)
    done = emulate("python3 receivers.py", timeout=900).check()
    assert done.stdout == "{9}\n" * 3


# A signal handler runs every millisecond.
INTERRUPTED = """\
import os, signal, socket, struct
first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
second.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
if os.fork() == 0:
    os.setgid(6); os.setuid(5)
    for number in range(2000): first.send(b"%d" % number)
    os._exit(0)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
got = [second.recvmsg(100, 100) for _ in range(2000)]
signal.setitimer(signal.ITIMER_REAL, 0)
print([int(data) for data, _, _, _ in got] == list(range(2000)))
print({struct.unpack("3i", control[0][2])[1:] for _, control, _, _ in got})
"""


def test_a_receiver_that_is_interrupted(emulate: Emulate, place: str) -> None:
    """No message is lost, where the kernel lets the agent finish what it has begun."""
    with open(f"{place}/interrupted.py", "w") as file:
        file.write(INTERRUPTED)
    os.chmod(file.name, 0o644)
    assert emulate("python3 interrupted.py").check().stdout == "True\n{(5, 6)}\n"
