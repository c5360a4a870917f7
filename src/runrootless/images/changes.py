"""What has changed in a root file system since it was unpacked."""

from __future__ import annotations

import stat

from runrootless.images.snapshot import digest_of_content

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from typing_extensions import TypeAlias

    from runrootless.images.read_tree import Found, Node, Tree
    from runrootless.images.snapshot import Known

    Contents: TypeAlias = Callable[[Iterable[bytes]], Mapping[bytes, bytes]]
    Inode: TypeAlias = tuple[int, int]


class Changes:
    """What a layer has to say: paths from the root, as bytes.

    ``changed`` are files that are different, ``new`` among them those that were not known;
    ``gone`` are those that are no more, of a directory nothing but itself; ``parents`` the
    directories on the way to all of them. ``sockets`` are in none of these.
    """

    __slots__ = ("changed", "gone", "new", "parents", "sockets")

    def __init__(
        self, changed: set[bytes], gone: set[bytes], new: set[bytes], sockets: list[bytes]
    ) -> None:
        self.changed = changed
        self.gone = gone
        self.new = new
        self.sockets = sockets
        self.parents: set[bytes] = set()
        for path in changed | gone:
            while path:
                path = parent_of(path)
                if path in self.parents:
                    break
                self.parents.add(path)


def find(tree: Tree, known: Iterator[Known], contents: Contents) -> Changes:
    """Compare a tree with what is known of it.

    ``contents`` returns the SHA-256 of what was in regular files, of those whose content
    can be found out; it is asked about files that are the same in everything else. Sockets are
    as if they were not there. Raises OSError, and what ``known`` raises.
    """
    search = _Search(tree)
    before = next(known, None)
    for found in tree.walk():
        order = _order(found.path)
        if stat.S_ISSOCK(found.status.st_mode):
            search.sockets.append(found.path)
        while before is not None and before.path != found.path and _order(before.path) < order:
            search.has_gone(before)
            before = next(known, None)
        if before is not None and before.path == found.path:
            search.compare(found, before)
            before = next(known, None)
        elif not stat.S_ISSOCK(found.status.st_mode):
            search.is_new(found)
    while before is not None:
        search.has_gone(before)
        before = next(known, None)
    search.settle_contents(contents)
    search.settle_links()
    return Changes(search.changed, search.gone, search.new, search.sockets)


def parent_of(path: bytes) -> bytes:
    """Return the path of the directory that a file is in; of the root itself, nothing."""
    return path.rpartition(b"/")[0]


def _order(path: bytes) -> bytes:
    """Return what paths are sorted by in a walk: a slash comes before all else in a name."""
    return path.replace(b"/", b"\0")


class _Search:
    def __init__(self, tree: Tree) -> None:
        self.changed: set[bytes] = set()
        self.gone: set[bytes] = set()
        self.new: set[bytes] = set()
        self.sockets: list[bytes] = []
        self._tree = tree
        self._last_gone = b""
        # Files that only their content may tell, with its digest.
        self._doubtful: dict[bytes, bytes] = {}
        # The names of files that have several, or had, and what they were known by.
        self._names: dict[Inode, list[bytes]] = {}
        self._before: dict[bytes, tuple[int, Inode]] = {}

    def has_gone(self, before: Known) -> None:
        """Take note of a file that was not found."""
        if stat.S_ISSOCK(before.mode):
            return
        if not (self._last_gone and before.path.startswith(self._last_gone + b"/")):
            self.gone.add(before.path)
            self._last_gone = before.path

    def is_new(self, found: Found) -> None:
        """Take note of a file that was not known."""
        self.changed.add(found.path)
        self.new.add(found.path)
        self._note_links(found, None)

    def compare(self, found: Found, before: Known) -> None:
        """Take note of a file that was known, whether it has changed or not."""
        mode = found.status.st_mode
        if not ((stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and before.is_untouched(found.status)):
            # Open while all of it is looked at.
            look_inside = stat.S_ISREG(mode) and before.size == found.status.st_size
            with self._tree.opened(found, look_inside) as (node, content):
                self._compare_all(found, before, node, content)
        self._note_links(found, before)

    def _compare_all(self, found: Found, before: Known, node: Node | None, content: int) -> None:
        if node is None or stat.S_ISSOCK(node.mode):
            self.has_gone(before)
        elif stat.S_ISSOCK(before.mode) or not before.equals(node):
            self.changed.add(found.path)
            if stat.S_ISDIR(before.mode) and not stat.S_ISDIR(node.mode):
                # With it all that was in it.
                self._last_gone = found.path
        elif content >= 0 and node.size:
            digest = digest_of_content(content)
            if before.content and digest != before.content:
                self.changed.add(found.path)
            elif not before.content:
                self._doubtful[found.path] = digest

    def settle_contents(self, contents: Contents) -> None:
        """Find out which files that seem the same have another content."""
        if self._doubtful:
            there = contents(self._doubtful)
            self.changed |= {
                path for path, digest in self._doubtful.items() if there.get(path) != digest
            }

    def settle_links(self) -> None:
        """Have files written with all of their names whose names have changed.

        A layer's link leads to a file of that layer. Files that were one and are not any more
        are apart when they are written, all but one of them.
        """
        holders: dict[int, Inode] = {}
        for path in sorted(self._before, key=_order):
            number, inode = self._before[path]
            if path not in self.changed and holders.setdefault(number, inode) != inode:
                self.changed.add(path)
        for names in self._names.values():
            numbers = {self._before[name][0] if name in self._before else 0 for name in names}
            is_one = len(names) == 1 or (len(numbers) == 1 and 0 not in numbers)
            if not is_one or not self.changed.isdisjoint(names):
                self.changed.update(names)

    def _note_links(self, found: Found, before: Known | None) -> None:
        status = found.status
        inode = status.st_dev, status.st_ino
        if stat.S_ISDIR(status.st_mode) or stat.S_ISSOCK(status.st_mode):
            return
        if status.st_nlink > 1:
            self._names.setdefault(inode, []).append(found.path)
        if before is not None and before.links and found.path not in self.gone:
            self._before[found.path] = before.links, inode
