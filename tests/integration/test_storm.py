"""Each intercepted call while signals come: it has its effect, and its answer, exactly once.

The probe makes every call of the table; a row for which it has no function does not compile.
What it expects is what the real root meets with. Here a call may fail with EINTR before the
agent has received it, where a handler without SA_RESTART asks for that: those are counted,
and none of them may have been carried out. Nothing may be written to the caller's memory
after a call has returned.
"""

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import MakeBundle
from runrootless.emulation.table import rows
from runrootless.linux.syscall_numbers import NUMBERS
from support.bundles import ADMINISTRATOR, Config
from support.containers import Runrootless
from support.programs import compile_program, compiler
from support.storms import Storms
from support.trees import Trees
from support.users import AS_ROOT, Unprivileged

PROBE = Path(__file__).with_name("probes") / "storm"
# For how many rounds what takes how long goes on.
ROUNDS = {"timer": 12, "restart": 12, "children": 3, "stop": 3, "trace": 2, "death": 4}
WITH_EINTR = ("timer", "children", "death")
MACHINES = ("x86_64", "i386")

Probe = Callable[[str], str]


def calls(machine: str) -> dict[str, int]:
    """Return the numbers of all calls that are intercepted of programs for a machine."""
    names = {name for name, _, _ in rows(machine, thorough=True)}
    return {name: NUMBERS[machine][name] for name in sorted(names & NUMBERS[machine].keys())}


@pytest.fixture(scope="module")
def probe(session_user: Unprivileged) -> Probe:
    """Compile the probe for a machine, once."""
    programs: dict[str, str] = {}

    def compile(machine: str) -> str:
        if machine not in programs:
            table = "".join(f"ROW({name}, {number})\n" for name, number in calls(machine).items())
            directory = Path(session_user.session, f"storm-{machine}")
            directory.mkdir(exist_ok=True)
            (directory / "rows.h").write_text(table)
            options = [f"-I{directory}", f"-I{PROBE}", "-static", "-pthread"]
            # There are calls of one machine only.
            options += ["-Wno-unused-function"]
            if machine == "i386":
                options += compiler("-m32")[1:]
            source = (PROBE / "storm.c").read_text()
            programs[machine] = compile_program(source, f"{directory}/storm", options)
        return programs[machine]

    return compile


@pytest.fixture
def place(trees: Trees) -> Iterator[str]:
    """A directory of the user's."""
    directory = trees.new_directory("storm", for_user=True)
    yield directory
    trees.discard(directory)


def check(output: str, machine: str, kind: str) -> int:
    """Require that all went right; return how often a call was interrupted."""
    lines = output.splitlines()
    assert [line for line in lines if line.startswith("!")] == []
    counted = {}
    for line in lines:
        name, *numbers = line.split()
        counted[name] = list(map(int, numbers))
    assert counted.keys() == calls(machine).keys()
    for name, (made, interrupted, late, wrong) in counted.items():
        assert made > 0, name
        assert (late, wrong) == (0, 0), name
        assert kind in WITH_EINTR or interrupted == 0, name
    return sum(numbers[1] for numbers in counted.values())


@pytest.mark.parametrize("kind", ROUNDS)
@pytest.mark.parametrize("engine", ["notify", "thorough"])
def test_exactly_once(
    engine: str, kind: str, probe: Probe, runrootless: Runrootless, place: str, storms: Storms
) -> None:
    program = [probe("x86_64"), kind, str(ROUNDS[kind])]
    done = runrootless("emulate", "--engine", engine, "--", *program, cwd=place).check()
    storms.add(kind, engine, done.stdout, check(done.stdout, "x86_64", kind))


# A kernel that does not know the flag is one that it is not asked for.
OF_OLD = """
import os, sys
from runrootless.engines.notify_host import enter
from runrootless.launcher import WAIT_KILLABLE_RECV, command_words
words = command_words(125, 126, 127)
is_thorough = sys.argv[1] == "thorough"
before = enter("", "text", False, words, is_thorough, without=WAIT_KILLABLE_RECV)
os.execv(before[0], [*before, *sys.argv[2:]])
"""
# Of so many calls one may be amiss: it was interrupted while its answer was being delivered.
RARE = 100


@pytest.mark.parametrize("engine", ["notify", "thorough"])
def test_on_a_kernel_that_interrupts_received_calls(
    engine: str, probe: Probe, runrootless: Runrootless, place: str
) -> None:
    """What it has done is undone, or not done again: a few percent are amiss otherwise."""
    program = [sys.executable, "-c", OF_OLD, engine]
    program += [probe("x86_64"), "restart", str(ROUNDS["restart"])]
    done = runrootless.user.run(program, cwd=place).check()
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith("!")]
    assert {name for name, *_ in lines} == calls("x86_64").keys()
    made, interrupted, _, wrong = (sum(int(line[n]) for line in lines) for n in range(1, 5))
    # All these are made once more.
    assert interrupted == 0
    assert wrong <= made / RARE, done.stdout


@pytest.mark.parametrize("kind", ["timer", "restart"])
@pytest.mark.parametrize("engine", ["notify", "thorough"])
def test_exactly_once_for_32_bit_programs(
    engine: str, kind: str, probe: Probe, runrootless: Runrootless, place: str, storms: Storms
) -> None:
    program = [probe("i386"), kind, str(ROUNDS[kind] // 3)]
    done = runrootless("emulate", "--engine", engine, "--", *program, cwd=place).check()
    storms.add(kind, engine, done.stdout, check(done.stdout, "i386", kind))


@pytest.mark.parametrize("kind", ["timer", "restart"])
@pytest.mark.parametrize("engine", ["notify", "thorough"])
def test_exactly_once_in_a_container(
    engine: str,
    kind: str,
    probe: Probe,
    runrootless: Runrootless,
    bundle: MakeBundle,
    place: str,
    storms: Storms,
) -> None:
    program = "/dev/storm"
    sources = {program: probe("x86_64"), "/srv": place}

    def change(config: Config) -> None:
        for path, source in sources.items():
            config["mounts"].append(
                {"destination": path, "type": "bind", "source": source, "options": ["bind"]}
            )

    ours = bundle().add_capabilities(ADMINISTRATOR).change(change)
    ours.set([program, kind, str(ROUNDS[kind] // 3)], cwd="/srv")
    name = runrootless.new_id()
    done = runrootless("--engine", engine, "run", "--bundle", ours.path, name).check()
    storms.add(kind, engine, done.stdout, check(done.stdout, "x86_64", kind))


@pytest.mark.skipif(not AS_ROOT, reason="the oracle is the real root")
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("kind", ROUNDS)
def test_what_is_expected_is_what_the_real_root_meets_with(
    kind: str, machine: str, probe: Probe, trees: Trees
) -> None:
    directory = trees.new_directory("oracle", for_user=False)
    command = shlex.join([probe(machine), kind, "2"])
    script = f"mount -t tmpfs none {directory} && cd {directory} && {command}"
    unshare = ["unshare", "--mount", "--propagation=private", "sh", "-c", script]
    done = subprocess.run(unshare, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert check(done.stdout, machine, kind) == 0
    trees.discard(directory)
