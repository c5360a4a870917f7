"""The directory of a bundle: whose it is, and what is replaced."""

import os
from pathlib import Path

import pytest

from support.containers import Runrootless
from support.images import File, busybox_layer
from support.processes import eventually
from support.trees import Trees


@pytest.fixture
def place(runrootless: Runrootless, trees: Trees) -> str:
    directory = trees.new_directory("place", for_user=True)
    busybox_layer(f"{directory}/base.tar", [File("srv/", mode=0o755), File("x", mode=0o4755)])
    runrootless.user.give(f"{directory}/base.tar")
    return directory


@pytest.mark.parametrize("mask", ["000", "022", "077"])
def test_nobody_else_gets_at_set_user_id_programs(
    place: str, mask: str, runrootless: Runrootless
) -> None:
    line = 'umask "$1"; shift; exec "$@"'
    words = runrootless.command("bundle", "--quiet", "base.tar", f"new{mask}")
    runrootless.user.run(["sh", "-c", line, "sh", mask, *words], cwd=place).check()
    assert os.stat(f"{place}/new{mask}").st_mode & 0o7777 == 0o700
    assert os.stat(f"{place}/new{mask}/rootfs/x").st_mode & 0o7777 == 0o4755


@pytest.mark.parametrize("there", [{"config.json": "{}"}, {"image.json": "{}", "rootfs/x": ""}])
def test_what_is_no_bundle_is_not_replaced(
    place: str, there: dict[str, str], runrootless: Runrootless
) -> None:
    for name, content in there.items():
        path = Path(place, "other", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    Path(place, "other", "precious").write_text("here")
    runrootless.user.give(place)
    done = runrootless("bundle", "--quiet", "--force", "base.tar", "other", cwd=place).check(1)
    assert "is no bundle of `runrootless bundle`: remove it yourself" in done.stderr
    assert Path(place, "other", "precious").read_text() == "here"
    assert sorted(os.listdir(place)) == ["base.tar", "other"]


@pytest.mark.parametrize("engine", ["none", "zero", "notify", "thorough"])
def test_a_bundle_in_use_is_not_replaced(place: str, engine: str, runrootless: Runrootless) -> None:
    force = ("bundle", "--quiet", "--force", "base.tar", "used", "sleep", "1000")
    runrootless(*force, cwd=place).check()
    name = runrootless.new_id()
    runrootless("--engine", engine, "run", "--detach", "--bundle", f"{place}/used", name).check()
    done = runrootless(*force, cwd=place).check(1)
    assert "a container uses" in done.stderr
    runrootless("delete", "--force", name).check()
    eventually(
        lambda: runrootless(*force, cwd=place).returncode == 0, "the end of what uses the bundle"
    )
