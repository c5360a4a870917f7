"""How far it has come: bars on a terminal, one line a step elsewhere, on the standard error."""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# How often a bar is drawn anew, in seconds.
_INTERVAL = 0.1


class Progress:
    """Tells of steps, one after the other. ``quiet`` tells nothing."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._done = 0
        self._shown = 0.0
        if not quiet and sys.stderr is not None and sys.stderr.isatty():
            self._bar = _bar()

    def begin(self, what: str, size: int = -1, of: str = "") -> None:
        """Tell of a step that begins: of so many bytes, where that is known."""
        self.end()
        if self._quiet or sys.stderr is None:
            return
        text = f"{what} {_readable(size)}" if size >= 0 else what
        if self._bar is None:
            sys.stderr.write(f"runrootless: {text}{f' ({of})' if of else ''}\n")
            sys.stderr.flush()
            return
        self._done = 0
        self._task = self._bar.add_task(what, total=size if size > 0 else None)
        self._bar.start()

    def advance(self, count: int) -> None:
        """Tell that so many bytes more are done. Any thread may call it."""
        self._done += count
        now = time.monotonic()
        if self._bar is not None and self._task is not None and now - self._shown > _INTERVAL:
            self._shown = now
            self._bar.update(self._task, completed=self._done, refresh=True)

    def end(self) -> None:
        """End the present step, if there is one."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, refresh=True)
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None


def _bar() -> Any:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars
    except ImportError:
        return None
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
    )


def _readable(size: int) -> str:
    value = float(size)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
