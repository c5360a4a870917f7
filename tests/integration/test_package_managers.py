"""Package managers and archivers, as real root in a chroot and in a container.

Each case makes its own packages and repository: with files of several owners, set-ID files,
device nodes, capabilities and access control lists where the format has them, and scripts that
make users and change owners. It installs, upgrades, downgrades and removes them, and prints all
that there is of every file each time, and what the manager's own check finds. All of it must be
the same for the real root and in the container of a user without privileges. The cases are in
``package_managers``, with what they share.

The table that the run prints at its end is that of docs/package-managers.md.
"""

import glob
import os
import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from conftest import TALLY
from support.containers import Runrootless
from support.oracle import Case, Container, Differential, RealRoot, read_cases, in_chroot
from support.trees import Trees, debian_archive
from support.users import AS_ROOT, Unprivileged

DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "package_managers")
