"""What is started where there is a seccomp listener already.

Under `emulate` the agent that is there serves containers as well.
"""

import os
import subprocess

import pytest

from conftest import MakeBundle, both_runtimes
from support.bundles import ADMINISTRATOR
from support.containers import COMMAND, Runrootless
from support.processes import Result, read_line

SHOW = "stat -c '%u:%g %n' /srv/nested/*"


def run_nested(runrootless: Runrootless, *words: str, **options: object) -> Result:
    command = ["emulate", "--", COMMAND, *runrootless.options, *words]
    return runrootless(*command, **options)  # type: ignore[arg-type]


@both_runtimes
def test_owners_stay(runrootless: Runrootless, bundle: MakeBundle) -> None:
    script = """
        id; mkdir /srv/nested; cd /srv/nested; touch a b; chown 33:44 a
        su -s /bin/sh games -c 'touch /tmp/c'; stat -c %U /tmp/c
    """
    made = bundle(copy=True).set(["/bin/sh", "-c", script + SHOW])
    done = run_nested(runrootless, "run", "--bundle", made.path, "one").check()
    expected = "33:44 /srv/nested/a\n0:0 /srv/nested/b\n"
    assert done.stdout == f"uid=0(root) gid=0(root) groups=0(root)\ngames\n{expected}"
    # Another agent.
    assert runrootless.run(made.set(["/bin/sh", "-c", SHOW])).check().stdout == expected


@both_runtimes
@pytest.mark.parametrize("groups", [[], [44], [4, 33, 2**31]], ids=["none", "one", "many"])
def test_who_the_process_is(
    groups: list[int], runrootless: Runrootless, bundle: MakeBundle
) -> None:
    script = "id -u; id -g; id -G; touch /dev/shm/x; stat -c %u:%g /dev/shm/x"
    made = bundle().set(["/bin/sh", "-c", script], user=(33, 34, groups))
    expected = runrootless.run(made).check().stdout
    assert expected.startswith("33\n34\n34")
    assert run_nested(runrootless, "run", "--bundle", made.path, "one").check().stdout == expected


@both_runtimes
def test_a_further_process(runrootless: Runrootless, bundle: MakeBundle) -> None:
    made = bundle().set(["/bin/sh", "-c", "echo up; exec sleep 1000"])
    call = " ".join([COMMAND, *runrootless.options])
    # As root the groups are the bundle's, and not those of who calls.
    script = f"""
    {call} run --bundle {made.path} one &
    read line; setpriv --groups 5,6 {call} exec one id
    {call} exec --user 33:34 --additional-gids 44 one id
    read line; {call} kill one KILL; wait
    """
    process = runrootless.user.start(
        runrootless.command("emulate", "--", "bash", "-c", script),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert read_line(process) == "up\n"
    process.stdin.write("\n")
    process.stdin.flush()
    assert read_line(process) == "uid=0(root) gid=0(root) groups=0(root)\n"
    assert read_line(process).startswith("uid=33(www-data) gid=34(backup) groups=34(backup),44(vid")
    done = runrootless("exec", "one", "id")
    assert "under `runrootless emulate`, and can only be entered there" in done.stderr
    process.communicate("\n", timeout=60)


def test_the_engine_is_told_and_another_may_be_taken(
    runrootless: Runrootless, bundle: MakeBundle
) -> None:
    made = bundle().set(["/usr/bin/id", "-u"])
    command = ["run", "--bundle", made.path, "one"]
    done = run_nested(runrootless, "--debug", *command).check()
    assert "engine nested: root is emulated here already" in done.stderr
    done = run_nested(runrootless, "--debug", "--engine", "notify", *command).check()
    assert "engine nested" in done.stderr
    assert run_nested(runrootless, "--engine", "none", *command).check().stdout == "0\n"


def test_a_root_within_the_container(runrootless: Runrootless, bundle: MakeBundle) -> None:
    script = """
    mkdir /srv/root; mount --bind / /srv/root
    chroot /srv/root sh -c 'touch /srv/x; chown 5:6 /srv/x; stat -c %u:%g /srv/x'
    stat -c %u:%g /srv/x
    """
    made = bundle(copy=True).set(["/bin/sh", "-c", script]).add_capabilities(ADMINISTRATOR)
    done = run_nested(runrootless, "run", "--bundle", made.path, "one").check()
    assert done.stdout == "5:6\n5:6\n"


LISTEN = """
import os, sys
from runrootless.linux import bpf, process, seccomp
process.set_no_new_privileges()
listener = seccomp.install(bpf.finish(seccomp.RETURN_ALLOW), seccomp.FILTER_NEW_LISTENER)
os.set_inheritable(listener, True)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_the_listener_of_another_program(runrootless: Runrootless) -> None:
    python = os.path.join(os.path.dirname(COMMAND), "python")
    done = runrootless.user.run([python, "-c", LISTEN, COMMAND, "emulate", "true"]).check(125)
    assert "another program has a seccomp listener here, and there can be one only" in done.stderr


def test_who_is_not_root_there_is_told(runrootless: Runrootless) -> None:
    command = ["setpriv", "--reuid", "33", COMMAND, "emulate", "true"]
    done = runrootless("emulate", "--", *command).check(125)
    assert "become root again, where root is emulated" in done.stderr
