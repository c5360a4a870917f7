"""Programs for other ABIs than the kernel's first: their own numbers and structures."""

import os
import subprocess
from pathlib import Path

import pytest

from conftest import MakeBundle
from support.containers import Runrootless
from support.oracle import in_chroot
from support.programs import compiler
from support.trees import Tree, Trees
from support.users import AS_ROOT

PROBES = Path(__file__).with_name("probes")

SCRIPT = "umask 0; mkdir -m 777 /srv/probe; cd /srv/probe; /probe"


@pytest.mark.skipif(not AS_ROOT, reason="the oracle is a chroot of the real root")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86_64 runs i386's programs")
@pytest.mark.parametrize("flag", ["-m64", "-m32"])
@pytest.mark.parametrize(
    ("source", "shown", "engine"),
    [
        ("ownership.c", "70000:80000", "notify"),
        ("messages.c", "ids 1 33:34", "notify"),
        ("permissions.c", 'access("f", R_OK): 13', "thorough"),
    ],
)
def test_same_as_the_real_root(
    flag: str,
    source: str,
    shown: str,
    engine: str,
    tmp_path: Path,
    debian_tree: Tree,
    trees: Trees,
    bundle: MakeBundle,
    runrootless: Runrootless,
) -> None:
    probe = tmp_path / "probe"
    options = ["-static", "-O2", "-w"]
    subprocess.run([*compiler(flag), *options, "-o", probe, PROBES / source], check=True)
    directory = trees.new_directory("oracle", for_user=False)
    root = trees.copy_all_but_usr(debian_tree.oracle, f"{directory}/rootfs")
    ours = bundle(copy=True)
    for rootfs in (root, ours.rootfs):
        path = Path(rootfs) / "probe"
        path.write_bytes(probe.read_bytes())
        path.chmod(0o755)
        if rootfs == ours.rootfs:
            runrootless.user.give(str(path))
    expected = in_chroot(root, ["/bin/sh", "-c", SCRIPT]).check()
    with_engine = Runrootless(runrootless.user, ["--engine", engine])
    found = with_engine.run(ours.script(SCRIPT)).check()
    trees.discard(directory)
    assert shown in expected.stdout
    assert found.stdout == expected.stdout
