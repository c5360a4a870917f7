"""How long a container of /bin/true takes, from the command to its exit code.

The same runtime runs the same container, once called by runrootless and once by
itself on a rootless bundle that `runtime spec --rootless` wrote. The time is taken
by a process of the user, with posix_spawn, so that nothing but the commands counts.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from bench.measure import Contender, Report, Sample, Series, interleave, parser
from bench.stage import COMMAND, Stage, debian_archive, stage
from bench.ways import PODMAN, PROOT, Place, Way, installed, rootless_bundle

PYTHON = "/usr/bin/python3"
QUANTITY = "start to end"
# Longer than any start on any machine.
_TIMEOUT = 60.0

# crun refuses a hybrid layout of the control groups: it gets the unified one, in a
# mount namespace of its own.
UNIFIED = "umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"


class Stopwatch:
    """Times commands as the user. Used in a process that has become the user."""

    def __init__(self, here: Stage, *, alone: bool = True) -> None:
        self._environment = here.user.env
        self._directory = os.path.join(here.user.runtime_dir, "runrootless")
        # Whether no container is there but those that it starts.
        self._alone = alone

    def time(self, args: Sequence[str], environment: Mapping[str, str] | None = None) -> Sample:
        """Run a command and return its milliseconds; it must end with 0."""
        null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]
        program = shutil.which(args[0]) or args[0]
        variables = {**self._environment, **(environment or {})}
        began = time.perf_counter()
        pid = os.posix_spawn(program, list(args), variables, file_actions=null)
        _, status = os.waitpid(pid, 0)
        taken = time.perf_counter() - began
        if status:
            raise SystemExit(f"{' '.join(args)}: exit code {os.waitstatus_to_exitcode(status)}")
        if self._alone:
            self._await_quiet()
        return {QUANTITY: taken * 1000}

    def _await_quiet(self) -> None:
        # The agent leaves after the runtime: not in the next contender's time.
        deadline = time.monotonic() + _TIMEOUT
        while os.path.isdir(self._directory) and os.listdir(self._directory):
            if time.monotonic() > deadline:
                raise SystemExit(f"something stays in {self._directory}")
            time.sleep(0.001)


def as_user(here: Stage, measure: Callable[[], Series]) -> Series:
    """Return what the function returns in a process that has become the user for good."""
    account = here.user.account
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            os.setgroups([])
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
            os.chdir(here.user.home)
            series = measure()
            with open(write, "w") as file:
                json.dump([series.title, series.unit, series.names, series.rounds], file)
            status = 0
        except SystemExit as error:
            print(error, file=sys.stderr)
        finally:
            os._exit(status)
    os.close(write)
    with open(read) as file:
        text = file.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit("the measurement failed")
    title, unit, names, rounds = json.loads(text)
    series = Series(title, unit, names)
    series.rounds = rounds
    return series


def contenders(stopwatch: Stopwatch, runtime: str, plain: str, regular: str) -> list[Contender]:
    """Return the runtime by itself, runrootless with it, and a Python that does nothing."""
    path = shutil.which(runtime)
    assert path is not None
    by_itself = [path, "run", f"--bundle={plain}", "start"]
    emulated = [COMMAND, f"--runtime={path}", "run", f"--bundle={regular}", "start"]
    return [
        Contender(runtime, lambda: stopwatch.time(by_itself)),
        Contender("runrootless", lambda: stopwatch.time(emulated)),
        Contender("python3 -c pass", lambda: stopwatch.time([PYTHON, "-c", "pass"])),
    ]


def starts(here: Stage, stopwatch: Stopwatch, ways: Iterable[Way], place: Place) -> list[Contender]:
    """Return what starts /bin/true in a place, in each of these ways."""
    found = []
    for way in ways:
        command = way.command(here, place, ["/bin/true"])
        run = partial(stopwatch.time, command, way.environment(here))
        found.append(Contender(way.name, run))
    return found


def is_unified() -> bool:
    """Return whether the control groups are laid out as crun wants them."""
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "", rounds=40)
    options.add_argument("--runtime", default="runc", choices=("runc", "crun"))
    options.add_argument("--others", action="store_true", help="PRoot and podman as well")
    options.add_argument("--in-namespace", action="store_true", help="used by the program itself")
    arguments = options.parse_args()
    if shutil.which(arguments.runtime) is None:
        raise SystemExit(f"{arguments.runtime} is not installed")
    if arguments.runtime == "crun" and not is_unified() and not arguments.in_namespace:
        again = [sys.executable, *sys.argv, "--in-namespace"]
        script = f'{UNIFIED} && exec "$@"'
        command = ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", *again]
        raise SystemExit(subprocess.run(command).returncode)
    report = Report("start", COMMAND, arguments.json)
    with stage() as here:
        directory, rootfs = here.rootless_copy(debian_archive("debian"))
        regular = here.bundle(directory, rootfs, ["/bin/true"])
        plain = here.trees.new_directory("plain", for_user=True)
        rootless_bundle(here, plain, rootfs)
        stopwatch = Stopwatch(here)
        ways = contenders(stopwatch, arguments.runtime, plain, regular.path)
        if arguments.others:
            place = Place(directory, rootfs)
            ways += starts(here, stopwatch, installed(here, (PROOT, PODMAN)), place)
        report.add(
            as_user(
                here,
                lambda: interleave("start", "ms", ways, arguments.rounds, warm_up=3),
            )
        )
    report.close()


if __name__ == "__main__":
    main()
