"""The files beside a rootfs in which owners are kept, of containers that use them."""

import os
import stat
from collections.abc import Callable

import pytest

from conftest import MakeBundle
from support.bundles import Bundle
from support.containers import Runrootless
from support.processes import eventually
from support.trees import Tree

OWNERSHIP = ".rootfs.ownership"


def path(bundle: Bundle, name: str = OWNERSHIP) -> str:
    return os.path.join(bundle.path, name)


def test_nothing_kept_nothing_left(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle(copy=True)
    before = sorted(os.listdir(ours.path))
    runrootless.run(ours.script("ls -l /dev; ln -s x /srv/l; touch f; chown 1 f")).check()
    eventually(lambda: sorted(os.listdir(ours.path)) == before, f"{before} alone")


ON_TMPFS = """
cd /dev/shm
ours=security.rootlesscontainers
ln -s nowhere l; mkfifo f; mknod c c 1 9; mknod b b 7 1; touch r; mkdir d
chown -h 33:34 l f c b r d
stat -c '%n %F %u:%g %t,%T' l f c b r d
getfattr -hd -m - l f c b
for n in l f c b; do
    setfattr -hn $ours -v 0x0801 $n && getfattr -h -n $ours --only-values $n | od -An -tx1
    setfattr -hx $ours $n
done
chown -h 0:0 l; stat -c '%n %u:%g' l f
tar --xattrs --xattrs-include='*' -cf /tmp/t.tar l f; grep -c rootlesscontainers /tmp/t.tar
"""


def test_files_on_a_file_system_of_the_container_carry_their_owners(
    bundle: MakeBundle, tools_tree: Tree, runrootless: Runrootless
) -> None:
    ours = bundle(tools_tree, copy=True)
    done = runrootless.run(ours.script(ON_TMPFS))
    assert done.stdout.splitlines() == [
        "l symbolic link 33:34 0,0",
        "f fifo 33:34 0,0",
        "c character special file 33:34 1,9",
        "b block special file 33:34 7,1",
        "r regular empty file 33:34 0,0",
        "d directory 33:34 0,0",
        *[" 08 01"] * 4,
        "l 0:0",
        "f 33:34",
        "0",
    ], str(done)
    # The agent outlives the container for a moment.
    eventually(lambda: not os.path.exists(path(ours)), "the side store is removed")


def many(name: str, count: int) -> str:
    """Return a script that changes an owner very often, without a process for each time."""
    return (
        "python3 -c 'import os\n"
        f'os.path.lexists("/srv/{name}") or os.symlink("x", "/srv/{name}")\n'
        f"for n in range(1, {count + 1}):\n"
        f'    os.lchown("/srv/{name}", n % 60000, 7)\n'
        f's = os.lstat("/srv/{name}")\n'
        "print(s.st_uid, s.st_gid)'"
    )


def test_a_file_is_compacted_while_containers_use_it(
    bundle: MakeBundle, tools_tree: Tree, runrootless: Runrootless
) -> None:
    ours = bundle(tools_tree, copy=True)
    scripts = [f"{many('one', 30000)} & {many('two', 30000)}; wait", many("three", 30000)]
    processes = []
    for script in scripts:
        ours.script(script)
        command = runrootless.command("run", "--bundle", ours.path, runrootless.new_id())
        processes.append(runrootless.user.start(command))
        # Each has read its own configuration once it has an agent.
        out = processes[-1].stdout
        assert out is not None
        if len(processes) < len(scripts):
            eventually(lambda: os.path.exists(path(ours)), "the side store of the first one")
            eventually(lambda: os.path.getsize(path(ours)) > 0, "something in the side store")
    lines = sorted(
        "".join(process.communicate(timeout=900)[0] for process in processes).split("\n")
    )
    assert lines == ["", "30000 7", "30000 7", "30000 7"]
    # 90,000 lines of 48 bytes.
    assert os.path.getsize(path(ours)) <= (1 << 20) + 48
    shown = runrootless.run(ours.script("stat -c '%u:%g' /srv/one /srv/two /srv/three"))
    assert shown.stdout == "30000:7\n" * 3


def _fifo(place: str) -> None:
    os.mkfifo(place)


def _directory(place: str) -> None:
    os.mkdir(place)


def _symlink(place: str) -> None:
    os.symlink("/etc/passwd", place)


def _garbage(place: str) -> None:
    with open(place, "wb") as file:
        file.write(os.urandom(1 << 20) * 10)


def _a_gibibyte(place: str) -> None:
    with open(place, "wb") as file:
        os.truncate(file.fileno(), 1 << 30)


@pytest.mark.parametrize("make", [_fifo, _directory, _symlink, _garbage, _a_gibibyte])
@pytest.mark.parametrize("name", [OWNERSHIP, ".rootfs.attributes"])
def test_something_else_in_its_place(
    name: str, make: Callable[[str], None], bundle: MakeBundle, runrootless: Runrootless
) -> None:
    ours = bundle(copy=True).script("echo started")
    make(path(ours, name))
    if not os.path.islink(path(ours, name)):
        runrootless.user.give(path(ours, name))
    before = sorted(os.listdir(ours.path))
    args = runrootless.command("run", "--bundle", ours.path, runrootless.new_id())
    # Seconds of a processor are enough to refuse it, and not to read it.
    done = runrootless.user.run(["sh", "-c", 'ulimit -t 5; exec "$@"', "sh", *args])
    assert done.returncode == 1, str(done)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert path(ours, name) in line
    assert "move it away" in line
    eventually(lambda: sorted(os.listdir(ours.path)) == before, f"{before} alone")
    assert stat.S_IFMT(os.lstat(path(ours, name)).st_mode)
