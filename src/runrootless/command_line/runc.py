"""Flags as runc takes them.

runc reads its command line with Go's package ``flag`` below urfave/cli: ``-b X``,
``-b=X``, ``--bundle X``, ``-bundle=X`` are the same, ``--`` ends the flags, and
``run`` and ``create`` also take flags behind the container ID.  Where that would
be an error, ``parse`` says so, and the runtime may tell the user in its words.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Flags:
    """The flags that a command takes: long name, with the short one, to kind.

    ``values`` take a value, ``numbers`` a whole number (each in Go's spelling),
    ``lists`` may be repeated, ``switches`` take none.  ``names`` maps every
    spelling to the long name.
    """

    __slots__ = ("lists", "names", "numbers", "switches")

    def __init__(
        self,
        values: str = "",
        switches: str = "",
        lists: str = "",
        numbers: str = "",
        number_lists: str = "",
    ) -> None:
        self.names: dict[str, str] = {}
        for group in (values, switches, lists, numbers, number_lists):
            for flag in group.split():
                for name in flag.split(","):
                    self.names[name] = flag.partition(",")[0]
        self.switches = _long_names(switches)
        self.lists = _long_names(lists) | _long_names(number_lists)
        self.numbers = _long_names(numbers) | _long_names(number_lists)


def _long_names(flags: str) -> set[str]:
    return {flag.partition(",")[0] for flag in flags.split()}


GLOBAL = Flags(
    # The last three are ours; cgroup-manager is crun's.
    values="root log log-format criu rootless cgroup-manager runtime engine fast-path",
    switches="debug systemd-cgroup help,h version,v",
)
# The last two are ours.
CREATE = Flags(
    values="bundle,b console-socket pid-file pidfd-socket network dns",
    switches="no-pivot no-new-keyring help,h",
    numbers="preserve-fds",
)
RUN = Flags(
    values="bundle,b console-socket pid-file pidfd-socket network dns",
    switches="no-pivot no-new-keyring detach,d keep no-subreaper help,h",
    numbers="preserve-fds",
)
DELETE = Flags(
    # "regex" is crun's.
    switches="force,f regex,r help,h",
)
KILL = Flags(
    # "regex" is crun's.
    switches="all,a regex,r help,h",
)
EMULATE = Flags(values="engine", switches="help,h")
COMMIT = Flags(
    values="author message transport cert-dir",
    switches="squash tls-verify help,h",
    lists="config",
)
EXPORT = Flags(switches="help,h")
HOOK = Flags(values="check hooks-dir", switches="install uninstall always help,h")
ATTACH = Flags(values="engine", switches="help,h")
DOCTOR = Flags(switches="json help,h")
SETUP = Flags(switches="dry-run undo help,h")
BUNDLE = Flags(
    values="platform user max-size transport tls-verify cert-dir mirror",
    switches="force tty quiet,q help,h",
)
EXEC = Flags(
    values="console-socket cwd user,u process,p pid-file process-label apparmor pidfd-socket",
    switches="tty,t detach,d no-new-privs no-subreaper ignore-paused help,h",
    lists="env,e cap,c cgroup",
    numbers="preserve-fds",
    number_lists="additional-gids,g",
)

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class Parsed:
    """A command line taken apart.

    ``flags`` are (long name, value) in the order given, the value of a switch
    ``true`` or ``false``; ``arguments`` is what follows them.  ``error`` is
    whether the runtime would refuse the flags; then the two lists hold what was
    before the mistake and what was from there on.
    """

    __slots__ = ("arguments", "error", "flags", "switches")

    def __init__(self, switches: set[str]) -> None:
        self.switches = switches
        self.flags: list[tuple[str, str]] = []
        self.arguments: list[str] = []
        self.error = False

    def get(self, name: str, default: str = "") -> str:
        """Return the last value given for the flag ``name``."""
        for flag, value in reversed(self.flags):
            if flag == name:
                return value
        return default

    def get_all(self, name: str) -> list[str]:
        """Return all values given for the flag ``name``, in order."""
        return [value for flag, value in self.flags if flag == name]

    def is_on(self, name: str) -> bool:
        """Return whether the switch ``name`` is given and not ``=false``."""
        return self.get(name) == "true"

    def replace(self, name: str, change: Callable[[str], str]) -> None:
        """Let ``change`` make another value of each that was given for the flag ``name``."""
        self.flags = [
            (flag, change(value) if flag == name else value) for flag, value in self.flags
        ]

    def without(self, *names: str) -> list[str]:
        """Return the flags but for those named, spelt so that every runtime takes them.

        crun reads its command line with argp: two dashes, and no ``=true``.
        """
        words = []
        for flag, value in self.flags:
            if flag in names:
                continue
            if flag not in self.switches:
                words.append(f"--{flag}={value}")
            elif value == "true":
                words.append(f"--{flag}")
        return words


def parse(flags: Flags, words: Sequence[str]) -> Parsed:
    """Take ``words`` apart as Go's ``flag.FlagSet.Parse`` does: flags come first."""
    parsed = Parsed(flags.switches)
    spellings: dict[str, str] = {}
    index = 0
    while index < len(words):
        word = words[index]
        if len(word) < 2 or word[0] != "-":
            break
        if word == "--":
            index += 1
            break
        spelling, equals, value = word[2 if word[1] == "-" else 1 :].partition("=")
        name = flags.names.get(spelling)
        # "Cannot use two forms of the same flag" is urfave/cli's.
        if name is None or spellings.setdefault(name, spelling) != spelling:
            parsed.error = True
            break
        consumed = 1
        if name in flags.switches:
            value = value if equals else "true"
            if value not in _TRUE and value not in _FALSE:
                parsed.error = True
                break
            value = "true" if value in _TRUE else "false"
        elif not equals:
            if index + 1 == len(words):
                parsed.error = True
                break
            value = words[index + 1]
            consumed = 2
        if name in flags.numbers and not _is_go_number(value):
            parsed.error = True
            break
        parsed.flags.append((name, value))
        index += consumed
    parsed.arguments = list(words[index:])
    return parsed


def _is_go_number(text: str) -> bool:
    """Return whether strconv.ParseInt(text, 0, 64) would take ``text``."""
    return text.isascii() and text == text.strip() and number(text) is not None


def number(text: str) -> int | None:
    """Return the whole number that ``text`` spells in Go, ``None`` if none."""
    digits = text.lstrip("+-") if text[:2] not in ("++", "--", "+-", "-+") else ""
    if len(digits) > 1 and digits[0] == "0" and digits.isdigit():
        # An octal number in Go, an error in Python.
        text = text[: len(text) - len(digits)] + "0o" + digits
    try:
        return int(text, 0)
    except ValueError:
        return None


def preserved(parsed: Parsed) -> int:
    """Return how many descriptors ``--preserve-fds`` passes on: none where it is negative."""
    return max(0, number(parsed.get("preserve-fds", "0")) or 0)


def flags_first(flags: Flags, words: Sequence[str]) -> list[str]:
    """Return ``words`` with the flags before the rest, as urfave/cli moves them.

    That is what it does for commands that leave ``SkipArgReorder`` off: a word
    that may be a flag's value stays with it, even behind a switch, and the
    first ``--`` ends the moving.
    """
    moved: list[str] = []
    rest: list[str] = []
    value_may_follow = False
    for index, word in enumerate(words):
        is_flag = _is_flag(flags, word)
        if value_may_follow and not is_flag:
            value_may_follow = False
            moved.append(word)
        elif word == "--":
            rest = ["--", *rest, *words[index + 1 :]]
            break
        elif is_flag:
            moved.append(word)
            value_may_follow = "=" not in word
        else:
            rest.append(word)
    return moved + rest


def _is_flag(flags: Flags, word: str) -> bool:
    if word[:1] != "-" or word in ("-", "--"):
        return False
    # urfave/cli drops two dashes, and then one more if there is one.
    name = word[2:] if word.startswith("--") else word
    return name.removeprefix("-").partition("=")[0] in flags.names
