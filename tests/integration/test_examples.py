"""The examples' prepare.sh, as a user without privileges: with and without SOURCE=.

The images are small ones of the test's own. What the package managers do in bundles of whole
distributions is tried in ``test_package_managers``.
"""

import glob
import itertools
import json
import os
import shutil
from collections.abc import Iterator

import pytest

from support.containers import COMMAND, Runrootless
from support.layers import File, Layout, directory, symlink
from support.processes import Result
from support.registry import Registry, registry
from support.trees import CHECKOUT, Trees
from support.users import AS_ROOT

# With the image that each names, and the shell that its bundle runs.
IMAGES = {
    "alpine": ("alpine:3.20", "sh"),
    "arch": ("archlinux:latest", "bash"),
    "centos": ("quay.io/centos/centos:stream9", "bash"),
    "opensuse": ("opensuse/leap:15.6", "bash"),
    "ubuntu": ("ubuntu:24.04", "bash"),
}
# Its source is no image of a registry, but made from Debian's packages.
DISTRIBUTIONS = (*IMAGES, "debian")
NAME = "image"


@pytest.fixture(scope="module")
def layout(trees: Trees) -> Layout:
    with open("/bin/busybox", "rb") as file:
        busybox = File("bin/busybox", content=file.read(), mode=0o755)
    files = [directory("bin"), directory("srv"), busybox]
    files += [symlink(f"bin/{name}", "busybox") for name in ("sh", "chown", "stat", "touch")]
    files.append(File("bin/bash", content=b'#!/bin/sh\nexec sh "$@"\n', mode=0o755))
    files.append(File("srv/page", content=b"page", uid=33, gid=8, mode=0o4640))
    layout = Layout(trees.new_directory("layout", for_user=False))
    return layout.add(NAME, [files], config={"Cmd": ["stat", "-c", "%u:%g %a", "/srv/page"]})


@pytest.fixture(scope="module")
def hub(trees: Trees, layout: Layout) -> Iterator[Registry]:
    """A registry with what the examples name, and Docker Hub's image of nobody/own:1."""
    if not AS_ROOT:
        pytest.skip("the registry is another user's")
    with registry(trees.new_directory("registry", for_user=False)) as running:
        for image, _ in (*IMAGES.values(), ("nobody/own:1", "")):
            path = image.removeprefix("quay.io/")
            running.push(layout, NAME, path if "/" in path else f"library/{path}")
        yield running


class Examples:
    """A copy of the examples that belongs to the user, who calls them from beside it."""

    def __init__(self, runrootless: Runrootless, trees: Trees) -> None:
        self.runrootless = runrootless
        self.path = trees.new_directory("examples", for_user=True)
        shutil.copytree(
            f"{CHECKOUT}/examples",
            f"{self.path}/examples",
            ignore=shutil.ignore_patterns("bundle", ".*"),
        )
        for above, directories, files in os.walk(f"{self.path}/examples"):
            for name in (".", *directories, *files):
                runrootless.user.give(f"{above}/{name}")
        self.env = {"RUNROOTLESS": COMMAND, "XDG_CACHE_HOME": f"{self.path}/cache"}

    def bundle(self, example: str) -> str:
        return f"{self.path}/examples/{example}/bundle"

    def prepare(self, example: str, *args: str, source: str | None = None) -> Result:
        env = self.env if source is None else {**self.env, "SOURCE": source}
        command = [f"examples/{example}/prepare.sh", *args]
        return self.runrootless.user.run(command, cwd=self.path, env=env)

    def process(self, example: str) -> dict[str, object]:
        """Return what the bundle runs."""
        with open(f"{self.bundle(example)}/config.json") as file:
            process: dict[str, object] = json.load(file)["process"]
        return process

    def redirect(self, to: Registry) -> None:
        """Have the public registries' images from another one."""
        text = "".join(
            f'[[registry]]\nprefix = "{host}"\nlocation = "{to.address}"\ninsecure = true\n'
            for host in ("docker.io", "quay.io")
        )
        path = f"{self.path}/.config/containers/registries.conf"
        os.makedirs(os.path.dirname(path))
        with open(path, "w") as file:
            file.write(text)
        self.env["HOME"] = self.path


@pytest.fixture
def examples(runrootless: Runrootless, trees: Trees) -> Examples:
    return Examples(runrootless, trees)


@pytest.mark.parametrize("example", (*DISTRIBUTIONS, "docker-image"))
def test_flags_are_refused(examples: Examples, example: str) -> None:
    done = examples.prepare(example, "--help").check(2)
    assert done.stderr.startswith("usage: prepare.sh") and not done.stdout
    assert not os.path.exists(examples.bundle(example))


@pytest.mark.parametrize("example", DISTRIBUTIONS)
def test_of_a_source(examples: Examples, trees: Trees, layout: Layout, example: str) -> None:
    # Relative to where the user is.
    shutil.copytree(layout.path, f"{examples.path}/image")
    bundle = examples.bundle(example)
    done = examples.prepare(example, source=f"oci:image:{NAME}").check()
    made = f"made {bundle}; run it with: {COMMAND} run --bundle {bundle} any-name\n"
    assert done.stdout == made
    shell = IMAGES.get(example, ("", "bash"))[1]
    process = examples.process(example)
    assert (process["args"], process["terminal"]) == ([shell], True)
    user, name = examples.runrootless.user, examples.runrootless.new_id()
    terminal = user.terminal([COMMAND, "run", "--bundle", bundle, name])
    try:
        terminal.send("touch own; chown 5:6 own; stat -c '%u:%g=%a' own /srv/page; exit 7\n")
        terminal.expect("5:6=644")
        terminal.expect("33:8=4640")
        assert terminal.wait() == 7
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("example", "source"),
    list(zip(DISTRIBUTIONS, itertools.cycle(["none.tar", "oci:none", "none:none"]), strict=False)),
)
def test_a_source_that_is_not_there(examples: Examples, example: str, source: str) -> None:
    done = examples.prepare(example, source=source).check(1)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("runrootless: ") and "none" in line
    assert not os.path.exists(examples.bundle(example))


@pytest.mark.parametrize("example", IMAGES)
def test_what_it_is_made_of_otherwise(examples: Examples, hub: Registry, example: str) -> None:
    examples.redirect(hub)
    examples.prepare(example).check()
    with open(f"{examples.bundle(example)}/image.json") as file:
        assert json.load(file)["source"] == f"docker://{IMAGES[example][0]}"
    assert os.path.exists(f"{examples.bundle(example)}/rootfs/srv/page")


def test_any_image(examples: Examples, hub: Registry) -> None:
    usage = examples.prepare("docker-image").check(2)
    assert usage.stderr == "usage: prepare.sh NAME[:TAG] [COMMAND ...]\n"
    examples.redirect(hub)
    examples.prepare("docker-image", "nobody/own:1").check()
    bundle = examples.bundle("docker-image")
    assert examples.process("docker-image")["args"] == ["stat", "-c", "%u:%g %a", "/srv/page"]
    command = ["run", "--bundle", bundle, examples.runrootless.new_id()]
    terminal = examples.runrootless.user.terminal([COMMAND, *command])
    try:
        terminal.expect("33:8 4640")
        assert terminal.wait() == 0
    finally:
        terminal.close()
    examples.prepare("docker-image", "nobody/own:1", "sh", "-c", "exit 3").check()
    assert examples.process("docker-image")["args"] == ["sh", "-c", "exit 3"]
    missing = examples.prepare("docker-image", "nobody/none:1").check(1)
    assert "nobody/none" in missing.stderr


def test_without_the_command(examples: Examples) -> None:
    examples.env["RUNROOTLESS"] = "nowhere"
    done = examples.prepare("alpine").check(1)
    assert done.stderr == (
        "prepare.sh: nowhere is not found: install it, or set RUNROOTLESS to its path\n"
    )


def test_every_example_is_tried() -> None:
    found = glob.glob(f"{CHECKOUT}/examples/*/prepare.sh")
    assert {path.split("/")[-2] for path in found} == {*DISTRIBUTIONS, "docker-image"}
