"""Merging the user's seccomp profile with what an engine wants notified."""

import os
from typing import Any

import bpf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runrootless.bundle.seccomp import merge
from runrootless.emulation.table import seccomp_rules
from runrootless.errors import Error

LISTENER = "/run/x/listener"
LIBRARY = bpf.load_library()
PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")

needs_libseccomp = pytest.mark.skipif(
    LIBRARY is None or os.uname().machine != "x86_64",
    reason="libseccomp for x86-64 is not installed",
)


def notify(*names: str, args: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": list(names), "action": "SCMP_ACT_NOTIFY"}
    return {**rule, "args": args} if args else rule


def rule(action: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": f"SCMP_ACT_{action}", **more}


def condition(index: int, op: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second}


def compiled(profile: dict[str, Any]) -> bpf.Filter:
    assert LIBRARY is not None
    return bpf.Filter(LIBRARY, profile)


def merged(profile: dict[str, Any], *rules: dict[str, Any]) -> bpf.Filter:
    return compiled(merge(profile, list(rules), LISTENER))


def test_without_a_profile_all_else_is_allowed() -> None:
    rules = [notify("chown")]
    assert merge(None, rules, LISTENER) == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": merge(None, rules, LISTENER)["architectures"],
        "listenerPath": LISTENER,
        "syscalls": rules,
    }


def test_an_empty_profile_is_none() -> None:
    assert merge({}, [notify("chown")], LISTENER) == merge(None, [notify("chown")], LISTENER)


def test_socketcall_of_the_profile_stays_as_it_is() -> None:
    theirs = rule("ALLOW", "socketcall")
    ours = [notify("bind"), notify("socketcall", args=[condition(0, "EQ", 2)])]
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [theirs, rule("ALLOW", "bind")]}
    assert merge(profile, ours, LISTENER)["syscalls"] == [theirs, notify("bind")]
    profile["syscalls"] = [rule("ALLOW", "bind")]
    assert merge(profile, ours, LISTENER)["syscalls"] == [notify("bind")]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="another architecture")
def test_every_architecture_of_the_machine_is_filtered() -> None:
    # A 32-bit program would be killed otherwise.
    architectures = merge(None, [], LISTENER)["architectures"]
    assert architectures == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]


def test_the_profile_and_the_rules_stay_as_they_are() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [rule("ALLOW", "chown", "read", args=[condition(0, "EQ", 1)])],
    }
    rules = [notify("chown", args=[condition(1, "EQ", 2)])]
    before = repr((profile, rules))
    merge(profile, rules, LISTENER)
    assert repr((profile, rules)) == before


def test_what_is_not_emulated_stays_as_it_is() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            rule("ALLOW", "read", "chown"),
            rule("ERRNO", "mount", errnoRet=1),
            rule("ALLOW", "personality", args=[condition(0, "EQ", 0)]),
        ],
    }
    result = merge(profile, [notify("chown")], LISTENER)
    assert result["syscalls"][:3] == [
        rule("ALLOW", "read"),
        rule("ERRNO", "mount", errnoRet=1),
        rule("ALLOW", "personality", args=[condition(0, "EQ", 0)]),
    ]
    for name in ("defaultAction", "defaultErrnoRet", "architectures", "flags"):
        assert result[name] == profile[name]
    assert result["listenerPath"] == LISTENER


def test_rules_of_ours_stay_together() -> None:
    """A profile as large as Docker's must not grow by a rule for every call."""
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("ALLOW", "chown", "lchown")]}
    result = merge(profile, [notify("chown", "lchown", "fchown")], LISTENER)
    assert result["syscalls"] == [notify("chown", "lchown")]


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/theirs"},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [notify("mkdir")]},
    ],
)
def test_a_second_listener_is_an_error(profile: dict[str, Any]) -> None:
    with pytest.raises(Error, match="SCMP_ACT_NOTIFY and listenerPath"):
        merge(profile, [notify("chown")], LISTENER)


@needs_libseccomp
class TestCompiled:
    def test_no_profile(self) -> None:
        assert LIBRARY is not None
        profile = merge(None, [notify("chown")], LISTENER)
        run = bpf.Filter(LIBRARY, profile)
        assert run("chown") == bpf.NOTIFY
        assert run("read") == bpf.ALLOW

    def test_denied_by_default(self) -> None:
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("ALLOW", "read", "chown")]}
        run = merged(profile, notify("chown", "lchown"))
        assert run("chown") == bpf.NOTIFY
        assert run("lchown") == bpf.action("SCMP_ACT_ERRNO")
        assert run("read") == bpf.ALLOW

    def test_denied_by_a_rule(self) -> None:
        profile = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [rule("ERRNO", "chown", errnoRet=38), rule("KILL_PROCESS", "mknod")],
        }
        run = merged(profile, notify("chown", "lchown", "mknod"))
        assert run("chown") == bpf.action("SCMP_ACT_ERRNO", 38)
        assert run("mknod") == bpf.action("SCMP_ACT_KILL_PROCESS")
        assert run("lchown") == bpf.NOTIFY

    def test_allowed_with_a_condition(self) -> None:
        profile = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [rule("ALLOW", "fchown", args=[condition(1, "EQ", 5)])],
        }
        run = merged(profile, notify("fchown"))
        assert run("fchown", 3, 5) == bpf.NOTIFY
        assert run("fchown", 3, 6) == bpf.action("SCMP_ACT_ERRNO")

    def test_denied_with_a_condition(self) -> None:
        profile = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [rule("ERRNO", "fchown", args=[condition(1, "EQ", 5)])],
        }
        run = merged(profile, notify("fchown"))
        assert run("fchown", 3, 5) == bpf.action("SCMP_ACT_ERRNO")
        assert run("fchown", 3, 6) == bpf.NOTIFY

    def test_only_a_part_is_emulated(self) -> None:
        """prlimit64 is notified for one resource, and Docker's profile allows all."""
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule("ALLOW", "prlimit64")]}
        run = merged(profile, notify("prlimit64", args=[condition(1, "EQ", 15)]))
        assert run("prlimit64", 0, 15) == bpf.NOTIFY
        assert run("prlimit64", 0, 7) == bpf.ALLOW

    @pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"])
    @pytest.mark.parametrize(
        ("name", "index", "value"),
        [("prlimit64", 1, 15), ("setrlimit", 0, 15), ("setsockopt", 2, 16), ("kill", 0, 2**32 - 1)],
    )
    def test_one_value_of_an_int(self, default: str, name: str, index: int, value: int) -> None:
        """Of which the kernel takes 32 bits, and Docker's profile allows all."""
        profile = {"defaultAction": default, "syscalls": [rule("ALLOW", name, "read")]}
        run = merged(profile, *(one for one in seccomp_rules() if one["names"] == [name]))
        for upper in (0, 1 << 32, 1 << 63, 0xFFFFFFFF << 32):
            arguments = [0] * 6
            arguments[index] = upper | value
            assert run(name, *arguments) == bpf.NOTIFY
            for bit in range(32):
                arguments[index] = upper | value ^ 1 << bit
                assert run(name, *arguments) == bpf.ALLOW

    def test_some_bits_are_emulated(self) -> None:
        """clone is notified with CLONE_NEWNS, and Docker's profile denies some flags."""
        namespaces, mount_namespace = 0x7E020000, 0x00020000
        profile = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [rule("ALLOW", "clone", args=[condition(0, "MASKED_EQ", namespaces, 0)])],
        }
        wanted = condition(0, "MASKED_EQ", mount_namespace, mount_namespace)
        run = merged(profile, notify("clone", args=[wanted]))
        assert run("clone", 0x11) == bpf.ALLOW
        assert run("clone", mount_namespace) == bpf.action("SCMP_ACT_ERRNO")

        profile["syscalls"] = [rule("ALLOW", "clone")]
        run = merged(profile, notify("clone", args=[wanted]))
        assert run("clone", 0x11) == bpf.ALLOW
        assert run("clone", mount_namespace | 0x11) == bpf.NOTIFY

    @pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"])
    def test_any_of_several_flags_is_emulated(self, default: str) -> None:
        """open is notified with one of these flags, and Docker's profile allows all."""
        profile = {"defaultAction": default, "syscalls": [rule("ALLOW", "openat", "read")]}
        run = merged(profile, *(one for one in seccomp_rules() if one["names"] == ["openat"]))
        notified = (os.O_CREAT, os.O_TRUNC, os.O_NOCTTY, os.O_RDWR, 0o20000000)
        bits = (*notified, os.O_WRONLY, os.O_CLOEXEC, os.O_APPEND, 1 << 40)
        for chosen in range(1 << len(bits)):
            flags = sum(bit for at, bit in enumerate(bits) if chosen >> at & 1)
            expected = bpf.NOTIFY if flags & sum(notified) else bpf.ALLOW
            assert run("openat", 0, 0, flags) == expected, hex(flags)

    def test_several_conditions_of_the_profile(self) -> None:
        """Then all that it allows is notified: libseccomp gets the rules that it had."""
        conditions = [[condition(1, "EQ", 5)], [condition(1, "EQ", 6), condition(2, "NE", 0)]]
        profile = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [rule("ALLOW", "fchown", args=one) for one in conditions],
        }
        run = merged(profile, notify("fchown", args=[condition(0, "EQ", 3)]))
        for call in ((3, 5, 0), (3, 6, 1)):
            assert run("fchown", *call) == bpf.NOTIFY
        for call in ((3, 6, 0), (3, 7, 0)):
            assert run("fchown", *call) == bpf.action("SCMP_ACT_ERRNO")

    def test_several_denials(self) -> None:
        """Then nothing is notified: better not emulated than allowed."""
        profile = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [rule("ERRNO", "fchown", args=[condition(1, "EQ", n)]) for n in (5, 6)],
        }
        run = merged(profile, notify("fchown"))
        assert run("fchown", 3, 5) == run("fchown", 3, 6) == bpf.action("SCMP_ACT_ERRNO")
        assert run("fchown", 3, 7) == bpf.ALLOW

    def test_two_conditions_for_one_argument_are_alternatives(self) -> None:
        """To the runtimes, so to us."""
        both = [condition(1, "EQ", 5), condition(1, "EQ", 6)]
        profile = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [rule("ALLOW", "fchown", args=both)],
        }
        run = merged(profile, notify("fchown"))
        assert run("fchown", 3, 5) == run("fchown", 3, 6) == bpf.NOTIFY
        assert run("fchown", 3, 7) == bpf.action("SCMP_ACT_ERRNO")

    def test_a_rule_with_the_default_action_is_none(self) -> None:
        profile = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "syscalls": [
                rule("ERRNO", "fchown", errnoRet=38),
                rule("ALLOW", "fchown", args=[condition(1, "EQ", 5)]),
            ],
        }
        run = merged(profile, notify("fchown"))
        assert run("fchown", 3, 5) == bpf.NOTIFY
        assert run("fchown", 3, 6) == bpf.action("SCMP_ACT_ERRNO", 38)

    def test_a_rule_without_conditions_swallows_the_others(self) -> None:
        """As libseccomp has it; the profile alone shows it."""
        profile = {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                rule("ERRNO", "fchown", args=[condition(1, "EQ", 5)], errnoRet=38),
                rule("ALLOW", "fchown"),
                rule("ERRNO", "fchown", errnoRet=2),
            ],
        }
        assert compiled(profile)("fchown", 3, 5) == bpf.ALLOW
        assert merged(profile, notify("fchown"))("fchown", 3, 5) == bpf.NOTIFY


NAMES = ("fchown", "prlimit64")
VALUES = st.sampled_from((0, 1, 2, 3, 6, 15, 1 << 32, (1 << 64) - 1))
CONDITIONS = st.builds(
    condition,
    st.integers(0, 2),
    st.sampled_from(("NE", "LT", "LE", "EQ", "GE", "GT")),
    VALUES,
) | st.builds(
    lambda index, mask, value: condition(index, "MASKED_EQ", mask, value & mask),
    st.integers(0, 2),
    st.sampled_from((1, 2, 3, 7, 0xFF, 0xFFFF)),
    VALUES,
)
ARGUMENTS = st.lists(CONDITIONS, max_size=2, unique_by=lambda one: one["index"])
ACTIONS = st.sampled_from(("ALLOW", "LOG", "ERRNO", "KILL_PROCESS"))
CALLS = st.tuples(VALUES | st.just(4), VALUES | st.just(5), VALUES | st.just(7))


def can_be_said(*rules: list[dict[str, Any]]) -> bool:
    """Return whether all that can follow from these conditions is rules of libseccomp.

    Not if there would be two conditions for an argument, or dozens of rules, or
    so many conditions that libseccomp goes wrong.
    """
    conditions = [one for arguments in rules for one in arguments]
    return (
        len(conditions) <= 2
        and len({one["index"] for one in conditions}) == len(conditions)
        and not any(one["op"] == "SCMP_CMP_MASKED_EQ" and one["value"] > 0xFF for one in conditions)
    )


@needs_libseccomp
@settings(max_examples=300, deadline=None)
@given(
    default=ACTIONS,
    action=ACTIONS,
    arguments=ARGUMENTS,
    wanted=ARGUMENTS,
    calls=st.lists(CALLS, min_size=5),
)
def test_any_rule_with_any_rule(
    default: str,
    action: str,
    arguments: list[dict[str, Any]],
    wanted: list[dict[str, Any]],
    calls: list[tuple[int, int, int]],
) -> None:
    profile = {
        "defaultAction": f"SCMP_ACT_{default}",
        "syscalls": [rule(action, *NAMES, args=arguments)],
    }
    alone = compiled(profile)
    only = compiled(
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [notify("fchown", args=wanted)]}
    )
    both = merged(profile, notify("fchown", args=wanted))
    permitted = {bpf.action(name) for name in PERMISSIVE}
    # What is only logged where all else is allowed may be notified instead.
    logged = action != default and {action, default} == {"ALLOW", "LOG"} and arguments
    exact = not logged and can_be_said(arguments, wanted)
    for call in calls:
        before = alone("fchown", *call)
        after = both("fchown", *call)
        if before not in permitted:
            assert after == before
        elif only("fchown", *call) == bpf.NOTIFY:
            assert after == bpf.NOTIFY or (not exact and after == before)
        else:
            assert after == before or (not exact and after == bpf.NOTIFY)
        assert both("prlimit64", *call) == alone("prlimit64", *call)
