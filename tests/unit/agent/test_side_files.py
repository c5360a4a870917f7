import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runrootless.agent.side_files import SideFile, open_side_files
from runrootless.emulation.stores.attribute_store import AttributeStore
from runrootless.emulation.stores.owner_store import LINE_SIZE, OwnerStore
from runrootless.emulation.stores.record import Record
from runrootless.errors import Error

pytestmark = pytest.mark.usefixtures("as_an_agent")

DEVICE = os.makedev(8, 1)
OWNERSHIP = ".rootfs.ownership"
ATTRIBUTES = ".rootfs.attributes"


def files(path: Path) -> dict[str, SideFile]:
    return open_side_files([f"{path}/.rootfs."], str(path), print)


def leave(used: dict[str, SideFile]) -> None:
    for file in used.values():
        file.leave()
        os.close(file.fd)


def test_what_nothing_was_kept_in_is_gone_in_the_end(tmp_path: Path) -> None:
    first = files(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [ATTRIBUTES, OWNERSHIP]
    assert {os.fstat(file.fd).st_mode & 0o777 for file in first.values()} == {0o600}
    leave(first)
    assert os.listdir(tmp_path) == []


def test_what_somebody_uses_stays(tmp_path: Path) -> None:
    first, second = files(tmp_path), files(tmp_path)
    leave(first)
    store = OwnerStore()
    store.use(second["ownership"].fd)
    store.open(DEVICE)
    store.keep(DEVICE, 1, 1, Record(1, 1))
    leave(second)
    assert os.listdir(tmp_path) == [OWNERSHIP]
    again = OwnerStore()
    again.use(files(tmp_path)["ownership"].fd)
    again.open(DEVICE)
    assert again.find(DEVICE, 1) == (1, Record(1, 1))


def test_files_are_made_and_removed_by_many_at_once(tmp_path: Path) -> None:
    program = """
import os, sys
from runrootless.agent.side_files import open_side_files
for _ in range(300):
    used = open_side_files([sys.argv[1] + "/.rootfs."], "", print)
    for end, file in used.items():
        assert os.fstat(file.fd).st_ino == os.stat(sys.argv[1] + "/.rootfs." + end).st_ino
        file.leave()
        os.close(file.fd)
        os.close(file.directory) if end == "attributes" else None
"""
    users = [subprocess.Popen([sys.executable, "-c", program, tmp_path]) for _ in range(3)]
    assert [user.wait() for user in users] == [0, 0, 0]
    assert os.listdir(tmp_path) == []


def _directory(path: Path) -> None:
    path.mkdir()


def _symlink(path: Path) -> None:
    path.symlink_to("target")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    os.mknod(path, 0o140600)


def _device(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root makes devices")
    os.mknod(path, 0o20600, os.makedev(1, 5))


def _others(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    path.write_bytes(b"")
    os.chown(path, 1, 1)


def _text(path: Path) -> None:
    path.write_text("diary of 2018\n" * 1000)


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(100000))


def _huge(path: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, 1 << 30)


@pytest.mark.parametrize("name", [OWNERSHIP, ATTRIBUTES])
@pytest.mark.parametrize(
    ("make", "objection"),
    [
        (_directory, "is a directory"),
        (_symlink, "is a symlink"),
        (_fifo, "is a fifo"),
        (_socket, "is a socket"),
        (_device, "is a device"),
        (_others, "belongs to user 1"),
        (_text, "has something else in it"),
        (_zeros, "has something else in it"),
        (_huge, "has 1073741824 bytes"),
    ],
)
def test_what_is_no_side_store_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], None], objection: str
) -> None:
    make(tmp_path / name)
    before = os.listdir(tmp_path)
    with pytest.raises(Error) as refusal:
        files(tmp_path)
    message = str(refusal.value)
    assert message.startswith(f"{tmp_path}/{name} {objection}")
    assert message.endswith(": move it away")
    assert "\n" not in message
    assert os.listdir(tmp_path) == before


def test_a_damaged_side_store_is_used(tmp_path: Path) -> None:
    used = files(tmp_path)
    owners, attributes = OwnerStore(), AttributeStore()
    owners.use(used["ownership"].fd)
    attributes.use(used["attributes"].fd)
    for inode in range(1, 5):
        for store in (owners, attributes):
            store.open(DEVICE)
        owners.keep(DEVICE, inode, 1, Record(1, 1))
        attributes.keep(DEVICE, inode, 1, b"trusted.x", b"1")
    for name in (OWNERSHIP, ATTRIBUTES):
        with open(tmp_path / name, "r+b") as file:
            file.write(bytes(LINE_SIZE))
    again = files(tmp_path)
    for store in (owners, attributes):
        end = "ownership" if store is owners else "attributes"
        store.use(again[end].fd)
        store.open(DEVICE)
        assert store.find(DEVICE, 4) is not None


def _as_user(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run code as another user than root."""
    demote = "import os\nif not os.geteuid(): os.setgid(65534), os.setuid(65534)\n"
    command = [sys.executable, "-c", demote + code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


_OPEN = """
import sys
from runrootless.agent.side_files import open_side_files
from runrootless.errors import Error
try:
    found = open_side_files(sys.argv[2:], sys.argv[1], print)
    print({end: file.is_writable for end, file in found.items()})
except Error as error:
    print("Error:", error)
"""


def test_where_none_can_be_made_that_is_said_if_it_matters(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    rootfs = tmp_path / "rootfs"
    if os.geteuid():
        pytest.skip("what is the user's own it may change")
    rootfs.mkdir()
    rootfs.chmod(0o555)
    assert _as_user(_OPEN, rootfs, f"{tmp_path}/.rootfs.").stdout == "{}\n"
    rootfs.chmod(0o777)
    told = _as_user(_OPEN, rootfs, f"{tmp_path}/.rootfs.").stdout.splitlines()
    assert told[0].startswith(f"cannot make {tmp_path}/.rootfs.ownership: Permission denied: ")
    assert told[1:] == ["{}"]
    refused = _as_user(_OPEN, "", f"{tmp_path}/.rootfs.").stdout
    assert refused.startswith(f"Error: cannot make {tmp_path}/.rootfs.ownership: Permission")
    both = f"{tmp_path}/.rootfs.", f"{rootfs}/.rootfs."
    assert _as_user(_OPEN, rootfs, *both).stdout == "{'ownership': True, 'attributes': True}\n"
    assert sorted(os.listdir(rootfs)) == [ATTRIBUTES, OWNERSHIP]
