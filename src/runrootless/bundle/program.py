"""Whether the program of a process is there, found as the runtime would find it.

The runtime looks for the program at ``create``, and its callers go by its error text. With a
launcher before the program the runtime finds the launcher and reports nothing. So the program
is looked for here as well. Where it is certainly missing, the launcher is left out, and the
runtime reports it.
"""

from __future__ import annotations

import os
from errno import EACCES, ELOOP, ENOTDIR, EPERM
from stat import S_IFDIR, S_ISDIR, S_ISLNK

from runrootless.linux.files import O_PATH, is_procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# As many as the kernel follows: path_resolution(7).
_MAXIMUM_SYMLINKS = 40
_EXECUTABLE = 0o111
_OWN = ("self", "thread-self")
# Those that run before the root is changed may bring programs in.
_EARLY_HOOKS = ("prestart", "createRuntime", "createContainer")


class _UnsureError(Exception):
    """Only the runtime knows what is at a place."""


def is_missed(spec: dict[str, Any]) -> bool:
    """Return whether the runtime is sure to find no program for the process of a spec.

    ``root.path`` is absolute.
    """
    hooks = spec.get("hooks")
    if hooks and (not isinstance(hooks, dict) or any(hooks.get(kind) for kind in _EARLY_HOOKS)):
        return False
    tree = _Tree(spec["root"]["path"])
    try:
        for mount in spec.get("mounts", ()):
            tree.mount(mount)
        return _is_missed(tree, spec["process"])
    except _UnsureError:
        return False


def is_missed_in(root: str, process: dict[str, Any]) -> bool:
    """Return the same for a process in a container that runs; ``root`` is a path of its root."""
    try:
        os.stat(root)
        return _is_missed(_Tree(root), process)
    except (OSError, _UnsureError):
        # It has ended, which the runtime says as well.
        return False


def refusal(process: dict[str, Any]) -> str | None:
    """Return in runc's words why the program of a process cannot be executed, by a path.

    The root is this process's own. None is for one that can, as far as this process knows, and
    where the runtime refuses the working directory first.
    """
    path, cwd = process["args"][0], process.get("cwd") or "/"
    if not (os.path.isabs(cwd) and os.path.isdir(cwd) and is_missed_in("/", process)):
        return None
    quoted = '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
    try:
        mode = os.stat(os.path.join(cwd, path)).st_mode
    except ValueError:
        return f"exec: {quoted}: invalid argument"
    except OSError as error:
        if error.errno in (EACCES, EPERM):
            # The emulated user may pass.
            return None
        reason = f"stat {path}: {os.strerror(error.errno or 0).lower()}"
    else:
        if not S_ISDIR(mode) and mode & _EXECUTABLE:
            return None
        reason = os.strerror(EACCES).lower()
    return f"exec: {quoted}: {reason}"


def _is_missed(tree: _Tree, process: dict[str, Any]) -> bool:
    arguments = process.get("args")
    if not arguments or not arguments[0]:
        return True
    name = arguments[0]
    if "/" in name:
        candidates = [os.path.join(process.get("cwd") or "/", name)]
    else:
        path = ""
        for entry in process.get("env") or ():
            if entry.startswith("PATH="):
                path = entry[5:]
        candidates = []
        for directory in path.split(":") if path else ():
            if not directory.startswith("/"):
                # Runtimes disagree on these.
                raise _UnsureError
            candidates.append(f"{directory}/{name}")
    return not any(_is_program(tree, candidate) for candidate in candidates)


def _is_program(tree: _Tree, path: str) -> bool:
    try:
        mode = tree.mode(path)
    except OSError as error:
        if error.errno in (EACCES, EPERM):
            # Closed to the caller; the root of the container may pass.
            raise _UnsureError from None
        return False
    except ValueError:
        # A null byte.
        return False
    return not S_ISDIR(mode) and bool(mode & _EXECUTABLE)


class _Tree:
    """The files that a container will have, seen from outside."""

    def __init__(self, root: str) -> None:
        self._sources: dict[tuple[str, ...], str | None] = {(): root}

    def mount(self, mount: dict[str, Any]) -> None:
        """Add a mount of a spec."""
        options = mount.get("options") or ()
        is_bind = mount.get("type") == "bind" or "bind" in options or "rbind" in options
        source = mount.get("source") if is_bind else None
        try:
            names, _ = self._walk(mount.get("destination") or "/", is_whole=False)
        except (OSError, ValueError):
            raise _UnsureError from None
        self._sources[names] = source if source and source.startswith("/") else None

    def mode(self, path: str) -> int:
        """Return the ``st_mode`` of what a path leads to. Raises OSError as stat(2)."""
        return self._walk(path, is_whole=True)[1]

    def _walk(self, path: str, is_whole: bool) -> tuple[tuple[str, ...], int]:
        """Return where a path leads, without symlinks, and the mode of what is there.

        Where it need not be ``is_whole``, the rest of a path that is not there is taken as it is.
        """
        done: list[str] = []
        rest = _components(path)
        links = 0
        while rest:
            name = rest.pop()
            if name == ".":
                if not S_ISDIR(self._stat(done)):
                    raise OSError(ENOTDIR, os.strerror(ENOTDIR), path)
                continue
            if name == "..":
                del done[-1:]
                continue
            done.append(name)
            try:
                mode = self._stat(done)
            except (FileNotFoundError, _UnsureError):
                if is_whole:
                    raise
                if ".." in rest:
                    # Some runtimes make what it is left by, and some do not.
                    raise _UnsureError from None
                return (*done, *(one for one in reversed(rest) if one != ".")), 0
            if S_ISLNK(mode):
                if name in _OWN and _is_of_procfs(self._outside(done)):
                    # It is about who looks.
                    raise _UnsureError
                links += 1
                if links > _MAXIMUM_SYMLINKS:
                    raise OSError(ELOOP, os.strerror(ELOOP), path)
                target = os.readlink(self._outside(done))
                done = [] if target.startswith("/") else done[:-1]
                rest += _components(target)
            elif rest and not S_ISDIR(mode):
                raise OSError(ENOTDIR, os.strerror(ENOTDIR), path)
        return tuple(done), self._stat(done) if is_whole else 0

    def _stat(self, names: list[str]) -> int:
        place = self._outside(names)
        try:
            # What is bound is what the source leads to.
            return (os.stat if tuple(names) in self._sources else os.lstat)(place).st_mode
        except FileNotFoundError:
            # The runtime makes the directories that something is mounted in.
            if any(target[: len(names)] == tuple(names) for target in self._sources):
                return S_IFDIR
            raise

    def _outside(self, names: list[str]) -> str:
        for count in range(len(names), -1, -1):
            prefix = tuple(names[:count])
            if prefix in self._sources:
                source = self._sources[prefix]
                if source is None:
                    raise _UnsureError
                return "/".join((source, *names[count:]))
        raise _UnsureError


def _is_of_procfs(link: str) -> bool:
    file = os.open(link, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return is_procfs(file)
    finally:
        os.close(file)


def _components(path: str) -> list[str]:
    """Return the names in a path, the last one first, which is a dot for one of a directory."""
    names = path.split("/")
    kept = [name for name in reversed(names) if name not in ("", ".")]
    return [".", *kept] if path and names[-1] in ("", ".") else kept
