"""A process of the container that is not under the filter yet: nobody's but root's to trace.

Whoever traced it could make it do without the filter, and so without emulation.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MakeBundle
from support.containers import Runrootless
from support.processes import eventually, read_line
from support.programs import compile_program
from support.users import AS_ROOT

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="only root stops it at that moment")

PROBE = Path(__file__).with_name("probes") / "hold.c"
LAUNCHER = "/memfd:runrootless (deleted)"


def status_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.fixture
def container(
    bundle: MakeBundle, runrootless: Runrootless
) -> Iterator[tuple[Runrootless, str, str]]:
    """A container with the probe at /dev/hold: the command, the container's name, the probe."""
    probe = compile_program(PROBE.read_text(), f"{runrootless.user.session}/hold", ["-static"])
    mount = {"destination": "/dev/hold", "type": "bind", "source": probe, "options": ["bind"]}
    ours = bundle().set(["sleep", "1000"]).change(lambda config: config["mounts"].append(mount))
    command = Runrootless(runrootless.user, ["--engine", "thorough"])
    name = command.new_id()
    command("run", "--detach", "--bundle", ours.path, name).check()
    yield command, name, probe
    command("delete", "--force", name).check()


def test_a_launcher_of_an_exec(container: tuple[Runrootless, str, str]) -> None:
    command, name, probe = container
    words = command.command("exec", "--user", "33:33", name, "id", "-u")
    started = command.user.start(["sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *words])
    eventually(lambda: status_of(started.pid)["State"].startswith("T"), "it stops")
    holder = subprocess.Popen(
        [probe, "until", LAUNCHER, str(started.pid)], stdout=subprocess.PIPE, text=True
    )
    try:
        line = read_line(holder)
        assert line, started.communicate(timeout=60)
        launcher = int(line)
        eventually(lambda: status_of(launcher)["State"].startswith("T"), "the launcher stops")
        status = status_of(launcher)
        assert (status["TracerPid"], status["Seccomp_filters"]) == ("0", "0")
        number = status["NSpid"].split()[-1]

        def seize(user: str) -> str:
            return (
                command("exec", "--user", user, name, "/dev/hold", "seize", number).check().stdout
            )

        assert seize("33:33") == "EPERM\n"
        assert seize("34:34") == "EPERM\n"
        os.kill(launcher, signal.SIGCONT)
        assert started.communicate(timeout=60) == ("33\n", "")
        assert started.returncode == 0
    finally:
        for process in (started, holder):
            process.kill()
            process.wait()
