"""``setup podman``, and the changes of TOML files that it makes."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomllib
from hypothesis import given
from hypothesis import strategies as st

from runrootless.errors import Error
from runrootless.integrations import toml_text
from support.containers import COMMAND
from support.processes import Result
from support.users import Account, Unprivileged

CONTAINERS = """\
# Mine.
[containers]
env = ["A=b"]  # kept

[engine]
runtime = "crun" # the fast one
runtime_supports_json = [
  "crun", # and others
  "mine",
]

[engine.runtimes]
crun = ["/opt/crun"]
"""


def change(text: str, table: str, key: str, value: str | list[str]) -> str:
    return toml_text.change(text, table, key, value, "file.conf")


class TestChange:
    def test_in_an_empty_file(self) -> None:
        text = change("", "engine.runtimes", "x", ["/x"])
        assert tomllib.loads(text) == {"engine": {"runtimes": {"x": ["/x"]}}}

    def test_as_it_is_already(self) -> None:
        assert change(CONTAINERS, "engine", "runtime", "crun") == CONTAINERS

    def test_in_place_of_a_value_in_several_lines(self) -> None:
        text = change(CONTAINERS, "engine", "runtime_supports_json", ["new"])
        expected = tomllib.loads(CONTAINERS)
        expected["engine"]["runtime_supports_json"] = ["new"]
        assert tomllib.loads(text) == expected
        assert "# kept" in text and "# Mine." in text

    @pytest.mark.parametrize(
        "text",
        [
            "engine.runtime = 'a'\n",
            "engine = { runtime = 'a' }\n",
            "[engine]\n'runtime' = 'a'\n",
            'x = """\n[engine]\n"""\n',
            "engine = []\n",
            "engine = 1\n",
        ],
    )
    def test_a_file_that_is_written_otherwise_is_not_damaged(self, text: str) -> None:
        with pytest.raises(Error, match=r"file.conf is written in a way.*runtime to \"x\""):
            change(text, "engine", "runtime", "x")

    @pytest.mark.parametrize("text", ["[engine", "a = 1\na = 2\n"])
    def test_no_toml(self, text: str) -> None:
        with pytest.raises(Error, match=r"file.conf is not valid TOML: .*: correct or remove it"):
            change(text, "engine", "runtime", "x")


class TestUndo:
    @pytest.mark.parametrize("text", ["", CONTAINERS, "a = 1\n", "[engine]\n# none\n"])
    def test_what_was_there(self, text: str) -> None:
        changed = change(text, "engine", "runtime", "x")
        changed = change(changed, "engine", "runtime_supports_json", ["y"])
        changed = change(changed, "engine.runtimes", "x", ["z"])
        assert changed != text
        assert toml_text.undo(changed) == text

    def test_what_was_added_meanwhile_stays(self) -> None:
        changed = change("", "engine", "runtime", "x")
        undone = toml_text.undo(changed + "# mine\nhooks_dir = ['a']\n")
        assert tomllib.loads(undone) == {"engine": {"hooks_dir": ["a"]}}
        assert "# mine" in undone

    @given(st.text(alphabet="[]ab=\". \n#'", max_size=60))
    def test_any_text(self, text: str) -> None:
        assert toml_text.undo(text) == text
        try:
            changed = change(text, "a", "b", "c")
        except Error:
            return
        assert tomllib.loads(changed)["a"]["b"] == "c"
        assert tomllib.loads(toml_text.undo(changed)) == tomllib.loads(text)


Setup = Callable[..., Result]


@pytest.fixture
def user(account: Account) -> Iterator[Unprivileged]:
    user = Unprivileged(account)
    yield user
    user.close()


@pytest.fixture
def setup(user: Unprivileged) -> Setup:
    def run(*arguments: str) -> Result:
        return user.run([COMMAND, "setup", *arguments])

    return run


@pytest.fixture
def directory(user: Unprivileged) -> Path:
    """The user's own configuration of podman, made by the user."""
    path = Path(user.home, ".config/containers")
    user.run(["mkdir", "-p", str(path)]).check()
    return path


def write(user: Unprivileged, path: Path, text: str) -> None:
    user.run(["tee", str(path)], input=text).check()


class TestSetup:
    @pytest.mark.parametrize(
        ("words", "what"),
        [
            ((), "setup takes podman: see"),
            (("docker",), "not docker"),
            (("podmen",), "did you mean podman?"),
            (("podman", "--nosuch"), "there is no flag --nosuch"),
            (("--udno", "podman"), "did you mean --undo?"),
        ],
    )
    def test_a_mistake_is_told_in_a_line(
        self, setup: Setup, words: tuple[str, ...], what: str
    ) -> None:
        done = setup(*words)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("runrootless: setup")
        assert what in line

    def test_writes_what_podman_needs_and_takes_it_back(
        self, setup: Setup, directory: Path
    ) -> None:
        done = setup("podman").check()
        containers = tomllib.loads((directory / "containers.conf").read_text())
        assert containers["engine"]["runtime"] == "runrootless"
        assert containers["engine"]["runtimes"] == {"runrootless": [COMMAND]}
        storage = tomllib.loads((directory / "storage.conf").read_text())
        driver = storage["storage"]["driver"]
        assert storage["storage"]["options"] == {driver: {"ignore_chown_errors": "true"}}
        assert '+runtime = "runrootless"' in done.stdout
        assert setup("podman").check().stdout.splitlines()[0] == "nothing to change"
        assert '-runtime = "runrootless"' in setup("podman", "--undo").check().stdout
        assert list(directory.iterdir()) == []
        assert setup("podman", "--undo").check().stdout == "nothing to change\n"

    def test_leaves_all_else_as_it_is(
        self, setup: Setup, directory: Path, user: Unprivileged
    ) -> None:
        file = directory / "containers.conf"
        write(user, file, CONTAINERS)
        user.run(["chmod", "600", str(file)]).check()
        setup("podman").check()
        settings = tomllib.loads(file.read_text())
        assert settings["containers"] == {"env": ["A=b"]}
        assert settings["engine"]["runtimes"]["crun"] == ["/opt/crun"]
        assert settings["engine"]["runtime_supports_json"] == ["crun", "mine", "runrootless"]
        assert file.stat().st_mode & 0o777 == 0o600
        setup("podman", "--undo").check()
        assert file.read_text() == CONTAINERS
        assert file.stat().st_mode & 0o777 == 0o600

    def test_takes_the_place_of_an_older_installation(
        self, setup: Setup, directory: Path, user: Unprivileged
    ) -> None:
        setup("podman").check()
        file = directory / "containers.conf"
        write(user, file, file.read_text().replace(COMMAND, "/old/runrootless"))
        done = setup("podman").check()
        assert '-runrootless = ["/old/runrootless"]' in done.stdout
        assert "/old" not in file.read_text()
        setup("podman", "--undo").check()
        assert not file.exists()

    def test_a_dry_run_writes_nothing(self, setup: Setup, directory: Path) -> None:
        assert "+[engine]" in setup("podman", "--dry-run").check().stdout
        assert list(directory.iterdir()) == []

    def test_keeps_the_driver_of_a_storage_that_is_there(
        self, setup: Setup, directory: Path, user: Unprivileged
    ) -> None:
        storage = f"{user.home}/.local/share/containers/storage"
        user.run(["mkdir", "-p", f"{storage}/vfs-layers"]).check()
        assert '+driver = "vfs"' in setup("podman").check().stdout

    def test_a_driver_that_is_none_for_us(
        self, setup: Setup, directory: Path, user: Unprivileged
    ) -> None:
        write(user, directory / "storage.conf", "[storage]\ndriver = 'btrfs'\n")
        done = setup("podman").check(1)
        assert "the driver btrfs cannot unpack images" in done.stderr
        # Nor is the other file changed.
        assert [file.name for file in directory.iterdir()] == ["storage.conf"]

    def test_follows_a_link_to_where_the_file_is_kept(
        self, setup: Setup, directory: Path, user: Unprivileged
    ) -> None:
        kept = Path(user.home, "dotfiles")
        write(user, kept, "[engine]\n")
        user.run(["ln", "-s", str(kept), str(directory / "containers.conf")]).check()
        setup("podman").check()
        assert os.path.islink(directory / "containers.conf")
        assert "runrootless" in kept.read_text()

    def test_an_unknown_program(self, setup: Setup) -> None:
        done = setup("docker")
        assert done.returncode != 0
        assert "setup takes podman" in done.stderr
