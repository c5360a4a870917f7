"""One seccomp profile from the user's and from what an engine wants notified or answered.

The rule is: what the user's profile denies stays denied, and what it allows and
an engine emulates gets the engine's action: SCMP_ACT_NOTIFY, or SCMP_ACT_ERRNO with 0.

Two rules for one system call must not overlap, because then the outcome
depends on how libseccomp sorts them: a rule without conditions swallows all
others, and others may get lost (tried, 2.5.4).  So conditions are treated as
regions of the argument space here, and split until they are disjoint.  That is
done for one region of the profile and one of the engine, or several that are about bits of
one argument; with more of them, and
where the difference would need two conditions for one argument, the engine gets
more than it wants (notified, it lets that go on), or less if more would be what the
profile denies.
"""

from __future__ import annotations

from runrootless.bundle.profile import permissive
from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Profile = dict[str, Any]
    Rule = dict[str, Any]
    # Operator, value and second value: an OCI LinuxSyscallArg without its index.
    Condition = tuple[str, int, int]
    # A condition for each argument that matters; all have to hold.
    Region = dict[int, Condition]

NOTIFY = "SCMP_ACT_NOTIFY"
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
_OPPOSITES = {
    "SCMP_CMP_EQ": "SCMP_CMP_NE",
    "SCMP_CMP_NE": "SCMP_CMP_EQ",
    "SCMP_CMP_LT": "SCMP_CMP_GE",
    "SCMP_CMP_GE": "SCMP_CMP_LT",
    "SCMP_CMP_LE": "SCMP_CMP_GT",
    "SCMP_CMP_GT": "SCMP_CMP_LE",
}
_MASKED = "SCMP_CMP_MASKED_EQ"
# libseccomp makes rules for it of those for socket(2) and others, and refuses ours beside
# them and the profile's own.
_SOCKETCALL = "socketcall"
_MAXIMUM_MASK_BITS = 32
# libseccomp 2.5.4 hangs on some sets of rules with three conditions each.
_MAXIMUM_CONDITIONS = 2


class _InexpressibleError(Exception):
    """A region that no rule of libseccomp describes."""


def merge(profile: Profile | None, rules: list[Rule], listener_path: str | None) -> Profile:
    """Return a ``linux.seccomp`` that applies ``rules`` as far as ``profile`` allows their calls.

    ``rules`` are OCI LinuxSyscall objects, all with the same action; if that is
    SCMP_ACT_NOTIFY, ``listener_path`` is the socket that the runtime sends the listener
    to (OCI config-linux.md, "Seccomp"), else None.  ``profile`` is not changed.

    Raises ``Error`` if there would be two listeners, ours and one of the profile's.
    """
    if not profile:
        return permissive(rules, listener_path)
    syscalls = profile.get("syscalls", [])
    default = profile.get("defaultAction", "")
    if listener_path is not None and (
        profile.get("listenerPath")
        or NOTIFY in (default, *(rule.get("action") for rule in syscalls))
    ):
        raise Error(
            "linux.seccomp: SCMP_ACT_NOTIFY and listenerPath cannot be used, "
            "because root is emulated with them: remove them from the profile"
        )
    ours = _rule(rules[0], {}) if rules else {}
    wanted: dict[str, list[Region]] = {}
    for rule in rules:
        for name in rule["names"]:
            wanted.setdefault(name, []).extend(_regions(rule))
    if any(_SOCKETCALL in rule.get("names", ()) for rule in syscalls):
        wanted.pop(_SOCKETCALL, None)
    theirs: dict[str, list[Rule]] = {name: [] for name in wanted}
    for rule in syscalls:
        for name in rule.get("names", ()):
            # A rule with the default action is none; the runtimes skip it too.
            if name in wanted and not _is_default(rule, profile):
                theirs[name].append(rule)
    merged = []
    for rule in syscalls:
        names = [name for name in rule.get("names", ()) if name not in wanted]
        if names:
            merged.append({**rule, "names": names})
    merged += _group(
        (name, _merge_one(theirs[name], ours, regions, default)) for name, regions in wanted.items()
    )
    both = {**profile, "syscalls": merged}
    if listener_path is not None:
        both["listenerPath"] = listener_path
    return both


def _is_default(rule: Rule, profile: Profile) -> bool:
    action = rule.get("action")
    return action == profile.get("defaultAction") and (
        action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
        or rule.get("errnoRet") == profile.get("defaultErrnoRet")
    )


def _merge_one(theirs: list[Rule], ours: Rule, wanted: list[Region], default: str) -> list[Rule]:
    """Return the rules (less their names) for a system call.

    ``theirs`` are the profile's for it, ``ours`` is a rule with the engine's action, and
    ``wanted`` the regions to apply it to.
    """
    unwanted = _none_of(wanted) if len(wanted) > 1 else None
    if len(wanted) > 1:
        wanted = [{}]
    split = [(rule, region) for rule in theirs for region in _regions(rule)]
    for rule, region in split:
        if not region:
            # For libseccomp the first one without conditions is the only one.
            if not _permits(rule):
                return [_rule(rule, {})]
            if unwanted is not None:
                emulated = [_rule(ours, part) for part in _complement(unwanted)]
                return [*emulated, _rule(rule, unwanted)]
            return _share(rule, ours, {}, wanted[0])
    if default in _PERMISSIVE:
        denials = [(rule, region) for rule, region in split if not _permits(rule)]
        if not split:
            parts = wanted if unwanted is None else _complement(unwanted)
            return [_rule(ours, region) for region in parts]
        if not denials:
            return [ours]
        kept = [_rule(rule, region) for rule, region in split]
        if len(split) == 1:
            try:
                left = _difference(wanted[0], denials[0][1])
            except _InexpressibleError:
                return kept
            kept += [_rule(ours, region) for region in left]
        return kept
    merged = []
    for rule, region in split:
        if not _permits(rule):
            merged.append(_rule(rule, region))
        elif len(split) > 1:
            merged.append(_rule(ours, region))
        else:
            merged += _share(rule, ours, region, wanted[0])
    return merged


def _none_of(regions: list[Region]) -> Region | None:
    """Return the region outside of all ``regions``, if each is about bits of one argument.

    None where they are about more than that.
    """
    indices = {index for region in regions for index in region}
    bits = 0
    for region in regions:
        for operator, value, second in region.values():
            if operator != _MASKED or second != value or value.bit_count() != 1:
                return None
            bits |= value
    if len(indices) != 1 or not all(regions):
        return None
    return {indices.pop(): (_MASKED, bits, 0)}


def _permits(rule: Rule) -> bool:
    return rule.get("action") in _PERMISSIVE


def _share(rule: Rule, ours: Rule, allowed: Region, wanted: Region) -> list[Rule]:
    """Return rules for the region ``allowed`` of ``rule``: ``ours`` for what is wanted of it."""
    try:
        both = _intersection(allowed, wanted)
        rest = _difference(allowed, wanted)
    except _InexpressibleError:
        return [_rule(ours, allowed)]
    emulated = [] if both is None else [_rule(ours, both)]
    return emulated + [_rule(rule, region) for region in rest]


def _rule(like: Rule, region: Region) -> Rule:
    rule: Rule = {name: like[name] for name in ("action", "errnoRet") if name in like}
    if region:
        rule["args"] = [
            {"index": index, "value": value, "valueTwo": second, "op": operator}
            for index, (operator, value, second) in sorted(region.items())
        ]
    return rule


def _group(rules: Any) -> list[Rule]:
    """Return rules with names from (name, rules less their names), equal ones joined."""
    groups: list[tuple[Rule, list[str]]] = []
    for name, rules_of_name in rules:
        seen: list[Rule] = []
        for rule in rules_of_name:
            # The same rule twice is an error to some versions of libseccomp.
            if rule in seen:
                continue
            seen.append(rule)
            for other, names in groups:
                if other == rule:
                    names.append(name)
                    break
            else:
                groups.append((rule, [name]))
    return [{"names": names, **rule} for rule, names in groups]


def _regions(rule: Rule) -> list[Region]:
    """Return the regions that a rule is about, one of them usually."""
    conditions = [
        (
            argument.get("index", 0),
            (argument.get("op", ""), argument.get("value", 0), argument.get("valueTwo", 0)),
        )
        for argument in rule.get("args") or ()
    ]
    region = dict(conditions)
    if len(region) == len(conditions):
        return [region]
    # Two conditions for one argument: runc and crun take them all as alternatives.
    return [{index: condition} for index, condition in conditions]


def _difference(region: Region, other: Region) -> list[Region]:
    """Return disjoint regions that together are ``region`` without ``other``."""
    if len(region) + len(other) > _MAXIMUM_CONDITIONS:
        raise _InexpressibleError
    pieces = [_intersection(region, outside) for outside in _complement(other)]
    return [piece for piece in pieces if piece is not None]


def _complement(region: Region) -> list[Region]:
    """Return disjoint regions that together are all that is not in ``region``."""
    complement: list[Region] = []
    inside: Region = {}
    for index, condition in sorted(region.items()):
        complement += [{**inside, index: outside} for outside in _opposites(condition)]
        inside[index] = condition
    return complement


def _opposites(condition: Condition) -> list[Condition]:
    operator, value, second = condition
    if operator in _OPPOSITES:
        return [(_OPPOSITES[operator], value, 0)]
    if operator != _MASKED or value.bit_count() > _MAXIMUM_MASK_BITS:
        raise _InexpressibleError
    # The first bit differs, or the first is as wanted and the second differs, ...
    opposites = []
    mask = 0
    for position in range(value.bit_length()):
        bit = 1 << position
        if value & bit:
            opposites.append((_MASKED, mask | bit, second & mask | ~second & bit))
            mask |= bit
    return opposites


def _intersection(one: Region, other: Region) -> Region | None:
    both = dict(one)
    for index, condition in other.items():
        if index in both:
            joined = _join(both[index], condition)
            if joined is None:
                return None
            both[index] = joined
        else:
            both[index] = condition
    return both


def _join(one: Condition, other: Condition) -> Condition | None:
    """Return the condition that holds where both do, ``None`` if that is nowhere."""
    if one == other:
        return one
    for equal, test in ((one, other), (other, one)):
        if equal[0] == "SCMP_CMP_EQ":
            return equal if _holds(test, equal[1]) else None
    if one[0] == other[0] == _MASKED:
        if (one[2] ^ other[2]) & one[1] & other[1]:
            return None
        return (_MASKED, one[1] | other[1], one[2] & one[1] | other[2] & other[1])
    if _OPPOSITES.get(one[0]) == other[0] and one[1] == other[1]:
        return None
    raise _InexpressibleError


def _holds(condition: Condition, argument: int) -> bool:
    operator, value, second = condition
    if operator == _MASKED:
        return argument & value == second & value
    tests = {
        "SCMP_CMP_EQ": argument == value,
        "SCMP_CMP_NE": argument != value,
        "SCMP_CMP_LT": argument < value,
        "SCMP_CMP_LE": argument <= value,
        "SCMP_CMP_GE": argument >= value,
        "SCMP_CMP_GT": argument > value,
    }
    if operator not in tests:
        raise _InexpressibleError
    return tests[operator]
