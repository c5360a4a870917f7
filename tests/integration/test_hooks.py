"""OCI hooks, of all six kinds: they run as with the runtime by itself."""

import json
import os
from typing import Any

import pytest

from conftest import MakeBundle, both_runtimes
from support.bundles import Bundle, make_rootless
from support.containers import Runrootless

pytestmark = both_runtimes

KINDS = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)
# Where the hook runs is seen by its root directory: the host has this file, the container
# has not.
HOOK = (
    'state=$(cat); where=container; if [ -e "$2" ]; then where=host; fi;'
    ' echo "$1 $where $A $PWD $state" >>"$3/log"'
)
# crun 1.8 runs the one while the container's process still runs the other.
AFTER_START_CONTAINER = 'until grep -qs "^startContainer" "$3/log"; do sleep 0.01; done; ' + HOOK


def with_hooks(bundle: Bundle, log: str, **more: str) -> Bundle:
    """Let each hook append a line to a file of a directory, which the container has as well."""

    def change(config: dict[str, Any]) -> None:
        config["mounts"].append(
            {"destination": log, "type": "bind", "source": log, "options": ["rbind", "rw"]}
        )
        config["hooks"] = {
            kind: [
                {
                    "path": "/bin/sh",
                    "args": ["sh", "-c", more.get(kind, HOOK), "sh", kind, bundle.path, log],
                    "env": ["PATH=/usr/bin:/bin", f"A=of-{kind}"],
                }
            ]
            for kind in KINDS
        }

    return bundle.change(change)


def lines(log: str, bundle: Bundle) -> list[str]:
    """Return what the hooks of a bundle wrote, less what is never the same."""
    found = []
    places = {bundle.path: "the bundle", os.path.join(bundle.path, bundle.rootfs): "its root"}
    with open(f"{log}/log") as file:
        for line in file:
            kind, where, value, directory, state = line.split(" ", 4)
            status = json.loads(state)
            # "creating" or "created", and whether there is a process ID, is what each
            # runtime makes of the specification.
            pid = "with" if status.get("pid") else "without"
            told = places.get(status["bundle"], status["bundle"])
            begun = places.get(directory, directory)
            line = f"{kind} {where} {value} {status['id']} {status['status']} {pid} pid"
            found.append(f"{line}, in {begun}, told of {told}")
            assert set(status) >= {"ociVersion", "id", "status", "bundle"}
    return found


@pytest.fixture
def log(runrootless: Runrootless) -> str:
    """A directory of the user's that host and container have at one path."""
    path = os.path.join(runrootless.user.session, "hooks")
    os.mkdir(path, 0o755)
    runrootless.user.give(path)
    return path


def test_all_kinds(bundle: MakeBundle, runrootless: Runrootless, runtime: str, log: str) -> None:
    user = runrootless.user
    more = {"poststart": AFTER_START_CONTAINER} if runtime == "crun" else {}
    plain = with_hooks(bundle().script(":"), log, **more)
    plain.change(lambda config: make_rootless(config, user.account.uid, user.account.gid))
    root = os.path.join(user.runtime_dir, "by-itself")
    user.run([runtime, f"--root={root}", "run", "--bundle", plain.path, "hooked"]).check()
    expected = lines(log, plain)
    os.unlink(f"{log}/log")
    assert sorted(line.split()[0] for line in expected) == sorted(KINDS)
    ours = with_hooks(bundle().script(":"), log, **more)
    runrootless("run", "--bundle", ours.path, "hooked").check()
    assert lines(log, ours) == expected


PROGRAM = """\
#!/bin/sh
bundle=$(sed 's/.*"bundle": *"\\([^"]*\\)".*/\\1/')
[ "$bundle" -ef "$2" ] || exec 2>&1
{ echo "$1"; env | grep -v '^_=\\|^SHLVL=\\|^PWD='; [ . -ef "$2" ] && echo there
cmp "$bundle/config.json" "$2/config.json"; cat "$bundle/beside" "$bundle/rootfs/etc/debian_version"
} >>"$3/log"
"""


def with_a_program_in_it(bundle: Bundle, log: str) -> Bundle:
    """Let the hooks execute a program of the bundle, by a relative path where they begin there."""
    for name, text in (("hook", PROGRAM), ("beside", "beside\n")):
        with open(f"{bundle.path}/{name}", "w") as file:
            file.write(text)
        os.chmod(f"{bundle.path}/{name}", 0o755)

    def change(config: dict[str, Any]) -> None:
        for kind in set(KINDS) - {"startContainer"}:
            path = "./hook" if kind in ("prestart", "createRuntime") else f"{bundle.path}/hook"
            hook = {"path": path, "args": ["x", kind, bundle.path, log]}
            config.setdefault("hooks", {})[kind] = [hook, {**hook, "env": ["PATH=/bin", "B= "]}]

    return bundle.change(change)


def test_what_is_beside_the_configuration(
    bundle: MakeBundle, runrootless: Runrootless, runtime: str, log: str
) -> None:
    user = runrootless.user
    plain = with_a_program_in_it(bundle(copy=True).script(":"), log)
    plain.change(lambda config: make_rootless(config, user.account.uid, user.account.gid))
    root = os.path.join(user.runtime_dir, "by-itself")
    for words in (["create", "--bundle", plain.path], ["start"], ["delete", "--force"]):
        user.run([runtime, f"--root={root}", *words, "hooked"], cwd="/").check()
    with open(f"{log}/log") as file:
        expected = file.read()
    os.unlink(f"{log}/log")
    assert expected.count("beside\n") == 10
    ours = with_a_program_in_it(bundle(copy=True).script(":"), log)
    for words in (["create", "--bundle", ours.path], ["start"], ["delete", "--force"]):
        runrootless(*words, "hooked", cwd="/").check()
    with open(f"{log}/log") as file:
        assert file.read() == expected


def test_a_hook_that_is_missing(
    bundle: MakeBundle, runrootless: Runrootless, runtime: str, log: str
) -> None:
    for kind in ("prestart", "createRuntime", "createContainer"):
        ours = with_hooks(bundle().script("echo it runs"), log)

        def change(config: dict[str, Any], kind: str = kind) -> None:
            config["hooks"] = {kind: [{"path": "/no/program"}]}

        done = runrootless.run(ours.change(change))
        assert done.returncode != 0
        assert "it runs" not in done.stdout
        if runtime == "runc":
            assert "cannot execute the hook /no/program: No such file" in done.stderr


def test_a_hook_that_fails(
    bundle: MakeBundle, runrootless: Runrootless, runtime: str, log: str
) -> None:
    ours = with_hooks(bundle().script("echo it runs"), log, createRuntime="echo no >&2; exit 3")
    done = runrootless.run(ours)
    assert done.returncode != 0
    assert "it runs" not in done.stdout
    assert "hook" in done.stderr


def only_start_container(bundle: Bundle, log: str, *scripts: str) -> Bundle:
    """Let hooks that the container's first process executes run scripts."""
    ours = with_hooks(bundle, log)

    def change(config: dict[str, Any]) -> None:
        (hook,) = config["hooks"].pop("startContainer")
        config["hooks"] = {
            "startContainer": [
                {**hook, "args": ["sh", "-c", script, "of-sh", log]} for script in scripts
            ]
        }

    return ours.change(change)


@pytest.mark.parametrize(
    ("script", "words"), [("echo no >&2; exit 3", "no"), ("kill -9 $$", "killed")]
)
def test_a_hook_in_the_container_that_fails(
    script: str, words: str, bundle: MakeBundle, runrootless: Runrootless, runtime: str, log: str
) -> None:
    ours = only_start_container(bundle().script("echo it runs"), log, script)
    done = runrootless.run(ours)
    assert done.returncode != 0
    assert "it runs" not in done.stdout
    assert done.stderr
    if runtime == "runc":
        assert words in done.stderr


def test_a_hook_in_the_container_that_is_missing(
    bundle: MakeBundle, runrootless: Runrootless, runtime: str, log: str
) -> None:
    ours = only_start_container(bundle().script("echo it runs"), log, ":")
    ours.change(lambda config: config["hooks"]["startContainer"][0].update(path="/no/program"))
    done = runrootless.run(ours)
    assert done.returncode != 0
    assert "it runs" not in done.stdout
    assert "/no/program" in done.stderr or runtime == "crun"


def test_with_crun_a_hook_in_the_container_is_not_emulated(
    bundle: MakeBundle, runrootless: Runrootless, runtime: str, log: str
) -> None:
    """It has no descriptors of what executes it; what it sees of ownership is root's."""
    hook = 'cat >/dev/null; stat -c "%U:%G" /etc/shadow >"$1/log"; ! chown 5:6 "$1/log"'
    ours = only_start_container(bundle().script(f"stat -c %u:%g {log}/log"), log, hook)
    done = runrootless("--debug", "run", "--bundle", ours.path, runrootless.new_id())
    told = "hooks.startContainer are not emulated" in done.stderr
    if runtime == "runc":
        assert (done.returncode != 0, told) == (True, False)
        return
    assert (done.check().stdout, told) == ("0:0\n", True)
    with open(f"{log}/log") as file:
        assert file.read() == "root:root\n"
