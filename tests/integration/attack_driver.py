"""Makes system calls with paths that it reads, and writes what they returned.

One line of JSON is a batch: where the caller is, who it is, and its calls. The answer is a
line of JSON: the results and what became of the files, which are the same everywhere,
the device and inode numbers of all that was seen, which are not, and if it ``judges`` what each
call concerns of the host's. Each batch is carried out by
a process of its own in a fresh directory. Standard library only: it runs inside the root file
systems of the tests.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
import socket
import stat
import struct
import sys
import threading
import traceback
from typing import Any

from driver_calls import LIBC, NUMBERS, error_name, in_child, registers, system_call

AT_FDCWD = -100
SIZE = 512
OPENING = ("open", "openat", "openat2", "creat")
AGAIN, BELOW = "/procagain", "/procbelow"
"""A procfs bound at another place, and the directory of this process in it."""

SYMLINKS = {
    "l_self": "/proc/self", "l_thread": "/proc/thread-self", "l_fd": "/proc/self/fd",
    "l_cwd": "/proc/self/cwd", "l_root": "/proc/self/root", "l_ns": "/proc/self/ns",
    "l_exe": "/proc/self/exe", "l_up": "/proc/self/../..", "l_fdup": "/proc/self/fd/../../..",
    "l_rel": "../../proc/self", "l_relup": "../../proc/self/../..", "l_rootup": "l_root/../..",
    "l_devfd": "/dev/fd", "l_stdin": "/dev/stdin", "l_devup": "/dev/fd/../..",
    "l_again": f"{AGAIN}/self", "l_below": f"{BELOW}/../{AGAIN}/thread-self",
    "l_two": "l_rel", "l_net": "/proc/net", "l_mounts": "/proc/mounts",
    "l_new": "/proc/self/cwd/made",
    "l_dangling": "nowhere", "l_loop": "l_loop", "l_d": "d", "l_f": "d/../f",
}  # fmt: skip
CHAIN = 41
PYTHON = os.path.realpath(sys.executable)
PLACES = ("/", "/dev", "/dev/shm", "/tmp", "/srv", "/etc", "/etc/passwd", PYTHON)
"""Where calls may have an effect outside of their own directory."""
LINKS = {
    "/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}  # fmt: skip
KERNELS = ("/proc", "/proc/net/dev", "/dev/null")
"""The same, where an effect is the kernel's to have."""


class Caller:
    """What the words in paths stand for, in the process that makes the calls."""

    def __init__(self, batch: Any) -> None:
        self.words = {"pid": os.getpid(), "ppid": os.getppid(), "gone": 4194303, **batch["words"]}
        self.keep: list[Any] = []
        # Closing one takes the kernel some time.
        self.watch = LIBC.inotify_init1(os.O_CLOEXEC)
        self.there = self.open_all()
        self.words |= {f"fd_{kind}": number for kind, number in self.there.items()}
        self.words |= numbers_elsewhere()

    def open_all(self) -> dict[str, int]:
        os.mkdir("gone")
        there = {"cwd": AT_FDCWD, "closed": 999, "minus": -1}
        there["f"] = os.open("f", os.O_RDWR)
        there["listener"] = socket.socket(socket.AF_UNIX).detach()
        there["pipe"] = os.pipe()[0]
        for kind, path in (
            ("d", "d"), ("place", "."), ("gone", "gone"), ("root", "/"), ("proc", "/proc"),
            ("self", "/proc/self"), ("fds", "/proc/self/fd"), ("task", "/proc/self/task"),
            ("ns", "/proc/self/ns"), ("dev", "/dev"), ("again", AGAIN), ("below", BELOW),
        ):  # fmt: skip
            there[kind] = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        there["link"] = os.open("l_self", os.O_PATH | os.O_NOFOLLOW)
        there["o_path"] = os.open("d", os.O_PATH)
        there["status"] = os.open("/proc/self/status", os.O_RDONLY)
        if os.path.exists("/hostproc/self"):
            there["host"] = os.open("/hostproc", os.O_RDONLY | os.O_DIRECTORY)
            there["hostself"] = os.open("/hostproc/self", os.O_RDONLY | os.O_DIRECTORY)
        else:
            there["host"] = there["hostself"] = there["proc"]
        os.rmdir("gone")
        return there

    def path(self, template: str) -> bytes:
        """Return a path: words in braces stand for numbers, {pad:N} for what makes it N bytes."""
        text = re.sub(r"\{(\w+)\}", lambda match: str(self.words[match[1]]), template)
        before, found, after = text.partition("{pad:")
        if not found:
            return text.encode()
        length, after = after.split("}", 1)
        missing = int(length) - len(before) - len(after)
        return (before + "./" * (missing // 2) + "/" * (missing % 2) + after).encode()

    def pointer(self, data: bytes) -> int:
        self.keep.append(ctypes.create_string_buffer(data, len(data) + 1))
        return ctypes.addressof(self.keep[-1])

    def value_of(self, argument: Any) -> tuple[int, Any]:
        """Return what to pass for an argument as it was written, and a buffer to be read."""
        if isinstance(argument, int):
            return argument, None
        kind, *what = argument
        if kind == "path":
            return self.pointer(self.path(what[0])), None
        if kind == "text":
            return self.pointer(what[0].encode()), None
        if kind == "fd":
            return self.there[what[0]], None
        if kind == "value":
            return self.pointer(bytes.fromhex(what[0])), None
        if kind == "address":
            path = self.path(what[0])[:108]
            return self.pointer(struct.pack("=H", socket.AF_UNIX) + path.ljust(108, b"\0")), None
        if kind == "words":
            pointers = [self.pointer(word.encode()) for word in what[0]]
            return self.pointer(struct.pack(f"={len(pointers) + 1}Q", *pointers, 0)), None
        if kind == "attribute":
            value = bytes.fromhex(what[0])
            where = self.pointer(value.ljust(SIZE, b"\0"))
            return self.pointer(struct.pack("=QII", where, len(value) or SIZE, what[1])), None
        if kind == "socket":
            return socket.socket(socket.AF_UNIX).detach(), None
        if kind == "watch":
            return self.watch, None
        array = (ctypes.c_ubyte * SIZE)()
        self.keep.append(array)
        return ctypes.addressof(array), array


def numbers_elsewhere() -> dict[str, int]:
    """Return this process's number in the host's procfs, where there is one."""
    try:
        return {"host": int(os.readlink("/hostproc/self"))}
    except OSError:
        return {"host": 4194303}


class Seen:
    """Names files by what they are, and notes the numbers of all that are looked at."""

    def __init__(self) -> None:
        self.devices: dict[int, str] = {}
        self.files: dict[tuple[int, int], str] = {}
        self.seen: set[tuple[int, int]] = set()

    def know(self) -> None:
        """Note the files that others are compared with."""
        for path in ("/hostproc", "/sys", "/dev/shm", "/dev", AGAIN, "/proc", "/"):
            if os.path.isdir(path):
                self.devices[os.stat(path).st_dev] = path
        files = ["f", "d", "suid", "own", ".", "d/sub", "/", "/dev", "/srv", BELOW]
        for path in files:
            self._name(path, path)
        number = numbers_elsewhere()["host"]
        for base, pid in (("/proc", os.getpid()), ("/hostproc", number)):
            for name in ("", "/mounts", "/self", "/thread-self"):
                self._name(base + name, "/proc" + name)
            for name in ("", "/fd", "/task", "/ns", "/ns/mnt", "/status", "/exe"):
                self._name(f"{base}/{pid}{name}", f"/proc/PID{name}")
        self._name("l_self", "l_self")
        if number == os.getpid():
            # Of the same processes: whether it is the same mount is the bundle's to say.
            self.devices[os.stat("/hostproc").st_dev] = "/proc"

    def _name(self, path: str, name: str) -> None:
        for follow in (True, False):
            with contextlib.suppress(FileNotFoundError):
                s = os.stat(path, follow_symlinks=follow)
                self.files.setdefault((s.st_dev, s.st_ino), name)

    def describe(self, mode: int, uid: int, gid: int, rdev: int, dev: int, ino: int) -> list[Any]:
        self.seen.add((dev, ino))
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            # The host's nodes stand for those of the container, with the owners that they have.
            return [oct(stat.S_IFMT(mode)), rdev]
        if mode == 0o100444:
            # What shows emulated numbers in a procfs may be a copy.
            return [oct(mode)]
        where = self.devices.get(dev, "elsewhere")
        return [oct(mode), uid, gid, where, self.files.get((dev, ino), "")]

    def of_descriptor(self, descriptor: int) -> list[Any]:
        s = os.fstat(descriptor)
        return self.describe(s.st_mode, s.st_uid, s.st_gid, s.st_rdev, s.st_dev, s.st_ino)


def shown(name: str, result: int, data: bytes, seen: Seen) -> Any:
    """Return what a successful call has written or opened, as far as it is the same everywhere."""
    if name in OPENING:
        flags = fcntl.fcntl(result, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_PATH | os.O_DIRECTORY)
        found = [oct(flags), *seen.of_descriptor(result)]
        os.close(result)
        return found
    if name in ("stat", "lstat", "newfstatat", "fstat"):
        dev, ino, _, mode, uid, gid, _, rdev = struct.unpack_from("=QQQIIIIQ", data)
        return seen.describe(mode, uid, gid, rdev, dev, ino)
    if name == "statx":
        uid, gid, mode, _, ino = struct.unpack_from("=IIHHQ", data, 20)
        numbers = struct.unpack_from("=IIII", data, 128)
        rdev, dev = os.makedev(*numbers[:2]), os.makedev(*numbers[2:])
        return seen.describe(mode, uid, gid, rdev, dev, ino)
    if name.startswith("readlink"):
        return re.sub(rb"\d+", b"N", data[:result]).decode(errors="replace")
    if "listxattr" in name:
        return sorted(data[:result].decode().split("\0"))
    if "getxattr" in name:
        return data[:result].hex()
    if name == "statfs":
        return hex(struct.unpack_from("=Q", data)[0])
    return None if name == "inotify_add_watch" else result


class Hosts:
    """Tells what the host has mounted from the files of the container's own file system."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        places = ("/proc", "/hostproc", AGAIN, "/proc/self/ns/mnt")
        self.proc = {os.stat(path).st_dev for path in places}
        self.dev = os.stat("/dev").st_dev
        self.root = os.stat("/")

    def kinds(self, arguments: list[Any]) -> list[str]:
        """Return what a call concerns of the host's: "proc", "dev", "root", "mount"."""
        directory = AT_FDCWD
        found = set()
        for argument in arguments:
            if isinstance(argument, list) and argument[0] == "fd":
                directory = self.caller.there[argument[1]]
            if isinstance(argument, list) and argument[0] == "path":
                path = self.caller.path(argument[1])
                found |= {self._of(directory, path, follow) for follow in (True, False)}
        return sorted(found - {""})

    def _of(self, directory: int, path: bytes, follow: bool) -> str:
        try:
            if path:
                where = None if directory == AT_FDCWD else directory
                s = os.stat(path, dir_fd=where, follow_symlinks=follow)
            else:
                s = os.stat(directory if directory != AT_FDCWD else ".")
        except (OSError, ValueError):
            return ""
        if os.path.samestat(s, self.root):
            return "root"
        if s.st_dev in self.proc:
            return "proc"
        if s.st_dev == self.dev and not stat.S_ISDIR(s.st_mode) and not stat.S_ISREG(s.st_mode):
            return "dev"
        return "mount" if s.st_dev != self.root.st_dev else ""


def execute(number: int, values: list[ctypes.c_ulong]) -> list[Any]:
    """Execute a program in a child; return the error of the call or the program's output."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        LIBC.syscall(number, *values)
        os.write(writer, errno.errorcode[ctypes.get_errno()].encode())
        os._exit(126)
    os.close(writer)
    with os.fdopen(reader) as stream:
        output = stream.read()
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output[:200]]


def call(name: str, arguments: list[Any], caller: Caller, seen: Seen) -> Any:
    """Make one call; return its result or the name of its error, and what it has written."""
    found = [caller.value_of(argument) for argument in arguments]
    values = registers([value for value, _ in found])
    buffer = next((array for _, array in reversed(found) if array), None)
    if name.startswith("execve"):
        return execute(NUMBERS[name], values)
    result, number = system_call(name, values)
    while name == "openat2" and result == -1 and number == errno.EAGAIN:
        # Some file of the machine was renamed meanwhile, and ".." may not lead out: openat2(2).
        result, number = system_call(name, values)
    if name == "bind":
        os.close(values[0].value)
    if result == -1:
        return error_name(number)
    data = bytes(buffer) if buffer is not None else b""
    if name == "getxattrat":
        data = bytes(caller.keep[-2])
    return shown(name, result, data, seen)


def prepare() -> None:
    """Make the files that the calls are about."""
    os.umask(0)
    os.chmod(".", 0o777)
    for name, uid, gid, mode in (
        ("f", 0, 0, 0o666), ("suid", 7, 8, 0o6755), ("own", 33, 33, 0o4644), ("mine", 0, 0, 0o600),
    ):  # fmt: skip
        if name == "suid":
            shutil.copy("/usr/bin/id", name)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        os.chown(name, uid, gid)
        os.chmod(name, mode)
    for name in ("d", "d/sub"):
        os.mkdir(name, 0o777)
    for name, target in SYMLINKS.items():
        os.symlink(target, name)
    for number in range(1, CHAIN + 1):
        os.symlink(f"c{number - 1}" if number > 1 else "f", f"c{number}")
        os.symlink(f"k{number - 1}" if number > 1 else "d", f"k{number}")


def act(batch: Any) -> Any:
    """Make the calls of a batch in this process."""
    seen = Seen()
    seen.know()
    caller = Caller(batch)
    os.dup2(caller.there["f"], 0)
    os.dup2(caller.there["d"], 1)
    os.dup2(caller.there["status"], 2)
    if batch["cwd"] != "cwd":
        os.fchdir(caller.there[batch["cwd"]])
    if batch["user"]:
        os.setgroups([])
        os.setresgid(*3 * [batch["user"]])
        os.setresuid(*3 * [batch["user"]])
    if batch["unshare"] and LIBC.unshare(0x00020000):
        return ["unshare", errno.errorcode[ctypes.get_errno()]], [], []
    results: list[Any] = []
    hosts: list[list[str]] = []
    judge = Hosts(caller) if batch["judges"] else None

    def make_calls() -> None:
        caller.words["tid"] = threading.get_native_id()
        for name, arguments in batch["calls"]:
            if judge is not None:
                hosts.append(judge.kinds(arguments))
            results.append(call(name, arguments, caller, seen))

    if batch["thread"]:
        thread = threading.Thread(target=make_calls)
        thread.start()
        thread.join()
        assert len(results) == len(batch["calls"])
    else:
        make_calls()
    return results, sorted(seen.seen), hosts


def state(names: list[str]) -> list[Any]:
    """Return what files there are, with their attributes."""
    found: list[Any] = []
    for name in sorted(names):
        s = os.lstat(name)
        one = [name, oct(s.st_mode), s.st_uid, s.st_gid, s.st_rdev]
        if stat.S_ISLNK(s.st_mode):
            one.append(os.readlink(name))
        elif stat.S_ISREG(s.st_mode):
            one.append(s.st_size)
        if not stat.S_ISLNK(s.st_mode) and s.st_rdev == 0:
            one.append([(a, os.getxattr(name, a).hex()) for a in sorted(os.listxattr(name))])
        found.append(one)
    return found


def walk() -> list[str]:
    """Return the names of all files below the working directory."""
    found = ["."]
    for directory, names, files in os.walk("."):
        found += [os.path.join(directory, name) for name in names + files]
    return found


class Outside:
    """What there is besides the directory of a batch; it is put back after each."""

    def __init__(self) -> None:
        self.names = self.listing()
        self.status = {path: os.stat(path) for path in PLACES + KERNELS}

    def listing(self) -> set[str]:
        return {
            os.path.join(place, name)
            for place in ("/", "/dev", "/dev/shm", "/tmp")
            for name in os.listdir(place)
        }

    def changes(self) -> list[Any]:
        now = self.listing()
        found: list[Any] = [state(list(now - self.names)), sorted(self.names - now)]
        for path in PLACES:
            n, s = os.stat(path), self.status[path]
            if (n.st_mode, n.st_uid, n.st_gid) != (s.st_mode, s.st_uid, s.st_gid):
                found.append([path, oct(n.st_mode), n.st_uid, n.st_gid])
                os.chown(path, s.st_uid, s.st_gid)
                os.chmod(path, stat.S_IMODE(s.st_mode))
            for name in os.listxattr(path):
                found.append([path, name])
                os.removexattr(path, name)
        for path, target in LINKS.items():
            if not os.path.islink(path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                os.symlink(target, path)
            os.lchown(path, 0, 0)
        for path in KERNELS:
            try:
                os.chown(path, 0, 0)
                # By path it takes the engine thorough.
                file = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    os.fchmod(file, stat.S_IMODE(self.status[path].st_mode))
                finally:
                    os.close(file)
                os.removexattr(path, "system.posix_acl_access")
            except OSError:
                pass
        for path in now - self.names:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        return found


def carry_out(batch: Any, directory: str, outside: Outside) -> Any:
    """Carry out a batch in a child; return what came of it."""
    os.mkdir(directory)
    os.chdir(directory)
    prepare()

    def answer() -> str:
        try:
            return json.dumps(act(batch))
        except BaseException:
            return json.dumps([traceback.format_exc(), [], []])

    text, status = in_child(answer)
    results, seen, hosts = json.loads(text) if text else (f"status {status}", [], [])
    same = {"results": results, "files": state(walk()), "outside": outside.changes()}
    os.chdir("/")
    return {"same": same, "seen": seen, "hosts": hosts}


def bind_host(descriptor: int) -> None:
    """Bind the host's procfs, for which there is a descriptor, as a bundle would have it."""
    for source, flags in ((f"/proc/self/fd/{descriptor}", 0x1000), ("none", 0x1021)):
        if LIBC.mount(source.encode(), b"/hostproc", None, flags, None):
            raise OSError(ctypes.get_errno(), "mount /hostproc")
    os.close(descriptor)


def main() -> None:
    """Answer line by line until the input ends."""
    name = sys.argv[1]
    for path, source in ((AGAIN, "/proc"), (BELOW, f"/proc/{os.getpid()}")):
        os.makedirs(path, exist_ok=True)
        if LIBC.mount(source.encode(), path.encode(), None, 0x1000, None):
            raise OSError(ctypes.get_errno(), f"mount {path}")
    if len(sys.argv) > 2:
        bind_host(int(sys.argv[2]))
    outside = Outside()
    for number, line in enumerate(sys.stdin):
        try:
            answer = carry_out(json.loads(line), f"/srv/{name}-{number}", outside)
        except BaseException:
            answer = {"same": traceback.format_exc(), "seen": [], "hosts": []}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
