"""Looking into a root file system: symlinks mean what they mean after chroot(2)."""

import os
import stat
from pathlib import Path

import pytest

from runrootless.bundle import accounts, rootfs
from runrootless.bundle.identity import Identity
from runrootless.errors import Error

SECRET = "not in the container\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system beside a secret that is not in it."""
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(SECRET)
    root = tmp_path / "root"
    for name in ("etc", "usr/lib", "home/user"):
        (root / name).mkdir(parents=True)
    (root / "usr/lib/file").write_text("inside\n")
    return root


@pytest.mark.parametrize(
    "target",
    [
        "/usr/lib/file",
        "../usr/lib/file",
        "../../../../usr/lib/file",
        "/../usr/./lib//file",
        "link2",
        "/abs/file",
    ],
)
def test_links_stay_inside(root: Path, target: str) -> None:
    (root / "etc/link").symlink_to(target)
    (root / "etc/link2").symlink_to("/etc/link3")
    (root / "etc/link3").symlink_to("../usr/lib/../lib/file")
    (root / "abs").symlink_to("/usr/lib")
    assert rootfs.read_text(str(root), "/etc/link") == "inside\n"


@pytest.mark.parametrize("target", ["../../secret", "/secret", "../../../secret", "/../secret"])
def test_nothing_outside_is_reached(root: Path, target: str) -> None:
    (root / "etc/link").symlink_to(target)
    with pytest.raises(FileNotFoundError):
        rootfs.read_text(str(root), "/etc/link")


def test_a_directory_that_leads_outside(root: Path) -> None:
    (root / "etc").rmdir()
    (root / "etc").symlink_to("../etc")
    with pytest.raises(OSError, match="symbolic links"):
        rootfs.read_text(str(root), "/etc/passwd")


def test_a_loop(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        rootfs.find(str(root), "/a")


@pytest.mark.parametrize("path", ["/etc", "/", "/usr/lib", "/none", "/home/user/.."])
def test_only_regular_files_are_read(root: Path, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        rootfs.read_text(str(root), path)


def test_a_fifo_does_not_block(root: Path) -> None:
    os.mkfifo(root / "etc/passwd")
    with pytest.raises(FileNotFoundError):
        rootfs.read_text(str(root), "/etc/passwd")


def test_a_file_is_no_directory(root: Path) -> None:
    with pytest.raises(NotADirectoryError):
        rootfs.find(str(root), "/usr/lib/file/x")


@pytest.mark.parametrize(
    ("path", "directory", "name", "missing"),
    [
        ("/etc/none", "etc", "none", []),
        ("/run/systemd/resolve/stub", ".", "stub", ["run", "systemd", "resolve"]),
        ("/etc/dangling", ".", "conf", ["run"]),
        ("/run/../x", ".", "x", []),
    ],
)
def test_where_a_missing_file_would_be(
    root: Path, path: str, directory: str, name: str, missing: list[str]
) -> None:
    (root / "etc/dangling").symlink_to("../run/conf")
    place = rootfs.find(str(root), path)
    try:
        assert (place.name, place.missing, place.mode) == (name, missing, None)
        assert os.path.samestat(os.fstat(place.directory), os.stat(root / directory))
    finally:
        place.close()


def test_what_is_there(root: Path) -> None:
    place = rootfs.find(str(root), "/home/user/../../usr/lib/file")
    try:
        assert place.mode is not None
        assert stat.S_ISREG(place.mode)
        assert os.path.samestat(
            os.stat(place.name, dir_fd=place.directory), os.stat(root / "usr/lib/file")
        )
    finally:
        place.close()


def test_descriptors_are_closed(root: Path) -> None:
    before = os.listdir("/proc/self/fd")
    (root / "a").symlink_to("a")
    for path in ("/usr/lib/file", "/none/x", "/a", "/usr/lib/file/x", "/home/../usr"):
        try:
            rootfs.find(str(root), path).close()
        except OSError:
            pass
    assert os.listdir("/proc/self/fd") == before


PASSWD = """\
root:x:0:0:root:/root:/bin/sh
bad line
guest:x:405:100:guest:/home/guest:/bin/sh
homeless:x:7:7:::
worse:x:x:y::/:/bin/sh
guest:x:1:1:another:/:/bin/sh
"""
GROUP = """\
root:x:0:root
users:x:100:
games:x:35:users,guest
wheel:x:10:guestly
tape:x:26:guest
short
"""


@pytest.fixture
def accounts_root(root: Path) -> str:
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    return str(root)


@pytest.mark.parametrize(
    ("uid", "home"), [(0, "/root"), (405, "/home/guest"), (7, "/"), (1000, "/")]
)
def test_home(accounts_root: str, uid: int, home: str) -> None:
    assert accounts.home(accounts_root, uid) == home


def test_home_without_passwd(root: Path) -> None:
    assert accounts.home(str(root), 0) == "/"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        # Numbers as runc takes them: what is not said stays.
        ("1000", Identity(1000, 3, (4, 5))),
        ("1000:7", Identity(1000, 7, (4, 5))),
        ("405", Identity(405, 3, (4, 5))),
        ("1000:games", Identity(1000, 35, (4, 5))),
        # Names as Docker takes them.
        ("guest", Identity(405, 100, (35, 26))),
        ("root", Identity(0, 0, (0,))),
        ("guest:wheel", Identity(405, 10)),
        ("guest:8", Identity(405, 8)),
        ("homeless", Identity(7, 7)),
    ],
)
def test_users(accounts_root: str, wanted: str, expected: Identity) -> None:
    assert accounts.resolve(accounts_root, wanted, Identity(2, 3, (4, 5))) == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("nobody2", "no user 'nobody2'"),
        ("worse", "no user 'worse'"),
        ("guest:none", "no group 'none'"),
        ("-1", "no user '-1'"),
        ("4294967295", "not below 4294967295"),
        ("0:4294967296", "not below 4294967295"),
        (":5", "no user ''"),
        ("٣", "no user"),
    ],
)
def test_no_such_users(accounts_root: str, wanted: str, message: str) -> None:
    with pytest.raises(Error, match=message):
        accounts.resolve(accounts_root, wanted, Identity(0, 0))
