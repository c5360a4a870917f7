"""What the agent's processes hold and may do, and that nobody in the container gets at them."""

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from conftest import MakeBundle
from runrootless.agent.confinement import WORKER_CAPABILITIES
from support.agents import the_supervisor, the_worker
from support.bundles import Bundle, Config
from support.containers import Runrootless
from support.processes import read_line
from support.programs import compile_program
from support.trees import Tree
from support.users import AS_ROOT

pytestmark = pytest.mark.skipif(not AS_ROOT, reason="only root may look into the agent")

SCRIPT = "chown 3:4 /srv; echo up; read line; :"

# ptrace, process_vm_readv, pidfd_getfd, and the files of /proc: what succeeds is printed.
ATTACK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
int main(int count, char **arguments)
{
    static const char *names[] = { "mem", "cwd", "root", "environ", "maps", "fd", "map_files",
        "exe", "fd/0", "fd/3", "fd/5", "fdinfo/0", "ns/mnt", "ns/user", "auxv", "syscall" };
    for (int i = 1; i < count; i++) {
        pid_t pid = atoi(arguments[i]);
        char path[64], byte;
        if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0 || ptrace(PTRACE_ATTACH, pid, 0, 0) == 0)
            puts("ptrace");
        struct iovec own = { &byte, 1 }, other = { (void *)0x400000, 1 };
        for (unsigned long at = 0x400000; at < 0x800000; at += 4096) {
            other.iov_base = (void *)at;
            if (process_vm_readv(pid, &own, 1, &other, 1, 0) > 0) {
                puts("process_vm_readv");
                break;
            }
        }
        int pidfd = syscall(SYS_pidfd_open, pid, 0);
        for (int fd = 0; fd < 64; fd++)
            if (pidfd >= 0 && syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0)
                printf("pidfd_getfd %d\n", fd);
        for (int n = 0; n < sizeof names / sizeof *names; n++) {
            snprintf(path, sizeof path, "/proc/%d/%s", pid, names[n]);
            int fd = open(path, O_RDONLY);
            char data[64];
            if (fd >= 0 && (read(fd, data, sizeof data) > 0 || strchr("fcmr", names[n][0])))
                printf("open %s\n", names[n]);
            if (readlink(path, data, sizeof data) > 0)
                printf("readlink %s\n", names[n]);
        }
    }
    puts("tried");
    return 0;
}
"""

# What is mounted on parts of a procfs, or where parts of it are mounted, is not to make the agent
# take what is its own for the caller's: what succeeds that the kernel refuses is printed.
MOUNTS = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static const char *dir = "/dev/tried", *text = "/dev/tried/text", *link_ = "/dev/tried/link";
static void check(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}
static void try_all(const char *format, pid_t pid, const char *how)
{
    char path[64];
    for (int fd = 0; fd < 40; fd++) {
        snprintf(path, sizeof path, format, pid, fd);
        int real = open(path, O_PATH);
        if (real >= 0)
            close(real);
        else if (chown(path, 7, 7) == 0)
            printf("%s: %s\n", how, path);
    }
}
int main(int count, char **arguments)
{
    char path[64], target[64];
    check(!unshare(CLONE_NEWNS) && !mount(0, "/", 0, MS_REC | MS_PRIVATE, 0), "namespace");
    check(!mkdir(dir, 0755) && !mount("tried", dir, "tmpfs", 0, 0), "tmpfs");
    check(close(open(text, O_CREAT | O_WRONLY, 0644)) == 0, "file");
    check(!mkdir("/dev/tried/fd", 0755), "directory");
    for (int i = 1; i < count; i++) {
        pid_t pid = atoi(arguments[i]);
        snprintf(path, sizeof path, "/proc/%d/fd", pid);
        check(!mount(path, "/dev/tried/fd", 0, MS_BIND, 0), "bind");
        try_all("/dev/tried/fd/%2$d", pid, "descriptors mounted elsewhere");
        umount("/dev/tried/fd");
        snprintf(path, sizeof path, "/proc/%d/status", pid);
        check(!mount(text, path, 0, MS_BIND, 0), "status");
        try_all("/proc/%d/fd/%d", pid, "status covered");
        try_all("/proc/%1$d/task/%1$d/fd/%2$d", pid, "status covered");
        umount(path);
    }
    symlink("/dev/tried/target", link_);
    int tree = syscall(428, AT_FDCWD, link_, 1 | AT_SYMLINK_NOFOLLOW | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/%d/comm", getpid());
    check(tree >= 0 && !syscall(429, tree, "", AT_FDCWD, path, 4), "symlink");
    for (int fd = 3; fd < 40; fd++) {
        snprintf(target, sizeof target, "/proc/self/fd/%d", fd);
        unlink("/dev/tried/target");
        symlink(target, "/dev/tried/target");
        try_all("/proc/%d/comm", getpid(), target);
    }
    puts("tried");
    return 0;
}
"""


def with_host_processes(config: Config) -> None:
    """All processes of the host are seen."""
    namespaces = config["linux"]["namespaces"]
    config["linux"]["namespaces"] = [one for one in namespaces if one["type"] != "pid"]
    for mount in config["mounts"]:
        if mount["type"] == "proc":
            mount.update(type="bind", source="/proc", options=["rbind"])


def with_tracing(config: Config) -> None:
    """CAP_SYS_PTRACE is had."""
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind].append("CAP_SYS_PTRACE")


@pytest.fixture
def attack(runrootless: Runrootless) -> str:
    return compile_program(ATTACK, f"{runrootless.user.session}/attack", ["-static"])


def _start(runrootless: Runrootless, ours: Bundle | None, script: str) -> "subprocess.Popen[str]":
    if ours is None:
        args = runrootless.command("emulate", "sh", "-c", script)
    else:
        ours.script(script)
        args = runrootless.command("run", "--bundle", ours.path, runrootless.new_id())
    process = runrootless.user.start(args, stdin=subprocess.PIPE)
    assert read_line(process) == "up\n"
    return process


@pytest.mark.parametrize("mode", ["run", "emulate"])
def test_nobody_in_the_container_gets_at_the_agent(
    bundle: MakeBundle, runrootless: Runrootless, attack: str, mode: str
) -> None:
    mount = {"destination": "/dev/attack", "type": "bind", "source": attack, "options": ["bind"]}
    ours = None
    program = attack
    if mode == "run":
        program = "/dev/attack"
        ours = bundle().change(with_host_processes).change(with_tracing)
        ours.change(lambda config: config["mounts"].append(mount))
    script = f"echo up; read pids; {program} $pids"
    process = _start(runrootless, ours, script)
    account = runrootless.user.account
    pids = the_supervisor(account), the_worker(account)
    output, _ = process.communicate(" ".join(map(str, pids)) + "\n", timeout=60)
    assert output == "tried\n"


def test_no_mount_on_a_procfs_misleads_the_agent(
    bundle: MakeBundle, runrootless: Runrootless
) -> None:
    program = compile_program(MOUNTS, f"{runrootless.user.session}/mounts", ["-static"])
    mount = {"destination": "/dev/mounts", "type": "bind", "source": program, "options": ["bind"]}
    ours = bundle().change(with_host_processes).change(with_tracing)
    ours.change(lambda config: config["mounts"].append(mount))

    def with_mounts(config: Config) -> None:
        for kind in ("bounding", "effective", "permitted"):
            config["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")

    ours.change(with_mounts)
    process = _start(runrootless, ours, "echo up; read pids; /dev/mounts $pids 2>&1")
    account = runrootless.user.account
    pids = the_supervisor(account), the_worker(account)
    output, _ = process.communicate(" ".join(map(str, pids)) + "\n", timeout=60)
    assert output == "tried\n"


# What a link of another process leads to: the kernel lets nobody in who may not trace that.
TRESPASS = """
for p in /proc/[0-9]*; do
    [ "$(cat $p/comm 2>/dev/null)" = bystander ] || continue
    echo found
    for way in root cwd/../../../../../../../.. fd/9 task/${p#/proc/}/root; do
        (cd -P $p/$way) 2>/dev/null && echo "entered $way"
        chown 5:6 $p/$way CANARY 2>/dev/null && echo "chown $way"
        stat $p/$way CANARY >/dev/null 2>&1 && echo "stat $way"
        mknod $p/$way CANARY/made c 1 3 2>/dev/null && echo "mknod $way"
        setfattr -n trusted.x -v y $p/$way CANARY 2>/dev/null && echo "setfattr $way"
    done
done
echo tried
""".replace(" CANARY", "CANARY")


def test_links_of_processes_that_the_caller_may_not_trace(
    bundle: MakeBundle, runrootless: Runrootless, tools_tree: Tree
) -> None:
    """As below podman: the container is in a user namespace of the caller's, as others are."""
    user = runrootless.user
    canary = os.path.join(user.home, "canary")
    user.run(["mkdir", canary]).check()
    user.run(["cp", "/bin/sleep", f"{user.home}/bystander"]).check()
    ours = bundle(tools_tree).change(with_host_processes)
    ours.script(TRESPASS.replace("CANARY", canary))
    run = runrootless.command("run", "--bundle", ours.path, runrootless.new_id())
    script = f"exec 9</; {user.home}/bystander 60 & {shlex.join(run)}; kill $!"
    done = user.run(["unshare", "-Ur", "sh", "-c", script]).check()
    assert done.stdout == "found\ntried\n"
    assert os.listdir(canary) == os.listxattr(canary) == []


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("mode", ["run", "emulate"])
@pytest.mark.parametrize("generation", [0, 2])
def test_what_the_agent_holds(
    bundle: MakeBundle, runrootless: Runrootless, mode: str, generation: int
) -> None:
    ours = bundle(copy=True) if mode == "run" else None
    script = "echo up; read line; id -u; read line; :"
    process = _start(runrootless, ours, script)
    account = runrootless.user.account
    for _ in range(generation):
        os.kill(the_worker(account), signal.SIGKILL)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "0\n"
    supervisor, worker = the_supervisor(account), the_worker(account)
    for pid in (supervisor, worker):
        status = _status(pid)
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapBnd"], 16) == int(status["CapInh"], 16) == 0
        # Not dumpable: its files are root's, of the namespace that it was executed in.
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0
    assert int(_status(supervisor)["CapEff"], 16) == 0
    assert int(_status(worker)["CapEff"], 16) == WORKER_CAPABILITIES
    # From where it begins to look for files, nothing leads on.
    for pid in (supervisor, worker):
        assert os.path.samefile(f"/proc/{pid}/cwd", "/proc")
        assert os.path.samefile(f"/proc/{pid}/cwd/..", "/proc")
        assert not os.path.exists(f"/proc/{pid}/cwd/../etc")
    directories = [
        path
        for path in (f"/proc/{worker}/fd/{name}" for name in os.listdir(f"/proc/{worker}/fd"))
        if os.path.isdir(path)
    ]
    root = ours.rootfs if ours is not None else "/"
    allowed = ["/proc", root, f"{root}/dev"]
    for path in directories:
        found = os.stat(path)
        if any(os.path.samestat(found, os.stat(one)) for one in allowed):
            continue
        # A file system of the container's own: none of the host's has its number.
        assert found.st_dev not in {os.stat(one).st_dev for one in ("/", "/tmp", "/var/tmp")}
    process.communicate("\n", timeout=60)
