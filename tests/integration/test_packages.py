"""The sdist and the wheel as their users build and install them. Of the .deb and the .rpm see
``test_runtimes_of_debian.py``, where they are used.
"""

import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

import pytest

from runrootless import __version__
from support import packages
from support.containers import Runrootless
from support.trees import CHECKOUT, Trees
from support.users import Unprivileged

TOOLS = os.path.dirname(sys.executable)
SOURCES = (
    *("bin", "docs", "native", "packaging", "src", "CHANGELOG.md", "LICENSE", "README.md"),
    *("meson.build", "pyproject.toml"),
)
OWNER = "touch file; chown 5:6 file; stat -c %u:%g file"
AUTHOR = ("-c", "user.name=tests", "-c", "user.email=tests")


def run(*command: str, cwd: str, env: Mapping[str, str] | None = None) -> str:
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(trees: Trees) -> Iterator[str]:
    """A directory with both, made by ``python -m build``: the wheel of the sdist."""
    if shutil.which("git") is None:
        pytest.skip("meson makes an sdist of a git repository, and there is no git")
    directory = trees.new_directory("built", for_user=False)
    source = f"{directory}/source"
    os.mkdir(source)
    # What is not committed as yet is to be in it.
    run("cp", "-r", *SOURCES, source, cwd=CHECKOUT)
    for command in (["init", "-q"], ["add", "."], [*AUTHOR, "commit", "-qm", "all"]):
        run("git", *command, cwd=source)
    # With Debian's meson, as its Python has meson-python, and that of the tests has not.
    (library,) = glob.glob(f"{sys.prefix}/lib/python3*/site-packages")
    environment = {"PYTHONPATH": library, "PATH": packages.PATH}
    build = "/usr/bin/python3", "-m", "build", "--no-isolation", "--outdir", directory
    run(*build, source, cwd=directory, env=environment)
    shutil.rmtree(source)
    yield directory
    trees.discard(directory)


@pytest.fixture(scope="module")
def wheel(built: str) -> str:
    (path,) = glob.glob(f"{built}/*.whl")
    return path


def test_names(built: str) -> None:
    machine = os.uname().machine
    assert sorted(os.listdir(built)) == [
        f"runrootless-{__version__}-py3-none-linux_{machine}.whl",
        f"runrootless-{__version__}.tar.gz",
    ]


@pytest.mark.parametrize(
    "command", [("twine", "check", "--strict"), ("check-wheel-contents",)], ids=lambda one: one[0]
)
def test_checks(command: Sequence[str], built: str) -> None:
    kind = "*" if command[0] == "twine" else "*.whl"
    run(f"{TOOLS}/{command[0]}", *command[1:], *glob.glob(f"{built}/{kind}"), cwd=built)


def test_the_changelog_is_of_this_version() -> None:
    with open(f"{CHECKOUT}/CHANGELOG.md") as file:
        text = file.read()
    assert f"## [{__version__}] - 2" in text


@pytest.mark.parametrize("tool", ["pipx", "uv"])
def test_tools_install_it(tool: str, wheel: str, unprivileged: Unprivileged) -> None:
    """Offline: it depends on nothing where Python has tomllib.

    pipx by way of uv: with pip it would fetch the newest of that.
    """
    words = {"pipx": ["pipx", "install"], "uv": ["uv", "tool", "install"]}[tool]
    environment = {
        "PATH": f"{TOOLS}:{unprivileged.env['PATH']}",
        "UV_OFFLINE": "1",
        "PIPX_DEFAULT_BACKEND": "uv",
    }
    python = ["--python", "/usr/bin/python3"]
    command = [f"{TOOLS}/{words[0]}", *words[1:], *python, wheel]
    unprivileged.run(command, env=environment).check()
    runrootless = Runrootless(unprivileged, [], f"{unprivileged.home}/.local/bin/runrootless")
    done = runrootless("emulate", "--", "sh", "-c", OWNER).check()
    assert (done.stdout, done.stderr) == ("5:6\n", "")
    runrootless.assert_nothing_left()
