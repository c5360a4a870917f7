"""A file that gets its name when it is whole: O_TMPFILE of open(2).

So nothing is left of one that was given up, however the process has ended.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_MODE = 0o644
_BEGINNING = ".new-"


def is_new(name: str) -> bool:
    """Return whether a name is one that a file has for a moment before it has its own."""
    return name.startswith(_BEGINNING)


class NewFile:
    """An open file, ``fd``, for reading and writing, which ``keep`` gives its name.

    A context manager: what was not kept is gone with it.
    """

    def __init__(self, directory: str, path: str = "") -> None:
        """Raises OSError where no file can be made in ``directory``.

        It names ``path``, what the user has said, or the directory.
        """
        self._directory = directory
        self._name = ""
        mask = os.umask(0)
        os.umask(mask)
        mode = _MODE & ~mask
        try:
            self.fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode)
        except OSError:
            # NFS and some more have no files without a name.
            self._name = self._new_name()
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                self.fd = os.open(self._name, flags, mode)
            except OSError as error:
                # The name is nobody's but ours.
                error.filename = path or directory
                raise

    def keep(self, name: str) -> None:
        """Give the file its name in the directory, in place of any other. Raises OSError."""
        try:
            self._keep(name)
        except OSError as error:
            error.filename = os.path.join(self._directory, name)
            raise

    def _keep(self, name: str) -> None:
        os.fsync(self.fd)
        if not self._name:
            new = self._new_name()
            directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # Followed only where there is a descriptor of a directory.
                os.link(f"/proc/self/fd/{self.fd}", new, src_dir_fd=directory)
            finally:
                os.close(directory)
            self._name = new
        os.rename(self._name, os.path.join(self._directory, name))
        self._name = ""

    def __enter__(self) -> NewFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.fd)
        if self._name:
            os.unlink(self._name)

    def _new_name(self) -> str:
        return os.path.join(self._directory, f"{_BEGINNING}{os.urandom(8).hex()}")
