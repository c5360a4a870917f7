"""What is said of the end of the process that makes a bundle's devices."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from runrootless.agent.furnishing import furnish
from runrootless.agent.log import Log
from runrootless.errors import Error


class Nothing:
    """Views that lead nowhere, and an emulator that does but ``act``."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def join(self) -> None:
        pass

    def furnish(self, *_: object) -> None:
        self._act()


def close_all() -> None:
    os.closerange(3, 1024)
    raise PermissionError(1, "Operation not permitted")


def deny(path: str) -> Callable[[], object]:
    def act() -> None:
        raise PermissionError(1, "Operation not permitted", path)

    return act


ENDS: list[tuple[Callable[[], object], str]] = [
    (lambda: None, ""),
    (lambda: os.kill(os.getpid(), signal.SIGKILL), "cannot make devices: signal 9 "),
    (lambda: os._exit(3), "cannot make devices: "),
    # Then it cannot say why.
    (close_all, "cannot make devices: "),
    (lambda: [][0], "cannot make devices: see --log"),
    (deny("/dev/x"), "cannot make the device /dev/x: Operation not permitted"),
    (deny("/dev/\udcff"), "cannot make the device /dev/\ufffd: Operation not permitted"),
    (deny("/dev/" + "x/" * 2000), "x...: Operation not permitted"),
]


@pytest.mark.parametrize(("act", "words"), ENDS)
def test_every_end_but_a_good_one_is_an_error(
    act: Callable[[], object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/proc")
    nothing: Any = Nothing(act)
    device = {"path": "/dev/x", "bound": True, "mode": 0, "device": 0, "uid": 0, "gid": 0}
    said = ""
    try:
        furnish([device], nothing, nothing, lambda: None, Log(-1, "text", False))
    except Error as error:
        said = str(error)
    assert bool(said) == bool(words)
    assert words in said
    assert len(said) < 500
