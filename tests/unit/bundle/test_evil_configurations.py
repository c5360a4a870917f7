"""Whatever is in a config.json: a bundle is derived, or one line says why not."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runrootless.bundle.json_file import parse
from runrootless.containers import state
from runrootless.derived_bundle import derive
from runrootless.errors import Error, one_line
from support.commands import Command
from support.processes import eventually
from support.users import Unprivileged

SPEC: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "user": {"uid": 1, "gid": 2, "additionalGids": [3], "umask": 18},
        "args": ["sh"],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "terminal": False,
        "capabilities": {"bounding": ["CAP_KILL"], "effective": [], "ambient": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
        "noNewPrivileges": True,
        "oomScoreAdj": 100,
    },
    "root": {"path": "rootfs", "readonly": False},
    "hostname": "host",
    "annotations": {"org.runrootless.engine": "notify", "a": "b"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["gid=5"]},
        {"destination": "/srv", "type": "bind", "source": "srv", "options": ["rbind", "ro"]},
    ],
    "hooks": {"poststop": [{"path": "/bin/true", "args": ["true"], "timeout": 1}]},
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/self/ns/net"}],
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}],
        "sysctl": {"net.a": "1"},
        "resources": {"memory": {"limit": 1 << 30}, "devices": [{"allow": False}]},
        "cgroupsPath": "/a",
        "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
        "maskedPaths": ["/proc/kcore"],
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {
                    "names": ["chown", "read"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
    },
}


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for name in value:
            found += _places(value[name], (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _places(item, (*path, index))
    return found


PLACES = _places(SPEC)

# As they are in the text of the file.
EVIL = [
    '"\\u0000"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"\\udc80/\\udcff"',
    '{"\\udfff": 1}',
    '{"\\u0000": "\\u0000"}',
    "1e999",
    "-1e999",
    "1e-999",
    "0.5",
    "NaN",
    "Infinity",
    "-0",
    "-1",
    "4294967295",
    "18446744073709551616",
    "9" * 400,
    "9" * 5000,
    "null",
    "true",
    '""',
    "[]",
    "{}",
    "[null]",
    "[[]]",
    "[{}]",
    '[""]',
    "[1]",
    "[" * 900 + "]" * 900,
    '{"a":' * 900 + "1" + "}" * 900,
    "[" * 100000,
    "[" * 5000 + "]" * 5000,
    json.dumps("x" * 70000),
    json.dumps("/" * 5000),
    json.dumps("../" * 2000),
    '"/proc/self/mem"',
    '"\\n\\u001b[31m"',
    '"ü\\u2028"',
]

evil = st.one_of(
    st.sampled_from(EVIL),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
        ),
        max_leaves=8,
    ).map(json.dumps),
)


def text_with(changes: list[tuple[tuple[Any, ...], str]]) -> str:
    """Return the spec as a text, with the texts of values in some places of it."""
    spec = copy.deepcopy(SPEC)
    marks = {}
    for number, (path, text) in enumerate(changes):
        mark = f"<{number}>"
        marks[json.dumps(mark)] = text
        if not path:
            spec = {mark: mark}
            continue
        inner: Any = spec
        try:
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = mark
        except (KeyError, TypeError, IndexError):
            # Another change has taken that place.
            continue
    whole = json.dumps(spec)
    for mark, text in marks.items():
        whole = whole.replace(mark, text)
    return whole


changes = st.lists(st.tuples(st.sampled_from(PLACES), evil), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("bundle")
    (bundle / "rootfs" / "etc").mkdir(parents=True)
    (bundle / "srv").mkdir()
    return bundle


def assert_one_line(error: BaseException) -> None:
    line = one_line(error)
    assert line
    assert len(line.splitlines()) == 1
    assert len(line) < 10000


def check(bundle: Path, text: str) -> None:
    """Derive a bundle, whose directory is to have what belongs there and no more."""
    (bundle / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    directory = bundle / "derived"
    directory.mkdir(exist_ok=True)
    before = sorted(os.listdir(bundle))
    try:
        derived = derive("", str(bundle), "config.json", str(directory), False)
        assert os.path.isabs(derived.rootfs)
        # What the runtime reads.
        parse((directory / "config.json").read_text(), "derived")
    except (Error, OSError) as error:
        assert_one_line(error)
    finally:
        assert sorted(os.listdir(bundle)) == before
        for name in os.listdir(directory):
            (directory / name).unlink()


@pytest.mark.parametrize("text", EVIL)
def test_each_in_every_place(bundle: Path, text: str) -> None:
    for place in PLACES:
        check(bundle, text_with([(place, text)]))


@settings(
    derandomize=True,
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(changes=changes)
def test_some_at_once(bundle: Path, changes: list[tuple[tuple[Any, ...], str]]) -> None:
    check(bundle, text_with(changes))


@given(data=st.binary(max_size=200))
def test_any_bytes(bundle: Path, data: bytes) -> None:
    (bundle / "config.json").write_bytes(data)
    with pytest.raises((Error, OSError)) as failure:
        derive("", str(bundle), "config.json", str(bundle), False)
    assert_one_line(failure.value)


def _left(user: Unprivileged) -> list[str]:
    base = os.path.join(user.runtime_dir, "runrootless")
    return os.listdir(base) if os.path.isdir(base) else []


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (("root", "path"), '"a\\u0000b"'),
        (("mounts", 3, "source"), '"a\\u0000b"'),
        (("root", "path"), '"\\ud800"'),
        (("process", "args", 0), '"\\udc80"'),
        (("hooks", "poststop", 0, "timeout"), "1e999"),
        (("linux", "resources", "memory", "limit"), "-1e999"),
        (("hostname",), "9" * 5000),
        (("linux", "resources"), "[" * 100000),
        (("root", "path"), json.dumps("x" * 70000)),
    ],
)
def test_the_command_says_one_line(
    place: tuple[Any, ...], text: str, unprivileged: Unprivileged
) -> None:
    command = Command(unprivileged)
    path = Path(command.bundle)
    (path / "config.json").write_text(text_with([(place, text)]))
    before = sorted(os.listdir(path))
    done = command("run", "--bundle", command.bundle, "x")
    assert done.returncode == 1, str(done)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, str(done)
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir(path)) == before
    eventually(lambda: not _left(unprivileged), lambda: f"nothing left: {_left(unprivileged)}")
    assert state.CONFIG in before
