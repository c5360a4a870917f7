"""An emulator without a container."""

from runrootless.emulation.callers.credential_table import CredentialTable
from runrootless.emulation.emulator import Emulator
from runrootless.emulation.fast_state import FastState
from runrootless.emulation.stores.attribute_store import AttributeStore
from runrootless.emulation.stores.owner_store import OwnerStore


class NoViews:
    varied = False

    def open_outside(self, pid: int, path: str) -> int:
        raise NotImplementedError


def new_emulator(
    thorough: bool = False, credentials: int = -1, fast: FastState | None = None
) -> Emulator:
    """Return one that keeps nothing, and whose callers see what this process does.

    But for sets of credentials, if it is given a descriptor of a file for them.
    """
    table = CredentialTable(credentials)
    return Emulator(table, OwnerStore(), AttributeStore(), NoViews(), thorough, fast=fast)
