"""Any command line of ``run`` and ``create``: what the runtimes themselves make of it.

Each is asked with a state root in which there is a container of the ID already, so that none
starts, and with bundles that can be told apart by what is wrong with them.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runrootless.command_line import runc as command_line
from runrootless.commands import run as run_command
from runrootless.containers import state
from runrootless.invocation import Invocation
from runrootless.runtimes import Runtime

PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
RUNTIMES = {name: shutil.which(name, path=PATH) for name in ("runc", "crun")}
IDS = ("x", "y", "run", "-z")

VALID, MISSING, BROKEN, REFUSED = "valid", "missing", "broken", "refused"
UNUSABLE = "missing or broken"


@dataclass(frozen=True)
class Place:
    """A working directory with bundles: ``b`` is whole, ``c`` has no configuration."""

    directory: Path

    def make(self) -> None:
        for name in ("b", "c", "state", "all"):
            (self.directory / name).mkdir(parents=True)
        for name in IDS:
            (self.directory / "all" / name).mkdir()
        assert RUNTIMES["runc"]
        spec = [RUNTIMES["runc"], "spec", "--rootless", "--bundle", f"{self.directory}/b"]
        subprocess.run(spec, check=True)
        (self.directory / "b" / "rootfs").mkdir()
        config = self.directory / "b" / "config.json"
        config.write_text(config.read_text().replace('"terminal": true', '"terminal": false'))
        shutil.copy(config, self.directory / "other.json")
        (self.directory / "rootfs").mkdir()
        (self.directory / "config.json").write_text("{ broken")

    def kind(self, path: str) -> str:
        """Return what is to be said of a configuration."""
        if not os.path.exists(path):
            return MISSING
        return BROKEN if os.path.samefile(path, self.directory / "config.json") else VALID


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    if not all(RUNTIMES.values()):
        pytest.skip("runc or crun is not installed")
    place = Place(tmp_path_factory.mktemp("lines"))
    place.make()
    return place


VALUES = {
    "bundle": ("b", "c", ".", "x", "--detach"),
    "console-socket": ("s", "run"),
    "pid-file": ("p", "-b"),
    "preserve-fds": ("0", "3", "0x1"),
}
SWITCHES = ("detach", "no-pivot", "no-new-keyring", "no-subreaper")
BAD = (["--nope"], ["--preserve-fds", "q"], ["--detach=yes"], ["-Z"], ["--bundle"], ["---b", "b"])


def _valued(name: str, short: str, values: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    def spell(found: tuple[str, int, str]) -> list[str]:
        value, way, spelling = found
        return [[f"{spelling}={value}"], [spelling, value]][way]

    spellings = [
        f"--{name}",
        f"--{name}",
        f"-{name}",
        *([f"-{short}", f"--{short}"] if short else []),
    ]
    return st.tuples(st.sampled_from(values), st.integers(0, 1), st.sampled_from(spellings)).map(
        spell
    )


PIECES = [
    _valued("bundle", "b", VALUES["bundle"]),
    _valued("bundle", "b", ("b",)),
    *(_valued(name, "", VALUES[name]) for name in VALUES if name != "bundle"),
    st.sampled_from(SWITCHES).map(lambda name: [f"--{name}"]),
    st.sampled_from(SWITCHES).flatmap(
        lambda name: st.sampled_from(("=true", "=false", "=T", "=0", "=")).map(
            lambda end: [f"--{name}{end}"]
        )
    ),
    st.sampled_from((["-d"], ["--keep"], ["--keep=false"], ["-no-pivot"], ["--"], ["-"])),
    st.sampled_from(BAD),
]
# Beside getopt_long(3)'s own ways, parts of names and letters together.
GNU_PIECES = [
    *PIECES,
    _valued("config", "f", ("other.json", "config.json", "none.json", "x")),
    st.sampled_from(
        (["-bb"], ["-bc"], ["-db", "b"], ["-dbb"], ["-fother.json"], ["-dfother.json"], ["-d?"],
         ["--bun", "b"], ["--bundl=b"], ["--conf=other.json"], ["--con=other.json"], ["--det"],
         ["--pid", "p"], ["--pi=p"], ["--pre=3"], ["--no-s"], ["--no-p"], ["--no-n"], ["--no"],
         ["--p=3"], ["--usage"], ["--us"], ["--hel"], ["--k"], ["--n"])
    ),
]  # fmt: skip
ID = st.sampled_from([[name] for name in IDS if name[0] != "-"] + [["--", "-z"], ["--", "x"]])


def lines(pieces: list[st.SearchStrategy[list[str]]]) -> st.SearchStrategy[list[str]]:
    """Return command lines: some flags in any order, mostly with one ID among or behind them."""
    flags = st.lists(st.one_of(*pieces), max_size=4)
    with_id = st.tuples(flags, ID, st.lists(st.one_of(*pieces), max_size=1), st.booleans()).map(
        lambda found: [*found[0], found[1], *(found[2] if found[3] else [])]
    )
    chosen = st.one_of(
        with_id,
        with_id,
        with_id,
        flags,
        st.tuples(with_id, ID).map(lambda found: [*found[0], found[1]]),
    )
    return chosen.map(lambda groups: [word for group in groups for word in group])


# Flags before the command, some with values that look like others.
BEFORE = {
    "runc": (["--debug"], ["-debug=true"], ["--log", "run"], ["--log=x"], ["-log", "create"],
             ["--log-format", "json"], ["-log-format=text"], ["--systemd-cgroup"],
             ["--systemd-cgroup=false"], ["--rootless=true"], ["--rootless", "auto"],
             ["--criu", "run"], ["-criu=x"], ["--nope"], ["--lo=x"], ["--"]),
    "crun": (["--debug"], ["--log", "file:run"], ["--log=file:x"], ["--log-format", "json"],
             ["--log-for=text"], ["--systemd-cgroup"], ["--syst"], ["--cgroup-manager", "disabled"],
             ["--cgroup-manager=cgroupfs"], ["--cgroup-m", "disabled"], ["--rootless=auto"],
             ["--criu", "x"], ["--nope"], ["--"], ["--roo", "all"], ["--roo=all"],
             ["--rootl", "x"]),
}  # fmt: skip
LOGS = ("run", "x", "create")


def asked(
    place: Place,
    runtime: str,
    command: str,
    words: list[str],
    found: str | None,
    before: Sequence[str] = (),
) -> str:
    """Return how far a runtime comes with a command line, if ``found`` is the ID in it."""
    root = place.directory / ("all" if found is None else "state")
    if found is not None:
        for name in os.listdir(root):
            (root / name).rmdir()
        (root / found).mkdir()
    path = RUNTIMES[runtime]
    assert path is not None
    # To crun --rootless is another name of --root, and the last one counts.
    again = [] if "--" in before else ["--root", str(root)]
    done = subprocess.run(
        [path, "--root", str(root), *before, *again, command, *words],
        cwd=place.directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stderr
    for name in LOGS:
        log = place.directory / name
        if log.is_file():
            said += log.read_text()
            log.unlink()
    if "already exists" in said:
        assert found is None or runtime == "runc" or f"`{found}` already exists" in said
        return VALID
    for outcome, signs in SAID.items():
        if any(sign in said for sign in signs):
            return outcome
    assert "Usage" in done.stdout or "USAGE" in done.stdout, said
    return REFUSED


SAID = {
    MISSING: ("chdir ", "config.json not found", "cannot read the file", "realpath "),
    BROKEN: ("invalid character", "cannot parse the data"),
    UNUSABLE: ("error loading config.json",),
    REFUSED: ("Usage", "--usage", "requires", "please specify a ID"),
}
"""What runtimes say."""


def ours(
    place: Place, runtime: str, command: str, words: list[str], before: Sequence[str] = ()
) -> tuple[str | None, str]:
    """Return the ID that is found in a command line, and what its configuration is."""
    path = RUNTIMES[runtime]
    assert path is not None
    options = command_line.parse(command_line.GLOBAL, [*before, command, *words])
    invocation = Invocation(options, Runtime(path))
    here = os.getcwd()
    os.chdir(place.directory)
    try:
        parsed = run_command.read(invocation)
        if parsed is None:
            return None, REFUSED
        bundle = parsed.get("bundle") or "."
        if not os.path.isdir(bundle):
            return parsed.arguments[0], MISSING
        config = os.path.join(bundle, parsed.get("config") or "config.json")
        return parsed.arguments[0], place.kind(config)
    finally:
        os.chdir(here)


ANY = settings(
    max_examples=200,
    derandomize="CI" in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
COMMAND = st.sampled_from(("run", "create"))


@ANY
@given(command=COMMAND, words=lines(PIECES))
def test_runc(place: Place, command: str, words: list[str]) -> None:
    found, kind = ours(place, "runc", command, words)
    assert asked(place, "runc", command, words, found) == kind


@ANY
@given(command=COMMAND, words=lines(GNU_PIECES))
@example("run", ["--config", "other.json", "--detach", "x"])
@example("run", ["-b=b", "x"])
@example("run", ["--pid", "p", "-b", "b", "x"])
@example("create", ["--no-subreaper", "-b", "b", "x"])
@example("run", ["-b", "b", "--config", "other.json", "x"])
@example("run", ["--bundle=x", "--config", "other.json", "x"])
def test_crun(place: Place, command: str, words: list[str]) -> None:
    """What crun refuses may be runc's way to say it."""
    found, kind = ours(place, "crun", command, words)
    theirs = asked(place, "crun", command, words, found)
    if theirs == REFUSED and found is not None:
        flags = command_line.RUN if command == "run" else command_line.CREATE
        parsed = command_line.parse(flags, command_line.flags_first(flags, words))
        assert not parsed.error or "--keep" in words
    elif theirs == UNUSABLE:
        assert kind in (MISSING, BROKEN)
    else:
        assert theirs == kind


@ANY
@given(data=st.data(), runtime=st.sampled_from(("runc", "crun")), words=lines(PIECES))
def test_flags_before_the_command(
    place: Place, runtime: str, words: list[str], data: st.DataObject
) -> None:
    """Either both find the same container, or none is started, whoever says so."""
    groups = data.draw(st.lists(st.sampled_from(BEFORE[runtime]), max_size=3))
    before = [word for group in groups for word in group]
    options = command_line.parse(command_line.GLOBAL, [*before, "run", *words])
    path = RUNTIMES[runtime]
    assert path is not None
    if options.error or options.arguments[:1] != ["run"]:
        command = Invocation(options, Runtime(path)).unchanged()
        done = subprocess.run(
            command, cwd=place.directory, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        for name in LOGS:
            (place.directory / name).unlink(missing_ok=True)
        assert done.returncode != 0 or b"sage" in done.stdout.lower() or b"NAME" in done.stdout
        return
    found, kind = ours(place, runtime, "run", words, before)
    theirs = asked(place, runtime, "run", words, found, before)
    if theirs == REFUSED:
        assert found is None or runtime == "crun"
    elif theirs == UNUSABLE:
        assert kind in (MISSING, BROKEN)
    else:
        assert theirs == kind


@ANY
@given(
    runtime=st.sampled_from(("runc", "crun")),
    name=st.one_of(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
        st.text("a./-_+, :", max_size=4),
        st.integers(120, 300).map(lambda count: "a" * count),
        st.integers(60, 150).map(lambda count: "ü" * count),
    ),
)
def test_ids(place: Place, runtime: str, name: str) -> None:
    """What a runtime takes is taken, but for what crun would make outside of its state root."""
    path = RUNTIMES[runtime]
    assert path is not None
    if "/" in name and runtime == "crun":
        assert not state.is_valid_id(name)
        return
    with tempfile.TemporaryDirectory() as root:
        if state.is_valid_id(name):
            os.mkdir(f"{root}/{name}")
        command = [path, "--root", root, "run", "--bundle", f"{place.directory}/b", "--", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        is_taken = "already exists" in done.stderr and name not in ("", ".", "..")
    assert done.returncode == 1
    assert is_taken <= state.is_valid_id(name), done.stderr
    # runc has a rule of its own beside.
    assert is_taken == state.is_valid_id(name) or runtime == "runc", done.stderr
    if state.is_valid_id(name):
        directory = state._name(name, "/root")
        assert len(directory) <= 64
        assert state.is_name(directory)
