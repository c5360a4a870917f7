"""What crun's command line has and runc's has not."""

import os

import pytest

from conftest import MakeBundle
from support.containers import Runrootless
from support.processes import eventually

pytestmark = pytest.mark.parametrize("runtime", ["crun"], indirect=True)


def test_short_flags(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script("stat -c %G /etc/shadow")
    done = runrootless("run", f"-b{ours.path}", runrootless.new_id())
    assert done.check().stdout == "shadow\n"


def test_another_name_of_the_configuration(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script("stat -c %G /etc/shadow")
    os.rename(ours.config_path, f"{ours.path}/other.json")
    name = runrootless.new_id()
    # From where the caller is.
    os.mkdir(f"{ours.path}/elsewhere", 0o755)
    words = ["run", "-f../other.json", "--bun", ours.path, name]
    done = runrootless(*words, cwd=f"{ours.path}/elsewhere")
    assert done.check().stdout == "shadow\n"
    done = runrootless("run", "--config", "nosuch", f"-b{ours.path}", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert "/nosuch" in done.stderr


def test_a_pid_file_by_a_path_from_the_bundle(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script("exit 0")
    name = runrootless.new_id()
    runrootless("create", "--pid-file", "pid", "--bundle", ours.path, name).check()
    with open(f"{ours.path}/pid") as file:
        assert os.path.exists(f"/proc/{int(file.read())}")
    runrootless("delete", "--force", name).check()


def test_delete_by_a_regular_expression(bundle: MakeBundle, runrootless: Runrootless) -> None:
    ours = bundle().script("exit 0")
    for name in ("a1", "a2", "b1"):
        runrootless("create", "--bundle", ours.path, name).check()
    runrootless("delete", "-fr", "^a").check()
    directory = os.path.join(runrootless.user.runtime_dir, "runrootless")
    eventually(lambda: len(os.listdir(directory)) == 1, "the directory of b1 alone is left")
    assert runrootless("list", "--quiet").check().stdout.split() == ["b1"]
    runrootless("delete", "--force", "b1").check()
