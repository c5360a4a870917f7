"""The differential harness: the same script as real root, and in a rootless container.

The kernel is the oracle: whatever a script prints in a plain chroot of the real
root, it must print in a container of a user without privileges as well.
"""

import difflib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from support.bundles import ADMINISTRATOR
from support.containers import Runrootless
from support.processes import Output, Result
from support.trees import Trees
from support.users import Unprivileged

CHROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "chroot.sh")

# The environment of the container, as `runc spec` has it and runc adds to it.
ENVIRONMENT = {
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM": "xterm",
}

# Groups of cases whose container may mount.
ADMINISTRATORS = ("messages", "mounts", "read_only")

# Groups of cases in which root has these capabilities and no others, on both sides.
FEW_CAPABILITIES = {
    "capabilities": ("CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL"),
    "processes": (
        *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL"),
        *("CAP_SETGID", "CAP_SETUID", "CAP_SYS_NICE", "CAP_SYS_PTRACE"),
    ),
}

NAMESPACES = ["--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]


def chroot_command(root: str, args: Sequence[str]) -> list[str]:
    """Return what runs a command as ``in_chroot`` does, given ``ENVIRONMENT``."""
    return ["unshare", *NAMESPACES, "--uts", "--ipc", "sh", CHROOT, root, *args]


def in_chroot(root: str, args: Sequence[str], *, timeout: float = 120) -> Result:
    """Run a command as the real root in a chroot that looks like a container.

    It has mount, pid, uts and ipc namespaces of its own, the runtime's /dev, and
    the network of the host.
    """
    command = chroot_command(root, args)
    with Output() as output:
        process = subprocess.Popen(
            command,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output.stdout,
            stderr=output.stderr,
            text=True,
            start_new_session=True,
            umask=0o022,
        )
        return output.finish(process, timeout)


_TRACEBACK = "Traceback (most recent call last)"

# For Python scripts: what is tried is printed with its outcome, errors by name.
PRELUDE = '''\
import ctypes, errno, os, socket, stat, struct, sys
sys.stdout.reconfigure(line_buffering=True)
libc = ctypes.CDLL(None, use_errno=True)

def short(value):
    """Represent a value in a few words."""
    text = repr(value)
    return text if len(text) < 60 else f"{text[:20]}...{len(text)}"

def tried(function, *args, **options):
    """Return what a call returns; again after ELOOP.

    The kernel goes on counting links where it begins a path anew, as it does when something is
    mounted meanwhile, anywhere on the machine.
    """
    for _ in range(4):
        try:
            return function(*args, **options)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
    return function(*args, **options)

def show(function, *args, **options):
    """Print what a call returns, or the name of its error."""
    name = getattr(function, "__name__", str(function))
    shown = ", ".join([short(a) for a in args] + [f"{k}={v!r}" for k, v in options.items()])
    try:
        print(f"{name}({shown}) = {tried(function, *args, **options)!r}")
    except OSError as error:
        print(f"{name}({shown}): {errno.errorcode[error.errno]}")

def raw(name, *args):
    """Call a function of the C library, and print its result or the name of its error."""
    ctypes.set_errno(0)
    result = getattr(libc, name)(*args)
    number = ctypes.get_errno()
    print(f"{name} = {result}" + (f" {errno.errorcode[number]}" if result == -1 else ""))

def st(path, **options):
    """Print what stat says of a file."""
    try:
        s = tried(os.stat, path, **options)
        print(f"{short(path)}: {stat.filemode(s.st_mode)} {s.st_uid}:{s.st_gid} {s.st_rdev:#x}")
    except OSError as error:
        print(f"{short(path)}: {errno.errorcode[error.errno]}")

def ids():
    """Print all IDs of this process."""
    print("uid", os.getresuid(), "gid", os.getresgid(), "groups", sorted(os.getgroups()))

def child(function):
    """Run a function in a child, and print how it ended."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException as error:
            print(type(error).__name__, error)
            os._exit(99)
    print("child:", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

def touch(path, mode=0o644):
    """Make an empty file."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode))

'''

# Each case has a fresh directory of its own, whose path is the same on both sides.
BATCH = """\
umask 022
for case in /.cases/*/; do
    name=$(basename "$case")
    mkdir -p "/srv/$name" && cd "/srv/$name" || exit 1
    timeout -k 5 300 "$(cat "$case/interpreter")" "$case/script" \
        </dev/null >"$case/output" 2>&1
    echo "exit code $?" >>"$case/output"
done
"""


# Orphans go to somebody else, on both sides: their ends would interrupt the batch.
BATCH_COMMAND = ["/bin/sh", "-c", "/bin/sh /.cases/run; exit $?"]


@dataclass(frozen=True)
class Case:
    """A script, what runs it (``sh`` or ``python3``), and why it may differ, if it may.

    The limit may be one that the engine ``thorough`` does not have.
    """

    name: str
    interpreter: str
    script: str
    limit: str
    lifted: bool


HEADING = re.compile(
    r"^### (\w+) \((sh|python)(?:; limit: (.+?)(; not with thorough)?)?\)\n", re.MULTILINE
)


def read_cases(path: str) -> dict[str, Case]:
    """Read a file of cases, each under a line ``### name (sh)`` or ``### name (python)``.

    A difference that is a known limit is written ``### name (sh; limit: why)``, followed by
    ``; not with thorough`` if there is none with that engine. What is before the first of
    these lines, if anything, begins all Python scripts of the file.
    """
    with open(path) as file:
        text = file.read()
    headings = list(HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    shared = text[: headings[0].start()]
    cases = {}
    for heading, end in zip(headings, ends, strict=True):
        name, language, limit, lifted = heading.groups()
        assert name not in cases, f"{path}: {name} is there twice"
        script = text[heading.end() : end]
        if language == "python":
            script = PRELUDE + shared + script
        interpreter = "python3" if language == "python" else "sh"
        cases[name] = Case(name, interpreter, script, limit or "", bool(lifted))
    assert len(cases) == text.count("\n### ") + text.startswith("### "), f"{path}: a wrong heading"
    return cases


@dataclass
class Tally:
    """How many cases were compared, how many were equal, and how many are known limits."""

    cases: int = 0
    equal: int = 0
    limits: int = 0

    def add(self, other: "Tally") -> None:
        """Count what was counted elsewhere as well."""
        self.cases += other.cases
        self.equal += other.equal
        self.limits += other.limits


@dataclass
class Comparison:
    """What one case printed on the two sides."""

    name: str
    oracle: str
    rootless: str

    def diff(self) -> str:
        """Return the lines that differ; empty when none does."""
        return "\n".join(
            difflib.unified_diff(
                self.oracle.splitlines(),
                self.rootless.splitlines(),
                "real root",
                "runrootless",
                lineterm="",
            )
        )


class Side:
    """Where all cases of a group are run together: a tree, which the groups share.

    Copies of it take longer than they.
    """

    def __init__(self, trees: Trees, tree: str, *, for_user: bool) -> None:
        self.trees = trees
        self._tree = tree
        self._for_user = for_user
        self._done: dict[str, dict[str, str]] = {}
        self._directory = ""

    def outputs(self, group: str, cases: Mapping[str, Case]) -> dict[str, str]:
        """Return what each case of a group printed. They are run at the first call."""
        if group not in self._done:
            self._done[group] = self._run(group, cases)
        return self._done[group]

    def forget(self) -> None:
        """Let the cases be run anew at the next call, in directories as fresh as the first."""
        self._done.clear()
        served = os.path.join(self._directory, "rootfs", "srv")
        for name in os.listdir(served) if self._directory else ():
            self.trees.discard(os.path.join(served, name))

    def _run(self, group: str, cases: Mapping[str, Case]) -> dict[str, str]:
        if not self._directory:
            directory = self.trees.new_directory("differential", for_user=self._for_user)
            self.copy(self._tree, os.path.join(directory, "rootfs"))
            self._directory = directory
        root = os.path.join(self._directory, "rootfs")
        write_cases(cases, root, self.trees.user if self._for_user else None)
        done = self.run_batch(self._directory, root, group, 300 + 10 * len(cases))
        outputs = {name: case_output(root, name, done) for name in cases}
        self.trees.discard(os.path.join(root, ".cases"))
        return outputs

    def copy(self, tree: str, destination: str) -> None:
        """Copy the tree, for cases that may change all of it."""
        self.trees.copy(tree, destination)

    def run_batch(self, directory: str, root: str, group: str, timeout: float) -> Result:
        """Run the group's cases, which have been written into ``root``."""
        raise NotImplementedError


class RealRoot(Side):
    """The real root in a plain chroot."""

    def __init__(self, trees: Trees, archive: str) -> None:
        super().__init__(trees, trees.oracle(archive), for_user=False)

    def run_batch(self, directory: str, root: str, group: str, timeout: float) -> Result:
        """Run them in the chroot."""
        batch = BATCH_COMMAND
        if few := FEW_CAPABILITIES.get(group):
            kept = ["-all", *(name.replace("CAP_", "+").lower() for name in few)]
            batch = ["setpriv", f"--bounding-set={','.join(kept)}", *batch]
        return in_chroot(root, batch, timeout=timeout)


class Container(Side):
    """A user without privileges, in a container."""

    administrators: Sequence[str] = ADMINISTRATORS

    def __init__(self, trees: Trees, archive: str, runrootless: Runrootless) -> None:
        super().__init__(trees, trees.rootless(archive), for_user=True)
        self.runrootless = runrootless

    def run_batch(self, directory: str, root: str, group: str, timeout: float) -> Result:
        """Run them in a container."""
        bundle = self.runrootless.bundle_at(directory, root).set(BATCH_COMMAND)
        if group in self.administrators:
            bundle.add_capabilities(ADMINISTRATOR)
        if few := FEW_CAPABILITIES.get(group):
            bundle.set_capabilities(few)
        done = self.runrootless.run(bundle, timeout=timeout)
        os.unlink(bundle.config_path)
        return done


@dataclass
class Differential:
    """Runs cases on both sides, all cases of a group in one chroot and one container."""

    oracle: RealRoot
    ours: Container
    tally: Tally

    def compare(self, group: str, cases: Mapping[str, Case], name: str) -> Comparison:
        """Return what a case of a group printed on the two sides."""
        # Both at once: much of the time is spent waiting, after a wrong password for one.
        with ThreadPoolExecutor() as pool:
            expected = pool.submit(self.oracle.outputs, group, cases)
            found = self.ours.outputs(group, cases)
        return Comparison(name, expected.result()[name], found[name])

    def assert_same(self, group: str, cases: Mapping[str, Case], name: str) -> None:
        """Fail, showing the lines that differ, unless the case printed the same on both sides."""
        comparison = self.compare(group, cases, name)
        difference = comparison.diff()
        self.tally.cases += 1
        self.tally.equal += not difference
        self.tally.limits += bool(difference and cases[name].limit)
        broken = _TRACEBACK in comparison.oracle
        assert not broken, f"{name} does not run for real root either:\n{comparison.oracle}"
        script = cases[name].script.removeprefix(PRELUDE).strip()
        assert not difference, f"{name} differs:\n{difference}\n--- script\n{script}"


def write_cases(cases: Mapping[str, Case], root: str, user: Unprivileged | None) -> None:
    """Put the scripts into a root file system, as files of the user's where there is one."""
    directory = os.path.join(root, ".cases")
    os.mkdir(directory)
    written = [directory]

    def write(path: str, text: str) -> None:
        path = os.path.join(directory, path)
        with open(path, "w") as file:
            file.write(text)
        written.append(path)

    write("run", BATCH)
    for case in cases.values():
        os.mkdir(os.path.join(directory, case.name))
        written.append(os.path.join(directory, case.name))
        write(f"{case.name}/interpreter", case.interpreter)
        write(f"{case.name}/script", case.script)
    if user is not None:
        for path in written:
            user.give(path)


def case_output(root: str, name: str, done: Result) -> str:
    """Return what a case printed that was run in a root file system."""
    path = os.path.join(root, ".cases", name, "output")
    if not os.path.exists(path):
        return f"not run; the whole: {done}"
    with open(path, errors="replace") as file:
        return file.read()
