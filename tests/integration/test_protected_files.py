"""The sysctls fs.protected_symlinks, _regular, _fifos and _hardlinks: proc(5).

With the engine that checks permissions. The kernel of these tests has what it is given
here for as long as a test runs.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.oracle import PRELUDE, Case, Differential
from support.users import AS_ROOT

SYSCTLS = Path("/proc/sys/fs")
NAMES = ("symlinks", "regular", "fifos", "hardlinks")

SCRIPT = """
os.umask(0)
def attempt(what, function, *args, **more):
    try: found = function(*args, **more)
    except OSError as e: found = errno.errorcode[e.errno]
    else:
        if function is os.open: os.close(found); found = "opened"
        elif function is os.stat: found = "found"
    print(what, found)
for mode in (0o1777, 0o1770, 0o1775, 0o777):
    for owner in (0, 5):
        d = f"d{mode:o}-{owner}"; os.mkdir(d); os.chown(d, owner, 6); os.chmod(d, mode)
        for uid in (0, 5, 7):
            for name, make in (("f", touch), ("p", os.mkfifo)):
                path = f"{d}/{name}{uid}"; make(path); os.chmod(path, 0o666); os.chown(path, uid, 6)
            links = (("l", "f0"), ("up", ".."), ("twice", f"l{uid}"), ("absent", "x"))
            for name, target in links:
                path = f"{d}/{name}{uid}"; os.symlink(target, path); os.lchown(path, uid, 6)
touch("plain", 0o666); os.symlink("d1777-0/l7", "outside")
def tell():
    for d in sorted(e for e in os.listdir(".") if e.startswith("d")):
        for uid in (0, 5, 7):
            for flags in (os.O_CREAT, os.O_RDWR | os.O_CREAT, os.O_RDWR):
                for path in (f"{d}/f{uid}", f"{d}/p{uid}"):
                    attempt((path, flags), os.open, path, flags | os.O_NONBLOCK)
            for link in ("l", "up", "twice", "absent"):
                path = f"{d}/{link}{uid}"; attempt(path, os.stat, path)
                attempt(path, os.open, path, os.O_RDONLY); attempt(path, os.readlink, path)
                attempt(path, os.access, path, os.F_OK)
            for path in (f"{d}/up{uid}/", f"{d}/up{uid}/plain"): attempt(path, os.stat, path)
            path = f"{d}/new"; attempt(path, os.link, f"{d}/f{uid}", path)
            attempt(path, os.unlink, path)
    attempt("outside", os.stat, "outside")
USERS
"""
USERS = "".join(
    f"def f(): os.setgroups([]); os.setgid({gid}); os.setuid({uid}); tell()\nchild(f)\n"
    for uid, gid in ((5, 5), (7, 6), (7, 8), (8, 8))
)


@pytest.fixture(params=[(0, 0, 0, 0), (1, 1, 1, 1), (1, 2, 2, 0)], ids=str)
def levels(request: pytest.FixtureRequest) -> Iterator[tuple[int, ...]]:
    paths = [SYSCTLS / f"protected_{name}" for name in NAMES]
    before = [path.read_text() for path in paths]
    levels: tuple[int, ...] = request.param
    for path, level in zip(paths, levels, strict=True):
        path.write_text(f"{level}\n")
    yield levels
    for path, text in zip(paths, before, strict=True):
        path.write_text(text)


@pytest.mark.alone
@pytest.mark.skipif(not AS_ROOT, reason="the oracle is a chroot of the real root")
def test_as_the_host_has_them(
    levels: tuple[int, ...], differential_of_thorough: Differential
) -> None:
    name = "protected_" + "".join(map(str, levels))
    case = Case(name, "python3", PRELUDE + SCRIPT.replace("USERS", USERS), "", False)
    differential_of_thorough.assert_same(name, {name: case}, name)
    printed = differential_of_thorough.compare(name, {name: case}, name).oracle
    assert ("d1777-0/l5 EACCES" in printed) == bool(levels[0])
