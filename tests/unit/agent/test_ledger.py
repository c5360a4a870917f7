"""What a worker notes of the calls in its hands, and what the next one finds."""

import os

from runrootless.agent.ledger import NO_CALL, SLOTS, Ledger
from runrootless.emulation.repetition import ONCE, Repetition
from runrootless.emulation.table import rows
from runrootless.linux import seccomp
from runrootless.linux.seccomp import AUDIT_ARCHITECTURES
from runrootless.linux.syscall_numbers import NUMBERS

NOTIFICATION = bytes(range(1, 81))


def test_another_process_finds_what_one_has_left() -> None:
    ledger = Ledger()
    child = os.fork()
    if child == 0:
        ledger.turn(0)
        for listener in (7, 8, 9):
            slot = ledger.take(listener)
            assert slot is not None
            if listener == 8:
                # Without a call.
                continue
            slot.notification[:] = NOTIFICATION
            slot.begun[0] = listener == 9
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    found = ledger.collect(0)
    assert [(one.listener, one.begun, one.stuck, one.attempts) for one in found] == [
        (7, False, False, 0),
        (9, True, False, 0),
    ]
    assert {one.notification for one in found} == {NOTIFICATION}
    assert ledger.collect(0) == []


def test_what_is_noted_anew_is_found_with_its_attempts() -> None:
    ledger = Ledger()
    ledger.turn(0)
    slot = ledger.take(1)
    assert slot is not None
    slot.notification[:] = NOTIFICATION
    (found,) = ledger.collect(0)
    found.attempts += 3
    ledger.turn(1)
    other = ledger.take(1)
    assert other is not None
    other.note(found.packed())
    assert ledger.collect(0) == []
    (again,) = ledger.collect(1)
    assert (again.key(), again.attempts) == (found.key(), 3)


def test_slots_are_used_again_and_are_empty_then() -> None:
    ledger = Ledger()
    ledger.turn(0)
    slots = [ledger.take(1) for _ in range(SLOTS)]
    assert ledger.take(1) is None
    slot = slots[5]
    assert slot is not None
    slot.notification[:] = NOTIFICATION
    ledger.give(slot)
    again = ledger.take(2)
    assert again is not None
    assert again.offset == slot.offset
    assert again.identifier == NO_CALL
    assert ledger.collect(0) == []


def _notification(machine: str, name: str, *arguments: int) -> bytes:
    padded = [*arguments, *[0] * (6 - len(arguments))]
    key = seccomp.NUMBER.pack(NUMBERS[machine][name], AUDIT_ARCHITECTURES[machine])
    return bytes(16) + key + bytes(8) + b"".join(one.to_bytes(8, "little") for one in padded)


def test_what_may_be_done_twice() -> None:
    harmless = Repetition().is_harmless
    for machine in AUDIT_ARCHITECTURES:
        names = {name for name, _, _ in rows(machine, thorough=True)} & NUMBERS[machine].keys()
        for name in names:
            assert harmless(_notification(machine, name)) == (name not in ONCE), name
    assert not harmless(_notification("x86_64", "setxattr", 0, 0, 0, 0, os.XATTR_CREATE))
    assert not harmless(_notification("x86_64", "fsetxattr", 0, 0, 0, 0, os.XATTR_REPLACE))


def test_every_call_that_is_not_is_one_of_the_table() -> None:
    machines = AUDIT_ARCHITECTURES
    assert {name for machine in machines for name, _, _ in rows(machine, thorough=True)} >= ONCE
