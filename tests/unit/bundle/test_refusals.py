"""Calls that an engine refuses, in a profile of the user's."""

from errno import ENOSYS, EPERM
from typing import Any

from runrootless.bundle.refusals import refuse

Profile = dict[str, Any]
OURS = {ENOSYS: ("statx", "clone3"), EPERM: ("chown",)}


def action_of(profile: Profile, name: str) -> tuple[str, int | None]:
    """Return the action and errno for a call; there must be one rule for it at most."""
    rules = [rule for rule in profile["syscalls"] if name in rule["names"]]
    assert len(rules) <= 1, rules
    for rule in rules:
        return rule["action"], rule.get("errnoRet")
    return profile["defaultAction"], profile.get("defaultErrnoRet")


def test_without_a_profile() -> None:
    profile = refuse(None, OURS)
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    assert "listenerPath" not in profile
    assert action_of(profile, "statx") == ("SCMP_ACT_ERRNO", ENOSYS)
    assert action_of(profile, "chown") == ("SCMP_ACT_ERRNO", EPERM)
    assert action_of(profile, "openat")[0] == "SCMP_ACT_ALLOW"


def test_what_a_profile_allows_is_refused() -> None:
    theirs = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 13,
        "syscalls": [
            {"names": ["statx", "openat"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["chown"], "action": "SCMP_ACT_LOG"},
        ],
    }
    profile = refuse(theirs, OURS)
    assert action_of(profile, "statx") == ("SCMP_ACT_ERRNO", ENOSYS)
    assert action_of(profile, "chown") == ("SCMP_ACT_ERRNO", EPERM)
    assert action_of(profile, "openat") == ("SCMP_ACT_ALLOW", None)
    # Denied already.
    assert action_of(profile, "clone3") == ("SCMP_ACT_ERRNO", 13)
    assert theirs["syscalls"][0] == {"names": ["statx", "openat"], "action": "SCMP_ACT_ALLOW"}  # type: ignore[index]


def test_what_a_profile_denies_stays_as_it_is() -> None:
    theirs = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["statx"], "action": "SCMP_ACT_KILL_PROCESS"},
            {
                "names": ["chown"],
                "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 1, "value": 0, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }
    profile = refuse(theirs, OURS)
    assert profile["syscalls"][:2] == theirs["syscalls"]
    assert action_of(profile, "clone3") == ("SCMP_ACT_ERRNO", ENOSYS)
    assert action_of(profile, "statx") == ("SCMP_ACT_KILL_PROCESS", None)
    assert action_of(profile, "chown")[0] == "SCMP_ACT_ERRNO"
