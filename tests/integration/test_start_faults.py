"""What keeps a container from starting is said in one line, and nothing is left of the try."""

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from conftest import MakeBundle
from support.bundles import Bundle
from support.containers import COMMAND, Runrootless
from support.mounts import unmount
from support.processes import Result, eventually
from support.users import AS_ROOT

_ENOUGH_DESCRIPTORS = 64


def limited(runrootless: Runrootless, bundle: Bundle, limits: str) -> Result:
    """Run a container under limits of a shell's ulimit."""
    command = runrootless.command("run", "--bundle", bundle.path, runrootless.new_id())
    # The limits are about files, which the output of the tests' commands goes to.
    script = f'({limits}; exec "$@" 3>&-) 2>&1 >&3 | cat >&2; exit ${{PIPESTATUS[0]}}'
    args = ["/bin/bash", "-c", f"exec 3>&1; {script}", "sh", *command]
    return runrootless.user.run(args, timeout=60)


def left(runrootless: Runrootless, bundle: Bundle) -> list[str]:
    """Return what there is in the bundle, beside the root file system, and of containers."""
    user = runrootless.user
    found = [*os.listdir(bundle.path), *os.listdir(os.path.dirname(bundle.path))]
    for base in (os.path.join(user.runtime_dir, "runrootless"), user.fallback_dir):
        if os.path.isdir(base):
            found += [os.path.join(base, name) for name in os.listdir(base)]
    runtime = os.path.join(user.runtime_dir, "runc")
    if os.path.isdir(runtime):
        found += os.listdir(runtime)
    return sorted(found)


def assert_started_or_told(done: Result, code: int = 1) -> bool:
    """Fail unless a container has run or one line says why it has not; return whether it has."""
    assert not done.timed_out, str(done)
    if done.returncode == 0:
        assert done.stdout == "started\n", str(done)
        return True
    assert done.returncode == code, str(done)
    assert done.stdout == "", str(done)
    lines = done.stderr.splitlines()
    # runc warns of more when it has failed itself.
    assert len(lines) == 1 or "runc run failed" in lines[-1], str(done)
    assert "Traceback" not in done.stderr
    assert "Errno" not in done.stderr, str(done)
    return False


def assert_nothing_new(runrootless: Runrootless, bundle: Bundle, before: list[str]) -> None:
    eventually(
        lambda: left(runrootless, bundle) == before,
        lambda: f"{before} again, not {left(runrootless, bundle)}",
    )


@pytest.mark.parametrize("count", [*range(5, 13), 20, 31, 32, _ENOUGH_DESCRIPTORS])
def test_few_descriptors(count: int, bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script("echo started")
    before = left(runrootless, ours)
    done = limited(runrootless, ours, f"ulimit -n {count}")
    print(count, done.returncode, done.stderr)
    has_run = assert_started_or_told(done)
    assert has_run or "ulimit -n" in done.stderr
    assert has_run or count < _ENOUGH_DESCRIPTORS
    assert_nothing_new(runrootless, ours, before)


@pytest.mark.parametrize("blocks", [0, 1, 2, 8, 32, 128])
def test_small_files_only(blocks: int, bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script("echo started")
    before = left(runrootless, ours)
    done = limited(runrootless, ours, f"ulimit -f {blocks}")
    print(blocks, done.returncode, done.stderr)
    has_run = assert_started_or_told(done)
    assert has_run or blocks < 128
    assert_nothing_new(runrootless, ours, before)


@pytest.fixture
def small_runtime_dir(runrootless: Runrootless) -> Iterator[str]:
    """A tmpfs of 64 KiB as XDG_RUNTIME_DIR."""
    if not AS_ROOT:
        pytest.skip("only root mounts: run the tests as root")
    path = os.path.join(runrootless.user.session, "small")
    os.mkdir(path)
    account = runrootless.user.account
    options = f"size=64k,mode=700,uid={account.uid},gid={account.gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], check=True)
    yield path
    unmount(path)


@pytest.mark.parametrize("free", range(14))
def test_a_full_runtime_directory(
    free: int, small_runtime_dir: str, bundle: MakeBundle, runrootless: Runrootless
) -> None:
    ours = bundle().script("echo started")
    base = os.path.join(small_runtime_dir, "runrootless")
    runtime = os.path.join(small_runtime_dir, "runc")
    with open(os.path.join(small_runtime_dir, "fill"), "wb", buffering=0) as file:
        file.write(bytes((16 - free) * 4096))
    env = {"XDG_RUNTIME_DIR": small_runtime_dir}
    done = runrootless(
        "run", "--bundle", ours.path, runrootless.new_id(), env={**runrootless.user.env, **env}
    )
    print(free, done.returncode, done.stderr)
    if not assert_started_or_told(done):
        assert small_runtime_dir in done.stderr
        assert "No space left on device" in done.stderr or "no space left" in done.stderr
    eventually(
        lambda: not any(os.path.isdir(top) and os.listdir(top) for top in (base, runtime)),
        lambda: f"nothing left in {os.listdir(base)}",
    )


def test_interrupted_at_any_moment(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script("echo started")
    before = left(runrootless, ours)
    user = runrootless.user
    for delay in range(0, 150, 2):
        container_id = runrootless.new_id()
        process = user.start([COMMAND, "run", "--bundle", ours.path, container_id])
        try:
            process.wait(delay / 1000)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        # A runtime that is interrupted may leave what it has made: runc does.
        runrootless("delete", "--force", container_id)
        # 2 is runc's own code.
        assert process.returncode in (0, 2, 130, -signal.SIGINT), f"after {delay} ms: {err}"
        assert len(err.splitlines()) <= 1, f"after {delay} ms: {err}"
    assert_nothing_new(runrootless, ours, before)
