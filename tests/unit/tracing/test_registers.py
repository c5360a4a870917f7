"""Registers of threads that are stopped in a call, and of those that are to make one."""

import pytest

from runrootless.errors import Error
from runrootless.tracing import machines

ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK = 512, 513, 514, 516
X86_64 = machines.of_registers(bytes(27 * 8))
I386 = machines.of_registers(bytes(17 * 4))
BOTH = pytest.mark.parametrize("machine", [X86_64, I386], ids=["x86_64", "i386"])


def registers(machine: machines.Machine, begun: int, result: int) -> bytes:
    bits = 64 if machine is X86_64 else 32
    values = [100 + number for number in range(len(machine.values(bytes(machine.size))))]
    values[machine.begun] = begun % (1 << bits)
    values[machine.result] = result % (1 << bits)
    return machine.packed(values)


@BOTH
@pytest.mark.parametrize("error", [ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND])
def test_an_interrupted_call_is_made_again(machine: machines.Machine, error: int) -> None:
    before = registers(machine, 7, -error)
    values = machine.values(machine.resumed(before, machine.instruction))
    assert values[machine.number] == 7
    assert values[machine.counter] == machine.values(before)[machine.counter] - 2
    # Not once more by the kernel.
    assert machine.resumed(machine.packed(values), machine.instruction) == machine.packed(values)


@BOTH
def test_a_timed_one_goes_on_for_the_rest_of_the_time(machine: machines.Machine) -> None:
    before = registers(machine, 7, -ERESTART_RESTARTBLOCK)
    values = machine.values(machine.resumed(before, machine.instruction))
    assert values[machine.number] == machine.restarts[machine.instruction]
    assert values[machine.counter] == machine.values(before)[machine.counter] - 2


def test_the_rest_is_waited_for_by_the_abi_that_was_called() -> None:
    before = registers(X86_64, 162, -ERESTART_RESTARTBLOCK)
    assert X86_64.values(X86_64.resumed(before, I386.instruction))[X86_64.number] == 0
    before = registers(X86_64, 1 << 30 | 35, -ERESTART_RESTARTBLOCK)
    values = X86_64.values(X86_64.resumed(before, X86_64.instruction))
    assert values[X86_64.number] == 1 << 30 | 219


@BOTH
@pytest.mark.parametrize(
    ("begun", "result"), [(-1, -ERESTARTSYS), (7, 0), (7, -4), (7, -511), (0, 5)]
)
def test_all_else_stays(machine: machines.Machine, begun: int, result: int) -> None:
    before = registers(machine, begun, result)
    assert machine.resumed(before, machine.instruction) == before


@BOTH
def test_what_a_call_returns(machine: machines.Machine) -> None:
    for value in (0, 5, -1, -4095):
        assert machine.result_of(registers(machine, 0, value)) == value
    top = (1 << (64 if machine is X86_64 else 32)) - 4096
    assert machine.result_of(registers(machine, 0, top)) == top


def test_other_architectures_are_refused() -> None:
    with pytest.raises(Error, match="architecture"):
        machines.of_registers(bytes(12))
