"""The private directory of each container."""

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runrootless.containers import garbage, state
from runrootless.errors import Error


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Shorter than pytest's own: the path of a socket must fit."""
    with tempfile.TemporaryDirectory(prefix="rr-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return state.open_base()


@pytest.fixture
def root(tmp_path: Path) -> str:
    path = tmp_path / "runc"
    path.mkdir()
    return str(path)


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """No test leaves a descriptor open, and so a lock held."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    for name in set(os.listdir("/proc/self/fd")) - before:
        try:
            os.close(int(name))
        except OSError:
            pass


def test_an_id_is_the_name_of_a_file() -> None:
    for good in ("a", "A_b-c+d.e", "a,b", "..a", "-x", "a" * 255, "a b", "a\n", "\u00e9", "a*"):
        assert state.is_valid_id(good), good
    for bad in ("", ".", "..", "a/b", "../x", "/", "a" * 256, "\u00e9" * 128, "a\0"):
        assert not state.is_valid_id(bad), bad


class TestBase:
    def test_in_the_runtime_directory(self, base: str, tmp_path: Path) -> None:
        assert base == f"{tmp_path}/runrootless"
        assert os.stat(base).st_mode & 0o7777 == 0o700
        assert state.open_base() == base

    @pytest.mark.parametrize("value", ["", "relative", "/none/none", "/etc/passwd"])
    def test_in_tmp_without_one(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert state.base_directories() == [f"/tmp/runrootless-{os.geteuid()}"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="/ is root's own")
    def test_a_runtime_directory_of_somebody_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/")
        assert state.own_runtime_directory() is None

    def test_a_file_in_its_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        (tmp_path / "runrootless").write_text("")
        with pytest.raises(Error, match=f"{tmp_path}/runrootless is not a directory: remove it"):
            state.open_base()

    def test_a_link_in_its_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        (tmp_path / "runrootless").symlink_to("elsewhere")
        with pytest.raises(Error, match="is not a directory"):
            state.open_base()

    def test_open_to_others(self, base: str) -> None:
        os.chmod(base, 0o750)
        with pytest.raises(Error, match="has mode 0750 in place of 0700"):
            state.open_base()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
    def test_somebody_elses(self, base: str) -> None:
        os.chown(base, 65534, 65534)
        with pytest.raises(Error, match="belongs to user 65534"):
            state.open_base()

    def test_that_cannot_be_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.setattr(state, "own_runtime_directory", lambda: str(gone))
        gone.rmdir()
        with pytest.raises(Error, match=f"cannot make .* {gone}/runrootless: No such file"):
            state.open_base()


class TestCreate:
    def test_it_is_private_locked_and_found_again(self, base: str, root: str) -> None:
        made = state.create_container_directory(base, "x", root)
        assert os.path.dirname(made.path) == base
        assert os.stat(made.path).st_mode & 0o777 == 0o700
        # Only with a bundle in it is there a container.
        assert state.find_container_directory("x", root) is None
        Path(made.path, state.CONFIG).write_text("{}")
        assert state.find_container_directory("x", root) == made.path
        assert state.find_container_directory("x", root + "2") is None
        with open(f"{made.path}/lock") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_the_lock_is_not_the_runtimes(self, base: str, root: str) -> None:
        """Else the container's processes would keep it."""
        made = state.create_container_directory(base, "x", root)
        assert not os.get_inheritable(made.lock_fd)

    def test_the_same_id_in_another_root(self, base: str, root: str) -> None:
        first = state.create_container_directory(base, "x", root)
        second = state.create_container_directory(base, "x", root + "2")
        assert first.path != second.path

    def test_it_is_found_without_the_runtime_directory_too(
        self, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bases = [str(tmp_path / "a"), str(tmp_path / "b")]
        for base in bases:
            os.mkdir(base, 0o700)
        made = state.create_container_directory(bases[1], "x", root)
        Path(made.path, state.CONFIG).write_text("{}")
        monkeypatch.setattr(state, "base_directories", lambda: bases)
        assert state.find_container_directory("x", root) == made.path

    def test_a_container_of_that_id_exists(self, base: str, root: str) -> None:
        os.mkdir(f"{root}/x")
        with pytest.raises(Error, match=r"^container with given ID already exists: x$"):
            state.create_container_directory(base, "x", root)
        assert os.listdir(base) == []

    def test_a_container_of_that_id_is_being_made(
        self, base: str, root: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(state, "_PATIENCE", 0.05)
        made = state.create_container_directory(base, "x", root)
        with pytest.raises(Error, match="already exists: x"):
            state.create_container_directory(base, "x", root)
        assert os.path.exists(made.path)

    def test_the_agent_of_the_last_one_may_take_its_time(self, base: str, root: str) -> None:
        """`run x` directly after `run x` is no error."""
        made = state.create_container_directory(base, "x", root)
        Path(made.path, "listener").write_text("")

        def leave() -> None:
            time.sleep(0.1)
            state.remove_container_directory(made.path)
            os.close(made.lock_fd)

        agent = threading.Thread(target=leave)
        agent.start()
        again = state.create_container_directory(base, "x", root)
        agent.join()
        assert os.listdir(again.path) == ["lock"]

    def test_what_a_dead_one_left_is_removed(self, base: str, root: str) -> None:
        made = state.create_container_directory(base, "x", root)
        Path(made.path, "listener").write_text("")
        os.close(made.lock_fd)
        again = state.create_container_directory(base, "x", root)
        assert again.path == made.path
        assert os.listdir(again.path) == ["lock"]

    def test_an_unfinished_one_is_removed(self, base: str, root: str) -> None:
        path = state.create_container_directory(base, "x", root).path
        os.unlink(f"{path}/lock")
        assert os.listdir(state.create_container_directory(base, "x", root).path) == ["lock"]

    def test_long_ids(self, base: str, root: str) -> None:
        """Two with the same beginning are two, and there is room for a socket."""
        paths = [
            state.create_container_directory(base, "x" * 254 + last, root).path for last in "ab"
        ]
        assert paths[0] != paths[1]
        for path in paths:
            assert len(path) + len("/listener") <= 107

    @pytest.mark.parametrize("length", [1, 80, 107, 250, 3000])
    def test_a_socket_at_a_path_of_any_length(self, length: int, tmp_path: Path) -> None:
        directory = str(tmp_path)
        while len(directory) < length:
            directory += "/" + "x" * min(200, length)
            os.mkdir(directory)
        path = f"{directory}/listener"
        assert not state.is_served(directory)
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
            state.at_socket(path, listening.bind)
            listening.listen()
            state.at_socket(path, client.connect)
            client.sendall(b"x")
            assert listening.accept()[0].recv(1) == b"x"
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            state.at_socket(path, client.connect)

    def test_many_at_once(self, base: str, root: str, tmp_path: Path) -> None:
        """Of several that want one ID one gets it, and garbage collection harms none."""
        script = (
            "import os, sys\n"
            "from runrootless.containers import garbage, state\n"
            "base, root, own = sys.argv[1:]\n"
            "state._PATIENCE = 0\n"
            "sys.stdin.read(1)\n"
            "for number in range(50):\n"
            "    garbage.collect(base)\n"
            "    state.create_container_directory(base, f'{own}-{number}', root)\n"
            "    try:\n"
            "        state.create_container_directory(base, f'all-{number}', root)\n"
            "        print(number, flush=True)\n"
            "    except Exception as error:\n"
            "        assert 'already exists' in str(error), error\n"
            "sys.stdin.read()\n"
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", script, base, root, str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(4)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("xx")
            process.stdin.flush()
        deadline = time.monotonic() + 60
        while len(os.listdir(base)) < 250 and time.monotonic() < deadline:
            time.sleep(0.02)
        garbage.collect(base)
        # All are alive, so nothing is garbage.
        assert len(os.listdir(base)) == 250
        winners: list[int] = []
        for process in processes:
            output, _ = process.communicate()
            assert process.returncode == 0
            winners += [int(line) for line in output.split()]
        assert sorted(winners) == list(range(50))


class TestRemove:
    def test_with_all_that_is_in_it(self, base: str, root: str) -> None:
        made = state.create_container_directory(base, "x", root)
        Path(made.path, "listener").write_text("")
        state.remove_container_directory(made.path)
        assert os.listdir(base) == []
        state.remove_container_directory(made.path)

    def test_by_descriptor(self, base: str, root: str) -> None:
        made = state.create_container_directory(base, "x", root)
        descriptor = os.open(base, os.O_RDONLY)
        state.remove_from_base(descriptor, os.path.basename(made.path))
        assert os.listdir(base) == []

    def test_links_are_not_followed(self, base: str, root: str, tmp_path: Path) -> None:
        (tmp_path / "else").mkdir()
        (tmp_path / "else/file").write_text("")
        os.symlink(tmp_path / "else", f"{base}/x-00000000")
        state.remove_container_directory(f"{base}/x-00000000")
        made = state.create_container_directory(base, "y", root)
        os.symlink(tmp_path / "else/file", f"{made.path}/link")
        state.remove_container_directory(made.path)
        assert os.listdir(tmp_path / "else") == ["file"]


class TestGarbage:
    def test_what_dead_containers_left(self, base: str, root: str) -> None:
        dead = state.create_container_directory(base, "dead", root)
        Path(dead.path, "listener").write_text("")
        os.close(dead.lock_fd)
        alive = state.create_container_directory(base, "alive", root)
        known = state.create_container_directory(base, "known", root)
        os.close(known.lock_fd)
        os.mkdir(f"{root}/known")
        garbage.collect(base)
        assert sorted(os.listdir(base)) == sorted(
            os.path.basename(path) for path in (alive.path, known.path)
        )

    def test_what_is_unfinished(self, base: str) -> None:
        os.mkdir(f"{base}/x-0123abcd")
        garbage.collect(base)
        assert os.listdir(base) == []

    def test_other_things_stay(self, base: str) -> None:
        """A runtime's state root may be beside them."""
        for name in ("runc", "crun", "x-0123abcz"):
            os.mkdir(f"{base}/{name}")
        os.mkdir(f"{base}/x-0123abcd")
        os.mkdir(f"{base}/x-0123abcd/file")
        Path(base, "y-0123abcd").write_text("")
        before = sorted(os.listdir(base))
        garbage.collect(base)
        assert sorted(os.listdir(base)) == before

    def test_not_while_somebody_makes_one(self, base: str, root: str) -> None:
        dead = state.create_container_directory(base, "dead", root)
        os.close(dead.lock_fd)
        lock = os.open(base, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        garbage.collect(base)
        assert os.path.exists(dead.path)
        os.close(lock)
        garbage.collect(base)
        assert not os.path.exists(dead.path)

    def test_a_few_at_a_time(self, base: str, root: str) -> None:
        for number in range(100):
            os.close(state.create_container_directory(base, str(number), root).lock_fd)
        garbage.collect(base)
        assert len(os.listdir(base)) == 100 - garbage._CHECKS
        for _ in range(4):
            garbage.collect(base)
        assert os.listdir(base) == []


def test_systemd_tmpfiles_leaves_the_files_alone(base: str, root: str) -> None:
    """It removes old files of /tmp unless their sticky bit is set."""
    made = state.create_container_directory(base, "x", root)
    assert os.stat(f"{made.path}/lock").st_mode & 0o7777 == 0o1600 == state.MODE


def test_an_agent_that_begins_serves_already(base: str, root: str) -> None:
    """The container may have begun before the agent has its lock."""
    made = state.create_container_directory(base, "x", root)
    assert not state.is_served(made.path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{made.path}/{state.LISTENER}")
        assert not state.is_served(made.path)
        # As many as may wait, and one more.
        listener.listen(0)
        assert [state.is_served(made.path) for _ in range(3)] == [True] * 3
    assert not state.is_served(made.path)
