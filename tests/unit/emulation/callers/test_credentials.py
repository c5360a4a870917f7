"""The rules of credential changes against the kernel's, by a process of real root's."""

import ctypes
import errno
import os
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runrootless.emulation.callers.credentials import (
    CAP_SETGID,
    CAP_SETUID,
    NO_CHANGE,
    ROOT,
    SECURE_KEEP_CAPS,
    SECURE_NO_ROOT,
    SECURE_NO_SETUID_FIXUP,
    Credentials,
    initial,
    set_all,
    set_file_system,
    set_id,
    set_real_effective,
)

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "setuid": 105,
    "setreuid": 113,
    "setresuid": 117,
    "setfsuid": 122,
    "setgid": 106,
    "setregid": 114,
    "setresgid": 119,
    "setfsgid": 123,
}

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or os.uname().machine != "x86_64",
    reason="the oracle is the kernel's treatment of real root, with x86_64's call numbers",
)


def in_child(function: Callable[[], object]) -> object:
    """Return what a function returns in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with os.fdopen(writer, "wb") as stream:
                pickle.dump(function(), stream)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        result = pickle.load(stream)
    os.waitpid(pid, 0)
    return result


def kernel_ids() -> tuple[tuple[int, ...], tuple[int, ...]]:
    with open("/proc/thread-self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    uids, gids = (tuple(map(int, fields[key].split())) for key in ("Uid", "Gid"))
    return uids, gids


ID = st.sampled_from((0, 1, 2, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, NO_CHANGE))
STEP = st.one_of(
    st.tuples(st.sampled_from(("setuid", "setgid", "setfsuid", "setfsgid")), st.tuples(ID)),
    st.tuples(st.sampled_from(("setreuid", "setregid")), st.tuples(ID, ID)),
    st.tuples(st.sampled_from(("setresuid", "setresgid")), st.tuples(ID, ID, ID)),
)
Step = tuple[str, tuple[int, ...]]


def by_kernel(steps: list[Step]) -> list[object]:
    trace: list[object] = []
    for name, ids in steps:
        result = LIBC.syscall(NUMBERS[name], *(ctypes.c_uint(i) for i in ids))
        trace.append(result & 0xFFFFFFFF if result >= 0 or "fs" in name else -ctypes.get_errno())
        trace.append(kernel_ids())
    return trace


def by_rules(steps: list[Step]) -> list[object]:
    rules: dict[str, Callable[..., tuple[int, int, int, int]]] = {
        "set": set_id,
        "setre": set_real_effective,
        "setres": set_all,
        "setfs": set_file_system,
    }
    credentials = ROOT
    trace: list[object] = []
    for name, ids in steps:
        rule = rules[name[:-3]]
        result = 0
        try:
            if name.endswith("uid"):
                old = credentials.uids
                new = rule(old, *ids, credentials.can(CAP_SETUID))
                credentials = credentials.with_uids(new)
            else:
                old = credentials.gids
                new = rule(old, *ids, credentials.can(CAP_SETGID))
                credentials = credentials.with_gids(new)
            if "fs" in name:
                result = old[3]
        except OSError as error:
            result = -(error.errno or 0)
        trace.append(result)
        trace.append((credentials.uids, credentials.gids))
    return trace


@needs_root
@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=6))
def test_any_sequence_of_calls(steps: list[Step]) -> None:
    assert by_rules(steps) == in_child(lambda: by_kernel(steps))


def test_capabilities_follow_the_user_id() -> None:
    user = ROOT.with_uids((5, 5, 5, 5))
    assert (user.permitted, user.effective) == (0, 0)
    saved = ROOT.with_uids((0, 5, 0, 5))
    assert not saved.can(CAP_SETUID)
    assert saved.with_uids((0, 0, 0, 0)).can(CAP_SETUID)
    kept = ROOT.with_securebits(SECURE_KEEP_CAPS).with_uids((5, 5, 5, 5))
    assert kept.permitted and not kept.effective
    assert kept.with_capabilities(kept.permitted, CAP_SETGID).can(CAP_SETGID)
    assert kept.after_exec(None, 7).securebits == 0
    fixed = ROOT.with_securebits(SECURE_NO_SETUID_FIXUP).with_uids((5, 5, 5, 5))
    assert fixed.can(CAP_SETUID)
    assert not fixed.after_exec(None, None).can(CAP_SETUID)


def test_root_may_have_no_capabilities_of_its_own() -> None:
    plain = ROOT.with_securebits(SECURE_NO_ROOT)
    assert plain.can(CAP_SETUID)
    executed = plain.after_exec(None, None)
    assert (executed.permitted, executed.effective) == (0, 0)
    assert executed.securebits == SECURE_NO_ROOT


def test_capabilities_cannot_be_raised() -> None:
    with pytest.raises(PermissionError):
        initial(5, 5).with_capabilities(CAP_SETUID, CAP_SETUID)
    with pytest.raises(PermissionError):
        ROOT.with_capabilities(CAP_SETUID, CAP_SETGID)


def test_groups_are_sorted() -> None:
    assert ROOT.with_groups([7, 3, 7]).groups == (3, 7, 7)
    with pytest.raises(OSError) as caught:
        ROOT.with_groups([NO_CHANGE])
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("before", "owner", "group", "after"),
    [
        (initial(5, 6), None, None, initial(5, 6)),
        (
            Credentials((5, 5, 5, 5), (6, 6, 6, 6)),
            0,
            None,
            Credentials((5, 0, 0, 0), (6, 6, 6, 6), (), ROOT.permitted, ROOT.permitted),
        ),
        (
            Credentials((5, 5, 5, 5), (6, 6, 6, 6)),
            7,
            8,
            Credentials((5, 7, 7, 7), (6, 8, 8, 8)),
        ),
        # The saved IDs are copies of the effective ones.
        (
            Credentials((1, 2, 3, 2), (4, 5, 6, 5)),
            None,
            None,
            Credentials((1, 2, 2, 2), (4, 5, 5, 5)),
        ),
    ],
)
def test_after_exec(
    before: Credentials, owner: int | None, group: int | None, after: Credentials
) -> None:
    assert before.after_exec(owner, group) == after
