"""Reading a bundle's config.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from runrootless.bundle.spec import load, load_process
from runrootless.errors import Error


def minimal() -> dict[str, Any]:
    return {"process": {"args": ["sh"], "cwd": "/"}, "root": {"path": "rootfs"}}


def write(directory: Path, spec: object) -> str:
    (directory / "config.json").write_text(json.dumps(spec))
    return str(directory)


def test_a_spec_is_what_the_file_says(tmp_path: Path) -> None:
    spec = {**minimal(), "ociVersion": "1.0.2", "annotations": {"a": "b"}, "unknown": [1.5, None]}
    assert load(write(tmp_path, spec)) == spec


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(Error, match=f"no bundle directory {tmp_path}/none.*--bundle"):
        load(f"{tmp_path}/none")


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(Error, match=f"there is no {tmp_path}/config.json.*runrootless spec"):
        load(str(tmp_path))


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(Error, match=f"cannot read {tmp_path}/config.json: Is a directory"):
        load(str(tmp_path))


def test_null_is_an_absent_field(tmp_path: Path) -> None:
    spec = minimal()
    spec["mounts"] = None
    spec["process"]["user"] = None
    spec["linux"] = {"seccomp": None}
    expected = {**minimal(), "linux": {}}
    assert load(write(tmp_path, spec)) == expected


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("process", [], "process must be an object, not an array"),
        ("process.args", "sh", "process.args must be an array, not a string"),
        ("process.args", ["sh", 1], r"process.args\[1\] must be a string, not a whole number"),
        ("process.user.uid", "root", "process.user.uid must be a whole number, not a string"),
        ("process.user.uid", 1.5, "process.user.uid must be a whole number, not a number with"),
        ("process.user.uid", True, "process.user.uid must be a whole number, not true or false"),
        ("process.user.additionalGids", [None], r"additionalGids\[0\] must be .*, not null"),
        ("process.env", {}, "process.env must be an array"),
        ("process.capabilities", [], "process.capabilities must be an object"),
        ("process.capabilities.bounding", "CAP_CHOWN", "bounding must be an array"),
        ("process.rlimits", [{"hard": "1"}], r"process.rlimits\[0\].hard must be a whole number"),
        ("root.path", 1, "root.path must be a string"),
        ("mounts", {}, "mounts must be an array, not an object"),
        ("mounts", [{"options": "ro"}], r"mounts\[0\].options must be an array"),
        ("linux", "x", "linux must be an object"),
        ("linux.namespaces", [{"type": 1}], r"linux.namespaces\[0\].type must be a string"),
        ("linux.devices", ["/dev/null"], r"linux.devices\[0\] must be an object"),
        ("linux.sysctl", [], "linux.sysctl must be an object"),
        ("linux.seccomp", True, "linux.seccomp must be an object"),
        ("linux.seccomp.syscalls", [{"names": "x"}], r"syscalls\[0\].names must be an array"),
    ],
)
def test_wrong_types(tmp_path: Path, field: str, value: object, message: str) -> None:
    spec = minimal()
    *parents, last = field.split(".")
    place = spec
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    with pytest.raises(Error, match=f"^{tmp_path}/config.json: .*{message}") as caught:
        load(write(tmp_path, spec))
    assert "\n" not in str(caught.value)


def test_not_an_object(tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"config.json: the file must be an object, not an array"):
        load(write(tmp_path, []))


@pytest.mark.parametrize("field", ["process", "root", "root.path", "process.args"])
def test_missing_fields(tmp_path: Path, field: str) -> None:
    spec = minimal()
    parent, _, name = field.rpartition(".")
    del (spec[parent] if parent else spec)[name]
    with pytest.raises(Error, match=f"{field} is missing"):
        load(write(tmp_path, spec))


def test_a_process_file(tmp_path: Path) -> None:
    path = tmp_path / "process.json"
    path.write_text('{"args": ["id"], "user": {"uid": 5, "gid": null}}')
    assert load_process(str(path)) == {"args": ["id"], "user": {"uid": 5}}
    path.write_text('{"user": 5}')
    with pytest.raises(Error, match=f"{path}: user must be an object"):
        load_process(str(path))
    with pytest.raises(Error, match=f"cannot read {tmp_path}/none: No such file"):
        load_process(f"{tmp_path}/none")
