"""Imports this package's modules from their compiled files, without a search.

The import system asks for each module whether it is a C extension, of four kinds, and in
which directory it is, before it reads what is always in the same place. That is a good part
of a module's import, and a start imports some thirty modules, the agent twice as many: so
this is by hand, for start-up time alone. What it cannot find it leaves to the import system,
which compiles what is not compiled, or is not up to date.
"""

from __future__ import annotations

import _frozen_importlib as bootstrap
import _frozen_importlib_external as external
import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any

_PACKAGE = __name__.partition(".")[0]
_ROOT = os.path.dirname(__file__)
_CACHE = "__pycache__"
_SUFFIX = f".{sys.implementation.cache_tag}.pyc"
# See "Cached bytecode invalidation" in the language reference: that by time and size.
_HEADER = external.MAGIC_NUMBER + bytes(4)
_HEADER_SIZE = 16
_WORD = 0xFFFFFFFF


class _Loader:
    """Finds and loads modules of the package (the import system's ``MetaPathFinder``)."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to import a module, or None where it is to be looked for."""
        package, _, module = name.rpartition(".")
        if package.partition(".")[0] != _PACKAGE:
            return None
        directory = f"{_ROOT}{package[len(_PACKAGE) :].replace('.', '/')}"
        code = _code(directory, module)
        if code is not None:
            return _spec(name, f"{directory}/{module}.py", code)
        directory = f"{directory}/{module}"
        code = _code(directory, "__init__")
        if code is None:
            return None
        spec = _spec(name, f"{directory}/__init__.py", code)
        spec.submodule_search_locations = [directory]
        return spec

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Return None: a module is as the import system makes it."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Carry out a module's code."""
        spec = module.__spec__
        assert spec is not None
        code: CodeType = spec.loader_state
        spec.loader_state = None
        exec(code, module.__dict__)


def install() -> None:
    """Import this package's modules in this way from now on."""
    if not sys.flags.optimize and sys.pycache_prefix is None:
        sys.meta_path.insert(0, _Loader)


def _spec(name: str, source: str, code: CodeType) -> ModuleSpec:
    loader: Any = _Loader
    spec = bootstrap.ModuleSpec(name, loader, origin=source, loader_state=code)
    spec.has_location = True
    return spec


def _code(directory: str, name: str) -> CodeType | None:
    """Return a module's code from its compiled file, None where that is not of its source."""
    try:
        fd = os.open(f"{directory}/{_CACHE}/{name}{_SUFFIX}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(fd, os.fstat(fd).st_size)
        source = os.stat(f"{directory}/{name}.py")
    except OSError:
        return None
    finally:
        os.close(fd)
    made_of = (int(source.st_mtime) & _WORD).to_bytes(4, "little")
    made_of += (source.st_size & _WORD).to_bytes(4, "little")
    if data[:_HEADER_SIZE] != _HEADER + made_of:
        return None
    try:
        code: CodeType = marshal.loads(memoryview(data)[_HEADER_SIZE:])
    except (ValueError, EOFError, TypeError):
        return None
    return code
