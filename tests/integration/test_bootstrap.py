"""Debian made from within a container, as image builders do."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import MakeBundle
from support.bundles import ADMINISTRATOR
from support.containers import Runrootless
from support.oracle import in_chroot
from support.snapshots import Excepted, compare, inspected
from support.trees import Tree, Trees
from support.users import AS_ROOT

COMMANDS = {
    # Without waiting for the disk after each file.
    "debootstrap": "mkdir -p /made/etc/dpkg/dpkg.cfg.d;"
    " echo force-unsafe-io >/made/etc/dpkg/dpkg.cfg.d/test;"
    " debootstrap --variant=minbase bookworm /made $mirror",
    "mmdebstrap": "mmdebstrap --mode=root --variant=essential --format=directory"
    " bookworm /made $mirror",
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


@pytest.mark.skipif(not AS_ROOT, reason="the oracle is a chroot of the real root")
@pytest.mark.parametrize("tool", COMMANDS)
def test_same_tree_as_the_real_root_makes(
    tool: str, tools_tree: Tree, trees: Trees, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    script = f"set -e; ({MIRROR}{COMMANDS[tool]}) >/log 2>&1 || {{ cat /log; exit 1; }}; true"
    script += INSPECT_MADE
    directory = trees.new_directory("oracle", for_user=False)
    root = trees.copy(tools_tree.oracle, f"{directory}/rootfs")
    ours = bundle(tools_tree, whole=True).add_capabilities(ADMINISTRATOR).script(script)
    with ThreadPoolExecutor() as pool:
        oracle = pool.submit(in_chroot, root, ["/bin/sh", "-c", script], timeout=900)
        found = runrootless.run(ours, timeout=900)
    expected = inspected(oracle.result().check().stdout, f"{root}/made")
    made = inspected(found.check().stdout, f"{ours.rootfs}/made")
    trees.discard(directory)
    differences = compare(expected, made, EXCEPTIONS)
    assert not differences, "\n".join([f"{len(differences)} differences:", *differences[:60]])
    assert expected["dev/null"].device == "1:3"
    assert len(expected) > 5000
