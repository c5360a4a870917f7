"""The packages of distributions: built of the checkout, and installed into a root file system."""

import glob
import os
import shutil
import subprocess

import pytest

from support.trees import CHECKOUT

MODULES = "/usr/lib/python3/dist-packages"
"""Where Debian's Python looks for modules, for an .rpm that is installed there."""

# Not the machine's other versions of Python and meson.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# It asks for packages of other distributions.
_WITHOUT_DEPENDENCIES = ["--nodeps"]


def build(kind: str, directory: str, *, modules: str = "") -> str:
    """Build a "deb" or an "rpm" into a directory, and return its path.

    ``modules`` is where those of Python go, by default where the distribution's own go.
    """
    for program in {"deb": ("dh", "dh_python3"), "rpm": ("rpmbuild",)}[kind]:
        if shutil.which(program, path=PATH) is None:
            pytest.skip(f"{program} is not installed: ./test.sh does that")
    command = [f"{CHECKOUT}/packaging/build.sh", kind, directory]
    if kind == "rpm":
        command += _WITHOUT_DEPENDENCIES
    if modules:
        command += ["--define", f"python3_sitelib {modules}"]
    environment = {**os.environ, "PATH": PATH}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (path,) = glob.glob(f"{directory}/*.{kind}")
    return path


def install_deb(package: str, root: str) -> None:
    """Install a package with the dpkg of a root file system, which checks what it depends on."""
    shutil.copy(package, f"{root}/package.deb")
    _run(["chroot", root, "dpkg", "-i", "/package.deb"])
    os.unlink(f"{root}/package.deb")


def install_rpm(package: str, root: str, modules: str) -> None:
    """Install a package with this machine's rpm, which cannot tell what it depends on there."""
    _run(["rpm", "--root", root, "--install", "--nodeps", "--force-debian", package])
    # As Fedora's rpmbuild does it: users cannot write there.
    _run(["chroot", root, "python3", "-m", "compileall", "-q", f"{modules}/runrootless"])


def _run(command: list[str]) -> None:
    environment = {"PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
