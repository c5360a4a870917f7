"""What our filter needs of a bundle's profile, and what it leaves to it."""

import itertools
import os
import struct
from typing import Any

import pytest

from runrootless.bundle.profile import denied, permit_seccomp, require_no_listener
from runrootless.emulation.seccomp_filter import answering_seccomp
from runrootless.errors import Error
from runrootless.linux.seccomp import AUDIT_ARCHITECTURES, RETURN_ALLOW, SYSTEM_CALL
from runrootless.linux.syscall_numbers import NUMBERS
from support import bpf

LIBRARY = bpf.load_library()
ACTIONS = ("ALLOW", "LOG", "ERRNO", "KILL_PROCESS", "TRAP")

with_libseccomp = pytest.mark.skipif(
    LIBRARY is None or os.uname().machine != "x86_64",
    reason="libseccomp for x86-64 is not installed",
)


def rule(action: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": f"SCMP_ACT_{action}", **more}


def answer(profile: dict[str, Any], name: str = "seccomp") -> int:
    assert LIBRARY is not None
    return bpf.Filter(LIBRARY, profile)(name)


@with_libseccomp
@pytest.mark.parametrize(
    ("default", "own", "number"), [*itertools.product(ACTIONS, (*ACTIONS, None), (None, 0, 1, 38))]
)
def test_the_call_is_allowed_and_answered_as_before(
    default: str, own: str | None, number: int | None
) -> None:
    """By all profiles with or without a rule for it, together with our own filter."""
    errno = {} if number is None else {"errnoRet": number}
    profile: dict[str, Any] = {
        "defaultAction": f"SCMP_ACT_{default}",
        "syscalls": [
            rule("ALLOW", "read"),
            *([rule(own, "seccomp", "bpf", **errno)] if own else []),
        ],
    }
    before, other = answer(profile), answer(profile, "bpf")
    ours = permit_seccomp(profile)
    after = answer(profile)
    assert after in (bpf.ALLOW, bpf.action("SCMP_ACT_LOG"))
    assert (ours if ours is not None else after) == before
    # Nothing else has changed.
    assert answer(profile, "bpf") == other
    assert answer(profile, "read") == bpf.ALLOW


def test_one_with_conditions_stays() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            rule("ALLOW", "seccomp", args=[{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}])
        ],
    }
    assert permit_seccomp(profile) is None
    assert len(profile["syscalls"]) == 1


@pytest.mark.parametrize("machine", ["x86_64", "i386"])
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter is for this machine")
def test_the_answer_comes_before_a_filter(machine: str) -> None:
    program = answering_seccomp(0x00050026) + struct.pack("=HBBI", 0x06, 0, 0, RETURN_ALLOW)
    instructions = list(struct.iter_unpack("=HBBI", program))
    for number in (*NUMBERS[machine].values(), SYSTEM_CALL[machine]):
        data = struct.pack("=IIQ6Q", number, AUDIT_ARCHITECTURES[machine], 0, *[0] * 6)
        expected = 0x00050026 if number == SYSTEM_CALL[machine] else RETURN_ALLOW
        assert bpf.run(instructions, data) == expected, number


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("NOTIFY", "mkdir")]},
    ],
)
def test_there_can_be_one_listener_only(profile: dict[str, Any]) -> None:
    with pytest.raises(Error, match="SCMP_ACT_NOTIFY"):
        require_no_listener(profile)


def test_the_path_of_a_listener_that_nothing_notifies_is_no_obstacle() -> None:
    require_no_listener({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/theirs"})


def test_denied() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [rule("ALLOW", "a"), rule("ERRNO", "b"), rule("ALLOW", "c", args=[{}])],
    }
    assert denied(profile, "abcd") == ["b", "d"]
