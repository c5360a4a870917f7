"""Debian made from within a container, as image builders do."""

import os

import pytest

from conftest import MakeBundle
from support.bundles import Config
from support.containers import Runrootless
from support.oracle import in_chroot
from support.trees import Excepted, Tree, Trees, compare, inspected
from support.users import AS_ROOT

# What a runtime must leave its root for that: it is Docker's --cap-add SYS_ADMIN.
ADMINISTRATOR = ("CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_CHOWN", "CAP_DAC_OVERRIDE")
ADMINISTRATOR += ("CAP_FOWNER", "CAP_FSETID", "CAP_SETUID", "CAP_SETGID", "CAP_SETFCAP", "CAP_KILL")

COMMANDS = {
    "debootstrap": "debootstrap --variant=minbase bookworm /made $mirror",
    "mmdebstrap": "mmdebstrap --mode=root --variant=apt --format=directory bookworm /made $mirror",
}
MIRROR = "mirror=$(grep -ho 'http[^ ]*' -r /etc/apt/sources.list* | head -1); "

# Everything in the new root, /dev with it, seen by a program in the old one.
INSPECT_MADE = (
    " && cd /made && find . -printf '%P\\t%y\\t%U\\t%G\\t%m\\n'"
    " && echo DEVICES && find . \\( -type b -o -type c \\) -exec stat -c '%n\t%Hr:%Lr' {} +"
)

EXCEPTIONS = [
    Excepted("etc/machine-id", "random", "content"),
    Excepted("var/cache/apt/*pkgcache.bin", "dates", "content"),
    Excepted("var/cache/ldconfig/aux-cache", "inode numbers", "content"),
    Excepted("var/log/*", "dates", "content"),
]


def _as_administrator(config: Config) -> None:
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind] = list(ADMINISTRATOR)


@pytest.mark.skipif(not AS_ROOT, reason="the oracle is a chroot of the real root")
@pytest.mark.parametrize("tool", COMMANDS)
def test_same_tree_as_the_real_root_makes(
    tool: str, tools_tree: Tree, trees: Trees, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    script = f"set -e; ({MIRROR}{COMMANDS[tool]}) >/log 2>&1 || {{ cat /log; exit 1; }}; true"
    script += INSPECT_MADE
    directory = trees.new_directory("oracle", for_user=False)
    root = trees.copy(tools_tree.oracle, f"{directory}/rootfs")
    expected = in_chroot(root, ["/bin/sh", "-c", script], timeout=300).check()
    ours = bundle(tools_tree, copy=True).change(_as_administrator).script(script)
    found = runrootless.run(ours, timeout=300).check()
    oracle = inspected(expected.stdout, f"{root}/made")
    made = inspected(found.stdout, f"{ours.rootfs}/made")
    differences = compare(oracle, made, EXCEPTIONS)
    assert not differences, "\n".join([f"{len(differences)} differences:", *differences[:60]])
    assert oracle["dev/null"].device == "1:3"
    assert len(oracle) > 5000
    assert os.path.exists(f"{ours.rootfs}/made/usr/bin/dpkg")
    trees.discard(directory)
