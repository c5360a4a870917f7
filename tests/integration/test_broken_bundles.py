"""What is wrong with a bundle is said in one line that names it."""

import os
import re
import shlex

import pytest

from conftest import MakeBundle
from support.bundles import Bundle, Config
from support.containers import COMMAND, Runrootless
from support.processes import Result


def one_line(done: Result) -> str:
    """Return the only line that a failed command printed."""
    assert done.returncode == 1, str(done)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, str(done)
    return lines[0]


def test_no_bundle(runrootless: Runrootless) -> None:
    line = one_line(runrootless("run", "--bundle", "/no/such/bundle", "x"))
    assert "/no/such/bundle" in line


def test_no_configuration(runrootless: Runrootless) -> None:
    empty = runrootless.user.home
    line = one_line(runrootless("run", "--bundle", empty, "x"))
    assert f"{empty}/config.json" in line


def test_invalid_json(bundle: MakeBundle, runrootless: Runrootless) -> None:
    broken = bundle()
    with open(broken.config_path, "w") as file:
        file.write('{\n  "ociVersion": "1.0.2",\n  "process": {"args" ["sh"]}\n}\n')
    line = one_line(runrootless.run(broken))
    assert "config.json" in line
    assert re.search(r"line 3\b.*column 22\b", line), line


def test_json_of_another_kind(bundle: MakeBundle, runrootless: Runrootless) -> None:
    broken = bundle()
    with open(broken.config_path, "w") as file:
        file.write("[]\n")
    assert "config.json" in one_line(runrootless.run(broken))


def changed(bundle: Bundle, path: str, value: object) -> Bundle:
    """Set, or with None remove, what a dotted path of the configuration names."""

    def change(config: Config) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            config = config[parent]
        if value is None:
            del config[last]
        else:
            config[last] = value

    return bundle.change(change)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("root.path", "no-such-rootfs", "no-such-rootfs"),
        ("root.path", None, "root.path"),
        ("root", None, "root"),
        ("process", None, "process"),
        ("process.args", None, "process.args"),
        ("process.args", "sh", "process.args"),
        ("process.user", {"uid": -1, "gid": 0}, "process.user.uid"),
        ("process.user", {"uid": "root", "gid": 0}, "process.user.uid"),
        ("mounts", {}, "mounts"),
    ],
)
def test_wrong_fields(
    path: str, value: object, named: str, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    line = one_line(runrootless.run(changed(bundle(), path, value)))
    assert named in line


def test_a_kernel_file_system_on_a_symlink(bundle: MakeBundle, runrootless: Runrootless) -> None:
    """Runtimes insist on a directory: no symlink of an image is to lead them elsewhere."""

    def on_a_symlink(config: Config) -> None:
        for mount in config["mounts"]:
            if mount["type"] == "sysfs":
                mount["destination"] = "/srv/sys"

    broken = bundle().change(on_a_symlink)
    os.symlink("/tmp", f"{broken.rootfs}/srv/sys")
    line = one_line(runrootless.run(broken))
    assert "cannot mount sysfs on /srv/sys" in line
    assert "is a symlink" in line


@pytest.mark.parametrize("where", ["rule", "default"])
def test_notify_of_its_own(where: str, bundle: MakeBundle, runrootless: Runrootless) -> None:
    seccomp = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/tmp/listener",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
    if where == "default":
        seccomp.update(defaultAction="SCMP_ACT_NOTIFY", syscalls=[])
    line = one_line(runrootless.run(changed(bundle(), "linux.seccomp", seccomp)))
    assert "SCMP_ACT_NOTIFY" in line


def test_rootfs_of_somebody_else(bundle: MakeBundle, runrootless: Runrootless) -> None:
    """A container whose root directory cannot be entered is refused, not half started."""
    ours = bundle()
    locked = os.path.join(ours.path, "locked")
    os.mkdir(locked, 0o700)
    if os.geteuid() != 0:
        os.chmod(locked, 0)
    done = runrootless.run(changed(ours, "root.path", locked))
    assert done.returncode == 1
    assert "locked" in done.stderr
    assert "Traceback" not in done.stderr


def test_container_ids_that_are_paths(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle()
    for name in ("../x", "a/b", "", ".."):
        done = runrootless("run", "--bundle", ours.path, name)
        assert done.returncode == 1, str(done)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["network", "dns", "fast-path", "engine"])
def test_wrong_annotations_are_named(
    name: str, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    annotation = f"org.runrootless.{name}"
    line = one_line(runrootless.run(changed(bundle(), "annotations", {annotation: "bad"})))
    assert f"the annotation {annotation} takes" in line


def test_an_annotation_that_is_spelt_wrongly(bundle: MakeBundle, runrootless: Runrootless) -> None:
    names = {"org.runrootless.fastpath": "on", "org.runrootless.\33": "", "org.example.x": ""}
    ours = changed(bundle().set(["true"]), "annotations", names)
    done = runrootless.run(ours).check()
    first, second = done.stderr.splitlines()
    assert "level=warning" in first
    assert "fastpath: did you mean org.runrootless.fast-path?" in first
    assert "org.runrootless.\\\\x1b" in second


def test_no_terminal(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().set(["true"], terminal=True)
    assert "(process.terminal) asks for a terminal, and there is none" in one_line(
        runrootless.run(ours)
    )


def test_a_terminal_that_is_not_at_the_streams_is_enough(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    ours, name = bundle().set(["tty"], terminal=True), runrootless.new_id()
    command = [COMMAND, "--runtime", "runc", "run", "--bundle", ours.path, name]
    plain = f"{shlex.join(command)} </dev/null >{runrootless.user.home}/out 2>&1"
    terminal = runrootless.user.terminal(["sh", "-c", plain])
    assert terminal.wait() == 0
    with open(f"{runrootless.user.home}/out") as file:
        assert file.read().strip() == "/dev/pts/0"
    terminal.close()
