"""Whether a program is there, against what a process sees that has the mounts and the root."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runrootless.bundle.program import is_missed, is_missed_in

NAMES = ["a", "b", "c"]
names = st.sampled_from(NAMES)
relative = st.lists(st.sampled_from([*NAMES, "..", "."]), min_size=1, max_size=4).map("/".join)
paths = relative.map("/".__add__)
# A directory, a file of a mode, or a link to somewhere.
entries = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map("/".join),
    st.one_of(st.none(), st.sampled_from([0o755, 0o644, 0o111, 0o4700]), paths, relative),
    max_size=8,
)
mounts = st.lists(st.tuples(paths, st.sampled_from(["source", "other", None])), max_size=2)

# Mounts as a runtime does it, and says of each path whether it could be executed.
ORACLE = """
import ctypes, json, os, sys
root, mounts, paths = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0
def mount(source, target, kind, flags):
    return libc.mount(source.encode(), target.encode(), kind, flags, None)
assert mount("none", "/", None, 0x44000) == 0
for number, (target, source) in enumerate(mounts):
    inside = os.open(root, os.O_RDONLY)
    outside = os.open("/", os.O_RDONLY)
    held = None if source is None else os.open(source, os.O_PATH)
    os.chroot(root)
    left = target.rpartition("/..")[0]
    try:
        if left and not os.path.exists(left):
            # Some runtimes make it.
            raise FileNotFoundError
        os.makedirs(target, exist_ok=True)
        place = os.open(target, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        print("unsure")
        sys.exit()
    os.fchdir(outside)
    os.chroot(".")
    target = f"/proc/self/fd/{place}"
    if source is None:
        assert mount("none", target, b"tmpfs", 0) == 0
    else:
        assert mount(f"/proc/self/fd/{held}", target, None, 0x1000) == 0
os.chroot(root)
for path in paths:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        print(False)
    else:
        print(mode & 0o170000 != 0o040000 and mode & 0o111 != 0)
"""


def fill(directory: Path, tree: dict[str, Any]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, what in sorted(tree.items()):
        path = directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if what is None:
                path.mkdir()
            elif isinstance(what, int):
                path.touch(what)
                path.chmod(what)
            else:
                path.symlink_to(what)
        except OSError:
            # There is something else by now; all of it is below a new directory.
            continue


def is_below(path: Path, directory: Path) -> bool:
    return os.path.realpath(path).startswith(f"{os.path.realpath(directory)}/")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts, and changes its root")
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    root=entries, source=entries, other=entries, mounts=mounts, asked=st.lists(paths, max_size=6)
)
def test_as_the_kernel(
    tmp_path_factory: pytest.TempPathFactory,
    root: dict[str, Any],
    source: dict[str, Any],
    other: dict[str, Any],
    mounts: list[tuple[str, str | None]],
    asked: list[str],
) -> None:
    base = tmp_path_factory.mktemp("tree")
    # No link is to lead out of the directories while they are made.
    for name, tree in (("root", root), ("source", source), ("other", other)):
        fill(base / name, {path: what for path, what in tree.items() if not isinstance(what, str)})
    for name, tree in (("root", root), ("source", source), ("other", other)):
        for path, what in tree.items():
            link = base / name / path
            if (
                isinstance(what, str)
                and link.parent.is_dir()
                and not os.path.lexists(link)
                and is_below(link, base / name)
            ):
                link.symlink_to(what)
    found = [(target, source and str(base / source)) for target, source in mounts]
    spec_mounts = [
        {"destination": target, "type": "bind", "source": source, "options": ["rbind"]}
        if source
        else {"destination": target, "type": "tmpfs", "source": "none"}
        for target, source in found
    ]
    spec = {"root": {"path": str(base / "root")}, "mounts": spec_mounts}
    # Before there are the directories that something is mounted on.
    missed = [
        is_missed({**spec, "process": {"args": [path], "cwd": "/", "env": []}}) for path in asked
    ]
    done = subprocess.run(
        [sys.executable, "-IS", "-c", ORACLE, json.dumps([str(base / "root"), found, asked])],
        capture_output=True,
        text=True,
        check=True,
    )
    answers = done.stdout.split()
    if answers == ["unsure"]:
        return
    for path, answer, is_sure in zip(asked, answers, missed, strict=True):
        # Where it is missed it is not there; where it is there it is not missed.
        if answer == "True":
            assert not is_sure, (path, found)
        elif all(source for _, source in mounts):
            assert is_sure, (path, found)


@pytest.mark.parametrize(
    ("destination", "program"), [("/a/..", "/a"), ("/a/.", "/a/a"), ("/a/./b/.", "/a/b/a")]
)
def test_a_mount_on_what_is_not_there(tmp_path: Path, destination: str, program: str) -> None:
    fill(tmp_path, {"root": None, "source/a": 0o755})
    mount = {"destination": destination, "type": "bind", "source": str(tmp_path / "source")}
    process = {"args": [program], "cwd": "/", "env": []}
    spec = {"root": {"path": str(tmp_path / "root")}, "mounts": [mount], "process": process}
    assert not is_missed(spec)


def test_a_program_in_a_directory_that_the_runtime_makes(tmp_path: Path) -> None:
    fill(tmp_path / "root", {"tmp": None})
    fill(tmp_path, {"program": 0o755})
    mount = {
        "destination": "/tmp/new/dir/startup",
        "source": str(tmp_path / "program"),
        "options": ["bind"],
    }
    for name, expected in (("/tmp/new/dir/startup", False), ("/tmp/new/dir", True)):
        process = {"args": [name], "cwd": "/", "env": []}
        spec = {"root": {"path": str(tmp_path / "root")}, "process": process, "mounts": [mount]}
        assert is_missed(spec) is expected


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path / "root", {"bin/sh": 0o755, "etc/passwd": 0o644, "sbin": "/bin", "a": "b/../bin"})
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("name", "path", "is_there"),
    [
        ("sh", "/none:/sbin", True),
        ("sh", "/a", False),
        ("sh", "", False),
        ("sh", "/none:bin", True),
        ("passwd", "/etc:/bin", False),
        ("../bin/sh", "", True),
        ("sh/", "/bin", False),
        ("", "/bin", False),
        ("a\0b", "/bin", False),
        ("/bin/sh/x", "", False),
        ("/etc", "", False),
        ("/bin/" + "x" * 300, "", False),
    ],
)
def test_names(root: Path, name: str, path: str, is_there: bool) -> None:
    process = {"args": [name], "cwd": "/etc", "env": ["PATH=/x", f"PATH={path}"]}
    spec = {"root": {"path": str(root)}, "process": process, "mounts": []}
    assert is_missed(spec) is not is_there
    assert is_missed_in(str(root), process) is not is_there


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_hooks_may_bring_it(root: Path, kind: str) -> None:
    process = {"args": ["/none"], "cwd": "/", "env": []}
    spec = {"root": {"path": str(root)}, "process": process, "mounts": []}
    assert is_missed(spec)
    assert not is_missed({**spec, "hooks": {kind: [{"path": "/bin/true"}]}})


def test_where_nothing_runs(tmp_path: Path) -> None:
    assert not is_missed_in(str(tmp_path / "none"), {"args": ["/none"], "cwd": "/"})
