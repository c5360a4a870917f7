"""The agent's log: lines as runc writes them, into the same file."""

from __future__ import annotations

import os
import time

from runrootless.bundle.json_file import dump


class Log:
    """Writes to a descriptor, or to nowhere where it is -1.

    ``form`` is "text" or "json" as in runc's --log-format; ``debug`` lets debug lines through.
    """

    def __init__(self, fd: int, form: str, debug: bool) -> None:
        self.fd = fd
        """The descriptor, for code that closes all others."""
        self._form = form
        self._debug = debug

    def error(self, message: str) -> None:
        """Log what went wrong."""
        self._write("error", message)

    def debug(self, message: str) -> None:
        """Log what only somebody who looks for a fault wants to know."""
        if self._debug:
            self._write("debug", message)

    def exception(self, message: str, error: BaseException) -> None:
        """Log an error with the place that it came from."""
        place = ""
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            place = f" at {os.path.basename(code.co_filename)}:{trace.tb_lineno}"
            trace = trace.tb_next
        self.error(f"{message}: {error!r}{place}")

    def _write(self, level: str, message: str) -> None:
        if self.fd < 0:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        message = f"runrootless: {message}"
        if self._form == "json":
            line = dump({"level": level, "msg": message, "time": now})
        else:
            line = f'time="{now}" level={level} msg={dump(message)}'
        try:
            os.write(self.fd, line.encode() + b"\n")
        except OSError:
            # A full disk must not stop the container.
            pass
