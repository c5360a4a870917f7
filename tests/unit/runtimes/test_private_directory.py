"""The private directory of a container, for callers from elsewhere."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runrootless import runtimes
from runrootless.containers import state
from runrootless.errors import Error
from runrootless.runtimes import private_directory


def write_state(runtime: str, directory: str, bundle: str) -> None:
    """Write what a runtime keeps of a container, as far as it is looked at."""
    os.makedirs(directory, exist_ok=True)
    if runtime == "runc":
        labels = ["a=bundle=/x", f"bundle={bundle}", "org.x=bundle"]
        content = {"init_process_pid": 7, "config": {"labels": labels}}
        Path(directory, "state.json").write_text(json.dumps(content))
    else:
        Path(directory, "status").write_text(json.dumps({"pid": 7, "bundle": bundle}))


class Place:
    """A container that was started with one XDG_RUNTIME_DIR, and looked for with another."""

    def __init__(self, path: str, runtime: str, patch: pytest.MonkeyPatch) -> None:
        self.runtime = runtime
        for name in ("one", "two", "root", "other"):
            os.mkdir(f"{path}/{name}", 0o700)
        self.root = f"{path}/root"
        self.other = f"{path}/other"
        patch.setenv("XDG_RUNTIME_DIR", f"{path}/one")
        self.base = state.open_base()
        made = state.create_container_directory(self.base, "x", self.root)
        os.close(made.lock_fd)
        self.directory = made.path
        Path(made.path, "config.json").write_text("{}")
        self.runtime_has("x", made.path)
        patch.setenv("XDG_RUNTIME_DIR", f"{path}/two")

    def runtime_has(self, name: str, bundle: str, root: str = "") -> None:
        write_state(self.runtime, f"{root or self.root}/{name}", bundle)

    def refused(self, name: str, root: str = "") -> str:
        with pytest.raises(Error) as error:
            private_directory.find(name, root or self.root)
        assert "\n" not in str(error.value)
        assert private_directory.usable(name, root or self.root) is None
        return str(error.value)


@pytest.fixture(params=["runc", "crun"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Shorter than pytest's own path: that of a socket must fit."""
    with tempfile.TemporaryDirectory(prefix="rr-", dir="/tmp") as path:
        yield Place(path, request.param, monkeypatch)


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_with_another_runtime_directory_or_none(
    place: Place, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert state.find_container_directory("x", place.root) is None
    assert private_directory.find("x", place.root) == place.directory
    assert private_directory.all_of(place.root) == {"x": place.directory}


def test_by_another_name_of_the_state_root(place: Place) -> None:
    link = f"{place.other}/link"
    os.symlink(place.root, link)
    assert private_directory.find("x", link) == place.directory
    assert private_directory.all_of(link) == {"x": place.directory}


@pytest.mark.parametrize("bundle", ["/b", "/run/runrootless/b", "/run/x/b-0123abcd", "/", "b"])
def test_a_container_of_the_plain_runtime(place: Place, bundle: str) -> None:
    place.runtime_has("plain", bundle)
    assert private_directory.find("plain", place.root) is None
    assert private_directory.all_of(place.root) == {"x": place.directory}


def test_no_container(place: Place) -> None:
    assert private_directory.find("none", place.root) is None
    assert private_directory.find("none", "/none") is None
    assert private_directory.all_of("/none") == {}
    for bad in ("", "..", "a/b", "../root/x"):
        assert private_directory.usable(bad, place.root) is None


def test_a_state_that_does_not_say(place: Place) -> None:
    os.mkdir(f"{place.root}/y")
    assert "names no bundle" in place.refused("y")


def test_a_directory_that_is_gone(place: Place) -> None:
    os.rename(place.base, f"{place.base}-1")
    assert "cannot be used: No such file" in place.refused("x")
    os.rename(f"{place.base}-1", place.base)
    os.unlink(f"{place.directory}/config.json")
    assert "cannot be used: No such file" in place.refused("x")


def test_a_directory_open_to_others(place: Place) -> None:
    os.chmod(place.base, 0o750)
    assert "is in a directory that has mode 0750" in place.refused("x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else(place: Place) -> None:
    os.chown(place.base, 65534, 65534)
    assert "is in a directory that belongs to user 65534" in place.refused("x")


def test_the_directory_of_another_container(place: Place) -> None:
    place.runtime_has("y", place.directory)
    assert "is of another container" in place.refused("y")
    place.runtime_has("x", place.directory, root=place.other)
    assert "is of another container" in place.refused("x", place.other)


def test_a_directory_without_a_lock(place: Place) -> None:
    os.unlink(f"{place.directory}/lock")
    assert "has no lock" in place.refused("x")


JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=4), st.just("bundle=/x")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(("config", "labels", "bundle", "pid")), inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(JSON)
def test_any_state(content: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for file in ("state.json", "status"):
            Path(directory, file).write_text(json.dumps(content))
            found = runtimes.bundle(directory)
            assert found is None or json.dumps(found)[1:-1] in json.dumps(content)
            os.unlink(f"{directory}/{file}")
