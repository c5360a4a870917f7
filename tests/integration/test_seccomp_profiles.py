"""The profiles of podman and Docker, and that no profile is weakened by the emulation.

A probe makes every system call in a container, once with the runtime by itself on a
rootless bundle with the profile, and once with runrootless.
"""

import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pytest

from conftest import MakeBundle, both_runtimes
from runrootless.emulation.table import I386_TABLE, TABLE
from support.bundles import Bundle, Config, make_rootless
from support.containers import Runrootless
from support.profiles import PROFILES, Profile, default_profile
from support.programs import compiler
from support.trees import Trees

pytestmark = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="only x86_64 runs the programs of both ABIs"
)

PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probes", "syscalls.c")
CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
]
# What Linux 6.14 and newer let through whatever a filter says.
UNFILTERED = {"uretprobe"}
EMULATED = {name for name, _, _ in (*TABLE, *I386_TABLE)}

# For the rules that depend on arguments: the call and its arguments, each on both sides of
# a condition. Allowed or not, none of them changes anything.
CONDITIONAL: list[tuple[str, tuple[int, ...]]] = [
    ("personality", (0,)),
    ("personality", (8,)),
    ("personality", (0x20000,)),
    ("personality", (0x20008,)),
    ("personality", (0xFFFFFFFF,)),
    ("personality", (1,)),
    ("personality", (0x40000,)),
    ("socket", (1, 1, 0)),
    ("socket", (16, 3, 0)),
    ("socket", (16, 3, 9)),
    ("socket", (40, 1, 0)),
    ("clone", (17,)),
    ("clone", (0x20000 | 17,)),
    ("clone", (0x10000000 | 17,)),
    ("clone", (0x20000000 | 17,)),
    ("clone", (0x40000000 | 17,)),
    ("unshare", (0,)),
    ("unshare", (0x20000,)),
    ("unshare", (0x10000000,)),
    ("setns", (0, 0)),
    ("clone3", (0, 0)),
]


@dataclass(frozen=True)
class Probe:
    """A directory with the program for an ABI, and the names of that ABI's system calls."""

    directory: str
    names: dict[int, str]

    def number(self, name: str) -> int:
        (number,) = [number for number, other in self.names.items() if other == name]
        return number

    def outcomes(self, output: str) -> dict[str, str]:
        """Return how each call ended, by its name, and its place where there are several."""
        found: dict[str, str] = {}
        for place, line in enumerate(output.splitlines()):
            number, _, outcome = line.partition(" ")
            name = self.names.get(int(number), number)
            found[f"{name} ({place})" if name in found else name] = outcome
        return found


@pytest.fixture(scope="module", params=["-m64", "-m32"])
def probe(request: pytest.FixtureRequest, trees: Trees) -> Probe:
    directory = trees.new_directory("probe", for_user=True)
    flag = request.param
    program = os.path.join(directory, "probe")
    subprocess.run([*compiler(flag), "-static", "-O1", "-o", program, PROBE], check=True)
    headers = [*compiler(flag), "-E", "-dM", "-include", "asm/unistd.h", "-x", "c", os.devnull]
    done = subprocess.run(headers, check=True, capture_output=True, text=True)
    defined = re.findall(r"#define __NR_(\w+) (\d+)\n", done.stdout)
    return Probe(directory, {int(number): name for name, number in defined})


Run = Callable[..., tuple[dict[str, str], dict[str, str]]]


@pytest.fixture
def run(bundle: MakeBundle, runrootless: Runrootless, runtime: str, probe: Probe) -> Run:
    """Run the probe with the runtime by itself and with runrootless; return the outcomes."""

    def prepared(profile: Profile | None, calls: Sequence[str]) -> Bundle:
        def change(config: Config) -> None:
            mount = {"destination": "/mnt", "type": "bind", "source": probe.directory}
            config["mounts"].append({**mount, "options": ["rbind", "ro"]})
            process = config["process"]
            sets = ("bounding", "effective", "permitted")
            process["capabilities"] = dict.fromkeys(sets, CAPABILITIES)
            process["args"] = ["/mnt/probe", *calls]
            if profile is not None:
                config["linux"]["seccomp"] = profile

        return bundle().change(change)

    def run(
        profile: Profile | None, calls: Sequence[str] = ()
    ) -> tuple[dict[str, str], dict[str, str]]:
        user = runrootless.user
        plain = prepared(profile, calls)
        plain.change(lambda config: make_rootless(config, user.account.uid, user.account.gid))
        root = os.path.join(user.runtime_dir, "by-itself")
        command = [runtime, f"--root={root}", "run", "--bundle", plain.path, "probe"]
        by_itself = user.run(command).check()
        ours = runrootless.run(prepared(profile, calls)).check()
        return probe.outcomes(by_itself.stdout), probe.outcomes(ours.stdout)

    return run


def denied(profile: Profile, names: Iterable[str]) -> dict[str, str]:
    """Return those calls that a profile denies whatever their arguments, and how."""
    found = {}
    for name in names:
        rules = [rule for rule in profile["syscalls"] if name in rule["names"]]
        error = None
        if not rules and profile["defaultAction"] == "SCMP_ACT_ERRNO":
            error = profile.get("defaultErrnoRet", errno.EPERM)
        elif rules and all(
            rule["action"] == "SCMP_ACT_ERRNO" and not rule.get("args") for rule in rules
        ):
            error = rules[0].get("errnoRet", errno.EPERM)
        if error is not None:
            found[name] = f"errno {error}"
    return found


@both_runtimes
@pytest.mark.parametrize("name", list(PROFILES))
def test_a_default_profile(name: str, run: Run, probe: Probe) -> None:
    profile = default_profile(name, CAPABILITIES)
    plain, ours = run(profile)
    assert len(ours) > 400
    expected = denied(profile, set(probe.names.values()) & set(ours) - UNFILTERED)
    # To calls that are newer than all that a profile names runc answers ENOSYS.
    newer = {call for call in expected if plain[call] == f"errno {errno.ENOSYS}"}
    expected = {call: expected[call] for call in expected.keys() - newer}
    assert len(expected) > 30
    assert {call: ours[call] for call in expected} == expected
    # All others end as they do there, unless they are emulated.
    different = {
        call: (plain[call], ours[call])
        for call in plain
        if plain[call] != ours[call] and (call not in EMULATED or call in expected or call in newer)
    }
    assert different == {}


@pytest.mark.parametrize("name", list(PROFILES))
def test_rules_with_conditions(name: str, run: Run, probe: Probe) -> None:
    calls = [
        " ".join(map(str, (probe.number(call), *arguments)))
        for call, arguments in CONDITIONAL
        if call in probe.names.values()
    ]
    profile = default_profile(name, CAPABILITIES)
    plain, ours = run(profile, calls)
    assert ours == plain
    assert set(ours.values()) >= {"ok", f"errno {errno.EPERM}"}


def test_what_is_emulated_can_be_denied(run: Run, probe: Probe) -> None:
    """Each of these calls, with an error that no call has by itself."""
    # The runtime needs the others to start a process under the filter.
    names = sorted(EMULATED - {"execve", "clone", "clone3", "open", "openat", "prctl"})
    rule = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EUCLEAN}
    architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": architectures,
        "syscalls": [rule],
    }
    _, ours = run(profile)
    there = [name for name in names if name in ours]
    assert len(there) > 50
    assert {name: ours[name] for name in there} == dict.fromkeys(there, f"errno {errno.EUCLEAN}")


def test_without_a_profile_everything_else_is_the_kernels(run: Run) -> None:
    plain, ours = run(None)
    # It would carry out calls that no filter sees.
    assert ours["io_uring_setup"] == f"errno {errno.ENOSYS}"
    different = {
        call: (plain[call], ours[call])
        for call in plain
        if plain[call] != ours[call] and call not in EMULATED
    }
    assert different == {}
