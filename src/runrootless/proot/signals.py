"""Signals as a command line names them, and which of them are not for PRoot itself."""

from __future__ import annotations

import signal

_FOR_PROOT = (signal.SIGKILL, signal.SIGSTOP, 0)


def number(name: str) -> int | None:
    """Return the signal that ``name`` means (``15``, ``TERM``, ``SIGTERM``), ``None`` if none."""
    if name.isascii() and name.isdigit():
        return int(name) if int(name) < signal.NSIG else None
    name = name.upper()
    found = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
    return int(found) if isinstance(found, signal.Signals) else None


def is_for_tracee(signal_number: int) -> bool:
    """Return whether a signal has to be sent to the command under PRoot.

    SIGKILL and SIGSTOP are not: PRoot takes what it traces with it.
    """
    return signal_number not in _FOR_PROOT
