"""The filter around a PRoot that has the host for its root, in the kernel."""

import subprocess
import sys

from runrootless.proot.signals import is_for_tracee, number

SCRIPT = """
import ctypes, errno, os
from runrootless.proot.filter import refuse_untranslated_calls
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    libc.syscall(number, *arguments)
    return errno.errorcode.get(ctypes.get_errno())
before = os.stat("/etc/passwd")
refuse_untranslated_calls()
# The same numbers on every machine: openat2, faccessat2, fchmodat2, and one not given out yet.
for number in (437, 439, 452, 9999):
    print(number, call(number, -1, 0, 0, 0))
# pidfd_open is let through.
print(434, call(434, -1, 0))
assert os.stat("/etc/passwd") == before
assert os.access("/etc/passwd", os.R_OK, effective_ids=True)
pid = os.fork()
if pid == 0:
    os.execv("/bin/ls", ["ls", "-ld", "/etc/passwd"])
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(open("/proc/self/status").read().partition("NoNewPrivs:")[2].split()[0])
"""


def test_calls_that_proot_does_not_translate_are_unknown() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    ls = next(line for line in lines if "/etc/passwd" in line)
    assert ls.startswith("-rw-r--r--")
    lines.remove(ls)
    refused = [f"{n} ENOSYS" for n in (437, 439, 452, 9999)]
    assert lines == [*refused, "434 EINVAL", "0", "1"]


def test_signals() -> None:
    assert [number(name) for name in ("15", "TERM", "SIGTERM", "sigterm", "0")] == [
        15,
        15,
        15,
        15,
        0,
    ]
    assert [number(name) for name in ("", "-1", "99", "SIG", "NO", "_DFL", "_IGN")] == [None] * 7
    assert [is_for_tracee(n) for n in (15, 1, 9, 19, 0)] == [True, True, False, False, False]
