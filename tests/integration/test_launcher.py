"""What stands before a container's program is not noticed, and its errors are the runtime's.

Each container is run by the runtime itself as well, on a rootless bundle, as the same user.
"""

import difflib
import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import MakeBundle, both_runtimes
from support.bundles import Config, make_rootless
from support.containers import Runrootless
from support.processes import Result
from support.trees import Trees

ENGINES = ("notify", "thorough", "zero")
FILES = {
    "a/none": (0o755, "\x7fELF\2\1\1"),
    "a/plain": (0o644, "#!/bin/sh\n"),
    "a/text": (0o755, "exit 3\n"),
    "a/script": (0o755, "#!/no/interpreter\n"),
    "a/itself": (0o755, "#!/srv/a/itself\n"),
    "b/script": (0o755, "#!/bin/sh\nexit 4\n"),
    "b/plain": (0o755, "#!/bin/sh\nexit 5\n"),
    "b/other": (0o711, "#!/bin/sh\nexit 6\n"),
}
LINKS = {
    "a/loop": "loop",
    "a/dangling": "/srv/nowhere",
    "b/link": "../a/text",
    "b/absolute": "/srv/b/other",
    "b/outside": "../../../../srv/b/other",
}
PATHS = ("/srv/a:/srv/b", "/srv/b:/none:/srv/b/plain/x:/srv/a", "")
COMMANDS = ["", "srv", "none", "plain", "text", "script", "other", "nowhere", "link", "x" * 256]
COMMANDS += ["/srv/a", "/srv/nowhere/x", "/srv/a/text/x", "/srv/a/none", "/srv/a/plain", "a/script"]
COMMANDS += ["/srv/a/itself", "/srv/a/loop", "/srv/a/dangling", "/srv/b/absolute", "./b/outside"]
COMMANDS += ["/etc/passwd", "/bin", "/bin/false", "/no/such/file"]

# Those with a path of which the runtime finds out itself that they cannot be executed.
MISSED = ["/srv/a", "/srv/nowhere/x", "/srv/a/text/x", "/srv/a/plain", "/srv/a/loop"]
MISSED += ["/srv/a/dangling", "/etc/passwd", "/bin", "/no/such/file"]
# Those by which a process is led through itself, which nobody else can look at.
OWN = ["/proc/self/root/bin/false", "/proc/thread-self/root/bin/false", "/proc/self/cwd/a/script"]


@pytest.fixture
def programs(trees: Trees) -> str:
    """A directory with what can be executed, and what cannot for one reason or another."""
    directory = trees.new_directory("programs", for_user=True)
    for name, (mode, text) in FILES.items():
        path = Path(directory, name)
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    for name, target in LINKS.items():
        os.symlink(target, os.path.join(directory, name))
    return directory


class Sides:
    """The runtime by itself, and runrootless."""

    def __init__(self, bundle: MakeBundle, runrootless: Runrootless, runtime: str) -> None:
        self.user = runrootless.user
        self.runrootless = runrootless
        self.plain, self.ours = bundle(), bundle()
        self.root = os.path.join(self.user.runtime_dir, "by-itself")
        self.commands = ([runtime, f"--root={self.root}"], runrootless.command())

    def change(self, change: Any) -> None:
        """Let both bundles be the template, with a change."""
        template = self.ours.read()
        change(template)
        account = self.user.account

        def replace(config: Config) -> None:
            config.clear()
            config.update(json.loads(json.dumps(template)))

        for bundle in (self.plain, self.ours):
            bundle.change(replace)
        self.plain.change(lambda config: make_rootless(config, account.uid, account.gid))

    def both(self, *words: str) -> list[Result]:
        """Return what a command does on both sides."""
        results = []
        for command, bundle in zip(self.commands, (self.plain, self.ours), strict=True):
            step = [bundle.path if word == "BUNDLE" else word for word in words]
            results.append(self.user.run([*command, *step]))
        return results


@pytest.fixture
def sides(bundle: MakeBundle, runrootless: Runrootless, runtime: str) -> Sides:
    return Sides(bundle, runrootless, runtime)


def said(done: Result) -> tuple[int, str, str]:
    """Return how a command ended, without what is never the same."""
    return (
        done.returncode,
        done.stdout,
        re.sub(r'time="[^"]*"|[0-9-]{10}T[0-9:.]+Z', "", done.stderr),
    )


@both_runtimes
def test_programs_that_cannot_be_executed(sides: Sides, programs: str, runtime: str) -> None:
    """Words and exit codes, at run, create, start and exec, wherever the runtime has them."""
    mount = {"destination": "/srv", "type": "bind", "source": programs, "options": ["rbind", "ro"]}
    different = []

    def compare(*words: str) -> None:
        plain, ours = map(said, sides.both(*words))
        # Where the runtime is left with a cgroup of which it knows nothing it says so.
        ours = (
            *ours[:2],
            "".join(line for line in ours[2].splitlines(True) if "oom kill" not in line),
        )
        plain = (
            *plain[:2],
            "".join(line for line in plain[2].splitlines(True) if "oom kill" not in line),
        )
        if plain != ours:
            different.append(f"{words} {name!r} {path}\n--- by itself\n{plain}\n--- ours\n{ours}")

    template = sides.ours.read()
    template["mounts"].append(mount)
    for place, (path, name) in enumerate(itertools.product(PATHS, COMMANDS)):
        if "/" in name and path != PATHS[0]:
            continue
        # crun makes absolute ones of these, and does not find them at exec.
        if runtime == "crun" and "/" in name[1:] and name[:1] != "/":
            continue

        def change(config: Config, name: str = name, path: str = path) -> None:
            config.update(json.loads(json.dumps(template)))
            config["process"].update(args=[name, "x"], cwd="/srv")
            config["process"]["env"] = [f"PATH={path}"] if path else ["A=b"]

        sides.change(change)
        container = f"c{place}"
        if place % 3:
            compare("run", "--bundle", "BUNDLE", container)
        else:
            compare("create", "--bundle", "BUNDLE", container)
            compare("delete", "--force", container)
    name = path = "exec"
    sides.change(
        lambda config: (
            config.update(json.loads(json.dumps(template))),
            config["process"].update(args=["/bin/sleep", "1000"], cwd="/srv"),
        )
    )
    for command, bundle in zip(sides.commands, (sides.plain, sides.ours), strict=True):
        sides.user.run([*command, "run", "-d", "--bundle", bundle.path, "e"], stdin=None).check()
    for path, name in itertools.product(PATHS[:1], COMMANDS + OWN):
        if runtime == "crun" and (("/" in name[1:] and name[:1] != "/") or "/self/cwd/" in name):
            continue
        if runtime == "crun" and (not name or len(name) > 255):
            # It says something else of a directory.
            continue
        for step in (["exec"], ["exec", "--detach"]):
            step += ["--env", f"PATH={path}", "e", name]
            if name not in MISSED:
                if step[1] != "--detach":
                    compare(*step)
                continue
            # Nothing is left to the runtime, since there might be one before it has looked.
            plain, ours = map(said, sides.both(*step))
            assert (plain[0], ours[0]) == (255, 255), ours
            words = ours[2].replace("runrootless: ", "")
            assert words == plain[2] if runtime == "runc" else f'exec: \\"{name}\\": ' in words
    for command in sides.commands:
        sides.user.run([*command, "delete", "--force", "e"]).check()
    assert not different, f"{len(different)} differ:\n\n" + "\n\n".join(different)


# All that a program can see of how it was started, but for what has a number of its own.
LOOK = """
echo "$0 $*"; ls -l /proc/self/fd | grep -o '[0-9]* ->'; cat /proc/self/comm
tr '\\0' ' ' </proc/1/cmdline; readlink /proc/1/exe /proc/1/cwd /proc/1/root; cat /proc/1/comm
tr '\\0' '\\n' </proc/1/environ | sort; stat -c '%n %F %a' /dev/* /dev/.*
cut -d' ' -f4- /proc/1/mountinfo | sed 's/ shared:[0-9]*//; s/ master:[0-9]*//' |
    grep -v -e cgroup -e ' /etc/'
grep -E '^(Sig|Shd|Cap|Umask|Threads|TracerPid|oom)' /proc/self/status; cat /proc/1/oom_score_adj
cat /proc/1/personality 2>/dev/null; cat /proc/1/coredump_filter; cut -d' ' -f5-8 /proc/1/stat
"""


@both_runtimes
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("terminal", [False, True])
def test_no_trace(sides: Sides, engine: str, terminal: bool) -> None:
    sides.commands[1][1:1] = ["--engine", engine]

    def change(config: Config) -> None:
        process = config["process"]
        process.update(args=["/bin/sh", "-c", LOOK, "zero", "one", ""], cwd="/usr", terminal=False)
        process.update(oomScoreAdj=300, noNewPrivileges=True)
        for name in ("bounding", "effective", "permitted"):
            process["capabilities"][name] = ["CAP_CHOWN", "CAP_KILL"]

    sides.change(change)
    plain, ours = map(said, sides.both("run", "--bundle", "BUNDLE", "c"))
    assert plain[0] == 0 and "/dev" in plain[1]
    if engine == "zero":
        # What it tells apt.
        text = "".join(line for line in ours[1].splitlines(True) if "apt" not in line.lower())
        ours = (ours[0], text.replace("/dev/runrootless directory 755\n", ""), ours[2])
    lines = difflib.ndiff(plain[1].splitlines(), ours[1].splitlines())
    assert [line for line in lines if not line.startswith("  ")] == []
    assert ours == plain


LABELS = [
    ({"apparmorProfile": "unconfined"}, "--apparmor"),
    ({"apparmorProfile": "no-such-profile"}, "--apparmor"),
    ({"selinuxLabel": "system_u:system_r:container_t:s0:c1,c2"}, "--process-label"),
]


@both_runtimes
@pytest.mark.parametrize(("label", "option"), LABELS)
def test_labels_of_security_modules(
    sides: Sides, runtime: str, label: dict[str, str], option: str
) -> None:
    """What the kernel has no module for, and what it has one for, is the runtime's to say."""
    script = "cat /proc/self/attr/current 2>&1; cat /proc/self/oom_score_adj"

    def change(config: Config) -> None:
        config["process"].update(args=["/bin/sh", "-c", script], oomScoreAdj=400, **label)

    sides.change(change)
    plain, ours = map(said, sides.both("run", "--bundle", "BUNDLE", "c"))
    assert ours == plain
    assert plain[1].endswith("400\n") or plain[0] != 0

    def wait(config: Config) -> None:
        for name in label:
            del config["process"][name]
        config["process"]["args"] = ["/bin/sleep", "1000"]

    sides.change(wait)
    for command, bundle in zip(sides.commands, (sides.plain, sides.ours), strict=True):
        sides.user.run([*command, "run", "-d", "--bundle", bundle.path, "e"]).check()
    (value,) = label.values()
    plain, ours = map(said, sides.both("exec", option, value, "e", "/bin/sh", "-c", script))
    for command in sides.commands:
        sides.user.run([*command, "delete", "--force", "e"]).check()
    assert ours == plain


def names_of_calls() -> list[str]:
    """Return the names of all system calls of this machine but seccomp(2)."""
    headers = ["gcc", "-E", "-dM", "-include", "asm/unistd.h", "-x", "c", os.devnull]
    done = subprocess.run(headers, check=True, capture_output=True, text=True)
    return [name for name in re.findall(r"#define __NR_(\w+) ", done.stdout) if name != "seccomp"]


ASK = r"print syscall(317, 2, 0, 0), q( ), $! + 0, qq(\n)"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of seccomp(2) is x86_64's")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("default", ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"])
def test_a_profile_that_denies_seccomp(sides: Sides, engine: str, default: str) -> None:
    """It is denied as the profile says, and root is emulated all the same."""
    program = ["/bin/sh", "-c", f"chown 5:6 /run && stat -c %u:%g /run; perl -e '{ASK}'"]
    rules: list[dict[str, object]] = [
        {"names": ["seccomp"], "action": "SCMP_ACT_ERRNO", "errnoRet": 117}
    ]
    if default == "SCMP_ACT_ERRNO":
        others = names_of_calls()
        rules.append({"names": others, "action": "SCMP_ACT_ALLOW"})
    profile = {
        "defaultAction": default,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
    }
    ours = sides.ours.set(program).change(lambda config: config["linux"].update(seccomp=profile))
    done = sides.user.run(
        [*sides.runrootless.command(), "--engine", engine, "run", "--bundle", ours.path, "c"]
    )
    assert done.stderr == ""
    owner = "0:0" if engine == "zero" else "5:6"
    assert done.stdout == f"{owner}\n-1 117\n"


STUB = """#!/bin/sh
# A runtime without seccomp listeners, as those are that are old.
for word; do
    case $word in --bundle=*)
        if grep -q listenerPath "${word#--bundle=}/config.json"; then
            echo "seccomp listeners are not supported" >&2
            exit 1
        fi
    esac
done
exec %s "$@"
"""


@both_runtimes
def test_a_runtime_without_listeners(sides: Sides, runtime: str) -> None:
    """At any path, and whatever its name is."""
    stub = os.path.join(sides.user.session, "a runtime")
    found = shutil.which(runtime, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    Path(stub).write_text(STUB % found)
    os.chmod(stub, 0o755)
    ours = sides.ours.set(["/bin/sh", "-c", "chown 5:6 /run; stat -c %u:%g /run"])
    command = Runrootless(sides.user, ["--runtime", stub])
    assert command.run(ours).check().stdout == "5:6\n"


def test_a_listener_path_without_a_rule_is_no_obstacle(sides: Sides) -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/nobody"}
    ours = sides.ours.set(["/bin/sh", "-c", "chown 5:6 /run; stat -c %u:%g /run"])
    ours.change(lambda config: config["linux"].update(seccomp=profile))
    assert sides.runrootless.run(ours).check().stdout == "5:6\n"
