"""``runrootless hook``: runtimes start the containers by themselves, and they are emulated.

What programs see then is compared with real root's in ``test_hook_mode_differential.py``.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import MakeBundle
from support.agents import named
from support.bundles import Bundle, Config
from support.containers import COMMAND, Runrootless
from support.engines import Engine
from support.hooked import IN_NAMESPACE, Runtime, hooked
from support.namespaces import MountNamespace
from support.processes import Result, eventually
from support.programs import compiler
from support.trees import Tree
from support.users import Account, Unprivileged

TRACER = "runrootless-trc"
PARALLEL = int(os.environ.get("RUNROOTLESS_TEST_HOOKS", "20"))

EMULATED = "touch /srv/f; chown 33:44 /srv/f; stat -c %u:%g /srv/f"
LIFE = (
    f"{EMULATED}; mknod /srv/n c 1 5; stat -c %F:%t,%T /srv/n; setpriv --reuid 5 --clear-groups "
    "id -u; echo 192.0.2.1 added >>/etc/hosts; tail -n1 /etc/hosts"
)
LIVED = """\
33:44
character special file:1,5
5
192.0.2.1 added
"""


@pytest.fixture
def user(unprivileged: Unprivileged, runrootless: Runrootless) -> Iterator[Unprivileged]:
    """In the end nothing of the containers may be left, nor of the agents."""
    yield unprivileged
    eventually(lambda: not named(unprivileged.account, TRACER), "the end of all tracers")


@pytest.fixture
def make(bundle: MakeBundle, user: Unprivileged) -> Callable[..., Bundle]:
    def make_one(
        script: str, stage: str = "createRuntime", options: tuple[str, ...] = ()
    ) -> Bundle:
        return hooked(user, bundle(copy=True).script(script), stage, options)

    return make_one


@pytest.mark.parametrize("stage", ["createRuntime", "prestart"])
def test_runc(make: Callable[..., Bundle], user: Unprivileged, stage: str) -> None:
    done = Runtime(user, "runc").run(make(LIFE, stage)).check()
    assert (done.stdout, done.stderr) == (LIVED, "")


def without_user_namespace(config: Config) -> None:
    linux = config["linux"]
    linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "user"]
    del linux["uidMappings"], linux["gidMappings"]


@pytest.mark.parametrize("runtime", ["crun", "runc"], indirect=True)
@pytest.mark.parametrize("stage", ["createRuntime", "prestart"])
def test_in_a_user_namespace(
    make: Callable[..., Bundle], user: Unprivileged, stage: str, runtime: str
) -> None:
    """As podman, rootlesskit and the like call them: crun's first process protects itself."""
    ours = make(LIFE, stage).change(without_user_namespace)
    done = Runtime(user, runtime, IN_NAMESPACE).run(ours).check()
    assert (done.stdout, done.stderr) == (LIVED, "")


@pytest.mark.parametrize("runtime", ["crun"], indirect=True)
def test_crun_outside_of_one_is_refused(
    make: Callable[..., Bundle], user: Unprivileged, runtime: str
) -> None:
    log = f"{user.home}/log"
    ours = make(EMULATED, options=("--log", log))
    done = Runtime(user, runtime).run(ours)
    assert done.returncode != 0
    assert done.stdout == ""
    with open(log) as file:
        assert "may not be traced" in file.read()


def test_the_user_is_the_annotation_s(make: Callable[..., Bundle], user: Unprivileged) -> None:
    ours = make("id -u; id -g; id -G; touch /tmp/mine; stat -c %U /tmp/mine")
    ours.change(lambda config: config.update(annotations={"org.runrootless.user": "www-data:5"}))
    done = Runtime(user, "runc").run(ours).check()
    assert done.stdout == "33\n5\n5\nwww-data\n"


def with_run(config: Config) -> None:
    config["mounts"].append({"destination": "/run", "type": "tmpfs", "source": "tmpfs"})


@pytest.mark.parametrize(
    ("target", "change"),
    [
        ("../run/of/resolved/resolv.conf", None),
        ("/run/of/resolved/resolv.conf", with_run),
        ("/../../srv/y/resolv.conf", None),
        ("there/resolv.conf", None),
        ("", None),
    ],
)
def test_the_host_s_files_are_where_they_are_looked_for(
    make: Callable[..., Bundle],
    user: Unprivileged,
    target: str,
    change: Callable[[Config], object] | None,
) -> None:
    """Directories that lead there may be missing, below a mount of the container's as well."""
    ours = make("tail -n1 /etc/hosts >/dev/null && cat /etc/resolv.conf; ls -d /*.conf /hosts")
    if change is not None:
        ours.change(change)
    script = 'cd "$1"; rm -f etc/resolv.conf; if [ "$2" ]; then ln -s "$2" etc/resolv.conf; '
    script += "else rm -rf etc; fi"
    user.run(["sh", "-c", script, "sh", ours.rootfs, target]).check()
    done = Runtime(user, "runc").run(ours)
    with open("/etc/resolv.conf") as file:
        assert done.stdout == file.read(), done


def test_thorough(make: Callable[..., Bundle], user: Unprivileged) -> None:
    script = "echo secret >/srv/s; chmod 600 /srv/s; setpriv --reuid 5 cat /srv/s"
    done = Runtime(user, "runc").run(make(script, options=("--engine", "thorough")))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Permission denied" in done.stderr


def test_a_container_may_wait_for_its_start(
    make: Callable[..., Bundle], user: Unprivileged
) -> None:
    runc, name = Runtime(user, "runc"), Runrootless.new_id()
    ours = make(f"{EMULATED} >/srv/out; echo on >>/srv/out")
    runc("create", "--bundle", ours.path, name).check()
    pid = json.loads(runc("state", name).check().stdout)["pid"]
    # Job control passes through the tracer.
    for number in (signal.SIGSTOP, signal.SIGCONT):
        os.kill(pid, number)
    runc("start", name).check()
    out = f"{ours.rootfs}/srv/out"

    def written() -> str:
        with open(out) if os.path.exists(out) else open(os.devnull) as file:
            return file.read()

    eventually(lambda: written() == "33:44\non\n", "its end")
    runc("delete", "--force", name).check()


# Without a library, and before anything else it writes what it begins with: general registers,
# the stack, and then the files that it has open, its signal mask, and what is mapped.
BEGINNING = r"""
#include <stddef.h>
long call(long n, long a, long b, long c) {
    long r;
#ifdef __x86_64__
    __asm__ volatile("syscall" : "=a"(r) : "0"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
#else
    __asm__ volatile("int $0x80" : "=a"(r) : "0"(n), "b"(a), "c"(b), "d"(c) : "memory");
#endif
    return r;
}
#ifdef __x86_64__
enum { READ = 0, WRITE = 1, OPEN = 2, EXIT = 60 };
__asm__(".globl _start\n_start: pushf\npush %rax\npush %rbx\npush %rcx\npush %rdx\npush %rsi\n"
        "push %rdi\npush %rbp\npush %r8\npush %r9\npush %r10\npush %r11\npush %r12\npush %r13\n"
        "push %r14\npush %r15\nmov %rsp, %rdi\nand $-16, %rsp\ncall begin\n");
#else
enum { READ = 3, WRITE = 4, OPEN = 5, EXIT = 1 };
__asm__(".globl _start\n_start: pushf\npush %eax\npush %ebx\npush %ecx\npush %edx\npush %esi\n"
        "push %edi\npush %ebp\nmov %esp, %eax\nand $-16, %esp\nsub $12, %esp\npush %eax\n"
        "call begin\n");
#endif
static char text[1 << 16];
static void copy(const char *path) {
    long fd = call(OPEN, (long)path, 0, 0), size;
    while ((size = call(READ, fd, (long)text, sizeof text)) > 0) call(WRITE, 1, (long)text, size);
}
void begin(char *stack) {
    call(WRITE, 1, (long)stack, SAVED);
    call(WRITE, 1, (long)(stack + SAVED), 600);
    for (int fd = 3; fd < 64; fd++)
        if (call(FCNTL, fd, 1, 0) >= 0) call(WRITE, 1, (long)"open", 4);
    copy("/proc/self/maps");
    copy("/proc/self/status");
    call(EXIT, 0, 0, 0);
}
void *memset(void *s, int c, size_t n) { for (char *p = s; n--; p++) *p = (char)c; return s; }
"""


@pytest.mark.parametrize(
    ("flag", "values"), [("-m64", ("128", "72")), ("-m32", ("32", "55"))], ids=["64", "32"]
)
def test_the_program_finds_what_it_finds_without(
    make: Callable[..., Bundle], user: Unprivileged, flag: str, values: tuple[str, str]
) -> None:
    """Registers, stack, descriptors, signal mask and memory, byte for byte."""
    ours = make("")
    options = ["-O1", "-nostdlib", "-static", "-ffreestanding", "-fno-pic", "-no-pie"]
    options += [f"-DSAVED={values[0]}", f"-DFCNTL={values[1]}", "-fno-stack-protector"]
    path = f"{ours.rootfs}/srv/begin"
    source = f"{user.session}/begin.c"
    with open(source, "w") as file:
        file.write(BEGINNING)
    subprocess.run([*compiler(flag), *options, source, "-o", path], check=True)
    os.chmod(path, 0o755)
    ours.set(["/srv/begin"])
    ours.change(lambda config: config["process"].update(noNewPrivileges=True))
    outputs = []
    for with_hook in (True, False):
        if not with_hook:
            ours.change(lambda config: config.pop("hooks"))
        script = '"$@" | base64 -w0'
        # Without random addresses, which are others each time.
        runc = ["sh", "-c", script, "sh", "setarch", "-R"]
        runc += ["runc", f"--root={user.runtime_dir}/alone"]
        command = [*runc, "run", "--bundle", ours.path, Runrootless.new_id()]
        outputs.append(user.run(command).check().stdout)
    found, expected = (split(b64decode(one)) for one in outputs)
    assert found == expected


def split(output: bytes) -> list[bytes]:
    """Return what is to be the same: registers and stack are before the first lines of text."""
    different = (
        *(b"Pid:", b"Tgid:", b"Ngid:", b"NSpid:", b"Seccomp", b"voluntary", b"nonvoluntary"),
        *(b"Vm", b"Rss", b"Speculation"),
    )
    lines = output.split(b"\n")
    assert any(b"/srv/begin" in line for line in lines)
    return [line for line in lines if not line.startswith(different)]


REFUSED: list[tuple[str, Callable[[Config], object]]] = [
    ("process.user", lambda config: config["process"]["user"].update(additionalGids=[0, 5])),
    (
        "must allow seccomp(2)",
        lambda config: config["linux"].update(
            seccomp={
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["seccomp"], "action": "SCMP_ACT_ERRNO"}],
            }
        ),
    ),
    (
        "RLIMIT_RTTIME",
        lambda config: config["process"].update(
            rlimits=[{"type": "RLIMIT_RTTIME", "soft": 5000000, "hard": 5000000}]
        ),
    ),
    ("no engine", lambda config: config.update(annotations={"org.runrootless.engine": "x"})),
    (
        "the annotation org.runrootless.user: the container's /etc/passwd has no user",
        lambda config: config.update(annotations={"org.runrootless.user": "nobody-here"}),
    ),
    (
        "the annotation org.runrootless.dns takes host, none",
        lambda config: config.update(annotations={"org.runrootless.dns": "nobody-here"}),
    ),
]


@pytest.mark.parametrize(("words", "change"), REFUSED, ids=[words[:40] for words, _ in REFUSED])
def test_what_cannot_be_emulated_does_not_start(
    make: Callable[..., Bundle],
    user: Unprivileged,
    words: str,
    change: Callable[[Config], object],
) -> None:
    log = f"{user.home}/log"
    ours = make("echo it runs", options=("--log", log)).change(change)
    done = Runtime(user, "runc").run(ours)
    assert done.returncode == 1
    assert "it runs" not in done.stdout
    # runc itself refuses groups that it cannot set, before any hook.
    with open(log) if os.path.exists(log) else open(os.devnull) as file:
        assert words in file.read() or "gid" in done.stderr or "group" in done.stderr


def test_a_program_that_no_memory_is_left_for_does_not_start(
    make: Callable[..., Bundle], user: Unprivileged
) -> None:
    """Execution fails when the old program is gone, by a signal that no traced init dies of."""
    limit = {"type": "RLIMIT_AS", "soft": 1600000, "hard": 1600000}
    ours = make("echo it runs").change(lambda config: config["process"].update(rlimits=[limit]))
    done = Runtime(user, "runc").run(ours, timeout=30)
    assert done.returncode != 0
    assert "it runs" not in done.stdout


def test_annotations_may_be_long(make: Callable[..., Bundle], user: Unprivileged) -> None:
    """A runtime writes them into the state as well."""
    ours = make(EMULATED)
    ours.change(lambda config: config.update(annotations={f"x{n}": "y" * 9999 for n in range(200)}))
    assert Runtime(user, "runc").run(ours).check().stdout == "33:44\n"


def test_without_an_engine_it_is_as_without_the_hook(
    make: Callable[..., Bundle], user: Unprivileged
) -> None:
    ours = make("chown 5 /srv; echo $?", options=("--engine", "none"))
    assert Runtime(user, "runc").run(ours).stdout == "1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not the state"),
        ("[" * 100000, "is not the state"),
        ("{}", "no pid"),
        ('{"pid": 0, "bundle": "/", "status": "creating"}', "no pid"),
        ('{"pid": 1, "bundle": "/", "status": "running"}', "is running"),
        ('{"pid": 999999999, "bundle": "BUNDLE", "status": "creating"}', "there is no process"),
        ('{"pid": 1, "bundle": "BUNDLE", "status": "creating"}', "other IDs"),
    ],
)
def test_states(
    bundle: MakeBundle, user: Unprivileged, runrootless: Runrootless, text: str, words: str
) -> None:
    ours = bundle()
    done = runrootless("hook", input=text.replace("BUNDLE", ours.path))
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_second_hook_is_refused(make: Callable[..., Bundle], user: Unprivileged) -> None:
    ours = make("echo it runs")
    ours.change(lambda config: config["hooks"].update(prestart=config["hooks"]["createRuntime"]))
    done = Runtime(user, "runc").run(ours)
    assert done.returncode == 1
    assert "it runs" not in done.stdout


def test_when_the_tracer_is_killed_the_container_is(
    make: Callable[..., Bundle], user: Unprivileged
) -> None:
    runc, name = Runtime(user, "runc"), Runrootless.new_id()
    ours = make("echo it runs >/srv/out")
    runc("create", "--bundle", ours.path, name).check()
    (tracer,) = named(user.account, TRACER)
    os.kill(tracer, signal.SIGKILL)
    eventually(
        lambda: json.loads(runc("state", name).check().stdout)["status"] == "stopped", "its end"
    )
    assert runc("start", name).returncode != 0
    assert not os.path.exists(f"{ours.rootfs}/srv/out")
    runc("delete", name).check()


def test_killed_at_any_moment(make: Callable[..., Bundle], user: Unprivileged) -> None:
    """Either it is emulated, or it does not run."""
    ours = make(f"{EMULATED}; exit 0")
    runc = Runtime(user, "runc")
    began = time.monotonic()
    assert runc.run(ours).check().stdout == "33:44\n"
    whole = time.monotonic() - began
    outcomes = set()
    for step in range(24):
        end = threading.Event()

        def kill(delay: float = whole * step / 20, end: threading.Event = end) -> None:
            if end.wait(delay):
                return
            for process in user.account.processes():
                if "runrootless" in process.command and "hook" in process.command:
                    try:
                        os.kill(process.pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue

        killer = threading.Thread(target=kill)
        killer.start()
        done = runc.run(ours)
        end.set()
        killer.join()
        outcomes.add(outcome(done))
    assert outcomes <= {"emulated", "failed"}
    # What a killed one leaves the next one removes.
    assert runc.run(ours).check().stdout == "33:44\n"


def outcome(done: Result) -> str:
    if done.stdout == "33:44\n" and done.returncode == 0:
        return "emulated"
    # Without the agent the calls fail, and so does what needs them.
    return "failed" if "33:44" not in done.stdout and "0:0" not in done.stdout else str(done)


def test_many_at_once(make: Callable[..., Bundle], user: Unprivileged) -> None:
    ours = make("touch /tmp/$$; chown 33:44 /tmp/$$; stat -c %u:%g /tmp/$$")
    runc = Runtime(user, "runc")
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: runc.run(ours), range(PARALLEL)))
    assert [(one.returncode, one.stdout, one.stderr) for one in done] == [
        (0, "33:44\n", "")
    ] * PARALLEL


def test_check_tells_what_is_missing(
    bundle: MakeBundle, user: Unprivileged, runrootless: Runrootless
) -> None:
    ours = bundle(copy=True).script("true")
    done = runrootless("hook", "--check", ours.config_path)
    assert (done.returncode, done.stderr) == (1, "")
    for words in (
        'linux.namespaces: add {"type": "user"}',
        "linux.uidMappings: add",
        'linux.namespaces: leave out {"type": "network"}',
        "hooks.createRuntime",
    ):
        assert words in done.stdout
    hooked(user, ours)
    done = runrootless("hook", "--check", ours.config_path).check()
    assert done.stdout.endswith("nothing is missing\n")


@pytest.fixture(scope="module")
def podman(account: Account, unified: MountNamespace | None) -> Iterator[Engine]:
    user = Unprivileged(account, unified)
    yield Engine(user, "podman", "--cgroup-manager=cgroupfs")
    user.close()


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_podman(podman: Engine, debian_tree: Tree, runtime: str) -> None:
    """podman with its own runtimes, as they are."""
    user = podman.user
    done = user.run([COMMAND, "hook", "--install", "--hooks-dir", f"{user.home}/hooks"]).check()
    assert done.stdout == f"{user.home}/hooks/runrootless.json\n"
    options = [f"--hooks-dir={user.home}/hooks", f"--runtime={shutil.which(runtime)}", "run"]
    options += ["--rm", "--network=host"]
    where = ["--rootfs", debian_tree.rootless, "sh", "-c"]
    annotation = ["--annotation", "org.runrootless.hook=true"]
    script = "touch /tmp/f; chown 33:44 /tmp/f; stat -c %u:%g /tmp/f; rm /tmp/f"
    done = podman(*options, *annotation, *where, script).check()
    assert done.stdout == "33:44\n"
    # Those that have not asked for it are as ever.
    done = podman(*options, *where, script)
    assert done.stdout == "0:0\n"
    user.run([COMMAND, "hook", "--uninstall", "--hooks-dir", f"{user.home}/hooks"]).check()
    assert not os.listdir(f"{user.home}/hooks")
