"""Each version of Python that is supported and found, beside the one that the tests run with.

Those that were not found are skipped, by name. What the versions differ in is the interpreter
and its library, so that all commands are tried. ``test_differential.py`` has the calls.
"""

import json
from collections.abc import Iterator

import pytest

from conftest import MakeBundle
from support.containers import Runrootless
from support.processes import eventually
from support.pythons import Installed
from support.trees import Trees
from support.users import Unprivileged

IMPORT_ALL = """
import importlib, pkgutil, sys, runrootless
for found in pkgutil.walk_packages(runrootless.__path__, "runrootless."):
    if found.name.endswith("__main__"): continue
    try: importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        # What is optional.
        if error.name.partition(".")[0] not in ("oras", "requests", "tomli"): raise
print(*sys.version_info[:2])
"""
OWNER = "stat -c '%u:%g' /srv/file"


@pytest.fixture
def runrootless(unprivileged: Unprivileged, python: Installed) -> Iterator[Runrootless]:
    command = Runrootless(unprivileged, [], python.command)
    yield command
    command.assert_nothing_left()


def test_all_modules_can_be_imported(python: Installed, unprivileged: Unprivileged) -> None:
    done = unprivileged.run([*python.interpreter, "-W", "error", "-c", IMPORT_ALL]).check()
    assert done.stdout == f"{python.version[0]} {python.version[1]}\n"


def test_a_life(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle(copy=True)
    script = f"chown 5:6 /srv; rm -f /srv/file /srv/end; touch /srv/file; {OWNER}; exit 3"
    done = runrootless.run(ours.script(script))
    assert (done.check(3).stdout, done.stderr) == ("0:0\n", "")
    name = runrootless.new_id()

    def status() -> str:
        return str(json.loads(runrootless("state", name).check().stdout)["status"])

    script = "chown 7:8 /srv/file; until [ -e /srv/end ]; do sleep 0.05; done"
    runrootless("create", "--bundle", ours.script(script).path, name).check()
    assert status() == "created"
    runrootless("start", name).check()
    eventually(
        lambda: runrootless("exec", name, "sh", "-c", OWNER).check().stdout == "7:8\n",
        "the first process has changed the owner",
    )
    done = runrootless("exec", "--user", "33:34", name, "sh", "-c", "id -u; id -g").check()
    assert done.stdout == "33\n34\n"
    assert name in runrootless("list").check().stdout
    # It may be killed with the container before it has ended.
    runrootless("exec", name, "touch", "/srv/end")
    eventually(lambda: status() == "stopped", "its end")
    runrootless("delete", name).check()


@pytest.mark.parametrize("engine", ["notify", "thorough", "zero"])
def test_emulate(runrootless: Runrootless, engine: str) -> None:
    script = "touch file; chown 5:6 file; stat -c %u:%g file"
    done = runrootless("emulate", "--engine", engine, "--", "sh", "-c", script).check()
    assert (done.stdout, done.stderr) == ("0:0\n" if engine == "zero" else "5:6\n", "")


def test_images(runrootless: Runrootless, trees: Trees) -> None:
    """In and out: a tarball becomes a bundle, an image, and a tarball of the same."""
    directory = trees.new_directory("images", for_user=True)
    made = "mkdir t t/etc && echo 1 >t/etc/f && chown 5:6 t/etc/f && tar -C t -cf t.tar ."
    runrootless("emulate", "--", "sh", "-c", made, cwd=directory).check()
    for words in (
        ["bundle", "--quiet", "t.tar", "b", "true"],
        ["commit", "b", "oci:image:1"],
        ["bundle", "--quiet", "oci:image:1", "c", "true"],
        ["export", "c", "out.tar.gz"],
    ):
        runrootless(*words, cwd=directory).check()
    listing = runrootless.user.run(
        ["tar", "--numeric-owner", "-tvf", f"{directory}/out.tar.gz"]
    ).check()
    (line,) = [line for line in listing.stdout.splitlines() if line.endswith("etc/f")]
    assert line.split()[1] == "5/6"


def test_what_reads_toml(python: Installed, runrootless: Runrootless) -> None:
    """Which takes tomli before Python 3.11: the wheel depends on it, and there is none here."""
    done = runrootless("setup", "podman", "--dry-run")
    if python.version >= (3, 11):
        assert "runtimes" in done.check().stdout
    else:
        assert "tomli" in done.check(1).stderr
        assert done.stderr.count("\n") == 1


def test_the_others(runrootless: Runrootless) -> None:
    assert json.loads(runrootless("doctor", "--json").check().stdout)["engine"] == "notify"
    assert "bundle" in runrootless("--help").check().stdout
    assert "did you mean bundle" in runrootless("bundel").check(3).stderr
