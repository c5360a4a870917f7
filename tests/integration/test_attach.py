"""``runrootless attach``: processes that run already come under emulation, and go on."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from support.containers import Runrootless
from support.hooked import IN_NAMESPACE
from support.processes import eventually
from support.programs import compile_program, compiler
from support.users import Unprivileged

# What a process waits in, and goes on from as if nothing had been: those that the kernel makes
# again, those that it goes on with where they were, and those that it is never in.
WAITS = {
    "a pipe": "os.read(0, 1)",
    "time": "time.sleep(1.5)",
    "poll": "select.poll().poll(1500)",
    "select": "select.select([], [], [], 1.5)",
    "a futex": "threading.Event().wait(1.5)",
    "epoll": "select.epoll().poll(1.5)",
    "a child": "os.waitpid(subprocess.Popen(['sleep', '1.5']).pid, 0)",
    "a signal": "signal.sigtimedwait([signal.SIGUSR1], 1.5)",
    "no call": "[i for i in range(20_000_000)]",
}
PROGRAM = """
import fcntl, os, select, signal, subprocess, sys, threading, time
print(os.getpid(), flush=True)
began = time.monotonic()
{wait}
lasted = time.monotonic() - began
os.chdir(sys.argv[1])
open("f", "w").close()
os.chown("f", 33, 44)
found = os.stat("f")
print(found.st_uid, found.st_gid, lasted < 10, flush=True)
"""


@pytest.fixture
def started(
    unprivileged: Unprivileged, runrootless: Runrootless
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command of the user's, and ends it."""
    processes = []

    def start(*words: str, before: tuple[str, ...] = IN_NAMESPACE) -> subprocess.Popen[str]:
        account = unprivileged.account
        process = subprocess.Popen(
            [*before, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            env=unprivileged.env,
            cwd=unprivileged.home,
        )
        processes.append(process)
        return process

    yield start
    # A tracer before what it traces, which would wait for it.
    for process in reversed(processes):
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def waits(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("engine", ["notify", "thorough"])
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_whatever_it_waits_for(
    started: Callable[..., subprocess.Popen[str]],
    unprivileged: Unprivileged,
    runrootless: Runrootless,
    wait: str,
    engine: str,
) -> None:
    process = started("python3", "-c", PROGRAM.format(wait=wait), unprivileged.home)
    pid = int(line(process))
    if "range" not in wait:
        eventually(lambda: waits(pid), "its waiting")
    done = runrootless("attach", "--engine", engine, str(pid)).check()
    assert (done.stdout, done.stderr) == ("", "")
    output, _ = process.communicate("x")
    assert output == "33 44 True\n"


LONG = """
import os, sys, threading, time
for _ in range(4): threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
print(os.getpid(), flush=True); sys.stdin.readline(); print("on", flush=True)
"""


def begin(
    started: Callable[..., subprocess.Popen[str]], runrootless: Runrootless
) -> tuple[subprocess.Popen[str], int, subprocess.Popen[str]]:
    """Return a process with threads, its ID, and the command, when that has begun to trace it.

    Or it has ended by then.
    """
    process = started("python3", "-c", LONG)
    pid = int(line(process))
    attaching = runrootless.user.start(runrootless.command("attach", str(pid)))

    def is_traced() -> bool:
        with open(f"/proc/{pid}/status") as file:
            return "TracerPid:\t0\n" not in file.read()

    eventually(lambda: attaching.poll() is not None or is_traced(), "a tracer")
    return process, pid, attaching


# With which users, terminals, schedulers and limits end a command.
ENDING = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "XCPU", "PIPE", "RTMIN")


@pytest.mark.parametrize("number", [getattr(signal, f"SIG{name}") for name in ENDING])
def test_interrupted_at_any_moment(
    started: Callable[..., subprocess.Popen[str]], runrootless: Runrootless, number: int
) -> None:
    """The process goes on, whether it is emulated by then or not."""
    for step in range(6):
        process, _, attaching = begin(started, runrootless)
        time.sleep(step * 0.002)
        attaching.send_signal(number)
        attaching.communicate(timeout=60)
        assert attaching.returncode in (0, -number)
        assert process.communicate("x")[0] == "on\n"


def test_with_threads_killed_at_any_moment(
    started: Callable[..., subprocess.Popen[str]], runrootless: Runrootless
) -> None:
    """The command ends, though nothing is said of a first thread before the others."""
    for step in range(12):
        _, pid, attaching = begin(started, runrootless)
        time.sleep(step * 0.001)
        os.kill(pid, signal.SIGKILL)
        attaching.communicate(timeout=60)
        assert attaching.returncode in (0, 1)


THREADS = """
import os, sys, threading
print(os.getpid(), flush=True)
go = threading.Event()
found = []
def work(number):
    go.wait()
    name = f"{sys.argv[1]}/{number}"
    open(name, "w").close()
    os.chown(name, number, number)
    found.append(os.stat(name).st_uid == number)
threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 17)]
for thread in threads: thread.start()
sys.stdin.readline()
go.set()
for thread in threads: thread.join()
print(found.count(True), flush=True)
"""


def test_all_threads(
    started: Callable[..., subprocess.Popen[str]],
    unprivileged: Unprivileged,
    runrootless: Runrootless,
) -> None:
    process = started("python3", "-c", THREADS, unprivileged.home)
    runrootless("attach", line(process).strip()).check()
    assert process.communicate("\n")[0] == "16\n"


FAMILY = """
echo $$
touch a b c
(read x <fifo1; chown 1:2 a; stat -c %u:%g a; (chown 3:4 b; stat -c %u:%g b)) &
(sh -c 'read x <fifo2; chown 5:6 c; stat -c %u:%g c') &
read x
mkfifo -m 600 done
echo 1 >fifo1
echo 2 >fifo2
wait
"""


def test_descendants(
    started: Callable[..., subprocess.Popen[str]],
    unprivileged: Unprivileged,
    runrootless: Runrootless,
) -> None:
    unprivileged.run(["mkfifo", "fifo1", "fifo2"], cwd=unprivileged.home).check()
    process = started("sh", "-c", FAMILY)
    pid = line(process).strip()
    runrootless("attach", pid).check()
    output, _ = process.communicate("\n")
    assert sorted(output.splitlines()) == ["1:2", "3:4", "5:6"]


# It forks as fast as it can, and asks in each child.
FORKS = """
import os, sys
print(os.getpid(), flush=True)
while not os.path.exists("end"):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
open("f", "w").close()
os.chown("f", 33, 44)
print(os.stat("f").st_uid, flush=True)
"""


def test_one_that_forks_all_the_time(
    started: Callable[..., subprocess.Popen[str]],
    unprivileged: Unprivileged,
    runrootless: Runrootless,
) -> None:
    process = started("python3", "-c", FORKS)
    runrootless("attach", line(process).strip()).check()
    unprivileged.run(["touch", "end"], cwd=unprivileged.home).check()
    assert process.communicate()[0] == "33\n"


SOURCE_32 = r"""
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
    struct stat found;
    printf("%d\n", getpid()); fflush(stdout);
    char c; if (read(0, &c, 1) != 1) return 1;
    FILE *file = fopen("f", "w"); if (!file || fclose(file) || chown("f", 33, 44)) return 2;
    if (stat("f", &found)) return 3;
    printf("%d\n", (int)found.st_uid); return 0;
}
"""


def test_a_32_bit_program(
    started: Callable[..., subprocess.Popen[str]],
    unprivileged: Unprivileged,
    runrootless: Runrootless,
) -> None:
    path = f"{unprivileged.session}/program"
    compile_program(SOURCE_32, path, [*compiler("-m32")[1:], "-static"])
    process = started(path)
    runrootless("attach", line(process).strip()).check()
    assert process.communicate("x")[0] == "33\n"


def test_a_stopped_one_stays_stopped(
    started: Callable[..., subprocess.Popen[str]],
    unprivileged: Unprivileged,
    runrootless: Runrootless,
) -> None:
    process = started("python3", "-c", PROGRAM.format(wait="os.read(0, 1)"), unprivileged.home)
    pid = int(line(process))
    os.kill(pid, signal.SIGSTOP)
    runrootless("attach", str(pid)).check()

    def is_stopped() -> bool:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"

    eventually(is_stopped, "its being stopped again")
    os.kill(pid, signal.SIGCONT)
    assert process.communicate("x")[0] == "33 44 True\n"


END = r"""
static int owned(void) {
    struct stat found;
    FILE *file = fopen("f", "w");
    return file && !fclose(file) && !chown("f", 33, 44) && !stat("f", &found) && found.st_uid == 33;
}
"""
HEAD = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/stat.h>
#include <sys/syscall.h>
static double now(void) {
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9;
}
static int tell(void) { printf("%d\n", getpid()); return fflush(stdout); }
"""
# The kernel sends a thread that it has stopped in a restartable sequence to its way out.
SEQUENCE = r"""
int main(void) {
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    double end = now() + 2; long way, wrong = 0;
    tell();
    while (now() < end) {
        __asm__ volatile(
            ".pushsection __rseq_cs, \"aw\"\n.balign 32\n3: .long 0, 0\n"
            ".quad 1f, (2f - 1f), 4f\n.popsection\n"
            "mov $0x5a5a, %%r12\nlea 3b(%%rip), %%rax\nmov %%rax, 8(%[area])\n"
            "1: mov $20000000, %%rcx\n5: dec %%rcx\njnz 5b\n2: mov $0, %[way]\njmp 6f\n"
            ".long 0x53053053\n4: mov $1, %[way]\n6: cmp $0x5a5a, %%r12\nje 7f\n"
            "mov $2, %[way]\n7:\n"
            : [way] "=&r"(way) : [area] "r"(area) : "rax", "rcx", "r12", "memory", "cc");
        wrong += way > 1; area->rseq_cs = 0;
    }
    printf("%ld %d\n", wrong, owned()); return 0;
}
"""
# 32-bit nanosleep(2) of a 64-bit program.
OTHER_ABI = r"""
int main(void) {
    int *time = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    long result; double began = now();
    *time = 2; tell();
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(162L), "b"((long)time), "c"(0L)
                     : "memory", "r8", "r9", "r10", "r11");
    printf("%ld %d\n", result, now() - began > 1.9 && owned()); return 0;
}
"""
# Threads that execute the program anew in place of the first one, all the time.
EXECUTIONS = r"""
static char next[16], *self;
static void *work(void *number) {
    if (number) execl(self, self, next, NULL);
    for (;;) pause();
}
int main(int count, char **words) {
    int round = count > 1 ? atoi(words[1]) : 0; pthread_t thread;
    if (!round) tell();
    if (!access("end", F_OK)) { printf("0 %d\n", owned()); return 0; }
    self = words[0]; snprintf(next, sizeof next, "%d", round + 1);
    for (long i = 4; i >= 0; i--) pthread_create(&thread, 0, work, (void *)(i == 0));
    for (;;) pause();
}
"""
INSIDE = {"a restartable sequence": SEQUENCE, "a 32-bit call": OTHER_ABI, "execve": EXECUTIONS}


@pytest.mark.parametrize("source", INSIDE.values(), ids=INSIDE)
def test_wherever_it_is(
    started: Callable[..., subprocess.Popen[str]],
    unprivileged: Unprivileged,
    runrootless: Runrootless,
    source: str,
) -> None:
    path = f"{unprivileged.session}/program"
    compile_program(HEAD + END + source, path, ["-pthread", "-Wno-error", "-w"])
    process = started(path)
    pid = line(process).strip()
    if source is OTHER_ABI:
        eventually(lambda: waits(int(pid)), "its waiting")
    runrootless("attach", pid).check()
    unprivileged.run(["touch", "end"], cwd=unprivileged.home).check()
    assert process.communicate()[0] == "0 1\n"


FORBIDDEN = r"""
static void handle(int number) { (void)number; }
int main(void) {
    struct sigaction action = {.sa_handler = handle};
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {4, filter}; char c;
    sigaction(SIGSYS, &action, 0); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, 2, &program); tell();
    if (read(0, &c, 1) != 1) return 1;
    sigaction(SIGSYS, 0, &action); printf("%d\n", action.sa_handler == handle); return 0;
}
"""


def test_a_profile_that_answers_by_a_signal_takes_no_handler_away(
    started: Callable[..., subprocess.Popen[str]],
    unprivileged: Unprivileged,
    runrootless: Runrootless,
) -> None:
    path = f"{unprivileged.session}/program"
    compile_program(HEAD + FORBIDDEN, path, ["-w"])
    process = started(path)
    refused(runrootless, line(process).strip(), "forbids seccomp(2)")
    assert process.communicate("x")[0] == "1\n"


SLEEP = ("sh", "-c", "echo $$; exec sleep 100")


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ((), "not in a user namespace"),
        (("unshare", "--user", "--map-root-user"), "no mount namespace"),
        (("unshare", "--user", "--map-current-user", "--mount"), "not in a user namespace"),
        (("unshare", "--user", "--mount"), "not in a user namespace"),
        ((*IN_NAMESPACE, "prlimit", "--rttime=9:9"), "RLIMIT_RTTIME"),
    ],
)
def test_others_are_refused(
    started: Callable[..., subprocess.Popen[str]],
    runrootless: Runrootless,
    before: tuple[str, ...],
    words: str,
) -> None:
    process = started(*SLEEP, before=before)
    refused(runrootless, line(process).strip(), words)


def refused(runrootless: Runrootless, pid: str, words: str) -> None:
    done = runrootless("attach", pid)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert os.path.exists(f"/proc/{pid}")


def test_one_with_a_listener_is_refused_and_goes_on(
    started: Callable[..., subprocess.Popen[str]],
    unprivileged: Unprivileged,
    runrootless: Runrootless,
) -> None:
    process = started("python3", "-c", PROGRAM.format(wait="os.read(0, 1)"), unprivileged.home)
    pid = line(process).strip()
    runrootless("attach", pid).check()
    refused(runrootless, pid, "listener already")
    assert process.communicate("x")[0] == "33 44 True\n"


TRACE = """
import ctypes, os, sys, time
assert ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0
print("traced", flush=True)
time.sleep(100)
"""


def test_one_that_is_traced_is_refused(
    started: Callable[..., subprocess.Popen[str]], runrootless: Runrootless
) -> None:
    pid = line(started(*SLEEP)).strip()
    tracer = started("python3", "-c", TRACE, pid, before=())
    assert line(tracer) == "traced\n"
    refused(runrootless, pid, "is traced by process")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("x", "not x"),
        ("-1", "no flag"),
        ("0", "not 0"),
        ("1", "other IDs"),
        ("4999999", "no process"),
    ],
)
def test_what_is_no_process(runrootless: Runrootless, word: str, words: str) -> None:
    done = runrootless("attach", word)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_killed_at_any_moment(
    started: Callable[..., subprocess.Popen[str]],
    unprivileged: Unprivileged,
    runrootless: Runrootless,
) -> None:
    """The process goes on, emulated or not, or is gone: it is never half changed."""
    outcomes = set()
    for step in range(30):
        process = started("python3", "-c", PROGRAM.format(wait="os.read(0, 1)"), unprivileged.home)
        pid = line(process).strip()
        command = started(*runrootless.command("attach", pid), before=())
        time.sleep(step * 0.007)
        command.kill()
        command.wait()
        output, _ = process.communicate("x")
        outcomes.add((process.returncode, output if not process.returncode else ""))
        assert "Traceback" not in output or "Errno" in output
    # Emulated; not begun (chown(2) fails); killed in between; without an agent (ENOSYS).
    assert {code for code, _ in outcomes} <= {0, 1, -signal.SIGKILL}
    assert {output for _, output in outcomes} <= {"33 44 True\n", ""}
