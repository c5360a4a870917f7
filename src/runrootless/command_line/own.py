"""The parser of commands that no runtime has."""

from __future__ import annotations

import argparse

from runrootless.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """One whose errors are a line, as all others are."""

    def error(self, message: str) -> NoReturn:
        """Raise ``Error`` with what is wrong."""
        command = self.prog.rpartition(" ")[2]
        raise Error(f"{command}: {message}: `{self.prog} --help` tells more")
