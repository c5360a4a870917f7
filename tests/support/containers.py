"""Running the installed command ``runrootless``."""

import itertools
import os
import sys
from collections.abc import Mapping, Sequence

from support import workers
from support.bundles import Bundle, make_bundle
from support.processes import Result, Terminal, eventually
from support.users import Unprivileged

# Beside the Python that runs the tests: the script that a user gets.
COMMAND = os.path.join(os.path.dirname(sys.executable), "runrootless")

# When nothing works the tests should say so soon, not wait for each container in turn.
MAX_HANGING = 5

FAST = ["--fast-path", "on"] if os.environ.get("RUNROOTLESS_TEST_FAST") else []
"""Whether all containers have the fast path, unless a test says otherwise: by hand."""

_numbers = itertools.count(1)
_hanging = 0


class Runrootless:
    """Runs ``runrootless``, or another ``program`` in its place, as the user without privileges."""

    def __init__(
        self, user: Unprivileged, options: Sequence[str] = (), program: str = COMMAND
    ) -> None:
        self.user = user
        self.options = list(options)
        self.program = program

    def command(self, *args: str) -> list[str]:
        """Return the command line with these arguments."""
        fast = FAST if args and args[0] in ("run", "create") else []
        return [self.program, *fast, *self.options, *args]

    def __call__(
        self,
        *args: str,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float = 120,
    ) -> Result:
        """Run the command with these arguments."""
        done = self.user.run(self.command(*args), cwd=cwd, env=env, input=input, timeout=timeout)
        if done.timed_out:
            global _hanging
            _hanging += 1
            if _hanging > MAX_HANGING:
                workers.stop(f"more than {MAX_HANGING} containers hang, the last: {done}", 1)
        return done

    @staticmethod
    def new_id() -> str:
        """Return an ID that no other container of this run has."""
        return f"test-{next(_numbers)}"

    def run(self, bundle: Bundle, *, timeout: float = 120, input: str | None = None) -> Result:
        """Run a container to its end."""
        return self("run", "--bundle", bundle.path, self.new_id(), timeout=timeout, input=input)

    def terminal(self, bundle: Bundle, *, rows: int = 24, columns: int = 80) -> Terminal:
        """Run a container at a terminal."""
        args = self.command("run", "--bundle", bundle.path, self.new_id())
        return self.user.terminal(args, rows=rows, columns=columns)

    def bundle_at(self, directory: str, rootfs: str) -> Bundle:
        """Make a regular bundle in a directory of the user's."""
        return make_bundle(self.user, directory, rootfs)

    def assert_nothing_left(self) -> None:
        """Fail unless all containers are gone, and with them the agents and their directories."""
        eventually(
            lambda: not self.user.leftovers(),
            lambda: "nothing left of the containers:\n" + "\n".join(self.user.leftovers()),
        )
