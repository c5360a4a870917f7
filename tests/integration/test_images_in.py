"""``runrootless bundle``: each file as umoci unpacks it as real root, seen from a container."""

from collections.abc import Callable

import pytest

from support.containers import Runrootless
from support.layers import (
    File,
    Layout,
    directory,
    hard_link,
    opaque,
    symlink,
    whiteout,
)
from support.trees import Tree, Trees
from support.unpacked import by_container, by_umoci, differences
from support.users import AS_ROOT

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="the oracle is umoci as real root")

# cap_net_raw=ep, as <linux/capability.h> has it: revision 2.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")[:20]
ACL = bytes.fromhex(
    "02000000"
    "01000600ffffffff"
    "02000400e8030000"
    "04000400ffffffff"
    "08000600d2040000"
    "10000600ffffffff"
    "20000400ffffffff"
)
ROOT = [directory("data"), directory("tools"), directory("etc")]
LONG = "long/" + "/".join("d" * 90 for _ in range(4)) + "/" + "f" * 200

BASE: list[File] = [
    *ROOT,
    File("data/plain", content=b"plain\n" * 1000, uid=1000, gid=100, mode=0o640),
    File("data/empty", mode=0),
    File("data/program", content=b"#!/bin/sh\n", mode=0o4755, uid=33, gid=33),
    File("data/groups", mode=0o2711, gid=4294967294, uid=4294967294),
    File("data/sticky", mode=0o1644),
    directory("data/closed", mode=0, uid=7, gid=8, mtime=1_500_000_000),
    File("data/closed/inside", content=b"x", uid=9, gid=9, mode=0),
    directory("data/closed/deeper", mode=0o111),
    File("data/closed/deeper/inside", content=b"y"),
    directory("data/tmp", mode=0o1777, mtime=1_400_000_000.5),
    directory("data/shared", mode=0o2775, uid=5, gid=50),
    directory("data/shared/below", mode=0o755, gid=51),
    symlink("data/link", "plain", uid=1000, gid=1000, mtime=1_300_000_000),
    symlink("data/roots", "/nowhere"),
    File("data/fifo", "fifo", mode=0o622, uid=3, gid=4),
    File("data/null", "character", mode=0o666, device=(1, 3)),
    File("data/disk", "block", mode=0o660, device=(8, 17), gid=6),
    File("data/large", "character", mode=0o600, device=(511, 1048575), uid=2),
    File("data/whiteout", "character", mode=0o600, device=(0, 0), uid=2),
    hard_link("data/second", "data/plain"),
    hard_link("data/second-link", "data/link"),
    hard_link("data/second-disk", "/data/disk"),
    File("data/ping", mode=0o755, xattrs={"security.capability": CAPABILITY}),
    File("data/user", xattrs={"user.one": b"1\0\xff", "user.empty": b""}, uid=4),
    File("data/trusted", xattrs={"trusted.some": b"y", "security.other": b"\x01\x02"}),
    File("data/null-label", "character", device=(1, 3), xattrs={"trusted.x": b"on a device"}),
    symlink("data/link-label", "plain", xattrs={"trusted.x": b"on a symlink"}),
    File("data/acl", mode=0o664, xattrs={"system.posix_acl_access": ACL}),
    directory(
        "data/acls",
        mode=0o775,
        xattrs={"system.posix_acl_access": ACL, "system.posix_acl_default": ACL},
    ),
    File("data/acls/file", mode=0o640),
    directory("data/acls/directory", mode=0o755),
    *(directory("data/" + "/".join(LONG.split("/")[:depth])) for depth in range(1, 6)),
    File("data/" + LONG, content=b"long"),
    File("data/overlay", xattrs={"trusted.overlay.opaque": b"y", "security.selinux": b"a:b:c"}),
    directory("data/kept"),
    File("data/kept/old"),
    symlink("data/long/link", "x" * 300),
    File("data/\udcff\udcfe name\n with 'bytes'"),
    File("data/times", mtime=1_234_567_890.123456789),
    File("data/before", mtime=-86400),
    File("./data/./dots/../dotted", content=b"dots"),
    File("../../data/above", content=b"above"),
    File("/data/absolute", content=b"absolute"),
    directory("data/real"),
    symlink("data/by-link", "/data/real"),
    symlink("data/out", "../../../../data/real"),
    File("data/by-link/file", content=b"through a link"),
    File("data/out/other", content=b"through another"),
]
CHANGES: list[File] = [
    File("data/plain", content=b"changed", uid=1, mode=0o600),
    directory("data/empty", uid=6),
    File("data/empty/now", content=b"a directory in the place of a file"),
    whiteout("data/sticky"),
    whiteout("data/closed/deeper"),
    whiteout("data/not there"),
    whiteout("data/nothing/not there"),
    directory("data/closed", mode=0o700, uid=70, mtime=1_500_000_001),
    File("data/tmp", content=b"a file in the place of a directory"),
    File("data/shared/new", uid=5),
    opaque("data/acls"),
    File("data/acls/second", uid=1),
    hard_link("data/third", "data/second"),
    directory("data/by-link", uid=12),
    File("data/user", xattrs={"user.two": b"2"}),
    File("data/null", content=b"a file in the place of a device"),
    File("data/fifo", "block", device=(7, 0)),
    symlink("data/disk", "null"),
]
MORE: list[File] = [
    File("data/kept/new", content=b"before the whiteout"),
    directory("data/kept", mode=0o711),
    opaque("data/kept"),
    File("data/kept/newer", content=b"after it"),
    whiteout("data/real"),
    directory("data/real", mode=0o700),
    whiteout("data/long"),
    File("data/last", content=b"last"),
]

MakeImage = Callable[..., Layout]


@pytest.fixture
def layout(trees: Trees) -> Layout:
    return Layout(trees.new_directory("layout", for_user=False))


@pytest.fixture
def place(trees: Trees) -> str:
    """A directory of the user's."""
    return trees.new_directory("place", for_user=True)


@pytest.mark.parametrize("how", ["gzip", "none", "zstd"])
def test_each_file_is_as_umoci_unpacks_it(
    how: str, layout: Layout, place: str, runrootless: Runrootless, trees: Trees, tools_tree: Tree
) -> None:
    layout.add("image", [BASE, CHANGES, MORE], how=how)
    if how == "zstd":
        # Debian's umoci knows no zstd.
        layout.add("oracle", [BASE, CHANGES, MORE])
    runrootless("bundle", f"oci:{layout.path}:image", f"{place}/bundle").check()
    expected = by_umoci(layout, "oracle" if how == "zstd" else "image", trees)
    found = by_container(runrootless, f"{place}/bundle", tools_tree)
    assert len(expected) > 40
    assert differences(expected, found) == []
