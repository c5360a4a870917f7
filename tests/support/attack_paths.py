"""Paths and calls from a grammar, for tests that look for what nobody has thought of."""

from hypothesis import strategies as st

from support import attacks
from support.attacks import Call, fill

PHRASES = st.sampled_from(
    ("self", "self", "thread-self", "self/fd", "self/fd/{fd_d}", "self/fd/{fd_self}", "self/cwd",
     "self/root", "self/exe", "self/ns", "self/ns/mnt", "self/task", "self/task/{tid}",
     "self/task/{gone}", "self/status", "self/limits", "self/map_files", "{pid}", "{gone}", "fd",
     "fd/{fd_d}", "fd/{fd_f}", "fd/{fd_proc}", "fd/{fd_again}", "fd/{fd_gone}", "fd/{fd_closed}",
     "cwd", "cwd", "root", "exe", "task/{tid}", "ns", ".", "", "..", "..", "../..", "../../..",
     "proc", "dev", "dev/fd", "d", "d/sub", "f", "made", "l_self", "l_rel", "l_up", "l_fd",
     "l_devfd", "l_again", "l_two", "c39", "k38", "k40", "mine", "own")
)  # fmt: skip
BEGINNINGS = st.sampled_from(
    ("/proc/", "/proc/", "//proc/", "/proc//", "/./proc/./", "/procagain/", "/procbelow/../proc/",
     "/hostproc/self/", "/dev/fd/", "/dev/", "/dev/../proc/", "", "", "l_self/", "l_rel/", "l_up/",
     "l_fd/", "l_devfd/", "l_again/", "l_below/", "l_root/", "l_cwd/", "k39/", "{pad:3000}",
     "d/../")
)  # fmt: skip
ENDINGS = st.sampled_from(
    ("", "", "/", "/.", "/..", "/made", "/made", "/../made", "{canary}/secret", "{canary}/made",
     "/fd/{fd_f}", "/cwd/made", "/../..{canary}/made", "/../../..{canary}/secret",
     "/{pad:4095}made")
)  # fmt: skip
PATHS = st.tuples(BEGINNINGS, st.lists(PHRASES, max_size=5), ENDINGS).map(
    lambda parts: parts[0] + "/".join(parts[1]) + parts[2]
)
DIRECTORIES = st.sampled_from(
    ("cwd", "cwd", "d", "place", "gone", "root", "proc", "self", "fds", "task", "ns", "dev",
     "again", "host", "hostself", "link", "o_path", "f", "closed")
)  # fmt: skip


def generated_calls(thorough: bool) -> st.SearchStrategy[Call]:
    """Return calls with a descriptor and a path; more of them with ``thorough``."""
    known = attacks.calls_with_paths(thorough)
    tries = [
        (name, arguments)
        for name, several in attacks.PATH_CALLS.items()
        for arguments in several
        if name in known
    ]
    return st.tuples(st.sampled_from(tries), DIRECTORIES, PATHS).map(
        lambda parts: [parts[0][0], fill(parts[0][1], parts[1], parts[2])]
    )
