"""How an error reaches the user, and the program that called us.

podman, containerd and others read the error of a runtime from the file that they
name with ``--log``, in the format of the logger that runc uses (logrus).  So
that is written there, and without a log file it is what runc writes on the
standard error, except that a terminal shows the bare line.
"""

from __future__ import annotations

import os
import sys
import time

# Said once is enough.
_unwritable: set[str] = set()


def report(message: str, log: str, log_format: str, level: str = "error") -> None:
    """Tell ``message`` on the standard error and in the file ``log`` if there is one.

    ``log_format`` is ``text`` or ``json``, as the runtime's flag of that name.
    """
    message = f"runrootless: {message}"
    if log:
        _append(log, _entry(message, log_format, level))
        text = message
    elif log_format == "json" or not os.isatty(2):
        text = _entry(message, log_format, level)
    else:
        text = message
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def debug(message: str, log: str, log_format: str) -> None:
    """Tell ``message`` in the file ``log``, without one on the standard error, as runc does."""
    entry = _entry(f"runrootless: {message}", log_format, "debug")
    if log:
        _append(log, entry)
    else:
        sys.stderr.write(entry + "\n")
        sys.stderr.flush()


def _append(log: str, entry: str) -> None:
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        if log not in _unwritable:
            _unwritable.add(log)
            sys.stderr.write(f"runrootless: cannot write the log {log}: {error.strerror}\n")
        return
    try:
        os.write(file, entry.encode("utf-8", "replace") + b"\n")
    finally:
        os.close(file)


def _entry(message: str, log_format: str, level: str) -> str:
    import json

    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    # RFC 3339 wants a colon in the offset, and UTC as Z.
    stamp = stamp[:-5] + "Z" if stamp.endswith("+0000") else f"{stamp[:-2]}:{stamp[-2:]}"
    if log_format == "json":
        return json.dumps({"level": level, "msg": message, "time": stamp})
    return f'time="{stamp}" level={level} msg={json.dumps(message, ensure_ascii=False)}'
