"""What umoci unpacks as real root, and what a container of ours shows of the same image."""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

from support.bundles import Bundle
from support.containers import Runrootless
from support.layers import Layout
from support.trees import Tree, Trees

LISTING = os.path.join(os.path.dirname(os.path.abspath(__file__)), "listing.py")
TOP = "data"
"""Where the files are that are compared: what is beside them has the container's mounts in it."""

_TOOLS = "/tools"

Listing = dict[str, dict[str, Any]]


def parse(text: str) -> Listing:
    found: Listing = {}
    for line in text.splitlines():
        about = json.loads(line)
        name = bytes.fromhex(about.pop("name")).decode("utf-8", "backslashreplace")
        found[name] = about
    return found


def by_umoci(layout: Layout, name: str, trees: Trees) -> Listing:
    """Return what umoci unpacks as real root."""
    directory = trees.new_directory("oracle", for_user=False)
    command = ["umoci", "unpack", "--image", f"{layout.path}:{name}", f"{directory}/bundle"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        [sys.executable, LISTING, f"{directory}/bundle/rootfs/{TOP}"],
        check=True,
        capture_output=True,
        text=True,
    )
    shutil.rmtree(directory)
    return parse(listed.stdout)


def by_container(runrootless: Runrootless, path: str, tools: Tree) -> Listing:
    """Return what a container shows of its own files; the image has a directory ``tools``."""
    bundle = Bundle(path, f"{path}/rootfs")
    with open(LISTING) as file:
        script = file.read()
    libraries = [f"{_TOOLS}/lib/x86_64-linux-gnu", f"{_TOOLS}/usr/lib/x86_64-linux-gnu"]
    loader = f"{_TOOLS}/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    python = [loader, "--library-path", ":".join(libraries), f"{_TOOLS}/usr/bin/python3"]
    mount = {
        "destination": _TOOLS,
        "type": "bind",
        "source": tools.rootless,
        "options": ["bind", "ro"],
    }
    bundle.change(lambda config: config["mounts"].append(mount))
    bundle.set([*python, "-I", "-c", script, f"/{TOP}"], env={"PYTHONHOME": f"{_TOOLS}/usr"})
    done = runrootless.run(bundle)
    assert done.returncode == 0, done
    return parse(done.stdout)


def differences(expected: Listing, found: Listing, untimed: bool = False) -> list[str]:
    """Return what is not the same, a line for each file and member."""
    said = []
    for name in sorted(expected.keys() | found.keys()):
        right, ours = expected.get(name), found.get(name)
        if right is None or ours is None:
            said.append(f"{name}: {right} is {ours}")
            continue
        for member in sorted(right.keys() | ours.keys()):
            if member == "mtime" and untimed:
                continue
            if right.get(member) != ours.get(member):
                said.append(f"{name}: {member} {right.get(member)} is {ours.get(member)}")
    return said
