"""Homes, runtime directories, file systems and limits that are not as usual.

A container starts there, or one line says why not; and doctor has named it.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conftest import MakeBundle
from support.bundles import Bundle, Config
from support.containers import Runrootless
from support.namespaces import Prepared
from support.processes import Result, eventually
from support.users import AS_ROOT, Account, Unprivileged

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="only root mounts: run the tests as root")

# In a directory of its own, as containers on one root file system follow each other.
SCRIPT = """umask 022; d=/srv/$$; mkdir $d && cd $d && : >f && chown 5:6 f && ln -s x l &&
chown -h 7:8 l && stat -c %u:%g f l; code=$?; cd /; rm -rf $d; exit $code"""
SHOWN = "5:6\n7:8\n"
EMULATED = """cd "$(mktemp -d /tmp/rr-XXXXXX)" && : >f && chown 5:6 f && ln -s x l &&
chown -h 7:8 l && stat -c %u:%g f l; rm -rf "$PWD" """
FINDINGS = """
import json
from runrootless import inheritance
from runrootless.doctor import place, tools
inheritance.put_right()
probes = place.limits, place.attributes, place.mount_flags, place.private_directory
found = [probe() for probe in (*probes, place.side_stores)] + tools.oci_runtimes()
print(json.dumps({one.name: [one.status, one.text, one.remedy] for one in found}))
"""
MINE = 'chown --reference="$HOME"'
OWN_TMPFS = 'mode=700,uid=$(stat -c %u "$HOME"),gid=$(stat -c %g "$HOME")'
LONG = "x" * 90
READ_ONLY_HOME = 'mount --bind "$HOME" "$HOME"; mount -o remount,bind,ro "$HOME"'
TO_MNT = f'cp -a "$BUNDLE/." /mnt/; {MINE} /mnt; BUNDLE=/mnt'


@dataclass(frozen=True)
class Place:
    """A place, and what is to be said of it.

    ``prepare`` is done by root in a mount namespace, ``before`` by the user. ``finding`` is the
    name, the status and a part of the text of one of doctor's; ``told`` a part of what ``run
    --debug`` says and ``failure``, where it fails, of its error.
    """

    prepare: str = ":"
    before: str = ":"
    env: Mapping[str, str] = field(default_factory=dict)
    bundle: str = ""
    finding: tuple[str, str, str] = ("limits", "ok", "enough")
    told: str = ""
    failure: str = ""
    emulated: str = ""


def _no(variable: str) -> str:
    return f"unset {variable}"


PLACES = {
    "usual": Place(finding=("private directory", "ok", "/run/runrootless")),
    "read-only-home": Place(
        READ_ONLY_HOME,
        finding=("owners of emulate", "-", "is on a read-only file system"),
        emulated="is on a read-only file system: owners of symlinks and special files are kept in",
    ),
    "no-home": Place(
        env={"HOME": "/nonexistent/home"},
        finding=("owners of emulate", "-", "/ cannot be written to"),
        emulated="cannot be written to: owners of symlinks",
    ),
    "empty-home": Place(
        # The home that passwd(5) names counts.
        env={"HOME": ""},
        finding=("owners of emulate", "ok", "/.local/share/runrootless"),
    ),
    "home-without-xattrs": Place(
        'mount -t ramfs none "$HOME"; chown --reference="$XDG_RUNTIME_DIR" "$HOME"',
        finding=("xattrs here", "-", "has no user attributes"),
    ),
    "no-runtime-dir": Place(
        before=_no("XDG_RUNTIME_DIR"),
        finding=("private directory", "ok", ": XDG_RUNTIME_DIR is not set"),
        told="XDG_RUNTIME_DIR is not set: /tmp/runrootless-",
    ),
    "relative-runtime-dir": Place(
        env={"XDG_RUNTIME_DIR": "run"},
        finding=("private directory", "ok", "XDG_RUNTIME_DIR, run, is not absolute"),
        told="XDG_RUNTIME_DIR, run, is not absolute: /tmp/runrootless-",
    ),
    "missing-runtime-dir": Place(
        env={"XDG_RUNTIME_DIR": "/run/user/none"},
        finding=("private directory", "ok", "/run/user/none, cannot be used (No such file"),
        told="/run/user/none, cannot be used (No such file or directory): /tmp/runrootless-",
    ),
    "runtime-dir-of-root": Place(
        env={"XDG_RUNTIME_DIR": "/run"},
        finding=("private directory", "ok", "/run, belongs to user 0"),
        told="/run, belongs to user 0: /tmp/runrootless-",
    ),
    "runtime-dir-is-a-file": Place(
        env={"XDG_RUNTIME_DIR": "/etc/passwd"},
        finding=("private directory", "ok", "/etc/passwd, is not a directory"),
        told="/etc/passwd, is not a directory: /tmp/runrootless-",
    ),
    "read-only-runtime-dir": Place(
        f'mount -t tmpfs -o "ro,{OWN_TMPFS}" none "$XDG_RUNTIME_DIR"',
        finding=("private directory", "ok", "cannot be written to"),
        told="cannot be written to: /tmp/runrootless-",
    ),
    "runtime-dir-of-everybody": Place(
        before='chmod 777 "$XDG_RUNTIME_DIR"',
        finding=("private directory", "ok", "can be written to by others (mode 0777)"),
        told="can be written to by others (mode 0777): /tmp/runrootless-",
    ),
    "sticky-runtime-dir-of-everybody": Place(
        before='chmod 1777 "$XDG_RUNTIME_DIR"',
        finding=("private directory", "ok", "can be written to by others (mode 1777)"),
        told="can be written to by others (mode 1777): /tmp/runrootless-",
    ),
    "full-runtime-dir": Place(
        f'mount -t tmpfs -o "size=16k,{OWN_TMPFS}" none "$XDG_RUNTIME_DIR"',
        before='cat /dev/zero >"$XDG_RUNTIME_DIR/fill" 2>/dev/null',
        finding=("private directory", "no", "No space left on device"),
        failure="No space left on device: free some, or set XDG_RUNTIME_DIR",
    ),
    "runtime-dir-on-ramfs": Place(
        # It counts no blocks, and seems to be full.
        f'mount -t ramfs none "$XDG_RUNTIME_DIR"; chmod 700 "$XDG_RUNTIME_DIR"; {MINE} '
        '"$XDG_RUNTIME_DIR"',
        finding=("private directory", "ok", "/run/runrootless"),
    ),
    "noexec-runtime-dir": Place(
        f'mount -t tmpfs -o "noexec,{OWN_TMPFS}" none "$XDG_RUNTIME_DIR"',
        finding=("private directory", "ok", "/run/runrootless"),
    ),
    "long-runtime-dir": Place(
        before=f'mkdir -m 700 -p "$HOME/{LONG}" && export XDG_RUNTIME_DIR="$HOME/{LONG}"',
        finding=("private directory", "ok", f"{LONG}/runrootless"),
    ),
    "runtime-dir-of-any-name": Place(
        before='d="$HOME/a b%s:c\n\\d"; mkdir -m 700 -p "$d"; export XDG_RUNTIME_DIR="$d"',
        finding=("private directory", "ok", "a b%s:c"),
    ),
    "runtime-dir-with-acl": Place(
        'python3 -c "$ACL" "$XDG_RUNTIME_DIR"',
        finding=("private directory", "ok", "/run/runrootless"),
    ),
    "no-shm": Place("umount -l /dev/shm || mount -t tmpfs -o mode=0 none /dev/shm"),
    "noexec-tmp": Place("mount --bind /tmp /tmp; mount -o remount,bind,noexec /tmp"),
    "no-run": Place("mount -t tmpfs -o mode=0 none /run"),
    "no-temporary-directory": Place(env={"TMPDIR": "/nonexistent"}),
    "bundle-without-xattrs": Place(
        f"mount -t ramfs none /mnt; {TO_MNT}",
        bundle="/mnt",
        told="/mnt/rootfs is on a file system without user attributes",
    ),
    "noexec-bundle": Place(
        # The programs are on another one.
        f"mount -t tmpfs -o noexec none /mnt; {TO_MNT}",
        bundle="/mnt",
        told="/mnt/rootfs is on a file system mounted noexec: no program in it can be executed",
    ),
    "read-only-bundle": Place(
        f"mount -t tmpfs none /mnt; {TO_MNT}; mount -o remount,ro /mnt",
        bundle="/mnt",
        told="/mnt/rootfs is on a read-only file system: nothing in it can be changed",
        failure="Read-only file system",
    ),
    "bundle-that-is-not-utf-8": Place(
        'mount -t tmpfs none /mnt; d=$(printf "/mnt/\\377"); mkdir "$d"; cp -a "$BUNDLE/." "$d"',
        bundle="/mnt/\udcff",
        failure="/mnt/\\\\xff is not UTF-8",
    ),
    "bundle-at-a-long-path": Place(
        f'd=/mnt/{"/".join(["d" * 200] * 19)}; mount -t tmpfs none /mnt; mkdir -p "$d"; '
        f'cp -a "$BUNDLE/." "$d"; chown --reference="$HOME" "$d"',
        bundle="/mnt/" + "/".join(["d" * 200] * 19),
    ),
    "bundle-at-too-long-a-path": Place(
        bundle="/mnt/" + "/".join(["d" * 200] * 21),
        failure="File name too long: take a shorter path",
    ),
    "bundle-with-acl": Place(
        f'mount -t tmpfs none /mnt; {TO_MNT}; python3 -c "$ACL" /mnt /mnt/rootfs /mnt/rootfs/srv',
        bundle="/mnt",
    ),
    "bundle-with-selinux-labels": Place(
        f"mount -t tmpfs none /mnt; {TO_MNT}; for f in /mnt /mnt/rootfs /mnt/rootfs/srv; do "
        'setfattr -n security.selinux -v system_u:object_r:user_home_t:s0 "$f"; done',
        bundle="/mnt",
    ),
    "umask-0777": Place(before="umask 0777"),
    "umask-077": Place(before="umask 077"),
    "few-descriptors": Place(
        before="ulimit -n 16",
        finding=("limits", "no", "at most 16 files may be open (RLIMIT_NOFILE)"),
        failure="raise the limit (ulimit -n)",
    ),
    "few-processes": Place(
        before="ulimit -u 12",
        finding=("limits", "no", "at most 12 processes may run (RLIMIT_NPROC)"),
        failure="raise the limit (ulimit -u)",
    ),
    "small-files-only": Place(
        before="ulimit -f 8",
        finding=("limits", "no", "(RLIMIT_FSIZE)"),
        failure="File too large: raise the limit of file sizes (ulimit -f)",
    ),
    "little-memory": Place(
        before="ulimit -v 150000",
        finding=("limits", "no", "RLIMIT_AS"),
        failure="RLIMIT_AS",
    ),
    "no-locked-memory": Place(before="ulimit -l 0"),
    "small-stack": Place(before="ulimit -s 128"),
    "closed-input": Place(before="exec <&-"),
    "current-directory-gone": Place(
        before='mkdir -p "$HOME/gone"; cd "$HOME/gone"; rmdir "$HOME/gone"',
        finding=("programs here", "-", "No such file or directory"),
        # It is the shell that says so.
        emulated="getcwd() failed",
    ),
    "no-cgroups": Place(
        "umount -l /sys/fs/cgroup",
        finding=("runc", "no", "it starts no container where no cgroups are mounted"),
        failure="no cgroup mount found in mountinfo",
    ),
    "cgroup-namespace": Place('set -- unshare --cgroup "$@"'),
}
# struct posix_acl_xattr_header and entries, acl(5): owner, a user, the group, mask and others.
ACL = """
import os, struct, sys
entries = (1, 7, 2**32-1), (2, 7, 12345), (4, 5, 2**32-1), (16, 7, 2**32-1), (32, 0, 2**32-1)
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
for path in sys.argv[1:]:
    os.setxattr(path, "system.posix_acl_default", acl)
"""


@pytest.fixture
def small(bundle: MakeBundle) -> Bundle:
    """A bundle of few files, that can be copied: its programs are in another tree."""
    ours = bundle().script(SCRIPT)
    rootfs = f"{ours.path}/rootfs"
    owner = os.stat(ours.path)
    for name in ("", "srv", "dev", "proc", "sys", "etc", "tmp", "usr"):
        os.mkdir(f"{rootfs}/{name}")
        os.chown(f"{rootfs}/{name}", owner.st_uid, owner.st_gid)
    for name in ("bin", "sbin", "lib", "lib64"):
        os.symlink(f"usr/{name}", f"{rootfs}/{name}")

    def change(config: Config) -> None:
        config["root"]["path"] = "rootfs"
        source = f"{ours.rootfs}/usr"
        usr = {"destination": "/usr", "type": "bind", "source": source, "options": ["bind", "ro"]}
        config["mounts"].append(usr)

    return ours.change(change)


@pytest.fixture
def user_in(account: Account) -> Iterator[Callable[[Place], Unprivileged]]:
    """The user, in such a place."""
    users = []

    def user_in(place: Place) -> Unprivileged:
        user = Unprivileged(account, Prepared(place.prepare))
        user.env.update({"SESSION": user.session, "ACL": ACL})
        users.append(user)
        return user

    yield user_in
    for user in users:
        assert_nothing_left(user)
        user.close()


def assert_nothing_left(user: Unprivileged) -> None:
    """Fail unless containers leave nothing behind; owners that were kept there may stay."""

    def left() -> list[str]:
        return [one for one in user.leftovers() if "/host." not in one]

    eventually(lambda: not left(), lambda: f"nothing left of containers: {left()}")


def in_place(user: Unprivileged, place: Place, bundle: Bundle, *args: str) -> Result:
    """Run a command as the user there."""
    script = f'{place.before}\nexec "$@"'
    env = {"BUNDLE": bundle.path, **place.env}
    return user.run(["/bin/bash", "-c", script, "sh", *args], env=env, timeout=60)


@pytest.mark.parametrize("name", PLACES)
def test_a_place(
    name: str,
    small: Bundle,
    runrootless: Runrootless,
    user_in: Callable[[Place], Unprivileged],
) -> None:
    place = PLACES[name]
    user = user_in(place)
    done = in_place(user, place, small, sys.executable, "-c", FINDINGS).check()
    found: dict[str, Any] = json.loads(done.stdout)
    kind, status, text = place.finding
    assert found[kind][0] == status, found[kind]
    assert text in found[kind][1], found[kind]
    assert found[kind][2] or status == "ok"

    # What failed is to be one line, which a traceback would follow.
    debug = ["--debug"] if place.told or not place.failure else []
    command = runrootless.command(*debug, "run", "-b", place.bundle or small.path, "x")
    done = in_place(user, place, small, *command)
    print(done.stderr)
    assert place.told in done.stderr
    lines = [line for line in done.stderr.splitlines() if "level=debug" not in line]
    if place.failure:
        assert done.returncode == 1
        assert done.stdout == ""
        assert place.failure in lines[-1]
        return
    assert (done.returncode, done.stdout) == (0, SHOWN), str(done)
    assert len(lines) <= bool(place.told)
    command = runrootless.command("emulate", "sh", "-c", EMULATED)
    done = in_place(user, place, small, *command).check()
    assert done.stdout == SHOWN
    assert place.emulated in done.stderr
    assert bool(done.stderr) == bool(place.emulated)


@pytest.mark.parametrize("closed", ["1", "2", "1 2", "0 1 2"])
def test_closed_descriptors_become_nothing_of_ours(
    closed: str, small: Bundle, runrootless: Runrootless
) -> None:
    """A container never writes into what was opened in their place."""
    # Not in the foreground, where runc passes everything on itself.
    small.script("(for n in 0 1 2; do readlink /proc/$$/fd/$n; done) >/srv/seen; echo; echo >&2")
    closing = " ".join(f"{number}>&-" for number in closed.split())
    container_id = runrootless.new_id()
    args = ("--debug", "run", "--detach", "-b", small.path, container_id)
    script = f'exec {closing}; exec "$@"'
    command = ["/bin/bash", "-c", script, "sh", *runrootless.command(*args)]
    assert runrootless.user.run(command).returncode == 0

    def seen() -> list[str]:
        path = Path(small.path, "rootfs/srv/seen")
        return path.read_text().splitlines() if path.exists() else []

    eventually(lambda: len(seen()) == 3, "the container has looked at its descriptors")
    runrootless("delete", "--force", container_id).check()
    for number in closed.split():
        assert seen()[int(number)] == "/dev/null"


def test_owners_recorded_in_a_home_are_known_when_it_is_read_only(
    small: Bundle, runrootless: Runrootless, user_in: Callable[[Place], Unprivileged]
) -> None:
    place = PLACES["read-only-home"]
    user = user_in(place)
    link = f"{user.session}/run/link"
    make = ["emulate", "sh", "-c", f"ln -s x {link} && chown -h 7:8 {link}"]
    show = ["emulate", "sh", "-c", f"stat -c %u:%g {link}"]
    usual = Unprivileged(user.account)
    try:
        env = {"HOME": user.home, "XDG_RUNTIME_DIR": user.runtime_dir}
        usual.run(runrootless.command(*make), env=env).check()
    finally:
        usual.close()
    for again in ("7:8\n", "9:8\n"):
        assert in_place(user, place, small, *runrootless.command(*show)).check().stdout == again
        change = ["emulate", "chown", "-h", "9", link]
        in_place(user, place, small, *runrootless.command(*change)).check()


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["--engine", "notfy", "run", "-b", "BUNDLE", "x"], "notify"),
        (["--runtime", "rucn", "run", "-b", "BUNDLE", "x"], "runc"),
        (["run", "--network", "pata", "-b", "BUNDLE", "x"], "pasta"),
        (["run", "--dns", "hots", "-b", "BUNDLE", "x"], "host"),
        (["run", "-b", "BUNDLE/rotfs", "x"], "BUNDLE/rootfs"),
        (["doctor", "--jsn"], "--json"),
        (["emulate", "--engin", "notify", "true"], "--engine"),
        (["exprot"], "export"),
    ],
)
def test_what_was_meant(
    args: list[str], meant: str, small: Bundle, runrootless: Runrootless
) -> None:
    done = runrootless(*(word.replace("BUNDLE", small.path) for word in args))
    assert done.returncode
    assert len(done.stderr.splitlines()) == 1
    assert f": did you mean {meant.replace('BUNDLE', small.path)}?" in done.stderr


@pytest.mark.parametrize(
    "name", ["long-runtime-dir", "read-only-runtime-dir", "runtime-dir-of-any-name"]
)
def test_a_container_is_found_again(
    name: str, small: Bundle, runrootless: Runrootless, user_in: Callable[[Place], Unprivileged]
) -> None:
    place = PLACES[name]
    user = user_in(place)
    small.script("while [ ! -e /srv/stop ]; do sleep 0.05; done")

    def command(*args: str) -> Result:
        return in_place(user, place, small, *runrootless.command(*args))

    container_id = runrootless.new_id()
    command("run", "--detach", "-b", small.path, container_id).check()
    script = "touch /srv/f; chown 5:6 /srv/f; stat -c %u /srv/f"
    assert command("exec", container_id, "sh", "-c", script).check().stdout == "5\n"
    assert container_id in command("list", "-q").check().stdout
    command("exec", container_id, "touch", "/srv/stop").check()
    command("delete", "--force", container_id).check()
