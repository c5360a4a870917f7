"""What a container's first process does to its namespaces is no way to the host for others."""

import os

import pytest
from test_joined_namespaces import joining, pid_of

from conftest import MakeBundle, both_runtimes
from support.bundles import Bundle, Config
from support.containers import Runrootless
from support.processes import eventually
from support.programs import compile_program

pytestmark = both_runtimes

PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probes", "left_namespace.c")
TIMES = 5


def without_pid_namespace(config: Config) -> None:
    namespaces = config["linux"]["namespaces"]
    config["linux"]["namespaces"] = [one for one in namespaces if one["type"] != "pid"]


def with_the_hosts_processes(config: Config) -> None:
    host = {"destination": "/mnt", "type": "none", "source": "/proc", "options": ["rbind", "ro"]}
    config["mounts"].append(host)


@pytest.fixture
def left(
    bundle: MakeBundle, runrootless: Runrootless, request: pytest.FixtureRequest
) -> tuple[Bundle, str]:
    """The bundle of a container whose first process leaves its namespaces, and what it says."""
    hidden = request.param
    made = bundle()
    with open(PROBE) as file:
        compile_program(file.read(), f"{made.rootfs}/probe", ["-static"])
    # By no path of the container.
    secret = os.path.join(runrootless.user.home, "secret")
    with open(secret, "w") as file:
        file.write("secret")
    runrootless.user.give(secret)
    made.change(with_the_hosts_processes if hidden else without_pid_namespace)
    return made.set(["/probe", secret, "/mnt" if hidden else "/proc"]), secret


@pytest.mark.parametrize("left", [False, True], indirect=True, ids=["pids", "proc"])
def test_a_user_namespace_within(
    bundle: MakeBundle, runrootless: Runrootless, runtime: str, left: tuple[Bundle, str]
) -> None:
    first, _ = left
    output = os.path.join(runrootless.user.home, "output")
    script = 'exec "$@" >"$0" 2>&1 </dev/null'
    words = runrootless.command("run", "--detach", "--bundle", first.path, "first")
    runrootless.user.run(["sh", "-c", script, output, *words]).check()

    def said() -> str:
        with open(output) as file:
            return file.read()

    try:
        eventually(lambda: said() != "", "the first process")
        assert said() == "ready\n"
        second = joining(bundle().script("true"), pid_of(runrootless, "first"), ("uts",))
        for _ in range(TIMES):
            # What becomes of the runtime there is its own business.
            runrootless("exec", "first", "true", timeout=30)
            done = runrootless.run(second, timeout=30)
            assert done.returncode == 1
            assert "is not of a running container that runrootless has started" in done.stderr
    finally:
        runrootless("kill", "first", "KILL")
        runrootless("delete", "--force", "first")
    assert said() == "ready\n"
