"""exec in a container whose root has put something else in the place of /proc."""

import pytest

from conftest import MakeBundle, both_runtimes
from support.bundles import ADMINISTRATOR
from support.containers import Runrootless
from support.processes import eventually

pytestmark = both_runtimes

SLEEP = "while :; do sleep 0.05; done"
# Who has looked into it may not have left it yet.
UMOUNT = "until umount /proc 2>/dev/null; do sleep 0.05; done"
# What the runtime would execute in the launcher's place, whichever descriptor that is.
FALSE_LAUNCHER = """
mkdir -p self/fd
printf '#!/bin/sh\\necho not emulated\\n' >self/fd/3
chmod 755 self/fd/3
for n in 4 5 6 7 8 9; do cp self/fd/3 self/fd/$n; done
"""


@pytest.mark.parametrize(
    ("replace", "restore"),
    [
        (f"mount -t tmpfs none /proc; cd /proc; {FALSE_LAUNCHER}", f"cd /; {UMOUNT}"),
        (
            f"mkdir -p /false; cd /false; {FALSE_LAUNCHER} mount --bind /false /proc",
            f"cd /; {UMOUNT}",
        ),
        # A directory of a procfs, in which no self is.
        ("mount --bind /proc/sys /proc", UMOUNT),
        # Seen by nobody who begins at the first process's own root.
        (
            "mkdir -p /r/proc; for d in bin lib lib64 usr dev; do mkdir -p /r/$d;"
            " mount --rbind /$d /r/$d; done; mount --rbind /proc /r/proc;"
            f" mount -t tmpfs none /proc; cd /proc; {FALSE_LAUNCHER} exec chroot /r sh -c"
            f" 'touch /dev/shm/replaced; {SLEEP}'",
            "",
        ),
    ],
)
def test_nothing_is_executed_without_emulation(
    replace: str, restore: str, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    name = runrootless.new_id()
    wait = "until [ -e /dev/shm/restore ]; do sleep 0.05; done"
    script = f"set -e; {replace}\n touch /dev/shm/replaced; {wait}; {restore}\n {SLEEP}"
    ours = bundle().script(script).add_capabilities(ADMINISTRATOR)
    ours.change(
        lambda config: config["mounts"].append(
            {"destination": "/dev/shm", "type": "bind", "source": ours.path, "options": ["rbind"]}
        )
    )
    runrootless("run", "--detach", "--bundle", ours.path, name).check()
    at = f"{ours.path}/replaced"
    try:
        eventually(lambda: runrootless.user.run(["test", "-e", at]).returncode == 0, "replaced")
        for options in ((), ("--user", "33")):
            done = runrootless("exec", *options, name, "echo", "it runs")
            assert (done.returncode, done.stdout) == (255, ""), done
            assert len(done.stderr.splitlines()) == 1
            assert f"nothing can be executed in {name}: at its /proc" in done.stderr
        if restore:
            runrootless.user.run(["touch", f"{ours.path}/restore"]).check()
            eventually(
                lambda: (
                    runrootless("exec", name, "stat", "-c", "%G", "/etc/shadow").stdout
                    == "shadow\n"
                ),
                "emulation again",
            )
    finally:
        runrootless("delete", "--force", name).check()
