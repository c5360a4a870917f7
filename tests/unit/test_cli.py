"""The command line, with a runtime that only says how it was called."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runrootless
from runrootless import cli
from runrootless.command_line import manual
from support.commands import Command
from support.processes import eventually
from support.users import Unprivileged

NO_ROOT = "--root=/proc/runrootless does not know one of these flags"


@pytest.fixture
def command(unprivileged: Unprivileged) -> Iterator[Command]:
    command = Command(unprivileged)
    yield command
    # The agents see that their runtime has gone.
    eventually(
        lambda: (
            not any("-m runrootless" in one.command for one in unprivileged.account.processes())
        ),
        "the end of the agents",
    )


class TestHandingOver:
    @pytest.mark.parametrize(
        "words",
        [["state", "x"], ["kill", "x", "-9"], ["--", "list"], ["features"], ["spec", "-b", "/x"]],
    )
    def test_all_that_is_not_ours(self, command: Command, words: list[str]) -> None:
        rest = words[1:] if words[0] == "--" else words
        assert command.words(*words) == [f"--root={command.root}", *rest]

    def test_global_flags_are_passed_on_but_for_ours(self, command: Command) -> None:
        words = ["--debug", "-log", "/x", "--systemd-cgroup=false", "--engine", "notify"]
        assert command.words(*words, "-runtime", command.runtime, "list") == [
            "--debug",
            "--log=/x",
            f"--root={command.root}",
            "list",
        ]

    def test_a_state_root_of_the_callers_choice(self, command: Command) -> None:
        assert command.words("--root", "/x", "list") == ["--root=/x", "list"]

    def test_without_a_runtime_directory(self, command: Command) -> None:
        """Then the runtime's own default would be /run/runc, which is root's."""
        root = f"{command.user.fallback_dir}/runc"
        assert command.words("list", env={"XDG_RUNTIME_DIR": ""}) == [f"--root={root}", "list"]
        assert os.stat(command.user.fallback_dir).st_mode & 0o777 == 0o700

    def test_each_runtime_has_its_own_root(self, command: Command) -> None:
        other = command.install("crun")
        told = command.told("--runtime", other, "list")
        assert told["words"] == [other, f"--root={command.user.runtime_dir}/crun", "list"]

    @pytest.mark.parametrize(
        "words", [["--nope", "list"], ["--debug=maybe", "list"], ["--log"], ["--xyzzy=x", "list"]]
    )
    def test_mistakes_are_the_runtimes_to_explain(self, command: Command, words: list[str]) -> None:
        assert command.words("--runtime", command.runtime, *words) == words

    @pytest.mark.parametrize(
        "words",
        [
            ["exec"],
            ["exec", "x"],
            ["exec", "none", "sh"],
            ["exec", "-u", "5", "none", "sh"],
        ],
    )
    def test_so_are_those_of_a_subcommand(self, command: Command, words: list[str]) -> None:
        assert command.words(*words) == [f"--root={command.root}", *words]

    @pytest.mark.parametrize(
        "words",
        [
            ["run"],
            ["run", "x", "y"],
            ["run", "--nope", "x"],
            ["run", "x", "--help"],
            ["create", "--detach", "x"],
            ["create", "--preserve-fds", "x", "y"],
            ["exec", "-u"],
            ["exec", "--nope", "x", "sh"],
            ["exec", "--tty", "--help", "x", "sh"],
            ["mono", "x"],
            ["init"],
        ],
    )
    def test_no_container_starts_where_there_is_a_mistake(
        self, command: Command, words: list[str]
    ) -> None:
        """Whatever a runtime makes of it: there is no place for its state."""
        assert command.words("--root", "/x", *words) == [NO_ROOT, *words]
        told = command.words("--runtime", command.runtime, "--nope", *words)
        assert told[:3] == ["--nope", NO_ROOT, words[0]]
        assert [word for word in told if word != NO_ROOT] == ["--nope", *words]

    @pytest.mark.parametrize("name", ["runc", "crun"])
    @pytest.mark.parametrize(
        "words",
        [
            ["--", "--", "run", "x"],
            ["--systemd-cgroup", "--", "--", "exec", "x", "sh"],
            ["--", "--root=/x", "create", "x"],
            ["--", "--debug", "--", "exec", "x", "sh"],
            ["-", "run", "x"],
        ],
    )
    def test_no_command_begins_with_a_dash(
        self, command: Command, name: str, words: list[str]
    ) -> None:
        """A runtime would take it for a flag, or the end of them, and then find a command."""
        done = command("--runtime", command.install(name), *words).check(3)
        assert done.stdout == ""
        assert "there is no command -" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_what_cannot_be_emulated_is_not_restored(self, command: Command) -> None:
        done = command("restore", "x").check(1)
        assert done.stdout == ""
        assert "restore starts processes for which no engine emulates root" in done.stderr
        rest = [f"--root={command.root}", "restore", "x"]
        assert command.words("--engine", "none", "restore", "x") == rest

    @pytest.mark.parametrize("bad", ["../x", "a/b", ".", "..", "a" * 256])
    def test_no_process_by_such_an_id(self, command: Command, bad: str) -> None:
        """crun would look for it outside of its state root."""
        done = command("exec", bad, "sh").check(255)
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1

    def test_the_state_root_is_what_it_is_here(self, command: Command) -> None:
        """By whatever name. To crun 1.8 --rootless is a name of --root as well."""
        os.symlink("/usr", f"{command.user.home}/link")
        for root in (f"{command.user.home}/link/x", "/usr/../usr/x", "link/x"):
            words = ["--root", root, "--rootless=true", "list"]
            told = command.words(*words, cwd=command.user.home)
            assert told == ["--rootless=true", "--root=/usr/x", "list"]

    @pytest.mark.parametrize("name", ["runc", "crun"])
    @pytest.mark.parametrize("bad", ["../x", "a/b", "/", ".", "..", "", "a" * 256, "ü" * 128])
    def test_an_id_that_no_container_can_have(self, command: Command, name: str, bad: str) -> None:
        done = command("--runtime", command.install(name), "run", "-b", command.bundle, bad)
        assert done.check(1).stdout == ""
        assert done.stderr.count("\n") == 1
        assert "ontainer" in done.stderr

    @pytest.mark.parametrize(
        ("before", "words"),
        [
            (["--deb"], ["run", "--config", "FILE", "--detach", "x"]),
            (["--cgroup=cgroupfs"], ["run", "-dbDIR", "ü a:b\nc"]),
            ([], ["create", "--no-subreaper", "--pid", "p", "-bDIR", "-fFILE", "a" * 255]),
            ([], ["run", "-bDIR", "--", "-x"]),
        ],
    )
    def test_all_that_crun_takes_is_emulated(
        self, command: Command, before: list[str], words: list[str]
    ) -> None:
        shutil.copy(f"{command.bundle}/config.json", f"{command.bundle}/other.json")
        words = [
            word.replace("DIR", command.bundle).replace("FILE", f"{command.bundle}/other.json")
            for word in words
        ]
        runtime = command.install("crun")
        told = command.told("--runtime", runtime, *before, *words, cwd=command.bundle)
        assert told["words"][-1] == words[-1]
        assert told["config"]["process"]["args"][0].startswith("/proc/self/fd/")

    def test_the_exit_code_is_the_runtimes(self, command: Command) -> None:
        command("state", "exit7").check(7)

    def test_so_is_the_process(self, command: Command) -> None:
        """Python ignores two signals; the runtime and the container are not to."""
        # The other runtime is a Python program too.
        runtime = os.path.join(command.user.home, "signals")
        Path(runtime).write_text("#!/bin/sh\ngrep SigIgn /proc/self/status\n")
        os.chmod(runtime, 0o755)
        pipe_and_file_size = 1 << 12 | 1 << 24
        for words in (["list"], ["run", "-b", command.bundle, "x"]):
            done = command("--runtime", runtime, *words).check()
            assert int(done.stdout.split()[1], 16) & pipe_and_file_size == 0


class TestRun:
    def test_the_runtime_gets_the_derived_bundle(self, command: Command) -> None:
        told = command.told("run", "--keep", "-b", command.bundle, "--pid-file=/x", "id1")
        *words, bundle, separator, container = told["words"][1:]
        rest = ["--keep", "--pid-file=/x", "--preserve-fds=2"]
        assert words == [f"--root={command.root}", "run", *rest]
        assert re.fullmatch(
            f"--bundle={command.user.runtime_dir}/runrootless/id1-[0-9a-f]{{8}}", bundle
        )
        assert (separator, container) == ("--", "id1")
        assert {"config.json", "listener", "lock"} <= set(told["bundle"])
        assert told["config"]["root"]["path"] == f"{command.bundle}/rootfs"
        mapping = {"containerID": 0, "hostID": command.user.account.uid, "size": 1}
        assert told["config"]["linux"]["uidMappings"] == [mapping]
        assert told["config"]["process"]["args"] == ["/proc/self/fd/3", "/bin/sh"]
        assert "seccomp" not in told["config"]["linux"]

    def test_the_users_stays_as_it_is(self, command: Command) -> None:
        def contents() -> dict[str, str]:
            return {
                str(path): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in Path(command.bundle).rglob("*")
                if path.is_file()
            }

        before = contents()
        command("run", "-b", command.bundle, "x").check()
        assert contents() == before

    def test_the_bundle_may_be_where_the_caller_is(self, command: Command) -> None:
        told = command.told("create", "x", cwd=command.bundle)
        assert told["config"]["root"]["path"] == f"{command.bundle}/rootfs"
        assert told["words"][2] == "create"

    def test_flags_behind_the_container(self, command: Command) -> None:
        told = command.told("run", "x", "--bundle", command.bundle, "-d")
        assert told["words"][2:4] == ["run", "--detach"]
        assert told["words"][-1] == "x"

    @pytest.mark.parametrize(
        ("engine", "count"), [("notify", 2), ("thorough", 2), ("zero", 1), ("none", 0)]
    )
    def test_the_descriptors_that_the_runtime_passes_on(
        self, command: Command, engine: str, count: int
    ) -> None:
        """The launcher and its connection, above those that the user passes; no other."""
        words = ["--engine", engine, "run", "-b", command.bundle, "--preserve-fds", "2", "x"]
        script = 'exec 3</dev/null 4</dev/null; exec "$@"'
        line = ["bash", "-c", script, "", sys.executable, "-m", "runrootless", *words]
        done = command.user.run(line, env={"RUNROOTLESS_RUNTIME": command.runtime}).check()
        told = json.loads(done.stdout)
        assert sorted(told["descriptors"]) == [str(number) for number in range(5 + count)]
        assert f"--preserve-fds={2 + count}" in told["words"]

    @pytest.mark.parametrize("count", ["-1", "-2", "-3", "-4", "-0x10"])
    @pytest.mark.parametrize("name", ["runc", "crun"])
    def test_fewer_than_none_are_none(self, command: Command, name: str, count: str) -> None:
        """As with runc: no launcher takes the place of a standard stream."""
        runtime = command.install(name)
        words = ["run", "-b", command.bundle, f"--preserve-fds={count}", "x"]
        told = command.told("--runtime", runtime, *words)
        assert told["config"]["process"]["args"][0] == "/proc/self/fd/3"
        assert sorted(told["descriptors"]) == ["0", "1", "2", "3", "4"]
        assert "--preserve-fds=2" in told["words"]
        words = ["exec", "-u", "5", f"--preserve-fds={count}", "x", "id"]
        told = command.told("--runtime", runtime, *words)
        assert not any(word.startswith("--preserve-fds") for word in told["words"])

    @pytest.mark.parametrize(
        ("runtime", "pid", "first"),
        [("runc", "1", 4), ("runc", "$$", 6), ("crun", "1", 6), ("crun", "$$", 6)],
    )
    def test_socket_activation(self, command: Command, runtime: str, pid: str, first: int) -> None:
        """sd_listen_fds(3): runc passes the sockets if they are its own, crun does always."""
        path = command.install(runtime)
        words = ["--runtime", path, "run", "-b", command.bundle, "--preserve-fds=1", "x"]
        script = (
            f'exec 3</dev/null 4</dev/null 5</dev/null; LISTEN_FDS=2 LISTEN_PID={pid} exec "$@"'
        )
        line = ["bash", "-c", script, "", sys.executable, "-m", "runrootless", *words]
        told = json.loads(command.user.run(line).check().stdout)
        assert told["config"]["process"]["args"][0] == f"/proc/self/fd/{first}"
        assert "--preserve-fds=3" in told["words"]

    @pytest.mark.parametrize(
        ("program", "env"),
        [("/bin/none", []), ("none", ["PATH=/bin"]), ("sh", []), ("/etc", []), ("/bin/sh/x", [])],
    )
    def test_a_program_that_the_runtime_is_to_miss(
        self, command: Command, program: str, env: list[str]
    ) -> None:
        """It says so in its own words, and could not execute it after all."""
        command.write_bundle(args=[program], env=env)
        told = command.told("run", "-b", command.bundle, "x")
        assert told["config"]["process"]["args"] == [program]
        (rule,) = told["config"]["linux"]["seccomp"]["syscalls"]
        assert rule == {
            "names": ["execve", "execveat"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": errno.ENOENT,
        }

    def test_without_proc(self, command: Command) -> None:
        path = Path(f"{command.bundle}/config.json")
        spec = json.loads(path.read_text())
        path.write_text(json.dumps({**spec, "mounts": []}))
        done = command("run", "-b", command.bundle, "x").check(1)
        assert "the bundle mounts no /proc" in done.stderr

    def test_who_the_process_is_to_be(self, command: Command) -> None:
        command.write_bundle(user={"uid": 405, "gid": 5, "additionalGids": [6]})
        process = command.told("run", "-b", command.bundle, "x")["config"]["process"]
        assert process["user"] == {"uid": 0, "gid": 0}
        assert process["env"] == ["A=b", "HOME=/home/guest"]
        assert process["noNewPrivileges"] is True
        assert [limit["type"] for limit in process["rlimits"]] == ["RLIMIT_RTTIME"]

    def test_a_container_exists(self, command: Command) -> None:
        command("run", "-b", command.bundle, "x").check()
        done = command("run", "-b", command.bundle, "x").check(1)
        assert "container with given ID already exists: x" in done.stderr
        assert done.stdout == ""

    @pytest.mark.parametrize("runtime", ["/bin/false", None])
    def test_nothing_is_left_of_a_failure(self, command: Command, runtime: str | None) -> None:
        """Neither if the runtime fails nor if it cannot be executed."""
        if runtime is None:
            runtime = os.path.join(command.user.home, "broken")
            Path(runtime).write_text("#!/none\n")
            os.chmod(runtime, 0o755)
        command("--runtime", runtime, "run", "-b", command.bundle, "x").check(1)
        directory = f"{command.user.runtime_dir}/runrootless"
        eventually(lambda: os.listdir(directory) == [], "the end of the agent")

    def test_nothing_is_left_of_a_broken_bundle(self, command: Command) -> None:
        Path(f"{command.bundle}/config.json").write_text("{")
        done = command("run", "-b", command.bundle, "x").check(1)
        assert len(done.stderr.splitlines()) == 1
        directory = f"{command.user.runtime_dir}/runrootless"
        eventually(lambda: os.listdir(directory) == [], "the end of the agent")


class TestEngine:
    def annotate(self, command: Command, engine: str) -> None:
        path = Path(f"{command.bundle}/config.json")
        spec = json.loads(path.read_text())
        spec["annotations"] = {"org.runrootless.engine": engine, "other": None}
        path.write_text(json.dumps(spec))

    def test_the_bundle_chooses(self, command: Command) -> None:
        self.annotate(command, "zero")
        told = command.told("run", "-b", command.bundle, "x")
        assert told["bundle"] == ["config.json", "lock", "user-namespace"]
        assert told["config"]["runrootless"]["engine"] == "zero"
        assert told["config"]["process"]["args"] == ["/proc/self/fd/3", "/bin/sh"]

    def test_the_environment_overrides_it(self, command: Command) -> None:
        self.annotate(command, "zero")
        env = {"RUNROOTLESS_ENGINE": "none"}
        told = command.told("run", "-b", command.bundle, "x", env=env)
        assert told["config"]["runrootless"]["engine"] == "none"
        assert "seccomp" not in told["config"]["linux"]

    def test_an_annotation_that_is_no_text(self, command: Command) -> None:
        path = Path(f"{command.bundle}/config.json")
        annotations = {"annotations": {"org.runrootless.engine": 1}}
        path.write_text(json.dumps({**json.loads(path.read_text()), **annotations}))
        done = command("run", "-b", command.bundle, "x").check(1)
        assert "annotations.org.runrootless.engine must be a string" in done.stderr

    def test_why_it_was_taken(self, command: Command) -> None:
        done = command("--debug", "run", "-b", command.bundle, "x").check()
        message = "runrootless: engine notify: the best that this host can do"
        assert re.fullmatch(f'time="[^"]+" level=debug msg="{message}"\n', done.stderr)

    def test_why_in_the_log_alone(self, command: Command) -> None:
        log = os.path.join(command.user.home, "log")
        words = ["--debug", "--log", log, "--log-format=json", "--engine=zero"]
        done = command(*words, "run", "-b", command.bundle, "x").check()
        assert done.stderr == ""
        entry = json.loads(Path(log).read_text())
        assert entry["msg"] == "runrootless: engine zero: --engine names it"
        assert entry["level"] == "debug"

    @pytest.mark.parametrize("engine", ["zero", "none"])
    @pytest.mark.parametrize("runtime", ["/bin/true", "/bin/false", None])
    def test_nothing_is_left_without_a_container(
        self, command: Command, engine: str, runtime: str | None
    ) -> None:
        code = 0 if runtime == "/bin/true" else 1
        if runtime is None:
            runtime = os.path.join(command.user.home, "broken")
            Path(runtime).write_text("#!/none\n")
            os.chmod(runtime, 0o755)
        words = ["--runtime", runtime, "--engine", engine]
        command(*words, "run", "-b", command.bundle, "x").check(code)
        directory = f"{command.user.runtime_dir}/runrootless"
        eventually(lambda: os.listdir(directory) == [], "the end of the janitor")

    def test_exec_has_the_containers(self, command: Command) -> None:
        """Whatever is said when it is called."""
        command("--engine", "zero", "run", "-b", command.bundle, "x").check()
        for words in ([], ["--engine", "notify"]):
            process = command.told(*words, "exec", "-u", "405:5", "x", "ls")["process"]
            assert process["user"] == {"uid": 0, "gid": 0}
            assert process["noNewPrivileges"] is True
            assert "rlimits" not in process
        command("--engine", "none", "run", "-b", command.bundle, "y").check()
        process = command.told("exec", "-u", "405:5", "-g", "6", "y", "ls")["process"]
        assert process["user"] == {"uid": 405, "gid": 5, "additionalGids": [6]}
        assert "noNewPrivileges" not in process


class TestExec:
    @pytest.fixture(autouse=True)
    def container(self, command: Command) -> None:
        command.write_bundle(
            user={"uid": 0, "gid": 3, "additionalGids": [4], "umask": 18},
            capabilities={"bounding": ["CAP_KILL"], "effective": [], "ambient": []},
        )
        command("run", "-b", command.bundle, "x").check()

    def process(self, command: Command, *words: str, **more: Any) -> dict[str, Any]:
        process: dict[str, Any] = command.told("exec", *words, **more)["process"]
        return process

    def test_runc_knows_what_to_do_without_a_user(self, command: Command) -> None:
        words = ["--tty", "--env=A=b", "--detach"]
        assert command.words("exec", "-t", "-e", "A=b", "-d", "x", "ls", "-l") == [
            f"--root={command.root}",
            "exec",
            *words,
            "--",
            "x",
            "ls",
            "-l",
        ]

    @pytest.mark.parametrize("user", [[], ["-u", "5"]])
    def test_the_launcher_where_the_container_runs(self, command: Command, user: list[str]) -> None:
        """Of which this process is the first one here."""
        command("--engine", "zero", "run", "-b", command.bundle, "y").check()
        state = {"init_process_pid": os.getpid()}
        Path(command.root, "y", "state.json").write_text(json.dumps(state))
        told = command.told("exec", *user, "y", "ls", "-l")
        assert "--preserve-fds=1" in told["words"]
        assert sorted(told["descriptors"])[:4] == ["0", "1", "2", "3"]
        arguments = told["process"]["args"] if user else told["words"][-3:]
        assert arguments == ["/proc/self/fd/3", "ls", "-l"]

    def test_a_user(self, command: Command) -> None:
        process = self.process(command, "-u", "405", "x", "ls", "-l")
        assert process["args"] == ["ls", "-l"]
        assert process["user"] == {"uid": 0, "gid": 0, "umask": 18}
        assert process["env"] == ["A=b", "HOME=/home/guest"]
        assert process["cwd"] == "/"
        assert process["noNewPrivileges"] is True
        assert process["terminal"] is False
        assert [limit["type"] for limit in process["rlimits"]] == ["RLIMIT_RTTIME"]

    def test_all_flags(self, command: Command) -> None:
        words = ["-u=5:6", "-g", "7", "--cwd", "/tmp", "-e", "HOME=/x", "-e", "C=d", "-t"]
        words += ["--cap", "CAP_CHOWN", "--apparmor", "p", "--process-label", "l"]
        told = command.told(
            "exec", *words, "--pid-file", "/x", "-d", "--preserve-fds", "0", "x", "id"
        )
        process = told["process"]
        assert process["env"] == ["A=b", "HOME=/x", "C=d"]
        assert process["cwd"] == "/tmp"
        assert process["terminal"] is True
        assert process["capabilities"]["bounding"] == ["CAP_KILL", "CAP_CHOWN"]
        assert process["capabilities"]["effective"] == ["CAP_CHOWN"]
        assert process["apparmorProfile"] == "p"
        assert process["selinuxLabel"] == "l"
        *rest, path, separator, container = told["words"][3:]
        assert rest == ["--pid-file=/x", "--detach"]
        assert path.startswith("--process=/proc/self/fd/")
        assert (separator, container) == ("--", "x")

    def test_identities_differ(self, command: Command) -> None:
        """The limit says who; no two of these users are the same."""
        limits = [
            json.dumps(self.process(command, *words, "x", "id")["rlimits"])
            for words in (
                ["-u5"[:2], "5"],
                ["-u", "6"],
                ["-u", "5:6"],
                ["-g", "5"],
                ["-u", "guest"],
            )
        ]
        assert len(set(limits)) == len(limits)

    def test_the_home_of_the_containers_user_is_not_the_others(self, command: Command) -> None:
        command.write_bundle(user={"uid": 405, "gid": 100})
        command("run", "-b", command.bundle, "y").check()
        assert self.process(command, "-u", "5", "y", "id")["env"] == ["A=b", "HOME=/"]
        assert self.process(command, "-u", "0", "y", "id")["env"] == ["A=b"]
        assert self.process(command, "-g", "5", "y", "id")["env"] == ["A=b", "HOME=/home/guest"]

    def test_a_process_file(self, command: Command) -> None:
        path = os.path.join(command.user.home, "process.json")
        process = {
            "args": ["id"],
            "cwd": "/",
            "user": {"uid": 405, "gid": 6},
            "rlimits": [{"type": "RLIMIT_RTTIME", "soft": 5, "hard": 5}],
            "terminal": True,
        }
        Path(path).write_text(json.dumps(process))
        told = self.process(command, "--process", path, "x")
        assert told["user"] == {"uid": 0, "gid": 0}
        assert told["env"] == ["HOME=/home/guest"]
        assert told["terminal"] is True
        assert "capabilities" not in told
        assert len(told["rlimits"]) == 1
        assert told["rlimits"][0]["soft"] != 5

    def test_the_file_is_above_the_descriptors_of_the_container(self, command: Command) -> None:
        words = ["exec", "-u", "5", "--preserve-fds", "20", "x", "id"]
        told = command.told(*words)
        (path,) = (word for word in told["words"] if word.startswith("--process="))
        assert int(path.rpartition("/")[2]) >= 23

    def test_every_process_of_crun_is_written_out(self, command: Command) -> None:
        """It would leave noNewPrivileges and the limits away."""
        crun = command.install("crun")
        command("--runtime", crun, "run", "-b", command.bundle, "x").check()
        process = command.told("--runtime", crun, "exec", "x", "id")["process"]
        assert process["noNewPrivileges"] is True

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["-u", "nobody2"], "no user 'nobody2'"),
            (["-u", "0:none"], "no group 'none'"),
            (["-g", "-1"], "--additional-gids takes numbers"),
            (["--process", "/none"], "cannot read /none: No such file"),
        ],
    )
    def test_errors(self, command: Command, words: list[str], message: str) -> None:
        """As runc's: 255, because the other codes are the process's own."""
        done = command("exec", *words, "x", "id").check(255)
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


class TestErrors:
    LINE = r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)" level=error msg="%s"\n'
    MESSAGE = "runrootless: there is no bundle directory /none: give one with --bundle"

    def test_on_the_standard_error_as_runcs(self, command: Command) -> None:
        done = command("run", "-b", "/none", "x").check(1)
        assert re.fullmatch(self.LINE % self.MESSAGE, done.stderr)

    def test_the_time_has_a_zone(self, command: Command) -> None:
        done = command("run", "-b", "/none", "x", env={"TZ": "XXX-05:30"}).check(1)
        assert '+05:30" level' in done.stderr

    def test_in_the_log(self, command: Command) -> None:
        log = os.path.join(command.user.home, "log")
        for _ in range(2):
            done = command("--log", log, "run", "-b", "/none", "x").check(1)
            assert done.stderr == self.MESSAGE + "\n"
        lines = Path(log).read_text().splitlines(keepends=True)
        assert len(lines) == 2
        for line in lines:
            assert re.fullmatch(self.LINE % self.MESSAGE, line)

    def test_in_a_log_of_json(self, command: Command) -> None:
        log = os.path.join(command.user.home, "log")
        command("--log", log, "--log-format=json", "run", "-b", "/none", "x").check(1)
        entry = json.loads(Path(log).read_text())
        assert entry["level"] == "error"
        assert entry["msg"] == self.MESSAGE
        assert set(entry) == {"level", "msg", "time"}

    def test_a_log_that_cannot_be_written(self, command: Command) -> None:
        done = command("--debug", "--log", "/none/log", "run", "-b", "/none", "x").check(1)
        assert done.stderr.count("cannot write the log /none/log") == 1
        assert self.MESSAGE in done.stderr

    def test_quotes_are_escaped(self, command: Command) -> None:
        done = command("run", "-b", '/a"b', "x").check(1)
        assert r"/a\"b" in done.stderr

    def test_no_runtime(self, command: Command) -> None:
        env = {"RUNROOTLESS_RUNTIME": "/none/runc"}
        done = command("list", env=env).check(1)
        assert "the runtime /none/runc is not an executable file" in done.stderr

    def test_no_such_engine(self, command: Command) -> None:
        done = command("--engine", "magic", "run", "-b", command.bundle, "x").check(1)
        assert "there is no engine magic" in done.stderr

    def test_a_traceback_for_who_asks(self, command: Command) -> None:
        assert "Traceback" not in command("run", "-b", "/none", "x").stderr
        assert "Traceback" in command("--debug", "run", "-b", "/none", "x").stderr

    def test_a_hostile_directory(self, command: Command) -> None:
        """Nothing of another user's in /tmp is trusted, by no subcommand."""
        if os.path.lexists(command.user.fallback_dir):
            pytest.skip(f"{command.user.fallback_dir} is in use")
        os.symlink(command.user.home, command.user.fallback_dir)
        try:
            done = command("list", env={"XDG_RUNTIME_DIR": ""}).check(1)
        finally:
            os.unlink(command.user.fallback_dir)
        assert "is not a directory: remove it, or set XDG_RUNTIME_DIR" in done.stderr


class TestInformation:
    @pytest.mark.parametrize(
        "words", [[], ["--help"], ["-h"], ["help"], ["h"], ["--debug", "help"]]
    )
    def test_help(self, command: Command, words: list[str]) -> None:
        done = command(*words, env={"RUNROOTLESS_RUNTIME": "/none"}).check()
        for word in ("run", "exec", "--runtime", "--engine", "RUNROOTLESS_RUNTIME"):
            assert word in done.stdout

    @pytest.mark.parametrize("one", manual.COMMANDS, ids=lambda one: one.name)
    def test_help_about_a_command(self, command: Command, one: manual.Command) -> None:
        """The runtime's where the flags are the runtime's alone."""
        for words in ([one.name, "--help"], ["help", one.name]):
            if one.flags is None:
                assert command.words(*words)[-2:] == words
                continue
            done = command(*words, env={"RUNROOTLESS_RUNTIME": "/none"}).check()
            assert f"runrootless {one.name} - {one.summary}" in done.stdout
            for spelling in one.flags.names:
                assert re.search(rf"[ -]-{spelling}\b", done.stdout)

    def test_all_commands_are_told(self, command: Command) -> None:
        told = command("--help").check().stdout
        names = {one.name for one in manual.COMMANDS}
        assert names == {*cli._WITH_RUNTIME, *cli._WITHOUT_RUNTIME, *cli._OF_RUNTIMES} - {
            *("completion", "help", "h", "mounts")
        }
        assert all(re.search(rf"^   {name} ", told, re.MULTILINE) for name in names)

    @pytest.mark.parametrize("flag", ["--version", "-v"])
    def test_version(self, command: Command, flag: str) -> None:
        done = command(flag).check()
        ours, runtimes = done.stdout.splitlines()
        assert re.fullmatch(r"runrootless version \d+\.\d+\.\d+\S*", ours)
        assert json.loads(runtimes)["words"] == [command.runtime, "--version"]


# Each takes a good part of the time that the interpreter itself needs to start.
SLOW = {
    "re", "enum", "json", "typing", "dataclasses", "collections", "functools", "contextlib",
    "pathlib", "argparse", "socket", "subprocess", "shutil", "tempfile", "logging", "hashlib",
    "resource", "signal", "operator",
}  # fmt: skip


@pytest.mark.parametrize(
    "words", [["run", "-b", "bundle", "x"], ["list"], ["exec", "none", "sh"], ["delete", "none"]]
)
def test_the_start_is_quick(command: Command, words: list[str]) -> None:
    """Nothing slow is imported before the runtime starts."""
    if words[0] == "run":
        # The first one asks the runtime what that can do, and remembers it.
        command("run", "-b", "bundle", "first").check()
    script = (
        "import os, sys\n"
        "before = set(sys.modules)\n"
        "from runrootless.cli import main\n"
        "def execute(*arguments):\n"
        "    print(*sorted(set(sys.modules) - before), sep='\\n')\n"
        "    sys.stdout.flush()\n"
        "    os._exit(0)\n"
        "os.execv = execute\n"
        # Whatever keeps it from the runtime is said on standard error.
        "try:\n"
        "    code = main()\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        "sys.exit(f'no runtime was executed: {code}')\n"
    )
    # "-S": the venv's site imports some of them itself.
    arguments = [sys.executable, "-S", "-c", script, "--runtime", command.runtime, *words]
    path = [os.path.dirname(os.path.dirname(runrootless.__file__))]
    done = command.user.run(arguments, env={"PYTHONPATH": path[0]}).check()
    imported = set(done.stdout.split())
    assert "runrootless.cli" in imported
    assert not imported & SLOW
    # What few containers need.
    assert "runrootless.network" not in imported


def test_the_agent_starts_quickly() -> None:
    """The container's program waits for all that the agent imports."""
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import runrootless.agent.process\n"
        "print(*sorted(set(sys.modules) - before), sep='\\n')\n"
    )
    path = [os.path.dirname(os.path.dirname(runrootless.__file__))]
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={"PYTHONPATH": path[0]},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(done.stdout.split())
    assert "runrootless.emulation.emulator" in imported
    # Its limits are read and set by this one.
    assert not imported & (SLOW - {"resource"})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("bundel", "bundle"), ("comit", "commit"), ("exce", "exec"), ("ru", "run"), ("rnu", "run")],
)
def test_a_command_that_is_spelt_wrongly(command: Command, typed: str, meant: str) -> None:
    done = command(typed, "x").check(3)
    assert f"there is no command {typed}: did you mean {meant}?" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["images"], 3, "`list`"),
        (["pull", "alpine"], 3, "`bundle`"),
        (["build", "."], 3, "`commit`"),
        (["up"], 3, "`run`"),
        (["ps", "-a"], 1, "`list`"),
        (["ps"], 1, "`list`"),
        (["--engine"], 1, "--engine takes a value, one of auto, notify"),
        (["-runtime"], 1, "-runtime takes a value"),
        (["--fast-path"], 1, "--fast-path takes a value, one of on, off"),
        (["run", "--network"], 1, "--network takes a value, one of host"),
        (["create", "-b", "x", "--dns"], 1, "--dns takes a value"),
        (["run", "--bundel", "x", "y"], 1, "there is no flag --bundel: did you mean --bundle?"),
        (["run", "--netwrok=none", "y"], 1, "did you mean --network?"),
        (["--egine", "notify", "run", "y"], 1, "no flag --egine: did you mean --engine?"),
        (["--rutime=crun", "list"], 1, "did you mean --runtime?"),
        (["--fast-pth", "on", "run", "y"], 1, "did you mean --fast-path?"),
        (["--debg", "run", "y"], 1, "did you mean --debug?"),
        (["delete", "--froce", "y"], 1, "did you mean --force?"),
        (["kill", "--regx", "y"], 1, "did you mean --regex?"),
    ],
)
@pytest.mark.parametrize("name", ["runc", "crun"])
def test_what_no_runtime_could_tell(
    command: Command, name: str, words: list[str], code: int, said: str
) -> None:
    done = command(*words, env={"RUNROOTLESS_RUNTIME": command.install(name)}).check(code)
    assert said in done.stderr and len(done.stderr.splitlines()) == 1 and not done.stdout


@pytest.mark.parametrize("name", ["runc", "crun"])
@pytest.mark.parametrize(
    "words", [["delete", "--forc", "y"], ["kill", "--al", "y"], ["--roo=x", "list"]]
)
def test_beginnings_of_flags_are_left_to_runtimes(
    command: Command, words: list[str], name: str
) -> None:
    """To some they are these flags."""
    told = command.told(*words, env={"RUNROOTLESS_RUNTIME": command.install(name)})
    assert told["words"][-len(words) :] == words


def test_what_a_runtime_alone_may_know_is_left_to_it(command: Command) -> None:
    for words in (["ps", "x", "-a"], ["ps", "--format", "json", "x"]):
        assert command.words(*words) == [f"--root={command.root}", *words]
