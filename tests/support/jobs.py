"""What each engine is tried with: jobs that real root does every day.

A job passes when it ends with 0 and every file that it made or changed belongs to whom it
does when the real root does the same in a plain chroot.
"""

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from support.bundles import Bundle
from support.containers import Runrootless
from support.oracle import in_chroot
from support.processes import Result
from support.snapshots import MOUNTED

# What became of a job, as the documentation says it.
PASSES = "passes"
FINISHES = "finishes, owners are lost"
FAILS = "fails"
UNSTEADY = "crashes most times"


@dataclass(frozen=True)
class Job:
    """A job: the tree it is done in, what is put there before, and a shell script."""

    name: str
    tree: str
    script: str
    prepare: Callable[[str], None]


def _member(entries: Iterable[tuple[tarfile.TarInfo, bytes]], *, last: bool) -> bytes:
    """Return one gzip member of a package of Alpine's: apk-package(5)."""
    buffer = io.BytesIO()
    archive = tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
    for entry, data in entries:
        entry.size = len(data)
        hashed = data or entry.linkname.encode()
        if hashed:
            digest = hashlib.sha1(hashed).hexdigest()
            entry.pax_headers = {"APK-TOOLS.checksum.SHA1": digest}
        archive.addfile(entry, io.BytesIO(data))
    # Only the last one has an end of archive.
    content = buffer.getvalue()[: buffer.tell()] + bytes(1024 if last else 0)
    return gzip.compress(content)


def _entry(
    name: str, owner: str, group: str, mode: int, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.uname, entry.gname, entry.mode = owner, group, mode
    entry.type, entry.linkname = kind, link
    return entry


def _write_apk(root: str) -> None:
    data = _member(
        [
            (_entry("srv", "root", "root", 0o755, tarfile.DIRTYPE), b""),
            (_entry("srv/mail", "mail", "mail", 0o2750, tarfile.DIRTYPE), b""),
            (_entry("srv/mail/box", "mail", "daemon", 0o640), b"mail"),
            (_entry("srv/mail/deliver", "root", "mail", 0o4755), b"#!/bin/sh\n"),
            (_entry("srv/box", "games", "users", 0o777, tarfile.SYMTYPE, "mail/box"), b""),
        ],
        last=True,
    )
    about = {
        "pkgname": "job",
        "pkgver": "1.0-r0",
        "pkgdesc": "files of many",
        "arch": "noarch",
        "size": "4096",
        "datahash": hashlib.sha256(data).hexdigest(),
    }
    text = "".join(f"{name} = {value}\n" for name, value in about.items()).encode()
    control = _member([(_entry(".PKGINFO", "root", "root", 0o644), text)], last=False)
    with open(f"{root}/job.apk", "wb") as file:
        file.write(control + data)


_OWNERS = 300


def _write_tar(root: str) -> None:
    with tarfile.open(f"{root}/job.tar", "w") as archive:
        for number in range(_OWNERS):
            # Below 65,536: as many as a range of subordinate IDs usually has.
            uid, gid = number * 211, (number * 199 + 7) % 60000
            kinds = [
                (f"tree/{number}", tarfile.DIRTYPE, ""),
                (f"tree/{number}/file", tarfile.REGTYPE, ""),
                (f"tree/{number}/symlink", tarfile.SYMTYPE, "file"),
                (f"tree/{number}/link", tarfile.LNKTYPE, f"tree/{number}/file"),
                (f"tree/{number}/fifo", tarfile.FIFOTYPE, ""),
            ]
            for name, kind, link in kinds:
                entry = _entry(name, "", "", 0o755, kind, link)
                entry.uid, entry.gid = uid, gid
                archive.addfile(entry, io.BytesIO())


_SPEC = """\
Name: job
Version: 1
Release: 1
Summary: files of many
License: none
BuildArch: noarch
%description
%files
%dir %attr(2750, mail, mail) /srv/mail
%attr(0640, mail, daemon) /srv/mail/box
%attr(4755, root, mail) /srv/mail/deliver
%attr(-, games, users) /srv/box
%install
mkdir -p %{buildroot}/srv/mail
echo mail >%{buildroot}/srv/mail/box
echo '#!/bin/sh' >%{buildroot}/srv/mail/deliver
ln -s mail/box %{buildroot}/srv/box
"""


def _write_rpm_spec(root: str) -> None:
    with open(f"{root}/job.spec", "w") as file:
        file.write(_SPEC)


def _nothing(root: str) -> None:
    pass


# The update is of an empty archive, so that apt starts one of its programs that become
# another user to download; the packages are there already.
APT = """
set -e
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
mkdir /archive
: >/archive/Packages
echo 'deb [trusted=yes] file:/archive ./' >/etc/apt/sources.list
apt-get update --quiet
export DEBIAN_FRONTEND=noninteractive
apt-get install --yes /packages/*.deb
"""

JOBS = (
    Job("apt install", "debian", APT, _nothing),
    Job("apk add", "alpine", "apk add --allow-untrusted --no-network /job.apk", _write_apk),
    Job(
        "rpm -i",
        "debian",
        "rpmbuild --quiet -bb /job.spec && rpm -i --nodeps /root/rpmbuild/RPMS/noarch/job-*.rpm",
        _write_rpm_spec,
    ),
    Job("tar -x", "debian", "tar -C /srv -xpf /job.tar", _write_tar),
    Job("useradd", "debian", "useradd --create-home --groups audio,video jo", _nothing),
)

# Printed alike by coreutils and busybox; the list comes from the standard input.
_STAT = "cd / && tr '\\n' '\\0' | xargs -0 stat -c '%u:%g %a %t:%T %n'"


def _files(root: str) -> dict[str, tuple[int, int]]:
    """Return all files of a tree with what tells whether they were made or changed since."""
    found = {}
    for directory, names, files in os.walk(root):
        if directory == root:
            names[:] = [name for name in names if name not in MOUNTED]
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            found[os.path.relpath(path, root)] = (status.st_ino, status.st_ctime_ns)
    return found


@dataclass
class Oracle:
    """What the real root makes of the jobs, each done once, in one tree after the other."""

    copy: Callable[[str], str]
    """Copies the real root's form of a tree and returns the path."""
    _roots: dict[str, str] = field(default_factory=dict)
    _seen: dict[str, tuple[list[str], str]] = field(default_factory=dict)

    def expected(self, job: Job) -> tuple[list[str], str]:
        """Return the files that the job made or changed, and what stat prints of them."""
        if job.name not in self._seen:
            if job.tree not in self._roots:
                self._roots[job.tree] = self.copy(job.tree)
            root = self._roots[job.tree]
            job.prepare(root)
            before = _files(root)
            in_chroot(root, ["/bin/sh", "-c", job.script], timeout=900).check()
            after = _files(root)
            changed = sorted(
                name
                for name, identity in after.items()
                # The host's are mounted over these two in the container.
                if before.get(name) != identity and name not in ("etc/hosts", "etc/resolv.conf")
            )
            assert changed, f"{job.name} changed nothing"
            listing = f"{root}/job.list"
            with open(listing, "w") as file:
                file.write("\n".join(changed))
            done = in_chroot(root, ["/bin/sh", "-c", f"({_STAT}) </job.list"]).check()
            self._seen[job.name] = (changed, done.stdout)
        return self._seen[job.name]


@dataclass(frozen=True)
class Column:
    """A column of the table: an engine, and whether its user has subordinate IDs.

    The ``unsteady`` jobs fail at one time and finish at another.
    """

    title: str
    engine: str
    subordinate_ids: bool = False
    unsteady: tuple[str, ...] = ()


COLUMNS = (
    Column("notify", "notify"),
    Column("proot", "proot", unsteady=("rpm -i",)),
    Column("zero", "zero"),
    Column("none", "none"),
    Column("none, subordinate IDs", "none", subordinate_ids=True),
)


class Table:
    """What became of each job with each engine, as docs/engines.md shows it."""

    def __init__(self) -> None:
        self.words: dict[tuple[str, str], str] = {}

    @classmethod
    def read(cls, path: str) -> "Table":
        """Read the table of a Markdown file whose heading begins with ``job``."""
        table = cls()
        titles: list[str] = []
        with open(path) as file:
            for line in file:
                cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
                if cells[0] == "job":
                    titles = cells[1:]
                elif titles and cells[0] == "---":
                    continue
                elif titles and len(cells) == len(titles) + 1:
                    words = zip(titles, cells[1:], strict=True)
                    table.words.update({(title, cells[0]): word for title, word in words})
                else:
                    titles = []
        return table

    def lines(self) -> list[str]:
        """Return the table in Markdown."""
        titles = [column.title for column in COLUMNS]
        rows = [["job", *titles], ["---"] * (len(titles) + 1)]
        for job in JOBS:
            rows.append([job.name, *(self.words.get((t, job.name), "not run") for t in titles)])
        return [f"| {' | '.join(row)} |" for row in rows]


@dataclass
class Outcome:
    """What became of a job with an engine: one of the words above, and what shows it."""

    word: str
    details: str


def do(job: Job, oracle: Oracle, runrootless: Runrootless, bundle: Bundle) -> Outcome:
    """Do a job in a container, and look at the files in another one."""
    job.prepare(bundle.rootfs)
    done = runrootless.run(bundle.script(job.script), timeout=900)
    if done.timed_out or done.returncode:
        return Outcome(FAILS, str(done))
    changed, expected = oracle.expected(job)
    looked: Result = runrootless.run(bundle.script(_STAT), input="\n".join(changed))
    if looked.stdout == expected:
        return Outcome(PASSES, str(done))
    return Outcome(FINISHES, str(looked))
