"""What a seccomp profile does, found out with libseccomp and not by reading it.

The profile is compiled by the library that the runtimes use, in the way runc
does (libcontainer/seccomp/seccomp_linux.go), and the resulting program is run on
a call.  So a test says what happens to a call, whatever the rules look like.
"""

import ctypes
import os
import struct
import tempfile
from typing import Any

ALLOW = 0x7FFF0000
NOTIFY = 0x7FC00000
_ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_NOTIFY": NOTIFY,
    "SCMP_ACT_ALLOW": ALLOW,
}
_OPERATORS = ("", "NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
_X86_64 = 0xC000003E
_EPERM = 1


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def load_library() -> ctypes.CDLL | None:
    """Return libseccomp, None where it is not installed."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    )
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    library.seccomp_syscall_resolve_num_arch.argtypes = (ctypes.c_uint32, ctypes.c_int)
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    return library


def action(name: str, errno: int | None = None) -> int:
    """Return the value a filter returns for an OCI action."""
    value = _ACTIONS[name]
    if name == "SCMP_ACT_ERRNO":
        value |= _EPERM if errno is None else errno
    return value


def rules(
    rows: list[tuple[str, str, tuple[int, str, int, int] | None]], answer: str
) -> list[dict[str, Any]]:
    """Return rows of the emulation's table as ``linux.seccomp.syscalls``, OCI config-linux.md."""
    found = []
    for name, _, condition in rows:
        rule: dict[str, Any] = {"names": [name], "action": answer}
        if condition is not None:
            index, operator, value, second = condition
            rule["args"] = [{"index": index, "value": value, "valueTwo": second, "op": operator}]
        found.append(rule)
    return found


class Filter:
    """A compiled profile; raises AssertionError if libseccomp refuses a rule."""

    def __init__(self, library: ctypes.CDLL, profile: dict[str, Any]) -> None:
        default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        self._library = library
        self._context = library.seccomp_init(default)
        assert self._context
        try:
            for rule in profile.get("syscalls", ()):
                for name in rule["names"]:
                    self._add(name, rule, default)
            self._program = self._export()
        finally:
            library.seccomp_release(self._context)

    def _add(self, name: str, rule: dict[str, Any], default: int) -> None:
        value = action(rule["action"], rule.get("errnoRet"))
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if value == default or number == -1:
            return
        comparisons = [
            _Comparison(
                argument["index"],
                _OPERATORS.index(argument["op"].removeprefix("SCMP_CMP_")),
                argument["value"],
                argument.get("valueTwo", 0),
            )
            for argument in rule.get("args", ())
        ]
        together = len({comparison.argument for comparison in comparisons}) == len(comparisons)
        for group in [comparisons] if together else [[one] for one in comparisons]:
            array = (_Comparison * len(group))(*group)
            result = self._library.seccomp_rule_add_array(
                self._context, value, number, len(group), array
            )
            assert result == 0, f"{name} {rule}: {os.strerror(-result)}"

    def _export(self) -> list[tuple[int, int, int, int]]:
        with tempfile.TemporaryFile() as file:
            assert self._library.seccomp_export_bpf(self._context, file.fileno()) == 0
            file.seek(0)
            return list(struct.iter_unpack("=HBBI", file.read()))

    def __call__(self, name: str, *arguments: int) -> int:
        """Return what the filter returns for a call on x86-64."""
        return self.of_number(self._library.seccomp_syscall_resolve_name(name.encode()), *arguments)

    def of_number(self, number: int, *arguments: int) -> int:
        """Return the same, for a call that the library may have no name for."""
        padded = [*arguments, *[0] * (6 - len(arguments))]
        data = struct.pack("=IIQ6Q", number, _X86_64, 0, *padded)
        return run(self._program, data)


def run(program: list[tuple[int, int, int, int]], data: bytes) -> int:
    """Interpret a classic BPF program, as far as libseccomp uses the language."""
    accumulator = 0
    position = 0
    while True:
        code, if_true, if_false, constant = program[position]
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, constant)
        elif code == 0x54:
            accumulator &= constant
        elif code == 0x05:
            position += constant
        elif code in (0x15, 0x25, 0x35):
            holds = {
                0x15: accumulator == constant,
                0x25: accumulator > constant,
                0x35: accumulator >= constant,
            }[code]
            position += if_true if holds else if_false
        elif code == 0x06:
            return constant
        else:
            raise AssertionError(f"unknown instruction {code:#x}")
